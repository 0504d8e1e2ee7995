//! Every setting: its names, its default, its bound and its origin.
//!
//! [`Settings::read`] turns the environment, the mounted Secret and the command line into values
//! that later stages cannot find wrong: an endpoint is an [`Endpoint`], a flag is a `bool`, a
//! secret is a [`Secret`]. All that is wrong is found in one pass and reported together, so that a
//! pod does not have to restart once per mistake. What is merely untidy becomes a warning.
//!
//! Which layer wins is `settings::layers`; what the CA settings lead to is `trust_store`.

mod effective;
mod endpoint;
mod layers;
mod origin;
mod portability;

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

pub use effective::Effective;
pub use endpoint::{Endpoint, EndpointError};
pub use origin::{EntryName, Origin, Sourced};

use crate::{
    cause::one_line,
    env::Environment,
    filter::{Filter, FilterError},
    mount::MountError,
    secret::Secret,
    storage_config::{EntryError, Field},
    uri::{S3Uri, UriError},
};
use layers::{Layers, Names};

/// Where KServe mounts models, and the destination where `MODEL_DIR` names none.
const DEFAULT_MODEL_DIR: &str = "/mnt/models";

/// Where KServe's webhook mounts the CA ConfigMap.
const DEFAULT_CA_BUNDLE_DIR: &str = "/etc/ssl/custom-certs";

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
        secret_access_key: Secret,
        /// Session token of temporary credentials.
        session_token: Option<Secret>,
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
    pub connect_timeout: Duration,
    /// How long the first byte of an answer may take.
    pub first_byte_timeout: Duration,
    /// How long a body may stay below the least rate.
    pub stall_timeout: Duration,
    /// How often a request is tried, its first time included.
    pub max_attempts: Option<u32>,
    /// How many objects are fetched at a time; a large one may still use several connections.
    pub max_objects: Option<usize>,
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

/// One thing that is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The mounted Secret cannot be read.
    #[error("storage-config Secret{}", .variable.map_or(String::new(), |name| format!(" (env {name})")))]
    StorageConfigDir {
        /// The variable that names it; `None` for the default directory.
        variable: Option<&'static str>,
        /// Why.
        source: MountError,
    },
    /// `STORAGE_KEY` names an entry that is not there.
    #[error("env STORAGE_KEY names entry {key:?}, which {} does not have; {}", .directory.display(), listed(.present))]
    NoSuchEntry {
        /// The key.
        key: String,
        /// The mounted Secret.
        directory: PathBuf,
        /// What it does have.
        present: Vec<String>,
    },
    /// Several entries, and nothing says which.
    #[error("{} has several entries and none is called default_s3 or default; set env STORAGE_KEY to one of: {}", .directory.display(), .present.join(", "))]
    AmbiguousEntry {
        /// The mounted Secret.
        directory: PathBuf,
        /// Its entries.
        present: Vec<String>,
    },
    /// An entry that cannot be read.
    #[error("{name}: {source}")]
    Entry {
        /// Which entry.
        name: EntryName,
        /// Why.
        source: EntryError,
    },
    /// A storage that this program does not download from.
    #[error("{origin}: {value:?} is not supported; this initializer downloads from \"s3\" only")]
    UnknownType {
        /// The type.
        value: String,
        /// Where it was read.
        origin: Origin,
    },
    /// A source URI that is not one.
    #[error("{origin}: {source}")]
    Uri {
        /// Where it was read.
        origin: Origin,
        /// Why.
        source: UriError,
    },
    /// An endpoint that is not one.
    #[error("{origin}: {source}")]
    Endpoint {
        /// Where it was read.
        origin: Origin,
        /// Why.
        source: EndpointError,
    },
    /// The bucket of the URI is not the bucket in the endpoint's host.
    #[error(
        "{origin}: the endpoint's host names bucket {in_host:?}, the source names {in_uri:?}; write the endpoint without the bucket"
    )]
    BucketInHost {
        /// The bucket in the host.
        in_host: String,
        /// The bucket of the source.
        in_uri: String,
        /// Where the endpoint was read.
        origin: Origin,
    },
    /// A storage path without a bucket.
    #[error(
        "env STORAGE_PATH names a path, but no bucket is set; add \"bucket\" or \"default_bucket\" to the storage-config entry, or set env AWS_S3_BUCKET or STORAGE_URI"
    )]
    NoBucket,
    /// One half of a key pair.
    #[error("{origin} is set, but {missing} is not; set both, or neither to use the default AWS credential chain")]
    HalfAKeyPair {
        /// Where the half that there is was read.
        origin: Origin,
        /// The half there is not.
        missing: &'static str,
    },
    /// A credential that no request can carry; the SDK would panic on it. Never shown.
    #[error(
        "{origin} holds a line break or another character that no credential has; was it encoded or pasted wrongly?"
    )]
    Unprintable {
        /// Where it was read.
        origin: Origin,
    },
    /// A value outside its bounds.
    #[error("{origin}: {value:?} is not {expected}")]
    Value {
        /// Where it was read.
        origin: Origin,
        /// The value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Allow or ignore patterns that cannot be read.
    #[error("env {variable}: {source}")]
    Filter {
        /// The variable.
        variable: &'static str,
        /// Why.
        source: FilterError,
    },
    /// Web identity without its other half.
    #[error("env {present} is set, but env {missing} is not; web identity needs both")]
    HalfAWebIdentity {
        /// The variable there is.
        present: &'static str,
        /// The variable there is not.
        missing: &'static str,
    },
}

impl Problem {
    /// Whether the command line is what has to change, and no setting.
    pub fn is_of_arguments(&self) -> bool {
        matches!(self, Self::Uri { origin: Origin::Argument, .. })
    }
}

fn listed(present: &[String]) -> String {
    if present.is_empty() {
        "it has no entries: is the Secret mounted there?".to_owned()
    } else {
        format!("it has: {}", present.join(", "))
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Neither the command line nor the environment names a source.
    #[error(
        "nothing to download: give SRC_URI DEST, or set env STORAGE_URI, or env STORAGE_PATH with a storage-config entry"
    )]
    NoSource,
    /// An odd number of arguments.
    #[error(
        "argument {0:?} has no destination: sources and destinations come in pairs, SRC_URI DEST [SRC_URI DEST ...]"
    )]
    Unpaired(String),
    /// Everything that is wrong, together.
    #[error("{}", Problems(.0))]
    Problems(Vec<Problem>),
}

struct Problems<'a>(&'a [Problem]);

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [only] => f.write_str(&one_line(only)),
            problems => {
                write!(f, "{} problems in the configuration:", problems.len())?;
                for (index, problem) in problems.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ";" };
                    write!(f, "{separator} ({}) {}", index + 1, one_line(problem))?;
                }
                Ok(())
            }
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
        let mut reader = Reader::new(environment);
        let sources = reader.sources(arguments)?;
        reader.entry_type();
        let (connection, bucket_in_host) = reader.connection();
        let downloads = reader.downloads(sources, bucket_in_host.as_ref());
        let trust = reader.trust();
        let limits = reader.limits();
        let filter = reader.filter();
        if reader.problems.is_empty() {
            let portability = reader.layers.portability();
            let warnings = reader.layers.warnings;
            Ok(Self { downloads, connection, trust, limits, filter, warnings, portability })
        } else {
            Err(SettingsError::Problems(reader.problems))
        }
    }
}

/// A source as it was given, before the settings that it depends on are known.
enum Source {
    Uri(Sourced<String>, PathBuf),
    /// A path in the bucket that the settings name.
    Path(String, PathBuf),
}

struct Reader<'a> {
    environment: &'a Environment,
    layers: Layers<'a>,
    problems: Vec<Problem>,
}

/// A setting that only plain variables name.
const fn variable(variables: &'static [&'static str]) -> Names {
    Names { variables, secret_files: &[], field: None }
}

/// A setting that variables and a field of an entry name.
const fn named(variables: &'static [&'static str], field: Field) -> Names {
    Names { variables, secret_files: &[], field: Some(field) }
}

impl<'a> Reader<'a> {
    fn new(environment: &'a Environment) -> Self {
        let mut problems = Vec::new();
        let layers = Layers::read(environment, &mut problems);
        Self { environment, layers, problems }
    }

    fn warn(&mut self, warning: String) {
        self.layers.warnings.push(warning);
    }

    /// A value of one line. What `echo` and a YAML block leave around it belongs to no such value.
    fn text(&mut self, names: Names) -> Option<Sourced<String>> {
        let found = self.layers.find(names)?;
        let text = found.value.trim().to_owned();
        // PEM text in the place of a path ends in a line break by right.
        let is_trimmed = text.len() < found.value.len() && !text.starts_with("-----BEGIN");
        let origin = found.origin;
        if is_trimmed {
            self.warn(format!("{origin}: blanks or line breaks around the value are ignored; remove them"));
        }
        (!text.is_empty()).then(|| Sourced::new(text, origin))
    }

    fn sources(&self, arguments: &[String]) -> Result<Vec<Source>, SettingsError> {
        let pairs = arguments.chunks_exact(2);
        if let [unpaired] = pairs.remainder() {
            return Err(SettingsError::Unpaired(unpaired.clone()));
        }
        if let Some(pair) = pairs.clone().find(|pair| pair[1].is_empty()) {
            return Err(SettingsError::Unpaired(pair[0].clone()));
        }
        let sources: Vec<_> = pairs
            .map(|pair| {
                let uri = Sourced::new(pair[0].clone(), Origin::Argument);
                Source::Uri(uri, PathBuf::from(&pair[1]))
            })
            .collect();
        if !sources.is_empty() {
            return Ok(sources);
        }
        let model_dir = self.environment.value("MODEL_DIR");
        let model_dir = PathBuf::from(model_dir.unwrap_or(DEFAULT_MODEL_DIR));
        if let Some(uri) = self.environment.value("STORAGE_URI") {
            let uri = Sourced::new(uri.to_owned(), Origin::Environment("STORAGE_URI"));
            Ok(vec![Source::Uri(uri, model_dir)])
        } else if let Some(path) = self.environment.value("STORAGE_PATH") {
            Ok(vec![Source::Path(path.to_owned(), model_dir)])
        } else {
            Err(SettingsError::NoSource)
        }
    }

    fn entry_type(&mut self) {
        if let Some(kind) = self.text(named(&[], Field::Type))
            && kind.value != "s3"
        {
            self.problems.push(Problem::UnknownType { value: kind.value, origin: kind.origin });
        }
    }

    fn downloads(&mut self, sources: Vec<Source>, bucket_in_host: Option<&Sourced<String>>) -> Vec<Download> {
        let mut downloads = Vec::new();
        for source in sources {
            let (parsed, origin, destination) = match source {
                Source::Uri(uri, destination) => (S3Uri::parse(&uri.value), uri.origin, destination),
                Source::Path(path, destination) => {
                    let bucket = self
                        .text(named(&[], Field::Bucket))
                        .or_else(|| self.text(named(&[], Field::DefaultBucket)))
                        .or_else(|| self.text(variable(&["AWS_S3_BUCKET"])))
                        .or_else(|| bucket_in_host.cloned());
                    let Some(bucket) = bucket else {
                        self.problems.push(Problem::NoBucket);
                        continue;
                    };
                    let parsed = S3Uri::in_bucket(&bucket.value, &path);
                    (parsed, bucket.origin, destination)
                }
            };
            match parsed {
                Ok(source) => {
                    if let Some(in_host) = bucket_in_host
                        && in_host.value != source.bucket()
                    {
                        self.problems.push(Problem::BucketInHost {
                            in_host: in_host.value.clone(),
                            in_uri: source.bucket().to_owned(),
                            origin: in_host.origin.clone(),
                        });
                    }
                    downloads.push(Download { source, destination });
                }
                Err(source) => self.problems.push(Problem::Uri { origin, source }),
            }
        }
        downloads
    }

    /// The connection, and the bucket that the endpoint's host names.
    fn connection(&mut self) -> (Connection, Option<Sourced<String>>) {
        let (endpoint, bucket_in_host, region_in_host) = self.endpoint();
        let region = self.text(named(&["AWS_REGION", "AWS_DEFAULT_REGION"], Field::Region)).or(region_in_host);
        let connection = Connection {
            addressing: self.addressing(endpoint.as_ref()),
            accelerate: self.flag(variable(&["S3_USE_ACCELERATE"]), false),
            credentials: self.credentials(),
            sts_endpoint: self.environment.value("AWS_ENDPOINT_URL_STS").map(str::to_owned),
            web_identity: self.web_identity(),
            endpoint,
            region,
        };
        (connection, bucket_in_host)
    }

    #[allow(clippy::type_complexity, reason = "three optional findings of one text")]
    fn endpoint(&mut self) -> (Option<Sourced<Endpoint>>, Option<Sourced<String>>, Option<Sourced<String>>) {
        const ENDPOINT: Names =
            named(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_ENDPOINT", "AWS_S3_ENDPOINT"], Field::EndpointUrl);
        let Some(text) = self.text(ENDPOINT) else {
            return (None, None, None);
        };
        // S3_ENDPOINT is a host by definition; S3_USE_HTTPS says the rest (KServe's s3 annotations).
        let is_host_variable = match &text.origin {
            Origin::Environment(name) => *name == "S3_ENDPOINT",
            Origin::SecretFile(path) => path.ends_with("S3_ENDPOINT"),
            Origin::Default | Origin::Argument | Origin::Entry { .. } | Origin::SourceUri | Origin::EndpointHost => {
                false
            }
        };
        let use_https = !is_host_variable || self.flag(variable(&["S3_USE_HTTPS"]), true).value;
        match Endpoint::parse(&text.value, use_https) {
            Ok(parsed) => {
                if parsed.scheme_missing && !is_host_variable {
                    let warning = format!("{}: no scheme in the endpoint; using {}", text.origin, parsed.endpoint);
                    self.warn(warning);
                }
                let in_host = |value| Sourced::new(value, Origin::EndpointHost);
                let bucket = parsed.bucket.map(|bucket| Sourced::new(bucket, text.origin.clone()));
                let endpoint = Sourced::new(parsed.endpoint, text.origin);
                (Some(endpoint), bucket, parsed.region.map(in_host))
            }
            Err(source) => {
                let origin = text.origin;
                self.problems.push(Problem::Endpoint { origin, source });
                (None, None, None)
            }
        }
    }

    fn addressing(&mut self, endpoint: Option<&Sourced<Endpoint>>) -> Sourced<Addressing> {
        if let Some(style) = self.text(named(&[], Field::AddressingStyle)) {
            let parsed = match style.value.as_str() {
                "auto" => Addressing::Auto,
                "path" => Addressing::Path,
                "virtual" => Addressing::Virtual,
                _ => {
                    self.problems.push(Problem::Value {
                        origin: style.origin.clone(),
                        value: style.value.clone(),
                        expected: "auto, path or virtual",
                    });
                    Addressing::Auto
                }
            };
            return style.map(|_| parsed);
        }
        // KServe spells it USER; people who read the code assume a typo and correct it.
        let names = &["S3_USER_VIRTUAL_BUCKET", "S3_USE_VIRTUAL_BUCKET"];
        let wants_virtual = self.flag(variable(names), false);
        // An address has no subdomains.
        let is_address = endpoint.is_some_and(|endpoint| endpoint.value.host().parse::<std::net::IpAddr>().is_ok());
        match (wants_virtual.value, is_address) {
            (true, false) => wants_virtual.map(|_| Addressing::Virtual),
            (true, true) => {
                self.warn(format!(
                    "{}: virtual-hosted addressing is impossible on an IP address; using path style",
                    wants_virtual.origin
                ));
                wants_virtual.map(|_| Addressing::Path)
            }
            (false, _) => Sourced::default(Addressing::Auto),
        }
    }

    fn credentials(&mut self) -> Credentials {
        const ID: Names = Names {
            variables: &["AWS_ACCESS_KEY_ID"],
            secret_files: &["awsAccessKeyID"],
            field: Some(Field::AccessKeyId),
        };
        const SECRET: Names = Names {
            variables: &["AWS_SECRET_ACCESS_KEY"],
            secret_files: &["awsSecretAccessKey"],
            field: Some(Field::SecretAccessKey),
        };
        let anonymous = self.flag(named(&["awsAnonymousCredential"], Field::Anonymous), false);
        if anonymous.value {
            return Credentials::Anonymous(anonymous.origin);
        }
        match (self.credential(ID), self.credential(SECRET)) {
            (Some(id), Some(secret)) => {
                self.warn_of_mixed_pair(&id.origin, &secret.origin);
                Credentials::Keys {
                    session_token: self.session_token(&id.origin),
                    access_key_id: id,
                    secret_access_key: secret.value,
                }
            }
            (Some(id), None) => {
                let missing = "secret_access_key (AWS_SECRET_ACCESS_KEY)";
                self.problems.push(Problem::HalfAKeyPair { origin: id.origin, missing });
                Credentials::Chain
            }
            (None, Some(secret)) => {
                let missing = "access_key_id (AWS_ACCESS_KEY_ID)";
                self.problems.push(Problem::HalfAKeyPair { origin: secret.origin, missing });
                Credentials::Chain
            }
            (None, None) => Credentials::Chain,
        }
    }

    fn credential(&mut self, names: Names) -> Option<Sourced<Secret>> {
        let text = self.text(names)?;
        if !text.value.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.problems.push(Problem::Unprintable { origin: text.origin.clone() });
        }
        Some(text.map(Secret::from))
    }

    /// Field by field, later wins: so the halves may meet from two layers, which is seldom meant. An
    /// override that replaces one half is.
    fn warn_of_mixed_pair(&mut self, id: &Origin, secret: &Origin) {
        let is_override =
            |origin: &Origin| matches!(origin, Origin::Entry { entry: EntryName::StorageOverrideConfig, .. });
        if Layers::height(id) != Layers::height(secret) && !is_override(id) && !is_override(secret) {
            self.warn(format!("the two halves of the key pair come from different places: {id}; {secret}"));
        }
    }

    /// A session token belongs to the key that it was issued with, so one from a lower layer than
    /// the key's is another key's.
    fn session_token(&mut self, key: &Origin) -> Option<Secret> {
        let token = self.credential(named(&["AWS_SESSION_TOKEN"], Field::SessionToken))?;
        if Layers::height(&token.origin) < Layers::height(key) {
            self.warn(format!("the session token from {} is not used: the access key comes from {key}", token.origin));
            return None;
        }
        Some(token.value)
    }

    fn web_identity(&mut self) -> Option<WebIdentity> {
        const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
        const ROLE: &str = "AWS_ROLE_ARN";
        let token_file = self.environment.value(TOKEN_FILE);
        let role_arn = self.environment.value(ROLE);
        match (token_file, role_arn) {
            (Some(token_file), Some(role_arn)) => Some(WebIdentity {
                token_file: token_file.into(),
                role_arn: role_arn.to_owned(),
                session_name: self.environment.value("AWS_ROLE_SESSION_NAME").map(str::to_owned),
            }),
            (Some(_), None) => {
                self.problems.push(Problem::HalfAWebIdentity { present: TOKEN_FILE, missing: ROLE });
                None
            }
            // A role alone is a profile's business.
            (None, _) => None,
        }
    }

    fn trust(&mut self) -> Trust {
        let configmap_dir = match self.environment.value("CA_BUNDLE_VOLUME_MOUNT_POINT") {
            Some(directory) => {
                Sourced::new(PathBuf::from(directory), Origin::Environment("CA_BUNDLE_VOLUME_MOUNT_POINT"))
            }
            None => Sourced::default(PathBuf::from(DEFAULT_CA_BUNDLE_DIR)),
        };
        Trust {
            certificate: self.layers.find(named(&[], Field::Certificate)).map(|found| found.map(str::to_owned)),
            ca_bundle: self.text(named(&["AWS_CA_BUNDLE"], Field::CaBundle)),
            configmap_name: self.text(named(&["CA_BUNDLE_CONFIGMAP_NAME"], Field::CabundleConfigmap)),
            configmap_dir,
            verify: self.flag(named(&["S3_VERIFY_SSL"], Field::VerifySsl), true),
            mode: self.trust_mode(),
            system_file: self.environment.value("SSL_CERT_FILE").map(PathBuf::from),
            system_dirs: self
                .environment
                .value("SSL_CERT_DIR")
                .map(|directories| std::env::split_paths(directories).collect())
                .unwrap_or_default(),
        }
    }

    fn trust_mode(&mut self) -> Sourced<TrustMode> {
        let Some(mode) = self.text(variable(&["TRUST_STORE"])) else {
            return Sourced::default(TrustMode::Combined);
        };
        let parsed = match mode.value.as_str() {
            "combined" => TrustMode::Combined,
            "bundle-only" => TrustMode::BundleOnly,
            _ => {
                self.problems.push(Problem::Value {
                    origin: mode.origin.clone(),
                    value: mode.value.clone(),
                    expected: "combined or bundle-only",
                });
                TrustMode::Combined
            }
        };
        mode.map(|_| parsed)
    }

    fn limits(&mut self) -> Limits {
        // An hour bounds a typing error, not a use.
        const SECONDS: &str = "a number of seconds from 1 to 3600";
        let seconds = |value: &f64| (1.0..=3600.0).contains(value);
        let mut timeout =
            |name: &'static [&'static str]| self.number(variable(name), SECONDS, seconds).map(Duration::from_secs_f64);
        let connect = timeout(&["S3_CONNECT_TIMEOUT"]);
        let read = timeout(&["S3_READ_TIMEOUT"]);
        Limits {
            connect_timeout: connect.unwrap_or(Duration::from_secs(5)),
            first_byte_timeout: read.unwrap_or(Duration::from_secs(20)),
            stall_timeout: read.unwrap_or(Duration::from_secs(10)),
            max_attempts: self.number(variable(&["S3_MAX_ATTEMPTS"]), "a whole number from 1 to 100", |attempts| {
                (1..=100).contains(attempts)
            }),
            max_objects: self.number(
                variable(&["S3_MAX_FILE_CONCURRENCY"]),
                "a whole number from 1 to 1024",
                |objects| (1..=1024).contains(objects),
            ),
        }
    }

    fn filter(&mut self) -> Filter {
        let patterns = |name| self.environment.value(name);
        let (allow, ignore) = ("STORAGE_ALLOW_PATTERNS", "STORAGE_IGNORE_PATTERNS");
        // Each by itself first, because both may be wrong.
        let checked = [(allow, Filter::parse(patterns(allow), None)), (ignore, Filter::parse(None, patterns(ignore)))];
        let wrong = checked.into_iter().filter_map(|(variable, filter)| {
            let source = filter.err()?;
            Some(Problem::Filter { variable, source })
        });
        self.problems.extend(wrong);
        Filter::parse(patterns(allow), patterns(ignore)).unwrap_or_default()
    }

    /// `true`/`1` and `false`/`0`. KServe takes any other text as the default, so it is a warning.
    fn flag(&mut self, names: Names, default: bool) -> Sourced<bool> {
        let Some(text) = self.text(names) else {
            return Sourced::default(default);
        };
        let value = match text.value.to_ascii_lowercase().as_str() {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => {
                self.warn(format!(
                    "{}: {:?} is neither true nor false; taken as {default}, as KServe does",
                    text.origin, text.value
                ));
                default
            }
        };
        text.map(|_| value)
    }

    fn number<T: FromStr>(
        &mut self,
        names: Names,
        expected: &'static str,
        is_in_bounds: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let text = self.text(names)?;
        let number = text.value.parse().ok().filter(is_in_bounds);
        if number.is_none() {
            self.problems.push(Problem::Value { origin: text.origin, value: text.value, expected });
        }
        number
    }
}

#[cfg(test)]
mod tests;
