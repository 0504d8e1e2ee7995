//! What a migration changes, in lines that hold no value.
//!
//! It is made from what was understood and not from the manifests' text, so a secret in a comment or in an annotation
//! cannot be in it either.

use std::fmt;

use rustls::pki_types::CertificateDer;

use super::entries::{Found, Stage};
use crate::{
    manifest::json,
    storage_config::Field,
    trust_store::{CONFIGMAP_KEY, Certificate, ca_bundle},
};

/// One object that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    title: String,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Same(String),
    Added(String),
    Removed(String),
}

impl Change {
    pub(super) fn new_configmap(name: &str, certificates: &[CertificateDer<'static>]) -> Self {
        let mut lines = vec![Line::Added(format!("{}:", CONFIGMAP_KEY))];
        lines.extend(certificates.iter().map(|der| Line::Added(certificate(der))));
        Self { title: format!("{name}, new"), lines }
    }

    /// `cabundle.crt` before and after.
    pub(super) fn completed(configmap: &str, before: &[u8], after: &[u8]) -> Self {
        let held = |content| ca_bundle::scan(content).certificates;
        let old = held(before);
        let mut lines = vec![Line::Same(format!("{}:", CONFIGMAP_KEY))];
        for found in held(after) {
            let shown = certificate(&found.der);
            let is_old = old.iter().any(|other| other.der == found.der);
            lines.push(if is_old { Line::Same(shown) } else { Line::Added(shown) });
        }
        if old.len() + 1 == lines.len() {
            lines.push(Line::Added("(the same certificates, written anew)".to_owned()));
        }
        Self { title: configmap.to_owned(), lines }
    }

    pub(super) fn of_entry(entry: &Found<'_>, stage: Stage) -> Self {
        let mut lines = Vec::new();
        let object = json::documents(&entry.text).unwrap_or_default();
        let names_configmap = entry.named_configmap.is_none();
        for (key, _) in object.first().map_or(&[][..], |object| object.pairs()) {
            let name = key.text().unwrap_or_default();
            let shown = format!("{name:?}: ***");
            if name == Field::CabundleConfigmap.name() && names_configmap {
                lines.push(Line::Removed(shown));
            } else if name == Field::CabundleConfigmap.name() {
                lines.push(Line::Same(format!("{name:?}: {:?}", entry.configmap())));
            } else if name == Field::Certificate.name() {
                lines.push(if stage == Stage::ConfigmapOnly { Line::Removed(shown) } else { Line::Same(shown) });
            } else {
                lines.push(Line::Same(shown));
            }
            if name == Field::Certificate.name() && names_configmap {
                lines.push(Line::Added(format!("{:?}: {:?}", Field::CabundleConfigmap.name(), entry.configmap())));
            }
        }
        Self { title: entry.to_string(), lines }
    }
}

/// `ConfigMap "name" (namespace "there")`
pub(super) fn configmap_name(name: &str, namespace: Option<&str>) -> String {
    let namespace = namespace.map_or(String::new(), |namespace| format!(" (namespace {namespace:?})"));
    format!("ConfigMap {name:?}{namespace}")
}

fn certificate(der: &CertificateDer<'_>) -> String {
    match Certificate::parse(der) {
        Some(held) => format!("  {:?} until {}, SHA-256 {}", held.subject, held.not_after_date(), held.sha256),
        None => "  a certificate".to_owned(),
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "@@ {} @@", self.title)?;
        for line in &self.lines {
            match line {
                Line::Same(text) => writeln!(f, "   {text}")?,
                Line::Added(text) => writeln!(f, "+  {text}")?,
                Line::Removed(text) => writeln!(f, "-  {text}")?,
            }
        }
        Ok(())
    }
}
