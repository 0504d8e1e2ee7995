//! Keys that are kept while they are good, and asked for anew when they are not.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials as Keys,
    provider::{
        ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future::ProvideCredentials as Provided,
    },
};
use tokio::sync::Mutex;

/// How long before their end keys are renewed. Metadata services have new ones five minutes before.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// The keys of a provider, one set at a time, however many requests are signed at once.
pub(in crate::s3) struct Renewing {
    provider: SharedCredentialsProvider,
    kept: Mutex<Option<Keys>>,
    /// Counts the keys that were kept; what is signed meanwhile is signed with these or newer ones.
    issue: AtomicU64,
    /// The last issue that the store refused.
    rejected: AtomicU64,
    /// The last issue that was only suspected.
    suspected: AtomicU64,
}

impl Renewing {
    pub(super) fn new(provider: SharedCredentialsProvider) -> Self {
        let [issue, rejected, suspected] = [0; 3].map(AtomicU64::new);
        Self { provider, kept: Mutex::new(None), issue, rejected, suspected }
    }

    /// Which keys a request that is sent now is signed with, at the earliest.
    pub(in crate::s3) fn issue(&self) -> u64 {
        let issue = self.issue.load(Ordering::SeqCst);
        if self.is_rejected(issue) { issue + 1 } else { issue }
    }

    fn is_rejected(&self, issue: u64) -> bool {
        issue <= self.rejected.load(Ordering::SeqCst)
    }

    /// The store calls the keys of this issue expired. Many requests may say so at once; one renewal answers them all.
    pub(in crate::s3) fn reject(&self, issue: u64) {
        self.rejected.fetch_max(issue, Ordering::SeqCst);
    }

    /// The store calls the keys expired that were handed out last.
    pub(in crate::s3) fn reject_kept(&self) {
        self.reject(self.issue.load(Ordering::SeqCst));
    }

    /// The store refuses a request and does not say why: the answer to a HEAD has no body. Whether other keys may help:
    /// those that were asked for on a mere suspicion are not suspected themselves.
    pub(in crate::s3) fn suspect(&self, issue: u64) -> bool {
        if issue == self.suspected.load(Ordering::SeqCst) + 1 && issue > 1 {
            return false;
        }
        self.suspected.fetch_max(issue, Ordering::SeqCst);
        self.reject(issue);
        true
    }

    /// Keys that are good for a while yet.
    pub(super) async fn keys(&self) -> Result<Keys, CredentialsError> {
        let mut kept = self.kept.lock().await;
        let is_rejected = self.is_rejected(self.issue.load(Ordering::SeqCst));
        let good = kept.clone().filter(|_| !is_rejected);
        let now = SystemTime::now();
        let lasts = |keys: &Keys, time| keys.expiry().is_none_or(|expiry| expiry > time);
        if let Some(keys) = good.clone().filter(|keys| lasts(keys, now + RENEW_BEFORE)) {
            return Ok(keys);
        }
        match self.provider.provide_credentials().await {
            Ok(keys) => {
                *kept = Some(keys.clone());
                self.issue.fetch_add(1, Ordering::SeqCst);
                Ok(keys)
            }
            // The old ones are good until their last moment.
            Err(error) => good.filter(|keys| lasts(keys, now)).ok_or(error),
        }
    }
}

impl ProvideCredentials for Renewing {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        Provided::new(self.keys())
    }
}

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewing").field("issue", &self.issue).finish_non_exhaustive()
    }
}
