//! The store: list, head, get.
//!
//! The AWS SDK lists, heads and says where a bucket is; objects' bytes come by a [`Reader`], which
//! is ours from the signature to the socket. This module decides how a store is addressed, learns
//! from the first reply what nobody configured (a bucket's region), tries again what may pass, and
//! turns every failure into an [`S3Error`]. The SDK's own retries, timeouts and checksums are off:
//! each of them has one owner, here or in `transfer`.

mod attributes;
mod credentials;
mod error;
mod place;
mod reader;
mod signature;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::{
    Client, Config,
    config::{
        BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
    primitives::DateTime,
    types::ChecksumMode,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use self::{
    credentials::{Renewing, Signer},
    error::Failure,
    place::Place,
    signature::Keyring,
};
use crate::{
    checksum::{StoredChecksums, Verifiability},
    http::{Http, HttpSetupError},
    ranges::{ByteRange, ContentRange},
    retry::{self, Backoff, Policy},
    settings::{Connection, Endpoint, Limits},
};
pub use credentials::NoCredentials;
pub use error::{Kind, S3Error};
pub use reader::{Body, Reader};

/// The region where nothing names one: Amazon's own default, and what MinIO and its like accept.
const DEFAULT_REGION: &str = "us-east-1";

/// A store, and who asks it.
#[derive(Clone, Debug)]
pub struct S3 {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: RwLock<Arc<Address>>,
    http: Http,
    /// `None` signs nothing.
    keyring: Option<Keyring>,
    region_learned: AtomicBool,
    /// Version ids are left out once the store denies them: `s3:GetObject` alone does not allow
    /// them, and `If-Match` protects as well.
    versions_denied: AtomicBool,
    identity: String,
    /// The keys, where the store may call them expired and others are to be had.
    renewing: Option<Arc<Renewing>>,
    policy: Policy,
    /// How long an answer that is not an object's bytes may take to arrive whole. A body that is
    /// streamed has its own watch, in `reader`.
    answer_timeout: Duration,
    stall_timeout: Duration,
    /// The shortest time to an answer so far, in microseconds.
    answered_in: AtomicU64,
}

/// Where requests go, and how they are signed.
#[derive(Debug)]
struct Address {
    client: Client,
    /// What the settings name; `None` is Amazon's own for the region.
    endpoint: Option<Endpoint>,
    /// Where the buckets that were read from are.
    places: Mutex<HashMap<Box<str>, Arc<Place>>>,
}

impl Address {
    fn new(config: Config, endpoint: Option<Endpoint>) -> Arc<Self> {
        Arc::new(Self { client: Client::from_conf(config), endpoint, places: Mutex::default() })
    }

    /// Where a bucket's objects are; blocks where the SDK has to be asked.
    fn place(&self, bucket: &str, runtime: &tokio::runtime::Handle) -> Result<Arc<Place>, Box<Failure>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(bucket) {
            return Ok(Arc::clone(place));
        }
        let place = Arc::new(runtime.block_on(Place::find(&self.client, bucket))?);
        places.insert(bucket.into(), Arc::clone(&place));
        Ok(place)
    }
}

/// One object, as a listing or a head tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its `ETag`, exactly as received, quotes included.
    pub etag: Option<String>,
    /// When it was last modified, in seconds since the epoch.
    pub modified_seconds: Option<i64>,
}

/// What a head tells besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// Size and ETag.
    pub object: Object,
    /// The version, in a versioned bucket.
    pub version: Option<String>,
    /// Whether, and against what, the whole object can be checked.
    pub checksum: Verifiability,
}

/// One page of a listing.
#[derive(Debug)]
pub struct Page {
    /// The objects, in the order of their keys.
    pub objects: Vec<Object>,
    /// The names below the prefix up to the next delimiter, where one was asked for.
    pub common_prefixes: Vec<String>,
    /// What to ask for next.
    pub next: Option<String>,
}

/// Which bytes of which state of an object.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
    /// The object must still have this ETag.
    pub etag: Option<&'a str>,
    /// The version, in a versioned bucket.
    pub version: Option<&'a str>,
    /// The object's size as it was planned.
    pub size_bytes: u64,
    /// Which bytes; `None` asks for the whole object, and for its checksum.
    pub range: Option<ByteRange>,
}

/// One attempt that failed. Whoever asked knows how much had arrived, so it decides about the next.
#[derive(Debug)]
pub struct Attempt {
    failure: Box<Failure>,
}

impl Attempt {
    /// A body that ended early, or came too slowly.
    pub fn broken(finding: String) -> Self {
        Self { failure: Failure::of_answer(Kind::Unreachable, Some(retry::Kind::Transient), finding) }
    }

    /// Other bytes than those that were asked for.
    pub fn wrong_bytes(finding: String) -> Self {
        Self { failure: Failure::of_answer(Kind::WrongBytes, Some(retry::Kind::Transient), finding) }
    }

    fn changed(finding: String) -> Self {
        Self { failure: Failure::of_answer(Kind::Changed, None, finding) }
    }

    /// Whether the object is no longer the one that was planned.
    pub fn is_changed(&self) -> bool {
        self.failure.kind == Kind::Changed
    }

    /// Whether the store asks for fewer requests.
    pub fn is_throttled(&self) -> bool {
        self.failure.retry == Some(retry::Kind::Throttled)
    }

    /// Whether other bytes came than those that were asked for.
    pub fn is_wrong_bytes(&self) -> bool {
        self.failure.kind == Kind::WrongBytes
    }

    /// How long to wait before the next attempt, or `None` where there should be none.
    pub fn wait(&self, backoff: &mut Backoff, elapsed: Duration) -> Option<Duration> {
        let kind = self.failure.retry?;
        backoff.next(kind, self.failure.retry_after, elapsed, fastrand::f64())
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure.source {
            Some(source) => source.fmt(f),
            None => self.failure.fmt(f),
        }
    }
}

/// Why a store cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody can sign.
    #[error(transparent)]
    NoCredentials(NoCredentials),
    /// The client for credentials cannot be set up.
    #[error(transparent)]
    Http(#[from] HttpSetupError),
}

impl S3 {
    /// A store reached by `http`. `http_for_credentials` is made only where the credential chain
    /// is asked.
    ///
    /// # Errors
    ///
    /// [`ConnectError::NoCredentials`] where the chain finds none.
    pub async fn connect(
        connection: &Connection,
        limits: &Limits,
        http: Http,
        http_for_credentials: impl FnOnce() -> Result<Http, HttpSetupError>,
    ) -> Result<Self, ConnectError> {
        let signer = Signer::find(connection, limits, http_for_credentials).await.map_err(|error| match error {
            credentials::SignerError::None(none) => ConnectError::NoCredentials(none),
            credentials::SignerError::Http(error) => ConnectError::Http(error),
        })?;
        let config = config(connection, http.clone(), signer.provider.clone());
        let keyring = signer.provider.map(|provider| Keyring::new(provider, signer.renewing.clone()));
        let endpoint = connection.endpoint.as_ref().map(|endpoint| endpoint.value.clone());
        Ok(Self {
            shared: Arc::new(Shared {
                address: RwLock::new(Address::new(config, endpoint)),
                http,
                keyring,
                // A region that somebody configured is replaced as well, and that is said.
                region_learned: AtomicBool::new(false),
                versions_denied: AtomicBool::new(false),
                identity: signer.identity,
                renewing: signer.renewing,
                policy: policy(limits),
                answer_timeout: limits.connect_timeout.value
                    + limits.first_byte_timeout.value
                    + limits.stall_timeout.value,
                stall_timeout: limits.stall_timeout.value,
                answered_in: AtomicU64::new(u64::MAX),
            }),
        })
    }

    /// Who asks, for messages.
    pub fn identity(&self) -> &str {
        &self.shared.identity
    }

    /// Who is asked, for messages.
    pub fn endpoint(&self) -> String {
        let address = self.address();
        match &address.endpoint {
            Some(endpoint) => endpoint.to_string(),
            None => {
                let region = address.client.config().region().map_or(DEFAULT_REGION, Region::as_ref);
                format!("Amazon S3 in {region}")
            }
        }
    }

    /// The bounds of attempts, for those who count their own.
    pub fn policy(&self) -> Policy {
        self.shared.policy
    }

    /// How long the store took for the fastest of its answers to a head or a listing, which may have had to wait for a
    /// connection; `None` before the first.
    pub fn answers_after(&self) -> Option<Duration> {
        let microseconds = self.shared.answered_in.load(Ordering::Relaxed);
        (microseconds < u64::MAX).then(|| Duration::from_micros(microseconds))
    }

    /// Size, ETag, version and checksum of one object.
    ///
    /// # Errors
    ///
    /// [`S3Error`] of kind [`Kind::NoSuchKey`] where there is none. The answer to a HEAD has no
    /// body, so a denied one does not say why.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<ObjectHead, S3Error> {
        let target = format!("s3://{bucket}/{key}");
        let head = self
            .retrying("HeadObject", &target, |client| async move {
                client.head_object().bucket(bucket).key(key).checksum_mode(ChecksumMode::Enabled).send().await
            })
            .await?;
        let checksum = StoredChecksums {
            crc64nvme: head.checksum_crc64_nvme(),
            crc32c: head.checksum_crc32_c(),
            crc32: head.checksum_crc32(),
            sha256: head.checksum_sha256(),
            sha1: head.checksum_sha1(),
            checksum_type: head.checksum_type().map(|kind| kind.as_str()),
        };
        Ok(ObjectHead {
            checksum: trusted(checksum, head.e_tag()),
            object: Object {
                key: key.to_owned(),
                size_bytes: size(head.content_length()),
                etag: head.e_tag().map(str::to_owned),
                modified_seconds: head.last_modified().map(DateTime::secs),
            },
            version: head.version_id().and_then(version_id),
        })
    }

    /// One page of the objects below `prefix`.
    ///
    /// # Errors
    ///
    /// [`S3Error`], after the retries.
    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        continuation: Option<&str>,
    ) -> Result<Page, S3Error> {
        let target = format!("s3://{bucket}/{prefix}");
        let page = self
            .retrying("ListObjectsV2", &target, |client| async move {
                client
                    .list_objects_v2()
                    .bucket(bucket)
                    .set_prefix(Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty()))
                    .set_delimiter(delimiter.map(str::to_owned))
                    .set_continuation_token(continuation.map(str::to_owned))
                    .send()
                    .await
            })
            .await?;
        let next = page.next_continuation_token().filter(|_| page.is_truncated() == Some(true)).map(str::to_owned);
        let common_prefixes = page.common_prefixes().iter().filter_map(|common| common.prefix().map(str::to_owned));
        Ok(Page {
            common_prefixes: common_prefixes.collect(),
            objects: page
                .contents()
                .iter()
                .filter_map(|object| {
                    Some(Object {
                        key: object.key()?.to_owned(),
                        size_bytes: size(object.size()),
                        etag: object.e_tag().map(str::to_owned),
                        modified_seconds: object.last_modified().map(DateTime::secs),
                    })
                })
                .collect(),
            next,
        })
    }

    /// The error that an attempt becomes when it was the last.
    pub fn give_up(&self, attempt: Attempt, get: Get<'_>, attempts: u32, elapsed: Duration) -> S3Error {
        let target = format!("s3://{}/{}", get.bucket, get.key);
        self.error("GetObject", target, attempt.failure, attempts, elapsed)
    }

    /// Whether the failure may be for want of `s3:GetObjectVersion`. Said once, then versions are
    /// left out.
    fn denies_versions(&self, attempt: &Attempt, get: Get<'_>) -> bool {
        let denied = get.version.is_some() && attempt.failure.kind == Kind::Denied;
        if denied && !self.shared.versions_denied.swap(true, Ordering::Relaxed) {
            tracing::debug!("version ids are denied (s3:GetObjectVersion); going on with If-Match alone");
        }
        denied
    }

    fn denies_all_versions(&self) -> bool {
        self.shared.versions_denied.load(Ordering::Relaxed)
    }

    fn address(&self) -> Arc<Address> {
        self.shared.address.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tries until it succeeds, fails for good, or the policy's bounds are reached.
    async fn retrying<T, E, F>(
        &self,
        operation: &'static str,
        target: &str,
        send: impl Fn(Client) -> F,
    ) -> Result<T, S3Error>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + RequestId + std::error::Error + Send + Sync + 'static,
    {
        let started = Instant::now();
        let mut backoff = Backoff::new(self.shared.policy);
        loop {
            let address = self.address();
            let failure = match self.in_time(send(address.client.clone())).await {
                Ok(output) => return Ok(output),
                Err(failure) => failure,
            };
            if self.learn_region(&failure, &address) {
                continue;
            }
            let attempt = Attempt { failure };
            let Some(wait) = attempt.wait(&mut backoff, started.elapsed()) else {
                let attempts = backoff.failures().max(1);
                let target = target.to_owned();
                return Err(self.error(operation, target, attempt.failure, attempts, started.elapsed()));
            };
            // The first failure is said at once: whoever waits should know what for.
            if backoff.failures() == 1 {
                tracing::warn!("{operation} {target}: {attempt}; trying again");
            } else {
                tracing::debug!("{operation} {target}: {attempt}; trying again in {wait:?}");
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// The SDK reads a listing, and the body of an error, to its end, however long that takes.
    async fn in_time<T, E>(
        &self,
        answer: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Box<Failure>>
    where
        E: ProvideErrorMetadata + RequestId + std::error::Error + Send + Sync + 'static,
    {
        let limit = self.shared.answer_timeout;
        let renewing = self.shared.renewing.as_deref();
        let issue = renewing.map(Renewing::issue);
        let asked = Instant::now();
        match tokio::time::timeout(limit, answer).await {
            Ok(result) => result.inspect(|_| self.answered_in(asked.elapsed())).map_err(|error| {
                let mut failure = Failure::read(&error);
                if let (Some(renewing), Some(issue)) = (renewing, issue)
                    && failure.may_be_of_keys(renewing, issue)
                {
                    failure.retry = Some(retry::Kind::Transient);
                }
                failure
            }),
            Err(_) => {
                let finding = format!("the answer did not arrive whole within {} s", limit.as_secs_f32());
                Err(Failure::of_answer(Kind::Unreachable, Some(retry::Kind::Transient), finding))
            }
        }
    }

    fn answered_in(&self, elapsed: Duration) {
        let microseconds = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.shared.answered_in.fetch_min(microseconds, Ordering::Relaxed);
    }

    /// Signs for the region that the store names, once. A region that is wrong twice is an error.
    /// `asked` is where the request went that failed.
    fn learn_region(&self, failure: &Failure, asked: &Arc<Address>) -> bool {
        let Some(region) = &failure.region else {
            return false;
        };
        let used = asked.client.config().region().map(Region::to_string);
        let is_about_region = failure.kind == Kind::Misaddressed || failure.status == Some(400);
        if !is_about_region || used.as_deref() == Some(region) {
            return false;
        }
        let mut current = self.shared.address.write().unwrap_or_else(PoisonError::into_inner);
        if self.shared.region_learned.swap(true, Ordering::Relaxed) {
            // Another request may have learned it while this one was under way.
            return !Arc::ptr_eq(&current, asked);
        }
        tracing::info!(
            region,
            "the bucket is in another region than {}; signing for it from here on",
            used.unwrap_or_default()
        );
        let mut config = asked.client.config().to_builder().region(Region::new(region.clone()));
        // A region's own endpoint serves no other region; anybody else's is where the store is.
        let endpoint = asked.endpoint.clone().filter(|endpoint| !endpoint.is_aws_region());
        if endpoint.is_none() {
            config.set_endpoint_url(None);
        }
        *current = Address::new(config.build(), endpoint);
        true
    }

    fn error(
        &self,
        operation: &'static str,
        target: String,
        failure: Box<Failure>,
        attempts: u32,
        elapsed: Duration,
    ) -> S3Error {
        S3Error {
            operation,
            target: target.into(),
            endpoint: self.endpoint().into(),
            identity: self.shared.identity.as_str().into(),
            attempts,
            elapsed,
            failure,
        }
    }
}

fn config(connection: &Connection, http: Http, provider: Option<SharedCredentialsProvider>) -> Config {
    let region = connection.region.as_ref().map_or(DEFAULT_REGION, |region| &region.value);
    let mut config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(region.to_owned()))
        .force_path_style(connection.uses_path_style())
        .accelerate(connection.accelerate.value)
        .use_arn_region(true)
        .disable_s3_express_session_auth(true)
        // Keys are kept, and renewed, in `credentials`.
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &connection.endpoint {
        config = config.endpoint_url(endpoint.value.to_string());
    }
    match provider {
        Some(provider) => config.credentials_provider(provider),
        None => config.allow_no_auth(),
    }
    .build()
}

/// About a minute of patience, because a service mesh may hold back the network for that long
/// while its sidecar starts; attempts within it as many as fit, unless `S3_MAX_ATTEMPTS` says so.
fn policy(limits: &Limits) -> Policy {
    Policy {
        attempts: limits.max_attempts.as_ref().map_or(100, |attempts| attempts.value),
        patience: Duration::from_secs(60),
        ..Policy::default()
    }
}

/// A CRC without a type, on an object in several parts, may be one of the parts' checksums: older
/// stores do not say which.
fn trusted(mut stored: StoredChecksums<'_>, etag: Option<&str>) -> Verifiability {
    let in_parts = etag.is_some_and(|etag| etag.trim_matches('"').contains('-'));
    if stored.checksum_type.is_none() && in_parts {
        stored = StoredChecksums { crc64nvme: stored.crc64nvme, ..StoredChecksums::default() };
    }
    stored.verifiability()
}

/// The answer must be for the bytes that were asked for, of the object as it was planned. The ETag
/// is looked at as well: not every store and not every cache in front of one heeds `If-Match`.
fn check_answer(
    get: Get<'_>,
    etag: Option<&str>,
    length_bytes: Option<u64>,
    content_range: Option<&str>,
) -> Result<(), Attempt> {
    if let (Some(planned), Some(etag)) = (get.etag, etag)
        && planned != etag
    {
        return Err(Attempt::changed(format!("the object has ETag {etag} now, and had {planned}")));
    }
    let Some(range) = get.range else {
        // A body in chunks is measured as it comes.
        return match length_bytes.filter(|length| *length != get.size_bytes) {
            Some(length) => {
                Err(Attempt::changed(format!("the object has {length} bytes now, and had {}", get.size_bytes)))
            }
            None => Ok(()),
        };
    };
    let Some(content_range) = content_range else {
        let finding = format!("the server ignored the Range header ({range}) and sent the whole object");
        return Err(Attempt::wrong_bytes(finding));
    };
    ContentRange::parse(content_range)
        .and_then(|answer| answer.matches(range, get.size_bytes))
        .map_err(|error| Attempt::wrong_bytes(error.to_string()))
}

/// The SDK's lengths are signed; no length is negative.
/// An object from before versioning has the version "null", which is none.
fn version_id(header: &str) -> Option<String> {
    (header != "null").then(|| header.to_owned())
}

fn size(length: Option<i64>) -> u64 {
    u64::try_from(length.unwrap_or_default()).unwrap_or_default()
}
