//! The entries of the storage-config Secrets, with the certificates in them.

use std::{collections::BTreeMap, fmt};

use rustls::pki_types::{CertificateDer, UnixTime};

use super::candidates::{Candidate, Candidates};
use crate::{
    manifest::{Datum, Resource},
    storage_config::Field,
    trust_store::{Certificate, Validity, ca_bundle, is_path},
};

/// Longest name of a Kubernetes object (RFC 1123, as the API server checks it).
const MAX_NAME_BYTES: usize = 253;

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// Name the ConfigMap and keep "certificate": KServe and ModelMesh both work.
    Both,
    /// Take "certificate" away: for when no ModelMesh reads the Secret any more.
    ConfigmapOnly,
}

/// How certificates are spread over ConfigMaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bundle {
    /// One ConfigMap for all entries of a Secret, called SECRET-ca.
    One,
    /// One for each entry, called SECRET-ca-ENTRY.
    PerEntry,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far to go.
    pub stage: Stage,
    /// How many ConfigMaps.
    pub bundle: Bundle,
    /// The ConfigMap's name, or the first part of it; else the Secret's name and `-ca`.
    pub configmap_name: Option<String>,
    /// The namespace where a Secret's manifest names none.
    pub namespace: Option<String>,
    /// The one Secret that is meant; else every one that holds entries.
    pub secret: Option<String>,
}

/// An entry.
pub(super) struct Found<'a> {
    pub(super) resource: Resource<'a>,
    pub(super) datum: Datum<'a>,
    pub(super) namespace: Option<&'a str>,
    /// The JSON.
    pub(super) text: String,
    /// What `certificate` holds; none where it is unset or a path.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// What `cabundle_configmap` says.
    pub(super) named_configmap: Option<String>,
    /// What it would say by the options.
    pub(super) wanted_name: String,
}

impl Found<'_> {
    /// The ConfigMap that the entry will name.
    pub(super) fn configmap(&self) -> &str {
        self.named_configmap.as_deref().unwrap_or(&self.wanted_name)
    }
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, entry {:?}", self.resource, self.datum.key)
    }
}

/// Every entry of every Secret that is meant.
pub(super) fn find<'a>(
    resources: &[Resource<'a>],
    options: &'a Options,
    notes: &mut Vec<String>,
    problems: &mut Vec<String>,
) -> Vec<Found<'a>> {
    let secret = options.secret.as_deref();
    let candidates = Candidates::find(resources, secret);
    notes.extend(candidates.notes.iter().map(ToString::to_string));
    problems.extend(candidates.problems.iter().map(ToString::to_string));
    if let Some(wanted) = secret.filter(|wanted| !resources.iter().any(|resource| resource.is("Secret", wanted, None)))
    {
        problems.push(format!("no Secret {wanted:?} is among the manifests"));
    }
    let mut found = Vec::new();
    for candidate in candidates.entries {
        let certificate = candidate.entry.value(Field::Certificate).unwrap_or_default();
        if let Some(other) = candidate.entry.value(Field::Type).filter(|kind| *kind != "s3" && !certificate.is_empty())
        {
            notes.push(format!("{candidate}: type {other:?} has no CA ConfigMap; left as it is"));
            continue;
        }
        let certificates = certificates(&candidate, certificate, notes, problems);
        let named_configmap = candidate.entry.value(Field::CabundleConfigmap).map(str::to_owned);
        let Candidate { resource, datum, text, entry: _ } = candidate;
        found.push(Found {
            resource,
            datum,
            namespace: resource.namespace().or(options.namespace.as_deref()),
            text,
            certificates,
            named_configmap,
            wanted_name: wanted_name(resource.name(), datum.key, options),
        });
    }
    check_names(&found, options, problems);
    found
}

/// What `certificate` holds, and what is to be said about it.
fn certificates(
    candidate: &Candidate<'_>,
    certificate: &str,
    notes: &mut Vec<String>,
    problems: &mut Vec<String>,
) -> Vec<CertificateDer<'static>> {
    if certificate.is_empty() {
        return Vec::new();
    }
    if is_path(certificate.trim()) {
        notes.push(format!(
            "{candidate}: \"certificate\" is a path, as KServe until 0.12.0 had it; left as it is: rename the field to \"ca_bundle\""
        ));
        return Vec::new();
    }
    let place = format!("{candidate}, field \"certificate\"");
    let bundle = ca_bundle::scan(certificate.as_bytes());
    let is_usable = !bundle.certificates.is_empty();
    for remark in bundle.remarks {
        match remark {
            _ if !is_usable => problems.push(format!("{place}: {remark}")),
            ca_bundle::Remark::Repaired { .. } => notes.push(format!("{place}: {remark} (repaired in the ConfigMap)")),
            remark => notes.push(format!("{place}: {remark} (not in the ConfigMap)")),
        }
    }
    let now = UnixTime::now();
    for held in bundle.certificates.iter().filter_map(|found| Certificate::parse(&found.der)) {
        let (subject, until) = (&held.subject, held.not_after_date());
        match held.validity_at(now) {
            Validity::InDate => {}
            Validity::Expired => {
                notes.push(format!("{place}: {subject:?} expired at {until}; nobody trusts it, remove it"))
            }
            Validity::NotYetValid => notes.push(format!("{place}: {subject:?} is not valid yet")),
        }
    }
    bundle.certificates.into_iter().map(|found| found.der).collect()
}

fn wanted_name(secret: &str, entry: &str, options: &Options) -> String {
    let base = options.configmap_name.clone().unwrap_or_else(|| format!("{secret}-ca"));
    match options.bundle {
        Bundle::One => base,
        Bundle::PerEntry => format!("{base}-{}", as_name(entry)),
    }
}

/// A key of a Secret may have letters that an object's name may not.
fn as_name(entry: &str) -> String {
    let lower = entry.to_ascii_lowercase();
    let name: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    name.trim_matches('-').to_owned()
}

/// Two entries may come to one name, and a name may be too long.
fn check_names(found: &[Found<'_>], options: &Options, problems: &mut Vec<String>) {
    let mut users: BTreeMap<(Option<&str>, &str), &Found<'_>> = BTreeMap::new();
    for entry in found.iter().filter(|entry| !entry.certificates.is_empty() && entry.named_configmap.is_none()) {
        let name = entry.wanted_name.as_str();
        if !is_name(name) {
            problems.push(format!(
                "{entry}: {name:?} cannot be a ConfigMap's name: it has 1 to {MAX_NAME_BYTES} of the letters a-z, digits, '-' and '.'; choose one with --configmap-name"
            ));
        }
        if options.bundle == Bundle::PerEntry
            && let Some(other) = users.insert((entry.namespace, name), entry)
        {
            problems.push(format!(
                "{entry}: its ConfigMap would be called {name:?}, and so would that of entry {:?}; rename one, or use --bundle one",
                other.datum.key
            ));
        }
    }
}

/// Whether Kubernetes takes `name` for a ConfigMap: a DNS subdomain (RFC 1123).
pub fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        label.bytes().all(|byte| is_letter(byte) || byte == b'-')
            && label.bytes().next().is_some_and(is_letter)
            && label.bytes().next_back().is_some_and(is_letter)
    };
    name.len() <= MAX_NAME_BYTES && name.split('.').all(is_label)
}
