//! The places that CA certificates come from, and what is in each.
//!
//! Reading one never fails: what cannot be read or holds nothing becomes a complaint, and the trust
//! rule decides what that means.

use std::{fmt, path::Path};

use rustls::pki_types::CertificateDer;

use super::{
    ca_bundle::{self, Remark},
    first_few,
};
use crate::{
    mount::{self, Mount, MountError},
    settings::Trust,
};

/// The key of KServe's CA ConfigMap; where it exists, it is the bundle.
pub const CONFIGMAP_KEY: &str = "cabundle.crt";

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

/// How many keys of a directory a message names.
const MAX_KEYS: usize = 10;

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
    /// Of a directory: which of its keys were read.
    pub keys: Option<String>,
    /// How many certificates it held, each counted once.
    pub certificates: usize,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, keys, certificates, .. } = self;
        match keys {
            Some(keys) => write!(f, "{name} ({keys}): {certificates}"),
            None => write!(f, "{name}: {certificates}"),
        }
    }
}

/// Certificates and complaints of one source while it is read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) kind: SourceKind,
    pub(super) name: String,
    /// Of a directory: which keys were read.
    pub(super) keys: Option<String>,
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// Repairs and skipped blocks, or why the source cannot be read at all.
    pub(super) complaints: Vec<String>,
}

impl Reading {
    pub(super) fn of_content(kind: SourceKind, name: String, content: &[u8]) -> Self {
        let bundle = ca_bundle::scan(content);
        Self {
            kind,
            name,
            keys: None,
            certificates: bundle.certificates.into_iter().map(|found| found.der).collect(),
            complaints: bundle.remarks.iter().map(ToString::to_string).collect(),
        }
    }

    pub(super) fn of_path(kind: SourceKind, name: String, path: &Path) -> Self {
        if path.is_dir() {
            return match Mount::read_keys(path, bundle_keys) {
                Ok(mount) => Self::of_directory(kind, name, &mount),
                Err(error) => Self::unusable(kind, name, in_words(&error)),
            };
        }
        match mount::read_file(path) {
            Ok(content) => Self::of_content(kind, name, &content),
            Err(error) => Self::unusable(kind, name, unreadable_file(path, error)),
        }
    }

    /// `cabundle.crt` if there is one; else the keys that other systems use; else every file that
    /// looks like a certificate by its name.
    pub(super) fn of_directory(kind: SourceKind, name: String, mount: &Mount) -> Self {
        let keys = Some(keys_in_words(mount));
        let mut whole = Self { kind, name, keys, certificates: Vec::new(), complaints: Vec::new() };
        for (key, content) in mount.files() {
            let bundle = ca_bundle::scan(content);
            whole.certificates.extend(bundle.certificates.into_iter().map(|found| found.der));
            whole.complaints.extend(bundle.remarks.iter().map(|remark| format!("{key}: {remark}")));
        }
        whole.complaints.extend(mount.unreadable().map(|(_, error)| in_words(error)));
        if whole.certificates.is_empty() && whole.complaints.is_empty() {
            let present: Vec<String> = mount.keys().map(str::to_owned).collect();
            whole.complaints.push(if present.is_empty() {
                "an empty directory".to_owned()
            } else {
                format!(
                    "no key {CONFIGMAP_KEY:?}, and no .crt, .pem or .cer; it has: {}",
                    first_few(&present, MAX_KEYS)
                )
            });
        }
        whole
    }

    pub(super) fn unusable(kind: SourceKind, name: String, complaint: String) -> Self {
        Self { kind, name, keys: None, certificates: Vec::new(), complaints: vec![complaint] }
    }
}

/// The keys of a mounted directory that hold the CA bundle.
pub(super) fn bundle_keys(keys: &[String]) -> Vec<String> {
    if keys.iter().any(|key| key == CONFIGMAP_KEY) {
        return vec![CONFIGMAP_KEY.to_owned()];
    }
    let those = |wanted: &dyn Fn(&str) -> bool| keys.iter().filter(|key| wanted(key)).cloned().collect::<Vec<_>>();
    let known = those(&|key| KNOWN_KEYS.contains(&key));
    if known.is_empty() { those(&|key| is_certificate_file(key) || is_hashed_name(key)) } else { known }
}

/// `4a6481c9.0`: a name in a directory for OpenSSL (`openssl rehash`), which is what `AWS_CA_BUNDLE`
/// means by a directory in Python.
fn is_hashed_name(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, number)| {
        hash.len() == 8
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The keys that were read, and those that look like certificates and were not: whoever put a CA
/// there should learn it.
fn keys_in_words(mount: &Mount) -> String {
    let read: Vec<String> = mount.files().map(|(key, _)| key.to_owned()).collect();
    let unread = |key: &&str| is_certificate_file(key) && mount.file(key).is_none();
    let unread: Vec<String> = mount.keys().filter(unread).map(str::to_owned).collect();
    match (read.is_empty(), unread.is_empty()) {
        (true, _) => "no key read".to_owned(),
        (false, true) => first_few(&read, MAX_KEYS),
        (false, false) => format!("{}, not {}", first_few(&read, MAX_KEYS), first_few(&unread, MAX_KEYS)),
    }
}

/// `certificate` as KServe had it until 0.12.0: the path of a file.
pub fn is_path(text: &str) -> bool {
    !text.contains('\n')
        && !text.contains("-----BEGIN")
        && text.len() < 4096
        && (text.starts_with('/') || is_certificate_file(text))
}

fn is_certificate_file(name: &str) -> bool {
    [".crt", ".pem", ".cer"].iter().any(|ending| name.ends_with(ending))
}

/// Whether a value that should be a path is a certificate, a key or a part of one, in any of the
/// shapes that people paste. Such a value is not to be shown as a path.
pub(super) fn holds_a_certificate(value: &str) -> bool {
    let bundle = ca_bundle::scan(value.as_bytes());
    let is_nothing = |remark: &Remark| matches!(remark, Remark::NotABundle { .. });
    value.trim().contains('\n') || !bundle.certificates.is_empty() || !bundle.remarks.iter().all(is_nothing)
}

/// The error with its cause.
pub(super) fn in_words(error: &MountError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn unreadable_file(path: &Path, error: MountError) -> String {
    let MountError::Missing(_) = error else {
        return in_words(&error);
    };
    // A ConfigMap under another key is the usual cause; the names beside it tell.
    let beside = path.parent().and_then(|parent| Mount::read_keys(parent, |_| Vec::new()).ok());
    match beside {
        Some(mount) if !mount.is_empty() => {
            let keys: Vec<String> = mount.keys().map(str::to_owned).collect();
            format!("no such file or directory; beside it there are: {}", first_few(&keys, MAX_KEYS))
        }
        _ => "no such file or directory; is the volume mounted?".to_owned(),
    }
}

/// The system's roots: `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set (as OpenSSL has it),
/// else the distribution's file, else those compiled into this program.
pub(super) fn system_roots(trust: &Trust) -> Reading {
    let mut system = system_reading(String::new(), Vec::new());
    let mut names = Vec::new();
    let files = trust.system_file.iter().map(|path| ("SSL_CERT_FILE", path));
    for (variable, path) in files.chain(trust.system_dirs.iter().map(|path| ("SSL_CERT_DIR", path))) {
        let name = format!("{variable} {}", path.display());
        // A directory of OpenSSL's has names like 4a6481c9.0: every file counts.
        let contents = if path.is_dir() {
            Mount::read_keys(path, |keys| keys.to_vec())
                .map(|mount| mount.files().map(|(_, content)| content.to_vec()).collect())
        } else {
            mount::read_file(path).map(|content| vec![content])
        };
        let before = system.certificates.len();
        let complaint = match contents {
            Ok(contents) => {
                system.certificates.extend(certificates_in(&contents));
                (system.certificates.len() == before).then(|| "no certificate in it".to_owned())
            }
            Err(error) => Some(unreadable_file(path, error)),
        };
        system.complaints.extend(complaint.map(|complaint| format!("env {name}: {complaint}")));
        names.push(name);
    }
    if names.is_empty() {
        let Some((file, content)) = SYSTEM_FILES.iter().find_map(|file| Some((*file, std::fs::read(file).ok()?)))
        else {
            return compiled_in_roots();
        };
        system.certificates = certificates_in(&[content]);
        names.push(file.to_owned());
    }
    system.certificates.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
    system.certificates.dedup();
    system.name = format!("system roots ({})", names.join(", "));
    system
}

fn certificates_in(contents: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    contents.iter().flat_map(|content| ca_bundle::scan(content).certificates).map(|found| found.der).collect()
}

/// The roots of Mozilla's programme, for an image without a root file.
fn compiled_in_roots() -> Reading {
    system_reading("system roots (compiled in)".to_owned(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec())
}

fn system_reading(name: String, certificates: Vec<CertificateDer<'static>>) -> Reading {
    Reading { kind: SourceKind::System, name, keys: None, certificates, complaints: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(keys: &[&str]) -> Vec<String> {
        bundle_keys(&keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn kserves_key_wins_then_the_known_ones_then_whatever_looks_like_a_certificate() {
        assert_eq!(chosen(&["a.pem", "ca.crt", "cabundle.crt"]), ["cabundle.crt"]);
        assert_eq!(chosen(&["a.pem", "ca.crt", "service-ca.crt", "tls.key"]), ["ca.crt", "service-ca.crt"]);
        assert_eq!(chosen(&["4a6481c9.0", "README", "a.pem", "b.cer", "c.key"]), ["4a6481c9.0", "a.pem", "b.cer"]);
        assert!(chosen(&["README", "4a6481c9.r0", "config.json"]).is_empty());
    }

    #[test]
    fn what_was_pasted_for_a_path_is_known_and_a_path_is_not_it() {
        for path in ["/mnt/ca-bundle.crt", "certs", "./ca.pem\n", "no path at all"] {
            assert!(!holds_a_certificate(path), "{path}");
        }
        for text in
            ["-----BEGIN CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----", "a\nb"]
        {
            assert!(holds_a_certificate(text), "{text}");
        }
    }

    #[test]
    fn a_path_is_told_from_a_certificate() {
        for path in ["/mnt/ca", "ca.crt", "certs/ca.pem"] {
            assert!(is_path(path), "{path}");
        }
        for text in ["see the wiki", "/not\na path", "-----BEGIN CERTIFICATE-----MII", "MIIB/8k="] {
            assert!(!is_path(text), "{text}");
        }
    }
}
