//! The ConfigMap: its certificates, its text, its manifest.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::pki_types::CertificateDer;
use serde_json::json;

use crate::{
    manifest::Format,
    trust_store::{CONFIGMAP_KEY as KEY, ca_bundle},
};

/// What the API server takes at most, all values together (`MaxSecretSize`, which is the limit of
/// ConfigMaps as well).
const MAX_BYTES: usize = 1024 * 1024;

/// What an annotation takes at most, and `kubectl apply` keeps the whole manifest in one.
const MAX_APPLY_BYTES: usize = 256 * 1024;

/// RFC 7468, section 2: lines of exactly 64 characters, except the last.
const LINE: usize = 64;

/// Certificates as clean PEM.
pub(super) fn pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let letters = STANDARD.encode(der);
        let mut rest = letters.as_str();
        while !rest.is_empty() {
            let (line, behind) = rest.split_at(rest.len().min(LINE));
            text.push_str(line);
            text.push('\n');
            rest = behind;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// What `cabundle.crt` has to say so that every reader finds every wanted certificate; `None` where
/// it says that already. Comments stay unless something has to be repaired.
pub(super) fn completed(present: &[u8], wanted: &[CertificateDer<'static>]) -> Option<String> {
    let held = ca_bundle::scan(present);
    let has = |der: &CertificateDer<'_>| held.certificates.iter().any(|found| found.der == *der);
    let missing: Vec<_> = wanted.iter().filter(|der| !has(der)).collect();
    let text = std::str::from_utf8(present).ok().filter(|_| held.remarks.is_empty());
    match text {
        Some(_) if missing.is_empty() => None,
        Some(text) => {
            let separator = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
            Some(format!("{text}{separator}{}", pem(missing)))
        }
        None => Some(pem(held.certificates.iter().map(|found| &found.der).chain(missing))),
    }
}

/// The manifest of a new ConfigMap.
pub(super) fn manifest(name: &str, namespace: Option<&str>, pem: &str, format: Format) -> String {
    match format {
        Format::Json => {
            let mut metadata = json!({"name": name});
            if let Some(namespace) = namespace {
                metadata["namespace"] = namespace.into();
            }
            let value = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {KEY: pem},
            });
            format!("{value:#}\n")
        }
        Format::Yaml => {
            let mut text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {}\n", yaml_name(name));
            if let Some(namespace) = namespace {
                text.push_str(&format!("  namespace: {}\n", yaml_name(namespace)));
            }
            text.push_str(&format!("data:\n  {KEY}: |\n"));
            for line in pem.lines() {
                text.push_str(&format!("    {line}\n"));
            }
            text
        }
    }
}

/// A name that YAML could take for a number, a boolean or null stands in quotes.
fn yaml_name(name: &str) -> String {
    let is_plain = name.len() > 5 && name.starts_with(|c: char| c.is_ascii_lowercase());
    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
    if is_plain && is_name { name.to_owned() } else { serde_json::Value::from(name).to_string() }
}

/// What Kubernetes will say to a value of this length, if anything.
pub(super) fn size_warning(bytes: usize) -> Option<String> {
    if bytes > MAX_BYTES {
        Some(format!(
            "{bytes} bytes, more than the {MAX_BYTES} that Kubernetes takes: remove CAs that no endpoint needs, or give each entry a ConfigMap of its own with --bundle per-entry"
        ))
    } else if bytes > MAX_APPLY_BYTES * 9 / 10 {
        Some(format!(
            "{bytes} bytes, too long for the annotation in which kubectl apply keeps a copy ({MAX_APPLY_BYTES} at most): use kubectl apply --server-side; Kubernetes takes {MAX_BYTES}"
        ))
    } else {
        None
    }
}
