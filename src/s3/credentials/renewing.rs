//! Keys that are kept while they are good, and asked for anew when they are not.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
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

/// A provider that was asked in vain for newer keys is not asked again before this.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The keys of a provider, one set at a time, however many requests are signed at once.
pub(in crate::s3) struct Renewing {
    provider: SharedCredentialsProvider,
    kept: Mutex<Option<Kept>>,
    /// Counts the keys that were kept; what is signed meanwhile is signed with these or newer ones.
    issue: AtomicU64,
    /// The last issue that the store refused.
    rejected: AtomicU64,
    /// The last issue that was only suspected.
    suspected: AtomicU64,
}

#[derive(Clone)]
struct Kept {
    keys: Keys,
    /// When the provider had nothing newer, or did not answer.
    asked_in_vain: Option<Instant>,
}

impl Kept {
    fn lasts_until(&self, time: SystemTime) -> bool {
        self.keys.expiry().is_none_or(|expiry| expiry > time)
    }
}

impl Renewing {
    pub(in crate::s3) fn new(provider: SharedCredentialsProvider) -> Self {
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
        if let Some(good) = &good {
            let was_asked = good.asked_in_vain.is_some_and(|at| at.elapsed() < ASK_AGAIN_AFTER);
            if good.lasts_until(now + RENEW_BEFORE) || was_asked && good.lasts_until(now) {
                return Ok(good.keys.clone());
            }
        }
        match self.provider.provide_credentials().await {
            Ok(keys) => {
                let is_new = good.is_none_or(|good| good.keys != keys);
                *kept = Some(Kept { keys: keys.clone(), asked_in_vain: (!is_new).then(Instant::now) });
                self.issue.fetch_add(1, Ordering::SeqCst);
                Ok(keys)
            }
            // The old ones are good until their last moment.
            Err(error) => {
                let good = good.filter(|good| good.lasts_until(now)).ok_or(error)?;
                *kept = Some(Kept { keys: good.keys.clone(), asked_in_vain: Some(Instant::now()) });
                Ok(good.keys)
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn keys(id: &str, expires_in: Option<i64>) -> Keys {
        let now = SystemTime::now();
        let expiry = expires_in.map(|seconds| {
            let distance = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { now - distance } else { now + distance }
        });
        Keys::new(id, "hush", None, expiry, "test")
    }

    /// Gives one answer after the other, the last of them for ever.
    #[derive(Debug)]
    struct Scripted(Mutex<Vec<Option<Keys>>>);

    impl ProvideCredentials for Scripted {
        fn provide_credentials<'a>(&'a self) -> Provided<'a>
        where
            Self: 'a,
        {
            let mut answers = self.0.lock().unwrap();
            let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
            Provided::ready(answer.ok_or_else(|| CredentialsError::provider_error("none today")))
        }
    }

    fn renewing(answers: impl IntoIterator<Item = Option<Keys>>) -> Renewing {
        Renewing::new(SharedCredentialsProvider::new(Scripted(Mutex::new(answers.into_iter().collect()))))
    }

    async fn id(renewing: &Renewing) -> Option<String> {
        renewing.keys().await.ok().map(|keys| keys.access_key_id().to_owned())
    }

    /// What signs one request after the other.
    async fn ids(renewing: &Renewing) -> [Option<String>; 3] {
        [id(renewing).await, id(renewing).await, id(renewing).await]
    }

    fn some(ids: [&str; 3]) -> [Option<String>; 3] {
        ids.map(|id| Some(id.to_owned()))
    }

    #[tokio::test]
    async fn keys_that_last_are_asked_for_once_and_others_anew() {
        for (expires_in, expected) in [
            (None, ["first", "first", "first"]),
            (Some(3600), ["first", "first", "first"]),
            (Some(30), ["first", "second", "second"]),
            (Some(-30), ["first", "second", "second"]),
        ] {
            let renewing = renewing([Some(keys("first", expires_in)), Some(keys("second", None))]);
            assert_eq!(ids(&renewing).await, some(expected), "{expires_in:?}");
        }
    }

    #[tokio::test]
    async fn a_provider_without_newer_keys_is_left_alone_for_a_while() {
        let old = keys("first", Some(30));
        for second in [Some(old.clone()), None] {
            let renewing = renewing([Some(old.clone()), second, Some(keys("second", None))]);
            assert_eq!(ids(&renewing).await, some(["first", "first", "first"]));
            if let Some(kept) = &mut *renewing.kept.lock().await {
                kept.asked_in_vain = Instant::now().checked_sub(ASK_AGAIN_AFTER);
            }
            assert_eq!(id(&renewing).await.as_deref(), Some("second"));
        }
    }

    #[tokio::test]
    async fn keys_that_have_expired_do_not_serve_while_nobody_has_others() {
        let renewing = renewing([Some(keys("first", Some(-30))), None]);
        assert_eq!([id(&renewing).await, id(&renewing).await], [Some("first".to_owned()), None]);
    }

    #[tokio::test]
    async fn two_that_were_refused_ask_once() {
        let renewing = renewing(["first", "second", "third"].map(|id| Some(keys(id, None))));
        id(&renewing).await;
        let issue = renewing.issue();
        renewing.reject(issue);
        assert_eq!(id(&renewing).await.as_deref(), Some("second"));
        renewing.reject(issue);
        assert_eq!(id(&renewing).await.as_deref(), Some("second"));
    }
}
