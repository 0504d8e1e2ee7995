//! `storage-initializer check`: resolves everything as a download would, probes each step, and downloads nothing.
//!
//! The steps come in the order in which a download meets them: settings, volume, trust store, name, connection, TLS,
//! credentials, objects, space. The first that fails ends the check, with the very error that the download would end with;
//! what comes after it could only repeat the same news. Where a download would wait for what may still come up, a check
//! gives its verdict at once.

mod manifests;

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rustls::pki_types::UnixTime;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    check_volumes, connect,
    env::Environment,
    error::Error,
    http::Http,
    plan::{self, PlanError},
    read_trust,
    s3::S3,
    settings::{Effective, Settings, Sourced},
    trust_store::{REDUNDANT_CERTIFICATE, TrustStore},
    units::{ByteSize, TimeSpan},
    volume::{self, FreeSpace},
};
pub use manifests::{Finding, ManifestCheck, Severity, check_manifests};

/// Certificates that end sooner are worth a line.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// What was found out.
#[derive(Debug, Default)]
pub struct Check {
    /// Every setting that is in force.
    pub settings: Vec<Effective>,
    /// Where CA certificates were looked for, and how many each place held.
    pub sources: Vec<String>,
    /// The certificates of the bundle.
    pub certificates: Vec<HeldCertificate>,
    /// What was tried, in order.
    pub steps: Vec<Step>,
    /// What works here and may not elsewhere, and what is worth cleaning up.
    pub advice: Vec<String>,
    /// Why the download would fail.
    pub error: Option<Error>,
}

/// A certificate of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldCertificate {
    /// Its subject.
    pub subject: String,
    /// SHA-256 of its DER.
    pub sha256: String,
    /// The end of its life, RFC 3339.
    pub not_after: String,
    /// `anchor` (it may issue others) or `pin` (only a server that presents it is trusted).
    pub used_as: &'static str,
    /// Where it was read.
    pub source: String,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `settings`, `volume`, `trust`, `dns`, `tcp`, `tls`, `credentials`, `objects` or `space`.
    pub name: &'static str,
    /// Whether it went well.
    pub is_ok: bool,
    /// What was found, or why it failed.
    pub detail: String,
    /// How long it took.
    pub elapsed: Duration,
}

/// Resolves and probes everything that a download of these arguments would need.
pub async fn check(environment: &Environment, arguments: &[String]) -> Check {
    let mut check = Check::default();
    let started = Instant::now();
    let mut settings = match Settings::read(environment, arguments) {
        Ok(settings) => settings,
        Err(error) => {
            check.fail("settings", started, error.into());
            return check;
        }
    };
    settings.limits.max_attempts.get_or_insert(Sourced::default(1));
    check.settings = settings.effective();
    check.advice.clone_from(&settings.warnings);
    check.advice.extend(settings.portability.iter().cloned());
    // The steps that failed are in the report already.
    let _: Option<()> = check.probe(&settings).await;
    check
}

impl Check {
    /// The exit code: the one that the download would have.
    pub fn exit_code(&self) -> u8 {
        self.error.as_ref().map_or(0, Error::exit_code)
    }

    /// Everything as JSON, for machines. Durations are seconds.
    pub fn to_json(&self) -> Value {
        json!({
            "settings": self.settings.iter().map(|row| json!({
                "name": row.name, "value": row.value, "origin": row.origin,
            })).collect::<Vec<_>>(),
            "trust_store": {
                "sources": self.sources,
                "certificates": self.certificates.iter().map(|held| json!({
                    "subject": held.subject, "sha256": held.sha256, "not_after": held.not_after,
                    "used_as": held.used_as, "source": held.source,
                })).collect::<Vec<_>>(),
            },
            "steps": self.steps.iter().map(|step| json!({
                "name": step.name, "ok": step.is_ok, "detail": step.detail,
                "seconds": step.elapsed.as_secs_f64(),
            })).collect::<Vec<_>>(),
            "advice": self.advice,
            "exit_code": self.exit_code(),
            "error": self.error.as_ref().map(Error::one_line),
        })
    }

    /// All steps behind the settings; `None` after the first that failed.
    async fn probe(&mut self, settings: &Settings) -> Option<()> {
        let spaces = self.volumes(settings)?;
        let trust_store = self.trust(settings)?;
        self.route(settings, &trust_store).await?;
        let started = Instant::now();
        let store = self.keep("credentials", started, connect(settings, trust_store).await)?;
        self.pass("credentials", started, store.identity().to_owned());
        self.objects(settings, &store, spaces).await
    }

    fn volumes(&mut self, settings: &Settings) -> Option<Vec<FreeSpace>> {
        let mut spaces: Vec<FreeSpace> = Vec::new();
        for download in &settings.downloads {
            let started = Instant::now();
            let space = self.keep("volume", started, volume::probe(&download.destination))?;
            let free = space.available_bytes.map_or("unknown".to_owned(), |bytes| ByteSize(bytes).to_string());
            self.pass("volume", started, format!("{} can be written, {free} free", download.destination.display()));
            // The plan has each destination once, in this order.
            let first = settings.downloads.iter().find(|other| other.destination == download.destination);
            if first.is_some_and(|first| std::ptr::eq(first, download)) {
                spaces.push(space);
            }
        }
        Some(spaces)
    }

    fn trust(&mut self, settings: &Settings) -> Option<TrustStore> {
        let started = Instant::now();
        let store = self.keep("trust", started, read_trust(settings))?;
        let now = UnixTime::now();
        let soon = expires_soon(now);
        self.advice.extend(store.warnings().iter().cloned());
        if store.is_certificate_redundant() {
            self.advice.push(REDUNDANT_CERTIFICATE.to_owned());
        }
        for held in store.bundle() {
            let certificate = &held.certificate;
            if held.is_in_date_at(now) && !held.is_in_date_at(soon) {
                self.advice.push(format!(
                    "{}: {:?} expires within 30 days, at {}",
                    held.source,
                    certificate.subject,
                    certificate.not_after_date()
                ));
            }
            self.certificates.push(HeldCertificate {
                subject: certificate.subject.clone(),
                sha256: certificate.sha256.clone(),
                not_after: certificate.not_after_date(),
                used_as: if held.is_anchor_at(now) { "anchor" } else { "pin" },
                source: held.source.clone(),
            });
        }
        self.sources = store.sources().iter().map(ToString::to_string).collect();
        let what = if settings.connection.is_tls() {
            format!("{} certificates in the bundle, {} sources", self.certificates.len(), self.sources.len())
        } else {
            "not needed, the endpoint is http://".to_owned()
        };
        self.pass("trust", started, what);
        Some(store)
    }

    /// Name, connection and TLS, each by itself. What fails here is not the verdict yet: the first request is, in the words
    /// of the download.
    async fn route(&mut self, settings: &Settings, trust_store: &TrustStore) -> Option<()> {
        // Without an address to ask there are only the objects to tell.
        let Some(url) = settings.connection.probe_url() else { return Some(()) };
        let started = Instant::now();
        let http = self.keep("client", started, Http::new(trust_store.clone(), &settings.limits))?;
        if let Some(proxy) = http.proxy_for(&url) {
            self.pass("proxy", started, format!("{url} is reached through {proxy}"));
        } else if let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default())
            && let Some(address) = self.resolve(host.trim_matches(['[', ']']), port).await
        {
            self.dial(address, settings.limits.connect_timeout.value).await;
        }
        if settings.connection.is_tls() {
            let started = Instant::now();
            if let Err(error) = http.probe(&url).await {
                self.note_failure("tls", started, error.to_string());
            } else {
                let accepted = trust_store.last_accepted().unwrap_or_else(|| "certificate not verified".to_owned());
                self.pass("tls", started, accepted);
            }
        }
        Some(())
    }

    async fn resolve(&mut self, host: &str, port: u16) -> Option<SocketAddr> {
        let started = Instant::now();
        let addresses: Vec<SocketAddr> = match tokio::net::lookup_host((host, port)).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                self.note_failure("dns", started, format!("{host}: {error}"));
                Vec::new()
            }
        };
        let shown: Vec<String> = addresses.iter().take(4).map(|address| address.ip().to_string()).collect();
        if !addresses.is_empty() {
            self.pass("dns", started, format!("{host} is {}", shown.join(", ")));
        }
        addresses.first().copied()
    }

    async fn dial(&mut self, address: SocketAddr, timeout: Duration) {
        let started = Instant::now();
        match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
            Ok(Ok(_)) => self.pass("tcp", started, format!("{address} accepts connections")),
            Ok(Err(error)) => self.note_failure("tcp", started, format!("{address}: {error}")),
            Err(_) => {
                self.note_failure("tcp", started, format!("{address}: no answer within {} s", timeout.as_secs_f32()))
            }
        }
    }

    async fn objects(&mut self, settings: &Settings, store: &S3, spaces: Vec<FreeSpace>) -> Option<()> {
        let started = Instant::now();
        let plan = plan::plan(store, &settings.downloads, &settings.filter, |_| Ok::<_, PlanError>(())).await;
        let plan = self.keep("objects", started, plan)?;
        let (objects, size) = (plan.files.len(), ByteSize(plan.total_bytes()));
        let plural = if objects == 1 { "" } else { "s" };
        self.pass("objects", started, format!("{objects} object{plural}, {size}, at {}", store.endpoint()));
        let started = Instant::now();
        self.keep("space", started, check_volumes(&plan, spaces))?;
        self.pass("space", started, "the model fits".to_owned());
        Some(())
    }

    fn pass(&mut self, name: &'static str, started: Instant, detail: String) {
        self.steps.push(Step { name, is_ok: true, detail, elapsed: started.elapsed() });
    }

    fn note_failure(&mut self, name: &'static str, started: Instant, detail: String) {
        self.steps.push(Step { name, is_ok: false, detail, elapsed: started.elapsed() });
    }

    fn fail(&mut self, name: &'static str, started: Instant, error: Error) {
        self.note_failure(name, started, error.one_line());
        self.error = Some(error);
    }

    /// The value, or the end of the check.
    fn keep<T, E: Into<Error>>(&mut self, name: &'static str, started: Instant, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.fail(name, started, error.into())).ok()
    }
}

/// The moment until which a certificate should last.
fn expires_soon(now: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + EXPIRES_SOON)
}

/// The report for people: settings, trust store, steps, advice, verdict.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.settings.is_empty() {
            writeln!(f, "settings")?;
        }
        for Effective { name, value, origin } in &self.settings {
            writeln!(f, "  {name:<28} {value}  ({origin})")?;
        }
        if !self.sources.is_empty() {
            writeln!(f, "trust store")?;
        }
        for source in &self.sources {
            writeln!(f, "  {source}")?;
        }
        for HeldCertificate { subject, sha256, not_after, used_as, source } in &self.certificates {
            writeln!(f, "  {used_as:<6} {subject:?} until {not_after}, SHA-256 {sha256}, from {source}")?;
        }
        writeln!(f, "steps")?;
        for step in &self.steps {
            let verdict = if step.is_ok { "ok" } else { "FAILED" };
            writeln!(f, "  {verdict:<6} {:<11} {} ({})", step.name, step.detail, TimeSpan(step.elapsed))?;
        }
        if !self.advice.is_empty() {
            writeln!(f, "worth knowing")?;
        }
        for advice in &self.advice {
            writeln!(f, "  - {advice}")?;
        }
        match &self.error {
            None => f.write_str("result: the download would start"),
            Some(error) => {
                write!(f, "result: the download would end with exit code {}: {}", error.exit_code(), error.one_line())
            }
        }
    }
}
