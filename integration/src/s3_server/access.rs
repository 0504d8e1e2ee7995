//! Who may do what: key pairs, session tokens, and the few IAM permissions that a download meets.
//!
//! Signatures are checked by `s3s`. This module owns the secrets it checks with, and the decision after it, with the
//! answers of S3: a bucket that does not exist says so, and a missing key is "not found" only to those who may list.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::store::Store;

/// A key pair and what it may do; by default everything.
#[derive(Debug, Clone)]
pub struct AccessKey {
    id: String,
    secret: String,
    session_token: Option<String>,
    expiry: Expiry,
    list: bool,
    get: bool,
    get_version: bool,
    put: bool,
}

impl AccessKey {
    /// A key pair with every permission.
    pub fn new(id: &str, secret: &str) -> Self {
        Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
            session_token: None,
            expiry: Expiry::default(),
            list: true,
            get: true,
            get_version: true,
            put: true,
        }
    }

    /// Makes it a temporary key pair, which is only valid together with this token.
    pub fn session_token(mut self, token: &str) -> Self {
        self.session_token = Some(token.to_owned());
        self
    }

    /// Makes its token one that expires when the test says so.
    pub fn expires(mut self, expiry: &Expiry) -> Self {
        self.expiry = expiry.clone();
        self
    }

    /// Allows or refuses `s3:ListBucket`, which HeadBucket needs too.
    pub fn allow_list(mut self, allowed: bool) -> Self {
        self.list = allowed;
        self
    }

    /// Allows or refuses `s3:GetObject`.
    pub fn allow_get(mut self, allowed: bool) -> Self {
        self.get = allowed;
        self
    }

    /// Allows or refuses `s3:GetObjectVersion`, needed where a request names a version.
    pub fn allow_get_version(mut self, allowed: bool) -> Self {
        self.get_version = allowed;
        self
    }

    /// Allows or refuses `s3:PutObject`.
    pub fn allow_put(mut self, allowed: bool) -> Self {
        self.put = allowed;
        self
    }

    /// What S3 answers to a token that is missing, unknown or superfluous.
    fn check_token(&self, sent: Option<&str>) -> S3Result<()> {
        match (self.session_token.as_deref(), sent) {
            (Some(_), Some(_)) if self.expiry.is_over() => {
                Err(s3_error!(ExpiredToken, "The provided token has expired."))
            }
            (expected, sent) if expected == sent => Ok(()),
            // Without its token a temporary key id is not known at all.
            (Some(_), None) => Err(unknown_access_key()),
            (Some(_) | None, _) => {
                Err(s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid."))
            }
        }
    }
}

/// The end of a session token's life, as an event.
#[derive(Debug, Clone, Default)]
pub struct Expiry(Arc<AtomicBool>);

impl Expiry {
    /// From now on the token has expired.
    pub fn strike(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The key pairs of a server, as `s3s` asks for their secrets.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyRing(pub(crate) Vec<AccessKey>);

impl KeyRing {
    fn find(&self, id: &str) -> Option<&AccessKey> {
        self.0.iter().find(|key| key.id == id)
    }
}

#[async_trait::async_trait]
impl S3Auth for KeyRing {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let key = self.find(access_key).ok_or_else(unknown_access_key)?;
        Ok(SecretKey::from(key.secret.as_str()))
    }
}

fn unknown_access_key() -> S3Error {
    let message = "The AWS Access Key Id you provided does not exist in our records.";
    S3Error::with_message(S3ErrorCode::InvalidAccessKeyId, message)
}

/// The decision on each request whose signature was good, or that had none.
#[derive(Debug)]
pub(crate) struct Permissions {
    pub(crate) keys: KeyRing,
    pub(crate) store: Store,
}

#[async_trait::async_trait]
impl S3Access for Permissions {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let (bucket, key) = match context.s3_path() {
            S3Path::Root => return Err(denied()),
            S3Path::Bucket { bucket } => (bucket, None),
            S3Path::Object { bucket, key } => (bucket, Some(&**key)),
        };
        let identity = match context.credentials() {
            None => None,
            Some(credentials) => {
                let known = self.keys.find(&credentials.access_key);
                let token = context.headers().get("x-amz-security-token").and_then(|value| value.to_str().ok());
                let known = known.ok_or_else(unknown_access_key)?;
                known.check_token(token)?;
                Some(known)
            }
        };
        if !self.store.has_bucket(bucket) {
            // The operation itself answers NoSuchBucket.
            return Ok(());
        }
        let anonymous = self.store.is_anonymous(bucket);
        let may_list = identity.map_or(anonymous, |identity| identity.list);
        let version = versioned(context.uri().query());
        let allowed = match (context.s3_op().name(), identity) {
            ("HeadBucket" | "ListObjects" | "ListObjectsV2", _) => may_list,
            ("PutObject", Some(identity)) => identity.put,
            ("GetObject" | "HeadObject" | "GetObjectAttributes", None) => anonymous,
            ("GetObject" | "HeadObject" | "GetObjectAttributes", Some(identity)) => {
                if version {
                    identity.get_version
                } else {
                    identity.get
                }
            }
            _ => false,
        };
        let hidden = !may_list
            && key.is_some_and(|key| {
                context.s3_op().name() != "PutObject" && self.store.find(bucket, key, None).is_err()
            });
        if allowed && !hidden { Ok(()) } else { Err(denied()) }
    }
}

fn versioned(query: Option<&str>) -> bool {
    query.unwrap_or_default().split('&').any(|parameter| parameter.starts_with("versionId="))
}

fn denied() -> S3Error {
    S3Error::with_message(S3ErrorCode::AccessDenied, "Access Denied")
}
