//! What a certificate says of itself, in words and in the answers that trust depends on.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, GeneralSubtree},
    prelude::FromDer as _,
    public_key::PublicKey,
    x509::{X509Name, X509Version},
};

/// Names in certificates are other people's text: a message takes this much of one.
const MAX_NAME_CHARS: usize = 160;

/// A parsed certificate, with what messages and decisions need of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Subject, as `CN=..., O=...`.
    pub subject: String,
    /// Issuer, likewise.
    pub issuer: String,
    /// SHA-256 of the DER, as hexadecimal pairs with colons.
    pub sha256: String,
    /// Seconds since the epoch.
    pub not_before: i64,
    /// Seconds since the epoch.
    pub not_after: i64,
    /// DNS names and addresses that a server with this certificate may have.
    pub names: Vec<String>,
    /// Whether it may issue certificates.
    pub ca: CaUse,
    /// Whether its key may identify a server: no extended key usage, or one that says so.
    pub may_serve: bool,
    /// The size of its key, if that is RSA.
    pub rsa_bits: Option<usize>,
    /// The algorithm that it is signed with, if nobody accepts that any more.
    pub weak_signature: Option<&'static str>,
    /// For which names it may issue certificates, in words, if not for all.
    pub name_constraints: Option<String>,
    raw_subject: Vec<u8>,
    raw_issuer: Vec<u8>,
}

/// Whether a certificate may issue others (RFC 5280, sections 4.2.1.3 and 4.2.1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaUse {
    /// `CA:TRUE` and `keyCertSign`, or no key usage at all; or a version 1 root, which has no
    /// extensions and is one by being listed.
    Issuer,
    /// No `CA:TRUE`.
    NotACa,
    /// `CA:TRUE`, but a key usage without `keyCertSign`.
    NoKeyCertSign,
}

/// Where a moment lies in a certificate's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Between the dates.
    InDate,
    /// Before the first.
    NotYetValid,
    /// After the last.
    Expired,
}

impl Certificate {
    /// Parses one certificate; `None` where it is not one, or has bytes behind its end.
    pub fn parse(der: &CertificateDer<'_>) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        // An extension that cannot be read allows nothing.
        let may_serve = parsed
            .extended_key_usage()
            .is_ok_and(|usage| usage.is_none_or(|usage| usage.value.any || usage.value.server_auth));
        Some(Self {
            subject: printable(parsed.subject()),
            issuer: printable(parsed.issuer()),
            sha256: sha256(der),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            names: names(&parsed),
            ca: ca_use(&parsed),
            may_serve,
            rsa_bits: rsa_bits(&parsed),
            weak_signature: weak_signature(&parsed),
            name_constraints: name_constraints(&parsed),
            raw_subject: parsed.subject().as_raw().to_vec(),
            raw_issuer: parsed.issuer().as_raw().to_vec(),
        })
    }

    /// Where `now` lies in the certificate's life. Both dates are included (RFC 5280, 4.1.2.5).
    pub fn validity_at(&self, now: UnixTime) -> Validity {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < self.not_before {
            Validity::NotYetValid
        } else if now > self.not_after {
            Validity::Expired
        } else {
            Validity::InDate
        }
    }

    /// The end of its life, as RFC 3339.
    pub fn not_after_date(&self) -> String {
        date(self.not_after)
    }

    /// Whether subject and issuer are the same name.
    pub fn is_self_issued(&self) -> bool {
        self.raw_subject == self.raw_issuer
    }

    /// Whether `other` has the same subject.
    pub fn is_namesake_of(&self, other: &Self) -> bool {
        self.raw_subject == other.raw_subject
    }

    /// Whether `other` carries the name of this certificate's issuer.
    pub fn names_as_issuer(&self, other: &Self) -> bool {
        self.raw_issuer == other.raw_subject
    }
}

/// SHA-256 of `der` as `openssl x509 -fingerprint -sha256` prints it.
pub(super) fn sha256(der: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, der);
    let mut text = String::with_capacity(digest.as_ref().len() * 3);
    for byte in digest.as_ref() {
        let separator = if text.is_empty() { "" } else { ":" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{byte:02X}");
    }
    text
}

/// A moment as RFC 3339, for messages.
pub(super) fn date(seconds: i64) -> String {
    x509_parser::time::ASN1Time::from_timestamp(seconds).map_or_else(
        |_| format!("{seconds} seconds after 1970"),
        |time| {
            let time = time.to_datetime();
            format!(
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
                time.year(),
                u8::from(time.month()),
                time.day(),
                time.hour(),
                time.minute(),
                time.second()
            )
        },
    )
}

/// The name without control characters, and not longer than a message can bear.
fn printable(name: &X509Name<'_>) -> String {
    let text = clean(&name.to_string());
    if text.is_empty() { "(no name)".to_owned() } else { text }
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(MAX_NAME_CHARS).collect()
}

fn ca_use(parsed: &X509Certificate<'_>) -> CaUse {
    if parsed.version() == X509Version::V1 {
        return CaUse::Issuer;
    }
    if !parsed.is_ca() {
        return CaUse::NotACa;
    }
    match parsed.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => CaUse::NoKeyCertSign,
        Ok(_) => CaUse::Issuer,
        Err(_) => CaUse::NoKeyCertSign,
    }
}

fn rsa_bits(parsed: &X509Certificate<'_>) -> Option<usize> {
    match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => Some(key.key_size()),
        _ => None,
    }
}

/// MD5 and SHA-1, in the algorithms that certificates are signed with (RFC 8017, appendix A.2.4;
/// RFC 5758, section 3).
fn weak_signature(parsed: &X509Certificate<'_>) -> Option<&'static str> {
    match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.4" => Some("MD5 with RSA"),
        "1.2.840.113549.1.1.5" => Some("SHA-1 with RSA"),
        "1.2.840.10045.4.1" => Some("SHA-1 with ECDSA"),
        "1.2.840.10040.4.3" => Some("SHA-1 with DSA"),
        _ => None,
    }
}

fn name_constraints(parsed: &X509Certificate<'_>) -> Option<String> {
    let constraints = parsed.name_constraints().ok()??.value;
    let list = |subtrees: &Option<Vec<GeneralSubtree<'_>>>| {
        let names = subtrees.iter().flatten().filter_map(|subtree| general_name(&subtree.base));
        names.collect::<Vec<_>>().join(", ")
    };
    let (permitted, excluded) = (list(&constraints.permitted_subtrees), list(&constraints.excluded_subtrees));
    match (permitted.is_empty(), excluded.is_empty()) {
        (false, false) => Some(format!("only for {permitted}, but not for {excluded}")),
        (false, true) => Some(format!("only for {permitted}")),
        (true, false) => Some(format!("for any name but {excluded}")),
        (true, true) => None,
    }
}

fn names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    extension.value.general_names.iter().filter_map(general_name).collect()
}

/// A DNS name or an address, which is what a server can have.
fn general_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(clean(name)),
        GeneralName::IPAddress(bytes) => address(bytes),
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::URI(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    // In name constraints a mask follows, of the same length.
    match bytes.len() {
        8 => Some(format!("{}/{}", address(&bytes[..4])?, address(&bytes[4..])?)),
        32 => Some(format!("{}/{}", address(&bytes[..16])?, address(&bytes[16..])?)),
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| std::net::Ipv4Addr::from(octets).to_string()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string()),
        _ => None,
    }
}
