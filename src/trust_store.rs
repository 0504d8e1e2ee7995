//! Whom a TLS client believes.
//!
//! # The rule
//!
//! Collect every source of CA certificates that is present, keep every certificate that can serve,
//! and say what was kept and from where.
//!
//! The sources are the entry's `certificate` (ModelMesh: the PEM text itself), `ca_bundle` or
//! `AWS_CA_BUNDLE` (KServe: a path), and the mounted CA ConfigMap (KServe's
//! `cabundle_configmap`). They are united, because both systems read the same Secret and neither
//! looks at the other's field: different contents are legitimate, and one right CA among them is
//! enough. The system's roots are added as well, so that a cluster-wide bundle does not cut off
//! public endpoints; `TRUST_STORE=bundle-only` leaves them out, as KServe's S3 path and ModelMesh
//! do.
//!
//! A source that is broken beside one that is usable is a warning. Where content is there and
//! nothing of it is usable, going on with the system's roots would only move the error to where
//! nobody understands it, so it is an error here.
//!
//! A certificate is an *anchor* (it may issue others) if it is in date and may issue certificates;
//! webpki by itself checks neither of an anchor. Every certificate of the bundle is also a *pin*:
//! `trust_store::verifier` accepts it as the server's own.

pub mod ca_bundle;
mod certificate;
mod explain;
mod verifier;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, UnixTime},
};

use crate::{
    mount::{Mount, MountError},
    settings::{Sourced, Trust, TrustMode},
};
use certificate::{CaUse, Certificate, Validity};
pub use explain::explain;
pub use verifier::{Refusal, Refusals};

/// The key of KServe's CA ConfigMap; where it exists, it is the bundle.
const CONFIGMAP_KEY: &str = "cabundle.crt";

/// The keys under which other systems keep a CA bundle: OpenShift's injected trusted CA, OpenShift
/// AI's, the service CA, and what cert-manager and Kubernetes' own TLS Secrets use.
const KNOWN_KEYS: [&str; 5] = ["ca-bundle.crt", "odh-ca-bundle.crt", "service-ca.crt", "ca.crt", "tls.crt"];

/// Where Linux distributions keep their roots, as Go's `crypto/x509/root_linux.go` lists them.
const SYSTEM_FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom a TLS client believes, and where each certificate came from.
#[derive(Clone, Debug)]
pub struct TrustStore {
    bundle: Vec<Trusted>,
    system: Vec<CertificateDer<'static>>,
    sources: Vec<Source>,
    verify: bool,
    warnings: Vec<String>,
    /// Said first where a handshake fails: what was configured and is not there.
    absent: Option<String>,
    certificate_is_redundant: bool,
    refusals: Refusals,
}

/// A certificate of the bundle, with the source that held it first.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// Its DER.
    pub der: CertificateDer<'static>,
    /// What it says of itself.
    pub certificate: Certificate,
    /// The name of its source.
    pub source: String,
}

/// The kinds of places that certificates come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The entry's `certificate`.
    Certificate,
    /// `ca_bundle` or `AWS_CA_BUNDLE`.
    CaBundle,
    /// The mounted CA ConfigMap.
    ConfigMap,
    /// The system's roots.
    System,
}

/// One place that certificates were looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What kind of place.
    pub kind: SourceKind,
    /// Its name in messages.
    pub name: String,
    /// How many certificates it held, each counted once.
    pub certificates: usize,
}

/// Why there is no trust store.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// There is content, and no certificate in it.
    #[error("no CA source holds a usable certificate: {}", .0.join("; "))]
    NothingUsable(Vec<String>),
    /// `bundle-only` without a bundle.
    #[error("TRUST_STORE=bundle-only, but there is no CA bundle: set \"certificate\", \"ca_bundle\" or \"cabundle_configmap\" in the storage-config entry, or mount the CA ConfigMap at {}", .0.display())]
    NoBundle(PathBuf),
    /// rustls did not take the configuration.
    #[error("the TLS client cannot be set up")]
    Client(#[source] rustls::Error),
}

/// Certificates and complaints of one source while it is read.
struct Reading {
    kind: SourceKind,
    name: String,
    certificates: Vec<CertificateDer<'static>>,
    /// Repairs and skipped blocks, or why the source cannot be read at all.
    complaints: Vec<String>,
}

impl TrustStore {
    /// Reads every source of `trust`.
    ///
    /// # Errors
    ///
    /// [`TrustError::NothingUsable`] where there is content and no certificate in it;
    /// [`TrustError::NoBundle`] where only a bundle is to be trusted and there is none.
    pub fn read(trust: &Trust) -> Result<Self, TrustError> {
        let mut store = Self::empty(trust.verify.value);
        if !store.verify {
            store.warn_of_no_verification(trust);
            return Ok(store);
        }
        let now = UnixTime::now();
        let readings = store.read_bundle_sources(trust);
        let broken: Vec<String> = readings
            .iter()
            .filter(|reading| reading.certificates.is_empty())
            .flat_map(|reading| {
                let name = &reading.name;
                reading.complaints.iter().map(move |what| format!("{name}: {what}"))
            })
            .collect();
        store.certificate_is_redundant = is_certificate_redundant(&readings);
        for reading in readings {
            store.take(reading, now);
        }
        if store.bundle.is_empty() && !broken.is_empty() {
            return Err(TrustError::NothingUsable(broken));
        }
        match trust.mode.value {
            TrustMode::Combined => store.add_system_roots(trust),
            TrustMode::BundleOnly if store.bundle.is_empty() => {
                return Err(TrustError::NoBundle(trust.configmap_dir.value.clone()));
            }
            TrustMode::BundleOnly => {}
        }
        Ok(store)
    }

    /// The system's roots alone: what public services such as STS are verified with beside the
    /// bundle.
    pub fn with_system_roots(mut self, trust: &Trust) -> Self {
        self.refusals = Refusals::default();
        if self.system.is_empty() {
            self.verify = true;
            self.add_system_roots(trust);
        }
        self
    }

    /// A store without a single certificate, for `http://` endpoints and as a beginning.
    pub fn empty(verify: bool) -> Self {
        Self {
            bundle: Vec::new(),
            system: Vec::new(),
            sources: Vec::new(),
            verify,
            warnings: Vec::new(),
            absent: None,
            certificate_is_redundant: false,
            refusals: Refusals::default(),
        }
    }

    /// A rustls client that trusts this store: HTTP/1.1 only, because HTTP/2 would put every range
    /// of an object on one connection; AES-128-GCM first, because it is the fastest where the
    /// processor helps.
    ///
    /// # Errors
    ///
    /// [`TrustError::Client`] where rustls refuses the protocol versions, which no store causes.
    pub fn client_config(&self) -> Result<ClientConfig, TrustError> {
        let provider = crypto_provider();
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(TrustError::Client)?
            .dangerous();
        let mut config = if self.verify {
            builder.with_custom_certificate_verifier(Arc::new(verifier::AnchorOrPin {
                anchors: self.anchors(),
                pins: self.bundle.iter().map(|held| held.der.clone()).collect(),
                algorithms,
                refusals: self.refusals.clone(),
            }))
        } else {
            builder.with_custom_certificate_verifier(Arc::new(verifier::Unverified { algorithms }))
        }
        .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// What is accepted and worth cleaning up.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where certificates were looked for and how many each place held.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Whether the ConfigMap holds every certificate of the entry's `certificate`, so that the
    /// field can go once no ModelMesh reads the Secret.
    pub fn is_certificate_redundant(&self) -> bool {
        self.certificate_is_redundant
    }

    /// The certificates of the bundle, without the system's.
    pub fn bundle(&self) -> &[Trusted] {
        &self.bundle
    }

    /// Server certificates that clients of this store did not accept.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    fn anchors(&self) -> RootCertStore {
        let now = UnixTime::now();
        let mut anchors = RootCertStore::empty();
        let issuers = self.bundle.iter().filter(|held| is_anchor(&held.certificate, now)).map(|held| held.der.clone());
        // Certificates that webpki cannot use as anchors are of no use as such; as pins they stay.
        anchors.add_parsable_certificates(issuers.chain(self.system.iter().cloned()));
        anchors
    }

    fn warn_of_no_verification(&mut self, trust: &Trust) {
        let ca = if trust.certificate.is_some() || trust.ca_bundle.is_some() {
            "; the CA that is configured is not used"
        } else {
            ""
        };
        self.warnings.push(format!(
            "the server's certificate is NOT verified ({}){ca}: anyone in between can read the keys and change the model",
            trust.verify.origin
        ));
    }

    fn read_bundle_sources(&mut self, trust: &Trust) -> Vec<Reading> {
        let configmap = self.read_configmap(trust);
        let mounted = configmap.as_ref().is_some_and(|reading| !reading.certificates.is_empty());
        let mut readings = Vec::new();
        if let Some(certificate) = &trust.certificate {
            readings.push(self.read_certificate(certificate));
        }
        if let Some(bundle) = &trust.ca_bundle {
            readings.extend(self.read_ca_bundle(bundle, mounted));
        }
        readings.extend(configmap);
        readings
    }

    fn read_certificate(&mut self, certificate: &Sourced<String>) -> Reading {
        let text = certificate.value.trim();
        if !is_path(text) {
            return Reading::of_content(
                SourceKind::Certificate,
                certificate.origin.to_string(),
                certificate.value.as_bytes(),
            );
        }
        self.warnings.push(format!(
            "{}: a path, as KServe until 0.12.0 had it; KServe now wants it as \"ca_bundle\", and ModelMesh wants the PEM text here",
            certificate.origin
        ));
        Reading::of_path(SourceKind::Certificate, format!("{} -> {text}", certificate.origin), Path::new(text))
    }

    fn read_ca_bundle(&mut self, bundle: &Sourced<String>, mounted: bool) -> Option<Reading> {
        let name = bundle.origin.to_string();
        if bundle.value.contains("-----BEGIN") {
            self.warnings.push(format!(
                "{name}: PEM text where a path belongs; it is used, but KServe wants a path here and the text belongs in \"certificate\" or in the ConfigMap"
            ));
            let content = bundle.value.as_bytes();
            return Some(Reading::of_content(SourceKind::CaBundle, name, content));
        }
        let path = Path::new(bundle.value.trim());
        // KServe's webhook never sees the JSON's ca_bundle: it mounts its default directory.
        if mounted && !path.exists() {
            self.warnings
                .push(format!("{name}: {} does not exist; using the mounted CA ConfigMap instead", path.display()));
            return None;
        }
        let name = format!("{name} -> {}", path.display());
        Some(Reading::of_path(SourceKind::CaBundle, name, path))
    }

    fn read_configmap(&mut self, trust: &Trust) -> Option<Reading> {
        let directory = &trust.configmap_dir.value;
        let named = trust.configmap_name.as_ref().map(|name| format!("ConfigMap {:?} ({})", name.value, name.origin));
        match Mount::read(directory) {
            Ok(mount) if !mount.is_empty() => Some(Reading::of_configmap(&mount)),
            Ok(_) | Err(MountError::Missing(_)) => {
                if let Some(named) = named {
                    let absent = format!("{named} is named, but nothing is mounted at {}", directory.display());
                    self.warnings.push(absent.clone());
                    self.absent = Some(absent);
                }
                self.sources.push(Source {
                    kind: SourceKind::ConfigMap,
                    name: format!("CA ConfigMap at {} (not mounted)", directory.display()),
                    certificates: 0,
                });
                None
            }
            Err(error) => Some(Reading::unusable(
                SourceKind::ConfigMap,
                format!("CA ConfigMap at {}", directory.display()),
                error.to_string(),
            )),
        }
    }

    /// Takes what a source held: each certificate once, in the order of the sources.
    fn take(&mut self, reading: Reading, now: UnixTime) {
        for complaint in &reading.complaints {
            self.warnings.push(format!("{}: {complaint}", reading.name));
        }
        let mut distinct = 0;
        for der in reading.certificates {
            let Some(certificate) = Certificate::parse(&der) else {
                continue;
            };
            distinct += 1;
            if self.bundle.iter().any(|held| held.der == der) {
                continue;
            }
            if let Some(unfit) = unfit_as_anchor(&certificate, now) {
                self.warnings.push(format!("{}: {:?} {unfit}", reading.name, certificate.subject));
            }
            self.bundle.push(Trusted { der, certificate, source: reading.name.clone() });
        }
        self.sources.push(Source { kind: reading.kind, name: reading.name, certificates: distinct });
    }

    fn add_system_roots(&mut self, trust: &Trust) {
        let reading = system_roots(trust);
        self.sources.push(Source { kind: reading.kind, name: reading.name, certificates: reading.certificates.len() });
        self.system = reading.certificates;
    }
}

impl Reading {
    fn of_content(kind: SourceKind, name: String, content: &[u8]) -> Self {
        let bundle = ca_bundle::scan(content);
        Self {
            kind,
            name,
            certificates: bundle.certificates.into_iter().map(|found| found.der).collect(),
            complaints: bundle.remarks.iter().map(ToString::to_string).collect(),
        }
    }

    fn of_path(kind: SourceKind, name: String, path: &Path) -> Self {
        if path.is_dir() {
            return match Mount::read(path) {
                Ok(mount) => Self::of_directory(kind, name, &mount),
                Err(error) => Self::unusable(kind, name, error.to_string()),
            };
        }
        match std::fs::read(path) {
            Ok(content) => Self::of_content(kind, name, &content),
            Err(error) => Self::unusable(kind, name, unreadable_file(path, &error)),
        }
    }

    fn of_configmap(mount: &Mount) -> Self {
        let name = format!("CA ConfigMap at {}", mount.directory().display());
        Self::of_directory(SourceKind::ConfigMap, name, mount)
    }

    /// `cabundle.crt` if there is one; else the keys that other systems use; else every file that
    /// looks like a certificate by its name.
    fn of_directory(kind: SourceKind, name: String, mount: &Mount) -> Self {
        let keys = bundle_keys(mount);
        if keys.is_empty() {
            let present: Vec<&str> = mount.keys().collect();
            let complaint =
                format!("no key {CONFIGMAP_KEY:?}, and no .crt, .pem or .cer; it has: {}", present.join(", "));
            return Self::unusable(kind, name, complaint);
        }
        let mut whole = Self { kind, name, certificates: Vec::new(), complaints: Vec::new() };
        for key in keys {
            let bundle = ca_bundle::scan(mount.file(key).unwrap_or_default());
            whole.certificates.extend(bundle.certificates.into_iter().map(|found| found.der));
            whole.complaints.extend(bundle.remarks.iter().map(|remark| format!("{key}: {remark}")));
        }
        whole
    }

    fn unusable(kind: SourceKind, name: String, complaint: String) -> Self {
        Self { kind, name, certificates: Vec::new(), complaints: vec![complaint] }
    }
}

/// The keys of a mounted directory that hold the CA bundle.
fn bundle_keys(mount: &Mount) -> Vec<&str> {
    if mount.file(CONFIGMAP_KEY).is_some() {
        return vec![CONFIGMAP_KEY];
    }
    let known: Vec<&str> = KNOWN_KEYS.into_iter().filter(|key| mount.file(key).is_some()).collect();
    if known.is_empty() { mount.keys().filter(|key| is_certificate_file(key)).collect() } else { known }
}

/// Whether the ConfigMap holds every certificate of the entry's `certificate`.
fn is_certificate_redundant(readings: &[Reading]) -> bool {
    let held =
        |kind| readings.iter().filter(move |reading| reading.kind == kind).flat_map(|reading| &reading.certificates);
    held(SourceKind::Certificate).next().is_some()
        && held(SourceKind::Certificate).all(|der| held(SourceKind::ConfigMap).any(|other| other == der))
}

/// aws-lc-rs with AES-128-GCM in front of the other suites of each protocol version.
fn crypto_provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128_GCM"));
    provider
}

/// Whether the certificate may stand at the end of a chain at `now`.
fn is_anchor(certificate: &Certificate, now: UnixTime) -> bool {
    certificate.validity_at(now) == Validity::InDate && certificate.ca == CaUse::Issuer
}

/// Why a certificate that was meant as a CA is none, where that is worth a warning: a certificate
/// without `CA:TRUE` may well be meant as a pin.
fn unfit_as_anchor(certificate: &Certificate, now: UnixTime) -> Option<String> {
    let not_after = certificate::date(certificate.not_after);
    let not_before = certificate::date(certificate.not_before);
    match (certificate.validity_at(now), certificate.ca) {
        (Validity::Expired, _) => Some(format!(
            "expired at {not_after} and is not trusted; replace it"
        )),
        (Validity::NotYetValid, _) => Some(format!(
            "is valid only from {not_before} and is not trusted yet; check the clock"
        )),
        (Validity::InDate, CaUse::NoKeyCertSign) => Some(
            "has a key usage without keyCertSign, so no certificate that it issued is trusted; reissue the CA with keyCertSign".to_owned(),
        ),
        (Validity::InDate, CaUse::NotACa | CaUse::Issuer) => None,
    }
}

/// `certificate` as KServe had it until 0.12.0: the path of a file.
fn is_path(text: &str) -> bool {
    !text.contains('\n')
        && !text.contains("-----BEGIN")
        && text.len() < 4096
        && (text.starts_with('/') || is_certificate_file(text))
}

fn is_certificate_file(name: &str) -> bool {
    [".crt", ".pem", ".cer"].iter().any(|ending| name.ends_with(ending))
}

fn unreadable_file(path: &Path, error: &std::io::Error) -> String {
    if error.kind() != std::io::ErrorKind::NotFound {
        return format!("{} cannot be read: {error}", path.display());
    }
    // A ConfigMap under another key is the usual cause; the names beside it tell.
    let beside = path.parent().and_then(|parent| Mount::read(parent).ok());
    match beside {
        Some(mount) if !mount.is_empty() => {
            let keys: Vec<&str> = mount.keys().take(10).collect();
            format!("{} does not exist; beside it there are: {}", path.display(), keys.join(", "))
        }
        _ => format!("{} does not exist; is the volume mounted?", path.display()),
    }
}

/// The system's roots: `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set (as OpenSSL has it),
/// else the distribution's file, else those compiled into this program.
fn system_roots(trust: &Trust) -> Reading {
    if trust.system_file.is_some() || !trust.system_dirs.is_empty() {
        let mut roots = Vec::new();
        let mut names = Vec::new();
        if let Some(file) = &trust.system_file {
            names.push(format!("SSL_CERT_FILE {}", file.display()));
            roots.extend(std::fs::read(file).ok());
        } else {
            for directory in &trust.system_dirs {
                names.push(format!("SSL_CERT_DIR {}", directory.display()));
                let mount = Mount::read(directory).unwrap_or_default();
                roots.extend(mount.files().map(|(_, content)| content.to_vec()));
            }
        }
        return system_reading(names.join(", "), &roots);
    }
    for file in SYSTEM_FILES {
        if let Ok(content) = std::fs::read(file) {
            return system_reading(file.to_owned(), &[content]);
        }
    }
    compiled_in_roots()
}

fn system_reading(name: String, contents: &[Vec<u8>]) -> Reading {
    let mut certificates: Vec<CertificateDer<'static>> =
        contents.iter().flat_map(|content| ca_bundle::scan(content).certificates).map(|found| found.der).collect();
    certificates.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
    certificates.dedup();
    Reading { kind: SourceKind::System, name: format!("system roots ({name})"), certificates, complaints: Vec::new() }
}

/// The roots of Mozilla's programme, for an image without a root file.
fn compiled_in_roots() -> Reading {
    Reading {
        kind: SourceKind::System,
        name: "system roots (compiled in)".to_owned(),
        certificates: webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec(),
        complaints: Vec::new(),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.certificates)
    }
}
