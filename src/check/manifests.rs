//! `check --config`: Secret and ConfigMap manifests, judged without a cluster.
//!
//! For pipelines: before anything is applied, everything that is wrong with every entry is said at once. An error is what
//! would keep KServe, ModelMesh or this program from downloading; a warning is what works in one of them and not in
//! another, or not for long. Whether a server is up, or who signed its certificate, is `check`'s business without
//! `--config`.

use std::{fmt, net::IpAddr};

use rustls::pki_types::UnixTime;
use serde_json::{Value, json};

use super::expires_soon;
use crate::{
    cause::one_line,
    env::Environment,
    manifest::{File, Manifests, Resource},
    migrate::candidates::{Candidate, Candidates, Remark},
    settings::{Connection, Problem, Settings, SettingsError},
    storage_config::Field,
    trust_store::{CONFIGMAP_KEY, Certificate, Validity, ca_bundle, is_path},
};

/// The types that KServe or ModelMesh know beside `s3` (`kserve/pkg/credentials`, `modelmesh-runtime-adapter/pullman`).
const OTHER_STORAGE: [&str; 8] = ["gs", "gcs", "azure", "hdfs", "webhdfs", "http", "https", "pvc"];

/// What the manifests came to.
#[derive(Debug, Default)]
pub struct ManifestCheck {
    /// How many entries there are.
    pub entries: usize,
    /// What is wrong, in the order of the manifests.
    pub findings: Vec<Finding>,
    /// Warnings count as errors.
    pub is_strict: bool,
}

/// One thing about one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where, and what.
    pub remark: Remark,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It keeps somebody from downloading.
    Error,
    /// It works here, and not everywhere or not for long.
    Warning,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Judges every entry of the manifests, and the ConfigMaps that they name.
pub fn check_manifests(manifests: &Manifests, is_strict: bool) -> ManifestCheck {
    let resources: Vec<Resource<'_>> = manifests.files.iter().flat_map(File::resources).collect();
    let candidates = Candidates::find(&resources, None);
    let mut check = ManifestCheck { entries: candidates.entries.len(), is_strict, ..ManifestCheck::default() };
    for (severity, remarks) in [(Severity::Error, candidates.problems), (Severity::Warning, candidates.notes)] {
        check.findings.extend(remarks.into_iter().map(|remark| Finding { severity, remark }));
    }
    if check.findings.is_empty() && check.entries == 0 {
        let files = manifests.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>().join(", ");
        check.say(Severity::Error, &files, "no Secret with a storage-config entry is among these manifests");
    }
    for candidate in &candidates.entries {
        check.entry(candidate, &resources);
    }
    check
}

/// What is known of whom an entry trusts.
#[derive(Default)]
struct Sources {
    /// Sources that are named, whatever is in them.
    named: usize,
    /// A file that only the container has.
    has_path: bool,
    in_date: usize,
    out_of_date: usize,
}

impl ManifestCheck {
    /// 0, or 78 where there is an error (or, if strict, a warning).
    pub fn exit_code(&self) -> u8 {
        let is_bad = |finding: &Finding| self.is_strict || finding.severity == Severity::Error;
        if self.findings.iter().any(is_bad) { 78 } else { 0 }
    }

    /// Everything as JSON, for machines.
    pub fn to_json(&self) -> Value {
        json!({
            "entries": self.entries,
            "findings": self.findings.iter().map(|finding| json!({
                "severity": finding.severity.name(),
                "place": finding.remark.place,
                "message": finding.remark.message,
            })).collect::<Vec<_>>(),
            "exit_code": self.exit_code(),
        })
    }

    fn say(&mut self, severity: Severity, place: &str, message: impl Into<String>) {
        let remark = Remark { place: place.to_owned(), message: message.into() };
        self.findings.push(Finding { severity, remark });
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    fn entry(&mut self, candidate: &Candidate<'_>, resources: &[Resource<'_>]) {
        let place = candidate.to_string();
        if let Some(other) = candidate.entry.value(Field::Type).filter(|kind| OTHER_STORAGE.contains(kind)) {
            return self.say(
                Severity::Warning,
                &place,
                format!("type {other:?} is for another initializer, and is not judged here"),
            );
        }
        let connection = self.settings(&place, candidate);
        if let Some(plain) = connection.as_ref().filter(|connection| !connection.is_tls()) {
            let has_ca = [Field::Certificate, Field::CaBundle, Field::CabundleConfigmap]
                .into_iter()
                .any(|field| candidate.entry.value(field).is_some());
            if has_ca {
                let endpoint = plain.endpoint.as_ref().map_or(String::new(), |endpoint| endpoint.value.to_string());
                self.say(Severity::Warning, &place, format!("the endpoint is {endpoint}, so the CA that is configured is not used; write https:// if the store speaks TLS"));
            }
            return;
        }
        let sources = self.sources(&place, candidate, resources);
        let verify = candidate.entry.value(Field::VerifySsl).unwrap_or_default();
        if matches!(verify.to_ascii_lowercase().as_str(), "0" | "false") {
            self.say(
                Severity::Warning,
                &place,
                "\"verify_ssl\" turns verification off: anyone in between can read the keys and change the model",
            );
        } else if sources.named == 0 {
            self.no_source(&place, connection.as_ref());
        } else if sources.in_date == 0 && sources.out_of_date > 0 && !sources.has_path {
            self.say(Severity::Error, &place, "none of the certificates that it trusts is in date");
        }
    }

    /// What a download would say of the entry's settings, by reading them as a download does. Answers the connection, as
    /// far as that can be told.
    fn settings(&mut self, place: &str, candidate: &Candidate<'_>) -> Option<Connection> {
        // Nothing of this machine's: no mounted Secret, and a source that every entry can have.
        let environment = Environment::from_iter([
            ("STORAGE_CONFIG", candidate.text.as_str()),
            ("STORAGE_CONFIG_DIR", "/dev/null/none"),
            ("STORAGE_URI", "s3://bucket/model"),
        ]);
        // The place says which entry; the variable is our way of handing it over.
        let message = |text: String| text.replace("env STORAGE_CONFIG, ", "").replace("env STORAGE_CONFIG: ", "");
        match Settings::read(&environment, &[]) {
            Ok(settings) => {
                for warning in settings.warnings.iter().chain(&settings.portability) {
                    self.say(Severity::Warning, place, message(warning.clone()));
                }
                Some(settings.connection)
            }
            Err(error) => {
                for remark in candidate.entry.remarks() {
                    self.say(Severity::Warning, place, remark.to_string());
                }
                match &error {
                    SettingsError::Problems(problems) => {
                        // The bucket of a source that we made up.
                        for problem in
                            problems.iter().filter(|problem| !matches!(problem, Problem::BucketInHost { .. }))
                        {
                            self.say(Severity::Error, place, message(one_line(problem)));
                        }
                    }
                    SettingsError::NoSource | SettingsError::Unpaired(_) => {
                        self.say(Severity::Error, place, message(one_line(&error)));
                    }
                }
                None
            }
        }
    }

    /// Each source of CA certificates that the entry names.
    fn sources(&mut self, place: &str, candidate: &Candidate<'_>, resources: &[Resource<'_>]) -> Sources {
        let mut sources = Sources::default();
        if let Some(certificate) = candidate.entry.value(Field::Certificate) {
            sources.named += 1;
            let place = format!("{place}, field \"certificate\"");
            if is_path(certificate.trim()) {
                sources.has_path = true;
                self.say(Severity::Warning, &place, "a path, as KServe until 0.12.0 had it; KServe now wants it as \"ca_bundle\", and ModelMesh wants the PEM text here");
            } else {
                self.bundle(&place, certificate.as_bytes(), &mut sources);
            }
        }
        if let Some(path) = candidate.entry.value(Field::CaBundle) {
            sources.named += 1;
            let held = ca_bundle::scan(path.as_bytes());
            if held.certificates.is_empty() {
                sources.has_path = true;
            } else {
                let place = format!("{place}, field \"ca_bundle\"");
                self.say(Severity::Warning, &place, "PEM text where a path belongs; KServe wants a path here, and the text belongs in \"certificate\" or in the ConfigMap");
                self.bundle(&place, path.as_bytes(), &mut sources);
            }
        }
        if let Some(name) = candidate.entry.value(Field::CabundleConfigmap) {
            sources.named += 1;
            self.configmap(place, name, candidate, resources, &mut sources);
        }
        sources
    }

    fn configmap(
        &mut self,
        place: &str,
        name: &str,
        candidate: &Candidate<'_>,
        resources: &[Resource<'_>],
        sources: &mut Sources,
    ) {
        let namespace = candidate.resource.namespace();
        let field = format!("{place}, field \"cabundle_configmap\"");
        let Some(configmap) = resources.iter().find(|resource| resource.is("ConfigMap", name, namespace)) else {
            let elsewhere = resources.iter().find(|resource| resource.is("ConfigMap", name, None));
            let hint = match elsewhere.and_then(Resource::namespace) {
                Some(other) => format!("there is one in namespace {other:?}, and a pod mounts only those of its own"),
                None => "add its manifest".to_owned(),
            };
            return self.say(Severity::Error, &field, format!("ConfigMap {name:?} is not among the manifests; {hint}"));
        };
        let place = configmap.to_string();
        let Some(datum) = configmap.value(CONFIGMAP_KEY) else {
            let keys: Vec<&str> = configmap.values().iter().map(|datum| datum.key).collect();
            let has = if keys.is_empty() { "no key at all".to_owned() } else { keys.join(", ") };
            let message = format!("it has no key {CONFIGMAP_KEY:?}, the only one that KServe reads; it has: {has}");
            return self.say_once(Severity::Error, &place, message);
        };
        let place = format!("{place}, key {CONFIGMAP_KEY:?}");
        match datum.content() {
            Ok(content) => {
                self.bundle(&place, &content, sources);
                self.compare(&field, candidate, &content);
            }
            Err(error) => self.say_once(Severity::Error, &place, error.to_string()),
        }
    }

    /// Two systems that read two fields should believe the same servers.
    fn compare(&mut self, place: &str, candidate: &Candidate<'_>, content: &[u8]) {
        let certificate = candidate.entry.value(Field::Certificate).unwrap_or_default();
        let held = ca_bundle::scan(content).certificates;
        let missing = ca_bundle::scan(certificate.as_bytes())
            .certificates
            .into_iter()
            .filter(|found| held.iter().all(|other| other.der != found.der))
            .count();
        if missing > 0 && !held.is_empty() {
            self.say(
                Severity::Warning,
                place,
                format!("the ConfigMap lacks {missing} of the certificates that \"certificate\" holds: ModelMesh believes servers that KServe does not; storage-initializer migrate adds them"),
            );
        }
    }

    /// What is in a CA bundle.
    fn bundle(&mut self, place: &str, content: &[u8], sources: &mut Sources) {
        let bundle = ca_bundle::scan(content);
        let severity = if bundle.certificates.is_empty() { Severity::Error } else { Severity::Warning };
        for remark in &bundle.remarks {
            self.say_once(severity, place, remark.to_string());
        }
        let now = UnixTime::now();
        for certificate in bundle.certificates.iter().filter_map(|found| Certificate::parse(&found.der)) {
            let (subject, until) = (&certificate.subject, certificate.not_after_date());
            match certificate.validity_at(now) {
                Validity::InDate => sources.in_date += 1,
                Validity::Expired | Validity::NotYetValid => sources.out_of_date += 1,
            }
            match certificate.validity_at(now) {
                Validity::InDate if certificate.validity_at(expires_soon(now)) == Validity::InDate => {}
                Validity::InDate => {
                    self.say_once(Severity::Warning, place, format!("{subject:?} expires within 30 days, at {until}"));
                }
                Validity::Expired => {
                    self.say_once(
                        Severity::Warning,
                        place,
                        format!("{subject:?} expired at {until}; replace or remove it"),
                    );
                }
                Validity::NotYetValid => {
                    self.say_once(Severity::Warning, place, format!("{subject:?} is not valid yet"))
                }
            }
        }
    }

    /// A ConfigMap that several entries name is judged once.
    fn say_once(&mut self, severity: Severity, place: &str, message: String) {
        let is_known = |finding: &Finding| finding.remark.place == place && finding.remark.message == message;
        if !self.findings.iter().any(is_known) {
            self.say(severity, place, message);
        }
    }

    /// Without a CA only the system's roots are left.
    fn no_source(&mut self, place: &str, connection: Option<&Connection>) {
        let endpoint = connection.and_then(|connection| connection.endpoint.as_ref()).map(|endpoint| &endpoint.value);
        let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_aws()) else { return };
        let fix = "set \"certificate\" for ModelMesh and \"cabundle_configmap\" for KServe";
        if is_private(endpoint.host()) {
            let message = format!("nothing to trust {endpoint} with: no public CA vouches for such a name; {fix}");
            self.say(Severity::Error, place, message);
        } else {
            let message =
                format!("no CA is named, so {endpoint} is trusted only if a public CA vouches for it; else {fix}");
            self.say(Severity::Warning, place, message);
        }
    }
}

/// Whether no public CA issues certificates for `host`: names without a public domain, and private addresses (CA/Browser
/// Forum, Baseline Requirements 4.2.2 and 7.1.4.2.1).
fn is_private(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        Ok(IpAddr::V6(v6)) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
        Err(_) => {
            let last = host.rsplit('.').next().unwrap_or_default();
            !host.contains('.') || ["svc", "local", "internal", "localdomain", "lan", "test"].contains(&last)
        }
    }
}

/// The report for people: findings, verdict.
impl fmt::Display for ManifestCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { severity, remark } in &self.findings {
            writeln!(f, "{:<7} {remark}", severity.name())?;
        }
        let counted = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        write!(
            f,
            "result: {}, {}, {}",
            counted(self.entries, "entry", "entries"),
            counted(self.count(Severity::Error), "error", "errors"),
            counted(self.count(Severity::Warning), "warning", "warnings"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_public_ca_vouches_for_is_told_from_one_that_it_may() {
        for host in ["minio", "minio.models.svc", "minio.models.svc.cluster.local", "10.1.2.3", "127.0.0.1", "fd00::1"]
        {
            assert!(is_private(host), "{host}");
        }
        for host in ["minio.example.com", "s3.eu-central-1.amazonaws.com", "203.0.113.7", "2001:db8::1"] {
            assert!(!is_private(host), "{host}");
        }
    }
}
