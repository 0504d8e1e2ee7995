//! Every setting: its names, its default, its bound and its origin.
//!
//! [`Settings::read`] turns the environment, the mounted Secret and the command line into values
//! that later stages cannot find wrong: an endpoint is an [`Endpoint`], a flag is a `bool`, a
//! secret is a [`Secret`]. All that is wrong is found in one pass and reported together, so that a
//! pod does not have to restart once per mistake. What is merely untidy becomes a warning.
//!
//! Which layer wins is `settings::layers`, how each value is read `settings::reader`; what the CA settings lead to is `trust_store`.

mod effective;
mod endpoint;
mod layers;
mod origin;
mod portability;
mod problem;
mod reader;

use std::{fmt, path::PathBuf, time::Duration};

pub use effective::Effective;
pub use endpoint::{Endpoint, EndpointError};
pub use origin::{EntryName, Origin, Sourced};
pub use problem::{Problem, SettingsError};

use crate::{checksum::Hash, env::Environment, filter::Filter, secret::Secret, uri::S3Uri};

/// The default of Kubernetes' `terminationMessagePath`.
const DEFAULT_TERMINATION_LOG: &str = "/dev/termination-log";

/// Everything that a run needs to know, each stage's section by itself.
#[derive(Debug)]
pub struct Settings {
    /// What to download, and where to.
    pub downloads: Vec<Download>,
    /// How to reach the store.
    pub connection: Connection,
    /// What to trust.
    pub trust: Trust,
    /// Bounds of the transfer.
    pub limits: Limits,
    /// Which of the objects below a prefix are wanted.
    pub filter: Filter,
    /// What is accepted and worth cleaning up, for the log.
    pub warnings: Vec<String>,
    /// What works here and may not under KServe or ModelMesh, for `check`.
    pub portability: Vec<String>,
}

/// One source and its destination.
#[derive(Clone, Debug)]
pub struct Download {
    /// The object, prefix or bucket.
    pub source: S3Uri,
    /// Who named it, or its bucket.
    pub origin: Origin,
    /// The directory on the model volume.
    pub destination: PathBuf,
}

/// How to reach the store.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The S3 endpoint; `None` is Amazon's own for the region.
    pub endpoint: Option<Sourced<Endpoint>>,
    /// The region that requests are signed for; `None` until the first reply teaches it.
    pub region: Option<Sourced<String>>,
    /// Whether the bucket stands in the host name or in the path.
    pub addressing: Sourced<Addressing>,
    /// Amazon's transfer acceleration.
    pub accelerate: Sourced<bool>,
    /// Who signs.
    pub credentials: Credentials,
    /// `AWS_ENDPOINT_URL_STS`. The S3 endpoint is never used for STS.
    pub sts_endpoint: Option<String>,
    /// The web identity (IRSA) that the environment offers.
    pub web_identity: Option<WebIdentity>,
    /// The variables that tell the credential chain where to ask, as far as they are set: for messages. No secrets.
    pub chain_variables: Vec<(&'static str, String)>,
}

impl Connection {
    /// Whether requests go over TLS.
    pub fn is_tls(&self) -> bool {
        self.endpoint.as_ref().is_none_or(|endpoint| endpoint.value.tls)
    }

    /// An address at the store that a probe can ask: the endpoint itself, or Amazon's for the region.
    /// `None` where the region makes no host name.
    pub fn probe_url(&self) -> Option<reqwest::Url> {
        let amazon = || {
            let region = self.region.as_ref().map_or("us-east-1", |region| &region.value);
            let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://s3.{region}.amazonaws.com{suffix}")
        };
        let text = self.endpoint.as_ref().map_or_else(amazon, |endpoint| endpoint.value.to_string());
        reqwest::Url::parse(&text).ok()
    }

    /// Whether the bucket stands in the path of a request rather than in its host name.
    pub fn uses_path_style(&self) -> bool {
        match self.addressing.value {
            Addressing::Path => true,
            Addressing::Virtual => false,
            Addressing::Auto => self.endpoint.as_ref().is_some_and(|endpoint| !endpoint.value.is_aws()),
        }
    }
}

/// Whether the bucket stands in the host name or in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// Path style for custom endpoints, virtual-hosted for Amazon's.
    Auto,
    /// `https://host/bucket/key`
    Path,
    /// `https://bucket.host/key`
    Virtual,
}

/// Who signs the requests.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Nobody: requests go unsigned.
    Anonymous(Origin),
    /// Keys from the settings.
    Keys {
        /// Access key id.
        access_key_id: Sourced<Secret>,
        /// Secret access key.
        secret_access_key: Sourced<Secret>,
        /// Session token of temporary credentials.
        session_token: Option<Sourced<Secret>>,
    },
    /// The AWS SDK's chain: web identity, EKS pod identity, container, IMDS, profile.
    Chain,
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous(origin) => write!(f, "anonymous ({origin})"),
            Self::Keys { access_key_id, .. } => write!(f, "keys from {}", access_key_id.origin),
            Self::Chain => f.write_str("the default AWS credential chain"),
        }
    }
}

/// A service account token that STS exchanges for credentials.
#[derive(Clone, Debug)]
pub struct WebIdentity {
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`
    pub token_file: PathBuf,
    /// `AWS_ROLE_ARN`
    pub role_arn: String,
    /// `AWS_ROLE_SESSION_NAME`
    pub session_name: Option<String>,
}

/// Every source of trust that the settings name. `trust_store` reads them.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The entry's `certificate`: PEM text, or a path as KServe had it until 0.12.0.
    pub certificate: Option<Sourced<String>>,
    /// `ca_bundle` / `AWS_CA_BUNDLE`: the path of a file or a directory.
    pub ca_bundle: Option<Sourced<String>>,
    /// `cabundle_configmap` / `CA_BUNDLE_CONFIGMAP_NAME`: the name of a ConfigMap, for messages.
    pub configmap_name: Option<Sourced<String>>,
    /// Where that ConfigMap is mounted, if it is.
    pub configmap_dir: Sourced<PathBuf>,
    /// Whether the server's certificate is verified.
    pub verify: Sourced<bool>,
    /// Whether the system's roots are trusted beside the bundle.
    pub mode: Sourced<TrustMode>,
    /// `SSL_CERT_FILE`
    pub system_file: Option<PathBuf>,
    /// `SSL_CERT_DIR`, as OpenSSL has it: several, separated by colons.
    pub system_dirs: Vec<PathBuf>,
}

/// Whether the system's roots are trusted beside the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustMode {
    /// The bundle's certificates and the system's roots.
    Combined,
    /// The bundle's certificates alone, as KServe and ModelMesh have it.
    BundleOnly,
}

/// Bounds of requests and of the transfer.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long connecting may take.
    pub connect_timeout: Sourced<Duration>,
    /// How long the first byte of an answer may take.
    pub first_byte_timeout: Sourced<Duration>,
    /// How long a body may stay below the least rate.
    pub stall_timeout: Sourced<Duration>,
    /// How often a request is tried, its first time included.
    pub max_attempts: Option<Sourced<u32>>,
    /// How many objects are fetched at a time; a large one may still use several connections.
    pub max_objects: Option<Sourced<usize>>,
    /// `VERIFICATION_DIGEST`: what the model must be.
    pub verification_digest: Option<Sourced<Hash>>,
    /// Whether what looks wrong with the model ends the run.
    pub model_check: Sourced<ModelCheck>,
    /// Whether an object without a checksum is compared with the MD5 that its ETag is.
    pub verify_etag_md5: Sourced<bool>,
}

/// What happens where the model on the volume looks wrong: a shard is missing, a weight file is a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelCheck {
    /// Nobody looks.
    Off,
    /// A warning.
    Warn,
    /// The run fails.
    Strict,
}

/// Where the log goes and how it looks. Read on its own and first, so that all the rest can be
/// reported through it.
#[derive(Clone, Debug)]
pub struct Logging {
    /// JSON lines instead of text.
    pub json: bool,
    /// `RUST_LOG`, else `LOG_LEVEL`, else `info`.
    pub level: Sourced<String>,
    /// Where Kubernetes reads the termination message.
    pub termination_log: PathBuf,
}

impl Logging {
    /// Reads `LOG_FORMAT`, `LOG_LEVEL`, `RUST_LOG` and `TERMINATION_LOG`.
    pub fn read(environment: &Environment) -> Self {
        let level = ["RUST_LOG", "LOG_LEVEL"]
            .into_iter()
            .find_map(|name| {
                let value = environment.value(name)?.to_owned();
                Some(Sourced::new(value, Origin::Environment(name)))
            })
            .unwrap_or_else(|| Sourced::default("info".to_owned()));
        Self {
            json: environment.value("LOG_FORMAT").is_some_and(|format| format.eq_ignore_ascii_case("json")),
            level,
            termination_log: environment.value("TERMINATION_LOG").unwrap_or(DEFAULT_TERMINATION_LOG).into(),
        }
    }
}

impl Settings {
    /// Reads everything. `arguments` are the pairs of the command line; where there are none, the
    /// environment names the source.
    ///
    /// # Errors
    ///
    /// [`SettingsError::Problems`] holds everything that is wrong at once.
    pub fn read(environment: &Environment, arguments: &[String]) -> Result<Self, SettingsError> {
        reader::read(environment, arguments)
    }
}

#[cfg(test)]
mod tests;
