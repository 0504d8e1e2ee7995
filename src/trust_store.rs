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
//! webpki by itself checks neither of an anchor. Every certificate is also a *pin*:
//! `trust_store::verifier` accepts it as the server's own. That holds for the system's too, because
//! `SSL_CERT_FILE` is where many put the one certificate of their store.

mod anchor;
pub mod ca_bundle;
mod certificate;
mod explain;
mod source;
mod verifier;

use std::{
    collections::HashSet,
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
use anchor::{SystemRoots, Unfit, is_anchor};
pub use certificate::{CaUse, Certificate, Validity};
pub use explain::explain;
pub use source::{CONFIGMAP_KEY, Source, SourceKind, is_path};
use source::{Reading, bundle_keys, holds_a_certificate, in_words, system_roots};
use verifier::AnchorOrPin;
pub use verifier::{Handshakes, Refusal};

/// Whom a TLS client believes, and where each certificate came from.
#[derive(Clone, Debug)]
pub struct TrustStore {
    bundle: Vec<Trusted>,
    system: SystemRoots,
    /// The system's roots where `bundle-only` leaves them out: to explain, and for public services.
    left_out: SystemRoots,
    sources: Vec<Source>,
    verify: bool,
    warnings: Vec<String>,
    /// Said first where a handshake fails: what was configured and is not there.
    absent: Option<String>,
    certificate_is_redundant: bool,
    handshakes: Handshakes,
}

/// What is worth knowing where the ConfigMap holds everything that the Secret holds.
pub const REDUNDANT_CERTIFICATE: &str = "the CA ConfigMap holds everything that \"certificate\" holds: the field can go once no ModelMesh reads this Secret";

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

impl Trusted {
    /// Whether it may stand at the end of a chain at `now`; if not, it is a pin alone.
    pub fn is_anchor_at(&self, now: UnixTime) -> bool {
        is_anchor(&self.certificate, now)
    }

    /// Whether `now` lies between its dates.
    pub fn is_in_date_at(&self, now: UnixTime) -> bool {
        self.certificate.validity_at(now) == Validity::InDate
    }
}

/// Why there is no trust store.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// There is content, and no certificate in it.
    #[error("no CA source holds a usable certificate: {}", .0.join("; "))]
    NothingUsable(Vec<String>),
    /// `bundle-only` without a bundle.
    #[error("{}TRUST_STORE=bundle-only, but there is no CA bundle; set \"certificate\", \"ca_bundle\" or \"cabundle_configmap\" in the storage-config entry, or mount the CA ConfigMap at {}", .absent.as_ref().map_or(String::new(), |absent| format!("{absent}; ")), .directory.display())]
    NoBundle {
        /// What was configured and is not there.
        absent: Option<String>,
        /// Where the CA ConfigMap would be mounted.
        directory: PathBuf,
    },
    /// rustls did not take the configuration.
    #[error("the TLS client cannot be set up")]
    Client(#[source] rustls::Error),
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
        store.warn_of_servers(now);
        match trust.mode.value {
            TrustMode::Combined => store.add_system_roots(trust, now),
            TrustMode::BundleOnly if store.bundle.is_empty() => {
                let directory = trust.configmap_dir.value.clone();
                return Err(TrustError::NoBundle { absent: store.absent, directory });
            }
            // What is wrong with roots that are not used is nobody's business.
            TrustMode::BundleOnly => store.left_out = SystemRoots::of(system_roots(trust).certificates, now),
        }
        Ok(store)
    }

    /// The system's roots alone: what public services such as STS are verified with beside the
    /// bundle.
    pub fn with_system_roots(mut self, trust: &Trust) -> Self {
        self.handshakes = Handshakes::default();
        if self.system.pins.is_empty() {
            self.verify = true;
            self.add_system_roots(trust, UnixTime::now());
        }
        self
    }

    /// A store without a single certificate, for an `http://` endpoint.
    pub fn of_plain_http(trust: &Trust) -> Self {
        let mut store = Self::empty(true);
        if trust.certificate.is_some() || trust.ca_bundle.is_some() || trust.configmap_name.is_some() {
            store.warnings.push(
                "the endpoint is http://, so the CA that is configured is not used; write https:// if the store speaks TLS"
                    .to_owned(),
            );
        }
        store
    }

    fn empty(verify: bool) -> Self {
        Self {
            bundle: Vec::new(),
            system: SystemRoots::default(),
            left_out: SystemRoots::default(),
            sources: Vec::new(),
            verify,
            warnings: Vec::new(),
            absent: None,
            certificate_is_redundant: false,
            handshakes: Handshakes::default(),
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
            let verifier =
                AnchorOrPin { handshakes: self.handshakes.clone(), ..self.verifier_of(&self.bundle, &self.system) };
            builder.with_custom_certificate_verifier(Arc::new(verifier))
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

    /// How handshakes of clients of this store ended.
    pub fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// The certificate that a server presented last and that was accepted, in words.
    pub fn last_accepted(&self) -> Option<String> {
        let accepted = self.handshakes.last_accepted()?;
        let certificate = Certificate::parse(&accepted.certificate)?;
        let by = if accepted.is_pinned {
            "trusted as it is, an exact pin".to_owned()
        } else {
            format!("issued by {:?}", certificate.issuer)
        };
        let until = certificate.not_after_date();
        Some(format!("the server presented {:?} ({by}, valid until {until})", certificate.subject))
    }

    /// The bundle's certificates and the system's: for messages, because it parses the latter.
    fn everything(&self) -> Vec<Trusted> {
        let system = self.sources.iter().find(|source| source.kind == SourceKind::System);
        let system = system.map_or(String::new(), |source| source.name.clone());
        let roots = self.system.pins.iter().filter_map(|der| {
            let certificate = Certificate::parse(der)?;
            Some(Trusted { der: der.clone(), certificate, source: system.clone() })
        });
        self.bundle.iter().cloned().chain(roots).collect()
    }

    /// A verifier that trusts these alone, and keeps its handshakes to itself.
    fn verifier_of(&self, bundle: &[Trusted], system: &SystemRoots) -> AnchorOrPin {
        let now = UnixTime::now();
        let issuers = bundle.iter().filter(|held| is_anchor(&held.certificate, now)).map(|held| &held.der);
        let mut anchors = RootCertStore::empty();
        // Certificates that webpki cannot use as anchors are of no use as such; as pins they stay.
        anchors.add_parsable_certificates(issuers.chain(&system.anchors).cloned());
        AnchorOrPin {
            anchors,
            pins: bundle.iter().map(|held| &held.der).chain(&system.pins).cloned().collect(),
            algorithms: aws_lc_rs::default_provider().signature_verification_algorithms,
            handshakes: Handshakes::default(),
        }
    }

    fn warn_of_no_verification(&mut self, trust: &Trust) {
        let ca = if trust.certificate.is_some() || trust.ca_bundle.is_some() || trust.configmap_name.is_some() {
            "; the CA that is configured is not used"
        } else {
            ""
        };
        self.warnings.push(format!(
            "the server's certificate is NOT verified ({}): anyone in between can read the keys and change the model{ca}",
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
        if holds_a_certificate(&bundle.value) {
            self.warnings.push(format!(
                "{name}: PEM text where a path belongs; it is used, but KServe wants a path here and the text belongs in \"certificate\" or in the ConfigMap"
            ));
            let content = bundle.value.as_bytes();
            return Some(Reading::of_content(SourceKind::CaBundle, name, content));
        }
        let path = Path::new(bundle.value.trim());
        // KServe's webhook never sees the JSON's ca_bundle: it mounts its default directory.
        if mounted && !path.try_exists().unwrap_or(true) {
            self.warnings
                .push(format!("{name}: {} does not exist; using the mounted CA ConfigMap instead", path.display()));
            return None;
        }
        let name = format!("{name} -> {}", path.display());
        Some(Reading::of_path(SourceKind::CaBundle, name, path))
    }

    fn read_configmap(&mut self, trust: &Trust) -> Option<Reading> {
        let directory = trust.configmap_dir.value.as_path();
        let name = format!("CA ConfigMap at {}", directory.display());
        let why = match Mount::read_keys(directory, bundle_keys) {
            Ok(mount) if !mount.is_empty() => return Some(Reading::of_directory(SourceKind::ConfigMap, name, &mount)),
            Ok(_) => Absence::Empty,
            Err(MountError::Missing(_)) => Absence::NotMounted,
            Err(error) => return Some(Reading::unusable(SourceKind::ConfigMap, name, in_words(&error))),
        };
        if let Some(named) = &trust.configmap_name {
            let absent = format!("{} names ConfigMap {:?}, but {}", named.origin, named.value, why.in_words(directory));
            self.warnings.push(absent.clone());
            self.absent = Some(absent);
        }
        let name = match why {
            Absence::Empty => format!("{name} (empty)"),
            Absence::NotMounted => format!("{name} (not mounted)"),
        };
        self.sources.push(Source { kind: SourceKind::ConfigMap, name, keys: None, certificates: 0 });
        None
    }

    /// Takes what a source held: each certificate once, in the order of the sources.
    fn take(&mut self, mut reading: Reading, now: UnixTime) {
        for complaint in &reading.complaints {
            self.warnings.push(format!("{}: {complaint}", reading.name));
        }
        let mut distinct = HashSet::new();
        let mut unfit: Vec<(Unfit, Vec<String>)> = Vec::new();
        for der in std::mem::take(&mut reading.certificates) {
            let Some(certificate) = Certificate::parse(&der) else {
                continue;
            };
            distinct.insert(der.clone());
            if self.bundle.iter().any(|held| held.der == der) {
                continue;
            }
            if let Some(why) = Unfit::of(&certificate, now) {
                let named = why.named(&certificate);
                match unfit.iter_mut().find(|(known, _)| *known == why) {
                    Some((_, names)) => names.push(named),
                    None => unfit.push((why, vec![named])),
                }
            }
            self.bundle.push(Trusted { der, certificate, source: reading.name.clone() });
        }
        // One line for each fault: a bundle of 500 CAs may well hold 50 that have expired.
        for (why, names) in unfit {
            let (what, advice) = why.in_words();
            self.warnings.push(format!("{}: {what}: {}; {advice}", reading.name, first_few(&names, FEW)));
        }
        let Reading { kind, name, keys, .. } = reading;
        self.sources.push(Source { kind, name, keys, certificates: distinct.len() });
    }

    /// A server's own certificate in the bundle works until it is renewed; its CA would outlast it.
    fn warn_of_servers(&mut self, now: UnixTime) {
        let servers: Vec<String> = self
            .bundle
            .iter()
            .filter(|server| {
                let certificate = &server.certificate;
                certificate.ca == CaUse::NotACa
                    && !certificate.is_self_issued()
                    && certificate.validity_at(now) == Validity::InDate
                    && !self.bundle.iter().any(|other| certificate.names_as_issuer(&other.certificate))
            })
            .map(|server| {
                let Certificate { subject, issuer, .. } = &server.certificate;
                let until = server.certificate.not_after_date();
                format!(
                    "{}: {subject:?} is a server's own certificate and no CA: that one server is trusted, until it is renewed ({until} at the latest); put the CA {issuer:?} there instead",
                    server.source
                )
            })
            .collect();
        self.warnings.extend(servers);
    }

    fn add_system_roots(&mut self, trust: &Trust, now: UnixTime) {
        let reading = system_roots(trust);
        for complaint in &reading.complaints {
            self.warnings.push(complaint.clone());
        }
        let Reading { kind, name, keys, certificates, .. } = reading;
        self.sources.push(Source { kind, name, keys, certificates: certificates.len() });
        self.system = SystemRoots::of(certificates, now);
    }
}

/// Why a ConfigMap that was named is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    /// No such directory.
    NotMounted,
    /// A directory without keys, as Kubernetes makes it for an optional ConfigMap that does not
    /// exist.
    Empty,
}

impl Absence {
    fn in_words(self, directory: &Path) -> String {
        let directory = directory.display();
        match self {
            Self::NotMounted => format!(
                "nothing is mounted at {directory}; mount it there, or say with env CA_BUNDLE_VOLUME_MOUNT_POINT where it is"
            ),
            Self::Empty => {
                format!("{directory} is empty: there is no such ConfigMap in this pod's namespace, or it has no keys")
            }
        }
    }
}

/// How many certificates a message names: their subjects are long.
const FEW: usize = 3;

/// The first `count` of a list, and how many more there are.
fn first_few(names: &[String], count: usize) -> String {
    let few = names.iter().take(count).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(count).filter(|more| *more > 0) {
        Some(more) => format!("{few} and {more} more"),
        None => few,
    }
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
