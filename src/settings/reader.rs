//! Each setting by its names: from the winning layer's text to a value, or to a problem.

use std::{path::PathBuf, str::FromStr, time::Duration};

use super::{
    Addressing, Connection, Credentials, Download, Endpoint, EntryName, Limits, ModelCheck, Origin, Problem, Settings,
    SettingsError, Sourced, Trust, TrustMode, WebIdentity,
    layers::{Layers, Names},
};
use crate::{
    checksum::{Hash, HashAlgorithm},
    env::Environment,
    filter::Filter,
    secret::Secret,
    storage_config::Field,
    uri::S3Uri,
};

/// Where KServe mounts models, and the destination where `MODEL_DIR` names none.
const DEFAULT_MODEL_DIR: &str = "/mnt/models";

/// Where KServe's webhook mounts the CA ConfigMap.
const DEFAULT_CA_BUNDLE_DIR: &str = "/etc/ssl/custom-certs";

/// What the AWS SDK's chain reads for itself, without the keys and tokens among it.
const CHAIN_VARIABLES: [&str; 9] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_EC2_METADATA_DISABLED",
];

/// Reads everything; see [`Settings::read`].
pub(super) fn read(environment: &Environment, arguments: &[String]) -> Result<Settings, SettingsError> {
    let mut reader = Reader::new(environment);
    let sources = reader.sources(arguments)?;
    reader.entry_type();
    let (connection, bucket_in_host) = reader.connection();
    let downloads = reader.downloads(sources, bucket_in_host.as_ref());
    let trust = reader.trust();
    let limits = reader.limits();
    let filter = reader.filter();
    if limits.verification_digest.is_some() && downloads.len() > 1 {
        reader.problems.push(Problem::DigestOfMany);
    }
    if reader.problems.is_empty() {
        let portability = reader.layers.portability();
        let warnings = reader.layers.warnings;
        Ok(Settings { downloads, connection, trust, limits, filter, warnings, portability })
    } else {
        Err(SettingsError::Problems(reader.problems))
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
                    downloads.push(Download { source, origin, destination });
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
        let accelerate = self.flag(variable(&["S3_USE_ACCELERATE"]), false);
        let endpoint = endpoint.filter(|endpoint| self.is_beside(&accelerate, endpoint));
        let connection = Connection {
            addressing: self.addressing(endpoint.as_ref()),
            accelerate,
            credentials: self.credentials(),
            sts_endpoint: self.environment.value("AWS_ENDPOINT_URL_STS").map(str::to_owned),
            web_identity: self.web_identity(),
            chain_variables: self.chain_variables(),
            endpoint,
            region,
        };
        (connection, bucket_in_host)
    }

    /// Acceleration has a host of its own, for buckets of every region: a region's endpoint makes way for it, any other
    /// one is a contradiction.
    fn is_beside(&mut self, accelerate: &Sourced<bool>, endpoint: &Sourced<Endpoint>) -> bool {
        if !accelerate.value {
            return true;
        }
        if !endpoint.value.is_aws_region() {
            let (accelerate, endpoint) = (accelerate.origin.clone(), endpoint.origin.clone());
            self.problems.push(Problem::Accelerate { accelerate, endpoint });
        }
        false
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
                    secret_access_key: secret,
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
    fn session_token(&mut self, key: &Origin) -> Option<Sourced<Secret>> {
        let token = self.credential(named(&["AWS_SESSION_TOKEN"], Field::SessionToken))?;
        if Layers::height(&token.origin) < Layers::height(key) {
            self.warn(format!("the session token from {} is not used: the access key comes from {key}", token.origin));
            return None;
        }
        Some(token)
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

    fn chain_variables(&self) -> Vec<(&'static str, String)> {
        let set = |name: &'static str| Some((name, self.environment.value(name)?.to_owned()));
        CHAIN_VARIABLES.into_iter().filter_map(set).collect()
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
        let mut timeout = |name: &'static [&'static str]| {
            Some(self.number(variable(name), SECONDS, seconds)?.map(Duration::from_secs_f64))
        };
        let or_default = |found: &Option<Sourced<Duration>>, seconds| {
            found.clone().unwrap_or_else(|| Sourced::default(Duration::from_secs(seconds)))
        };
        let connect = timeout(&["S3_CONNECT_TIMEOUT"]);
        let read = timeout(&["S3_READ_TIMEOUT"]);
        Limits {
            connect_timeout: or_default(&connect, 5),
            first_byte_timeout: or_default(&read, 20),
            stall_timeout: or_default(&read, 10),
            max_attempts: self.number(variable(&["S3_MAX_ATTEMPTS"]), "a whole number from 1 to 100", |attempts| {
                (1..=100).contains(attempts)
            }),
            max_objects: self.number(
                variable(&["S3_MAX_FILE_CONCURRENCY"]),
                "a whole number from 1 to 1024",
                |objects| (1..=1024).contains(objects),
            ),
            verification_digest: self.verification_digest(),
            model_check: self.model_check(),
            verify_etag_md5: self.flag(variable(&["S3_VERIFY_ETAG_MD5"]), false),
        }
    }

    /// 64 hexadecimal digits, with or without `sha256:` before them.
    fn verification_digest(&mut self) -> Option<Sourced<Hash>> {
        let text = self.text(variable(&["VERIFICATION_DIGEST"]))?;
        let digits = text.value.trim();
        let digits = digits.strip_prefix("sha256:").unwrap_or(digits);
        match Hash::from_hex(HashAlgorithm::Sha256, digits) {
            Some(hash) => Some(text.map(|_| hash)),
            None => {
                let expected = "a SHA-256: 64 hexadecimal digits, with or without sha256: before them";
                self.problems.push(Problem::Value { origin: text.origin, value: text.value, expected });
                None
            }
        }
    }

    fn model_check(&mut self) -> Sourced<ModelCheck> {
        let Some(text) = self.text(variable(&["MODEL_CHECK"])) else { return Sourced::default(ModelCheck::Warn) };
        let parsed = match text.value.to_ascii_lowercase().as_str() {
            "off" => ModelCheck::Off,
            "warn" => ModelCheck::Warn,
            "strict" => ModelCheck::Strict,
            _ => {
                let (origin, value) = (text.origin.clone(), text.value.clone());
                self.problems.push(Problem::Value { origin, value, expected: "off, warn or strict" });
                ModelCheck::Warn
            }
        };
        text.map(|_| parsed)
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
    ) -> Option<Sourced<T>> {
        let text = self.text(names)?;
        match text.value.parse().ok().filter(is_in_bounds) {
            Some(number) => Some(Sourced::new(number, text.origin)),
            None => {
                self.problems.push(Problem::Value { origin: text.origin, value: text.value, expected });
                None
            }
        }
    }
}
