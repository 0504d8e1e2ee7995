//! Who signs a GET, and how: the credentials of the moment, and AWS Signature Version 4 as S3 has it
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>).

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use aws_credential_types::{
    Credentials as Keys,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError},
};
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use aws_smithy_runtime_api::client::identity::Identity;

use super::credentials::Renewing;

/// Credentials that expire this soon are replaced: a request may wait that long for a connection.
const RENEWED_BEFORE_EXPIRY: Duration = Duration::from_secs(60);

/// A provider that has nothing newer yet is not asked again before this.
const ASKED_AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// The credentials of the moment, for all who sign: the provider is asked once for all of them.
#[derive(Clone)]
pub(super) struct Keyring {
    shared: Arc<Shared>,
}

struct Shared {
    provider: SharedCredentialsProvider,
    /// The same, where it keeps keys of its own and has to be told that the store refuses them.
    renewing: Option<Arc<Renewing>>,
    held: RwLock<Option<Held>>,
    /// Held by whoever asks the provider.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Held {
    keys: Keys,
    identity: Identity,
    asked_at: Instant,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").finish_non_exhaustive()
    }
}

impl Held {
    fn lasts(&self) -> bool {
        let expires_soon = self.keys.expiry().is_some_and(|expiry| expiry <= SystemTime::now() + RENEWED_BEFORE_EXPIRY);
        !expires_soon || self.asked_at.elapsed() < ASKED_AT_MOST_EVERY
    }

    fn is_valid(&self) -> bool {
        self.keys.expiry().is_none_or(|expiry| expiry > SystemTime::now())
    }
}

/// What signed a request, to tell it from what signs the next.
#[derive(Clone, Debug)]
pub(super) struct Signatory {
    keys: Keys,
    identity: Identity,
}

impl Keyring {
    pub(super) fn new(provider: SharedCredentialsProvider, renewing: Option<Arc<Renewing>>) -> Self {
        let (held, asking) = (RwLock::default(), tokio::sync::Mutex::default());
        Self { shared: Arc::new(Shared { provider, renewing, held, asking }) }
    }

    /// Who signs now; blocks where the provider has to be asked.
    pub(super) fn signatory(&self, runtime: &tokio::runtime::Handle) -> Result<Signatory, CredentialsError> {
        if let Some(held) = self.held().filter(Held::lasts) {
            return Ok(held.into());
        }
        runtime.block_on(self.ask(Held::lasts)).map(Signatory::from)
    }

    /// Asks for credentials that are not `refused`'s. `false` where there are no others.
    pub(super) fn replace(&self, refused: &Signatory, runtime: &tokio::runtime::Handle) -> bool {
        let is_another = |keys: &Keys| *keys != refused.keys;
        match runtime.block_on(self.ask(|held| is_another(&held.keys))) {
            Ok(held) => is_another(&held.keys),
            Err(error) => {
                tracing::debug!("the credentials have expired, and there are no others: {error}");
                false
            }
        }
    }

    fn held(&self) -> Option<Held> {
        self.shared.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is held if it will do, else what the provider has.
    async fn ask(&self, will_do: impl Fn(&Held) -> bool) -> Result<Held, CredentialsError> {
        let _one_at_a_time = self.shared.asking.lock().await;
        let before = self.held();
        if let Some(held) = before.clone().filter(will_do) {
            return Ok(held);
        }
        if let (Some(renewing), Some(_)) = (&self.shared.renewing, before.as_ref().filter(|held| held.lasts())) {
            // They look good, so it is the store that refuses them.
            renewing.reject_kept();
        }
        let keys = match self.shared.provider.provide_credentials().await {
            Ok(keys) => keys,
            // The last minute is good enough to go on with.
            Err(error) => match before.filter(Held::is_valid) {
                Some(before) => {
                    tracing::warn!("fresh credentials cannot be had yet: {error}");
                    before.keys
                }
                None => return Err(error),
            },
        };
        let held = Held { identity: Identity::from(keys.clone()), keys, asked_at: Instant::now() };
        *self.shared.held.write().unwrap_or_else(PoisonError::into_inner) = Some(held.clone());
        Ok(held)
    }
}

impl From<Held> for Signatory {
    fn from(held: Held) -> Self {
        Self { keys: held.keys, identity: held.identity }
    }
}

/// For what a signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) region: String,
    pub(super) service: String,
}

/// The headers that sign a GET of `path`, which is percent-encoded, with `headers`, `Host` among
/// them.
pub(super) fn signed_headers(
    signatory: &Signatory,
    scope: &Scope,
    path: &str,
    headers: &[(&'static str, String)],
    now: SystemTime,
) -> Result<Vec<(&'static str, String)>, String> {
    let mut settings = SigningSettings::default();
    // S3 takes keys as they are: `a//b`, `./a` and `a%2Fb` are keys of their own.
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let params = v4::SigningParams::builder()
        .identity(&signatory.identity)
        .region(&scope.region)
        .name(&scope.service)
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let request = SignableRequest::new("GET", path, headers, SignableBody::empty()).map_err(|e| e.to_string())?;
    let (instructions, _) = sign(request, &params).map_err(|error| error.to_string())?.into_parts();
    let (headers, _) = instructions.into_parts();
    Ok(headers.into_iter().map(|header| (header.name(), header.value().to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use aws_credential_types::provider::future::ProvideCredentials as Provided;

    use super::*;

    fn keys(id: &str, expires_in: Option<i64>) -> Keys {
        let now = SystemTime::now();
        let expiry = expires_in.map(|seconds| {
            let distance = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { now - distance } else { now + distance }
        });
        Keys::new(id, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None, expiry, "test")
    }

    /// The example "GET Object" of
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.
    #[test]
    fn amazons_example_has_amazons_signature() {
        let keys = keys("AKIAIOSFODNN7EXAMPLE", None);
        let signatory = Signatory { identity: Identity::from(keys.clone()), keys };
        let scope = Scope { region: "us-east-1".to_owned(), service: "s3".to_owned() };
        let headers = [("host", "examplebucket.s3.amazonaws.com".to_owned()), ("range", "bytes=0-9".to_owned())];
        let may_24_2013 = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        let signed = signed_headers(&signatory, &scope, "/test.txt", &headers, may_24_2013).unwrap();
        let value = |name| signed.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str());
        assert_eq!(value("x-amz-date"), Some("20130524T000000Z"));
        assert_eq!(
            value("authorization"),
            Some(
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
            )
        );
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

    fn keyring(answers: impl IntoIterator<Item = Option<Keys>>) -> Keyring {
        Keyring::new(SharedCredentialsProvider::new(Scripted(Mutex::new(answers.into_iter().collect()))), None)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap()
    }

    fn id(keyring: &Keyring, runtime: &tokio::runtime::Runtime) -> String {
        keyring.signatory(runtime.handle()).unwrap().keys.access_key_id().to_owned()
    }

    /// As if the provider had been asked a while ago.
    fn age(keyring: &Keyring) {
        if let Some(held) = &mut *keyring.shared.held.write().unwrap() {
            held.asked_at = Instant::now().checked_sub(ASKED_AT_MOST_EVERY).unwrap();
        }
    }

    #[test]
    fn keys_are_asked_for_once_as_long_as_they_last() {
        let runtime = runtime();
        for expires_in in [None, Some(3600)] {
            let keyring = keyring([Some(keys("first", expires_in)), Some(keys("second", None))]);
            age(&keyring);
            assert_eq!([id(&keyring, &runtime), id(&keyring, &runtime)], ["first", "first"]);
        }
    }

    #[test]
    fn keys_that_are_about_to_expire_are_replaced_but_not_at_every_request() {
        let runtime = runtime();
        let keyring = keyring([Some(keys("first", Some(30))), Some(keys("second", Some(3600)))]);
        assert_eq!([id(&keyring, &runtime), id(&keyring, &runtime)], ["first", "first"]);
        age(&keyring);
        assert_eq!(id(&keyring, &runtime), "second");
    }

    #[test]
    fn while_nobody_has_fresh_keys_the_old_ones_serve_until_they_expire() {
        let runtime = runtime();
        for (expires_in, serves) in [(30, true), (-30, false)] {
            let keyring = keyring([Some(keys("first", Some(expires_in))), None]);
            assert_eq!(id(&keyring, &runtime), "first");
            age(&keyring);
            assert_eq!(keyring.signatory(runtime.handle()).is_ok(), serves);
        }
    }

    #[test]
    fn refused_keys_are_replaced_by_others_only() {
        let runtime = runtime();
        for (next, replaced) in [("second", true), ("first", false)] {
            let keyring = keyring([Some(keys("first", None)), Some(keys(next, None))]);
            let refused = keyring.signatory(runtime.handle()).unwrap();
            assert_eq!(keyring.replace(&refused, runtime.handle()), replaced);
            assert_eq!(id(&keyring, &runtime), next);
        }
    }

    #[test]
    fn two_that_were_refused_ask_once() {
        let runtime = runtime();
        let keyring = keyring(["first", "second", "third"].map(|id| Some(keys(id, None))));
        let refused = keyring.signatory(runtime.handle()).unwrap();
        assert!(keyring.replace(&refused, runtime.handle()) && keyring.replace(&refused, runtime.handle()));
        assert_eq!(id(&keyring, &runtime), "second");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let keyring = keyring([Some(keys("first", None))]);
        let signatory = keyring.signatory(runtime().handle()).unwrap();
        assert!(!format!("{keyring:?} {signatory:?}").contains("EXAMPLEKEY"));
    }
}
