//! Why a server's certificate was refused, in words that lead to the fix.
//!
//! The order is fixed: what was configured and is missing, if anything; what the server presented;
//! why it is not trusted; what the trust store holds and from where; whether a part of the store,
//! or the system's roots that `bundle-only` leaves out, would have accepted it; what to change.
//!
//! A reason is never webpki's: each has words of its own here, and one that nobody foresaw gets a
//! general sentence with webpki's name for it in brackets.

use rustls::{
    CertificateError,
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs},
    pki_types::{CertificateDer, UnixTime},
};

use super::{
    FEW, SourceKind, TrustStore, Trusted,
    anchor::{SystemRoots, is_anchor},
    certificate::{CaUse, Certificate, Validity, date},
    first_few,
    verifier::{Check, Refusal, certificate_error, is_signed_by_another, webpki_reason},
};

/// The smallest RSA key that TLS libraries accept (webpki, OpenSSL's security level 2).
const LEAST_RSA_BITS: usize = 2048;

/// How many of a certificate's names a message lists: certificates of large sites have hundreds.
const MAX_NAMES: usize = 8;

const WHERE_TO: &str = "into the CA ConfigMap's key \"cabundle.crt\" or the storage-config entry's \"certificate\"";

fn algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

/// One line that explains `refusal` by what `store` holds.
pub fn explain(store: &TrustStore, refusal: &Refusal) -> String {
    let mut parts = Vec::new();
    parts.extend(store.absent.clone());
    let Some(presented) = Presented::of(refusal) else {
        parts
            .push("what the server presented cannot be read as a certificate; reissue the server's certificate".into());
        return parts.join("; ");
    };
    parts.push(presented.to_string());
    let verdict = judge(store, refusal, &presented);
    parts.push(verdict.reason);
    parts.push(holdings(store));
    parts.extend(who_else_accepts(store, refusal));
    parts.push(verdict.advice);
    parts.join("; ")
}

/// What the server presented, its own certificate first.
struct Presented {
    chain: Vec<(CertificateDer<'static>, Certificate)>,
    leaf: Certificate,
    /// By its own key, and not by a CA that was given the same name, as in many a tutorial.
    is_self_signed: bool,
}

impl Presented {
    fn of(refusal: &Refusal) -> Option<Self> {
        let chain: Vec<_> =
            refusal.presented.iter().filter_map(|der| Some((der.clone(), Certificate::parse(der)?))).collect();
        let der = refusal.presented.first()?;
        let leaf = Certificate::parse(der)?;
        let is_self_signed = leaf.is_self_issued() && !is_signed_by_another(der, der, refusal.at, algorithms());
        Some(Self { chain, leaf, is_self_signed })
    }

    fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.chain.iter().map(|(_, certificate)| certificate)
    }

    /// From the server's own certificate upwards, each the issuer of the one before, as far as what
    /// was sent goes: servers send them in any order, and others besides.
    fn path(&self) -> Vec<&Certificate> {
        let mut path = vec![&self.leaf];
        while let Some(last) = path.last()
            && !(last.is_self_issued() && (path.len() > 1 || self.is_self_signed))
            && path.len() <= self.chain.len()
            && let Some(issuer) = self.certificates().skip(1).find(|other| last.names_as_issuer(other))
        {
            path.push(issuer);
        }
        path
    }
}

impl std::fmt::Display for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Certificate { subject, issuer, sha256, .. } = &self.leaf;
        write!(f, "the server presented {subject:?} (")?;
        if self.is_self_signed {
            f.write_str("self-signed")?;
        } else {
            write!(f, "issued by {issuer:?}")?;
        }
        write!(f, ", valid until {}, SHA-256 {sha256})", self.leaf.not_after_date())?;
        match self.chain.len() {
            0 | 1 => Ok(()),
            2 => f.write_str(" and 1 more certificate"),
            sent => write!(f, " and {} more certificates", sent - 1),
        }
    }
}

/// Why, and what to change.
struct Verdict {
    reason: String,
    advice: String,
}

impl Verdict {
    fn new(reason: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: advice.into() }
    }
}

fn judge(store: &TrustStore, refusal: &Refusal, presented: &Presented) -> Verdict {
    let leaf = &presented.leaf;
    if refusal.check == Check::HandshakeSignature {
        return refused_signature(leaf);
    }
    let Some(reason) = certificate_error(&refusal.reason) else {
        return unforeseen(None);
    };
    match reason {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => outdated(store, refusal, presented),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            wrong_name(leaf, &refusal.server_name)
        }
        CertificateError::UnknownIssuer if presented.is_self_signed => self_signed(store, leaf),
        CertificateError::UnknownIssuer => unknown_issuer(store, refusal, presented),
        CertificateError::BadSignature if presented.is_self_signed => self_signed(store, leaf),
        CertificateError::BadSignature => bad_signature(store, refusal, presented),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Verdict::new(
            "its extended key usage does not allow a server",
            "reissue the server's certificate with extendedKeyUsage=serverAuth",
        ),
        CertificateError::BadEncoding => {
            Verdict::new("it is not encoded as a certificate has to be (DER)", "reissue the server's certificate")
        }
        other if is_about_algorithms(other) => weak_algorithm(presented),
        other => match webpki_reason(other).as_deref() {
            Some("CaUsedAsEndEntity") if presented.is_self_signed => self_signed(store, leaf),
            Some("CaUsedAsEndEntity") => Verdict::new(
                "it is the certificate of a CA (CA:TRUE), which serves a server only where the trust store holds exactly this one",
                "have the server present a certificate that was issued for it",
            ),
            Some("NameConstraintViolation") => name_constraints(store, presented),
            Some("EndEntityUsedAsCa") => no_issuer(presented).unwrap_or_else(|| unforeseen(Some("EndEntityUsedAsCa"))),
            Some("PathLenConstraintViolated") => Verdict::new(
                "one of its CAs does not allow so many intermediate CAs below it (pathLenConstraint)",
                "have it issued by a CA further up, or that CA reissued with a larger path length",
            ),
            Some("MaximumSignatureChecksExceeded" | "MaximumPathBuildCallsExceeded" | "MaximumPathDepthExceeded") => {
                Verdict::new(
                    format!("there are too many CAs with its issuer's name {:?} to try them all", leaf.issuer),
                    "keep only those of them in the CA bundle that are in use",
                )
            }
            Some("UnsupportedCertVersion") => Verdict::new(
                "it is an X.509 certificate of version 1, which cannot have a subjectAltName",
                format!("reissue it as version 3 with {}", wanted_name(&refusal.server_name)),
            ),
            Some("UnsupportedCriticalExtension") => Verdict::new(
                "a certificate of its chain has a critical extension that this client does not know",
                format!(
                    "put the CA certificate {:?} {WHERE_TO}, or have the chain reissued without that extension",
                    leaf.issuer
                ),
            ),
            name => unforeseen(name),
        },
    }
}

#[allow(deprecated, reason = "rustls still has the variants without context")]
fn is_about_algorithms(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::UnsupportedSignatureAlgorithm
            | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
    )
}

fn unforeseen(name: Option<&str>) -> Verdict {
    let name = name.map_or(String::new(), |name| format!(" ({name})"));
    Verdict::new(
        format!("a certificate of its chain breaks a rule of RFC 5280{name}"),
        "reissue the server's certificate",
    )
}

fn outdated(store: &TrustStore, refusal: &Refusal, presented: &Presented) -> Verdict {
    let now = refusal.at;
    let clock = date(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let Some(culprit) = presented.certificates().find(|certificate| certificate.validity_at(now) != Validity::InDate)
    else {
        let reason = format!("a certificate of its chain is out of date; this container's clock says {clock}");
        return Verdict::new(reason, "renew the chain on the server");
    };
    let subject = if *culprit == presented.leaf { "it".to_owned() } else { format!("{:?}", culprit.subject) };
    let until = culprit.not_after_date();
    let from = date(culprit.not_before);
    match culprit.validity_at(now) {
        Validity::NotYetValid => Verdict::new(
            format!("{subject} is valid only from {from}, and this container's clock says {clock}"),
            "check the clock of this node and of whoever issued the certificate",
        ),
        Validity::Expired | Validity::InDate => {
            let held = store.everything();
            let advice = match held.iter().find(|held| held.certificate == *culprit) {
                Some(pinned) => {
                    format!("renew it on the server, and put the new one where this one is now: {}", pinned.source)
                }
                None => "renew it on the server, or set this node's clock if it is wrong".to_owned(),
            };
            Verdict::new(format!("{subject} expired at {until}, and this container's clock says {clock}"), advice)
        }
    }
}

fn wrong_name(leaf: &Certificate, asked: &str) -> Verdict {
    let reissue = format!("reissue the certificate with {}", wanted_name(asked));
    let parent =
        leaf.names.iter().find(|name| asked.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.')));
    let (carries, advice) = match (leaf.names.as_slice(), parent) {
        ([], _) => (
            "it has no subjectAltName, and the common name does not count (boto3 accepts it, Go and this client do not)"
                .to_owned(),
            reissue,
        ),
        (_, Some(parent)) => (
            format!("it is for {parent:?} but not for names below it"),
            format!("if {asked:?} is that host with the bucket in front, set \"addressing_style\": \"path\"; else {reissue}"),
        ),
        (names, None) => {
            let names = first_few(names, MAX_NAMES);
            (format!("it is for {names}"), format!("use one of its names in the endpoint, or {reissue}"))
        }
    };
    Verdict::new(format!("it is not for {asked:?}: {carries}"), advice)
}

/// As OpenSSL's configuration has it.
fn wanted_name(asked: &str) -> String {
    let kind = if asked.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
    format!("subjectAltName={kind}:{asked}")
}

/// Self-signed, and not one of the bundle's: that would have been a pin.
fn self_signed(store: &TrustStore, leaf: &Certificate) -> Verdict {
    match store.everything().iter().find(|held| held.certificate.is_namesake_of(leaf)) {
        Some(held) => Verdict::new(
            format!(
                "it is self-signed and not in the trust store; the one with the same name in {} is another one (valid until {}, SHA-256 {})",
                held.source,
                held.certificate.not_after_date(),
                held.certificate.sha256
            ),
            "if the server's certificate was renewed, replace it there; compare the SHA-256 with whoever runs the server",
        ),
        None => Verdict::new(
            "it is self-signed and not in the trust store",
            format!("put this certificate itself {WHERE_TO}, after comparing the SHA-256 with whoever runs the server"),
        ),
    }
}

fn unknown_issuer(store: &TrustStore, refusal: &Refusal, presented: &Presented) -> Verdict {
    let path = presented.path();
    let top = path.last().copied().unwrap_or(&presented.leaf);
    if let Some(verdict) = no_issuer(presented) {
        return verdict;
    }
    let everything = store.everything();
    let held_as_issuer =
        |certificate: &Certificate| everything.iter().find(|held| certificate.names_as_issuer(&held.certificate));
    if let Some(held) = path.iter().rev().find_map(|certificate| held_as_issuer(certificate))
        && !is_anchor(&held.certificate, refusal.at)
    {
        return unfit_issuer(held, refusal.at);
    }
    let issuer = &top.issuer;
    if top.is_self_issued() {
        return Verdict::new(
            format!("its root {issuer:?} is not in the trust store (that the server sends it proves nothing)"),
            format!("put the CA certificate {issuer:?} {WHERE_TO}"),
        );
    }
    // A bundle with CAs and a server that sends its own certificate alone: most likely the bundle
    // is right, and what lies between is missing.
    if presented.chain.len() == 1 && store.bundle.iter().any(|held| held.certificate.ca == CaUse::Issuer) {
        return Verdict::new(
            format!("its issuer {issuer:?} is not in the trust store, and the server sent no intermediate certificate"),
            format!("have the server send its whole chain, or put the CA certificate {issuer:?} {WHERE_TO}"),
        );
    }
    Verdict::new(
        format!("its issuer {issuer:?} is not in the trust store"),
        format!("put the CA certificate {issuer:?} {WHERE_TO}"),
    )
}

/// An intermediate that the server sent, and that may not issue.
fn no_issuer(presented: &Presented) -> Option<Verdict> {
    let path = presented.path();
    let issuer = path.into_iter().skip(1).find(|issuer| issuer.ca != CaUse::Issuer)?;
    let subject = &issuer.subject;
    Some(if issuer.ca == CaUse::NoKeyCertSign {
        Verdict::new(
            format!("{subject:?}, which issued it, may not issue certificates (its key usage lacks keyCertSign)"),
            "have that CA reissued with keyUsage=keyCertSign, and the server send the new one",
        )
    } else {
        Verdict::new(
            format!("{subject:?}, which issued it, is no CA certificate (no CA:TRUE)"),
            "have that CA reissued with basicConstraints=CA:TRUE, and the server send the new one",
        )
    })
}

fn unfit_issuer(issuer: &Trusted, now: UnixTime) -> Verdict {
    let certificate = &issuer.certificate;
    let (why, advice) = match (certificate.validity_at(now), certificate.ca) {
        (Validity::Expired, _) => (
            format!("expired at {}", certificate.not_after_date()),
            "replace it there with the CA certificate that is in use now",
        ),
        (Validity::NotYetValid, _) => (
            format!("is valid only from {}", date(certificate.not_before)),
            "check this node's clock, or put the CA certificate that is in use now there",
        ),
        (Validity::InDate, CaUse::NotACa) => (
            "is no CA certificate (no CA:TRUE)".to_owned(),
            "reissue it with basicConstraints=CA:TRUE, and replace it there",
        ),
        (Validity::InDate, CaUse::NoKeyCertSign) => (
            "may not issue certificates (its key usage lacks keyCertSign)".to_owned(),
            "reissue it with keyUsage=keyCertSign, and replace it there",
        ),
        (Validity::InDate, CaUse::Issuer) => {
            ("does not lead to this server".to_owned(), "replace it there with the CA certificate that is in use now")
        }
    };
    Verdict::new(format!("its issuer {:?} is in {}, but {why}", certificate.subject, issuer.source), advice)
}

fn bad_signature(store: &TrustStore, refusal: &Refusal, presented: &Presented) -> Verdict {
    if let Some((leaf, certificate)) = presented.chain.first()
        && let Some((_, intermediate)) = presented.chain.iter().skip(1).find(|(der, other)| {
            certificate.names_as_issuer(other) && is_signed_by_another(leaf, der, refusal.at, algorithms())
        })
    {
        return Verdict::new(
            format!(
                "the server also sent a CA with its issuer's name {:?} but another key (SHA-256 {})",
                intermediate.subject, intermediate.sha256
            ),
            "have the server send the intermediate certificate that issued its own",
        );
    }
    let path = presented.path();
    let everything = store.everything();
    let namesake = path.iter().rev().find_map(|certificate| {
        let namesakes = everything.iter().filter(|held| certificate.names_as_issuer(&held.certificate));
        // One that is no anchor was not even tried.
        namesakes.max_by_key(|held| is_anchor(&held.certificate, refusal.at))
    });
    match namesake {
        Some(held) => Verdict::new(
            format!(
                "{} holds a CA with its issuer's name {:?} but another key (valid until {}, SHA-256 {})",
                held.source,
                held.certificate.subject,
                held.certificate.not_after_date(),
                held.certificate.sha256
            ),
            "replace it there with the CA certificate that is in use now, or add that one",
        ),
        None => Verdict::new(
            "a signature in its chain is not its issuer's, although the issuer's name is the same",
            "have the server send its own chain",
        ),
    }
}

fn weak_algorithm(presented: &Presented) -> Verdict {
    let weak = presented.certificates().find_map(|certificate| Some((certificate, certificate.weak_signature?)));
    match weak {
        Some((certificate, algorithm)) => Verdict::new(
            format!(
                "{:?} is signed with {algorithm}, which can be forged and is no longer accepted",
                certificate.subject
            ),
            "reissue it with SHA-256",
        ),
        None => Verdict::new(
            "it is signed with an algorithm that this client does not have",
            "reissue it with ECDSA P-256 or RSA, and SHA-256",
        ),
    }
}

/// The server could not show in a way that counts that it has the key.
fn refused_signature(leaf: &Certificate) -> Verdict {
    match leaf.rsa_bits {
        Some(bits) if bits < LEAST_RSA_BITS => Verdict::new(
            format!("its RSA key has {bits} bits; fewer than {LEAST_RSA_BITS} are not safe and not accepted"),
            format!(
                "reissue the server's certificate with an RSA key of at least {LEAST_RSA_BITS} bits or an ECDSA key"
            ),
        ),
        Some(_) | None => Verdict::new(
            "the handshake is not signed with its key",
            "check that the server's certificate and private key belong together, and that nothing in between changes the connection",
        ),
    }
}

fn name_constraints(store: &TrustStore, presented: &Presented) -> Verdict {
    let held = store.bundle.iter().map(|held| &held.certificate);
    let constrained = presented
        .path()
        .into_iter()
        .flat_map(|certificate| {
            let issuers = presented.certificates().chain(held.clone());
            issuers.filter(|issuer| certificate.names_as_issuer(issuer))
        })
        .find_map(|issuer| Some((issuer, issuer.name_constraints.as_ref()?)));
    let advice = "have it issued by a CA that may issue for its names, or reissue it for names that are allowed";
    let names = first_few(&presented.leaf.names, MAX_NAMES);
    match constrained {
        Some((issuer, words)) => Verdict::new(
            format!("it is for {names}, and {:?} may issue certificates {words} (name constraints)", issuer.subject),
            advice,
        ),
        None => Verdict::new(
            format!("it is for {names}, and a CA of its chain may not issue for these (name constraints)"),
            advice,
        ),
    }
}

fn holdings(store: &TrustStore) -> String {
    let sources: Vec<String> = store
        .sources
        .iter()
        .map(|source| {
            let of_source = store.bundle.iter().filter(|held| held.source == source.name);
            let subjects: Vec<String> = of_source.map(|held| format!("{:?}", held.certificate.subject)).collect();
            if subjects.is_empty() || source.kind == SourceKind::System {
                source.to_string()
            } else {
                format!("{source} ({})", first_few(&subjects, FEW))
            }
        })
        .collect();
    if sources.is_empty() {
        "the trust store is empty".to_owned()
    } else {
        format!("certificates in the trust store: {}", sources.join(", "))
    }
}

/// The parts of the store that would have accepted it: more trust can be too much of it for webpki,
/// which bounds its search.
fn who_else_accepts(store: &TrustStore, refusal: &Refusal) -> Option<String> {
    if refusal.check == Check::HandshakeSignature {
        return None;
    }
    let accepts = |bundle: &[Trusted], system: &SystemRoots| store.verifier_of(bundle, system).would_accept(refusal);
    let nothing = SystemRoots::default();
    if accepts(&[], &store.left_out) {
        Some("the system roots would accept it, but TRUST_STORE=bundle-only leaves them out".to_owned())
    } else if accepts(&store.bundle, &nothing) {
        Some("the bundle alone would accept it (TRUST_STORE=bundle-only)".to_owned())
    } else if accepts(&[], &store.system) {
        Some("the system roots alone would accept it".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls::Error;

    use super::*;

    /// A root, an intermediate and a server's certificate.
    fn chain(names: &[&str]) -> [CertificateDer<'static>; 3] {
        let params = |name: &str, is_ca: IsCa, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = is_ca;
            params
        };
        let ca = || IsCa::Ca(BasicConstraints::Unconstrained);
        let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
        let (root, middle) = (params("Root", ca(), &[]), params("Middle", ca(), &[]));
        let leaf = params("leaf", IsCa::NoCa, names);
        [
            root.self_signed(&keys[0]).unwrap().der().clone(),
            middle.signed_by(&keys[1], &Issuer::from_params(&root, &keys[0])).unwrap().der().clone(),
            leaf.signed_by(&keys[2], &Issuer::from_params(&middle, &keys[1])).unwrap().der().clone(),
        ]
    }

    fn refusal(presented: Vec<CertificateDer<'static>>, reason: CertificateError) -> Refusal {
        Refusal {
            server_name: "localhost".to_owned(),
            presented,
            reason: Error::from(reason),
            check: Check::Certificate,
            at: UnixTime::now(),
        }
    }

    #[test]
    fn the_path_is_found_in_any_order_and_ends_even_in_a_circle() {
        let [root, middle, leaf] = chain(&["localhost"]);
        let presented = vec![leaf.clone(), root.clone(), middle.clone(), middle.clone()];
        let presented = Presented::of(&refusal(presented, CertificateError::UnknownIssuer)).unwrap();
        let subjects: Vec<&str> = presented.path().iter().map(|certificate| certificate.subject.as_str()).collect();
        assert_eq!(subjects, ["CN=leaf", "CN=Middle", "CN=Root"]);
    }

    #[test]
    fn what_cannot_be_parsed_is_explained_all_the_same() {
        let rubbish = vec![CertificateDer::from(vec![0x30, 0x00])];
        let text = explain(&TrustStore::empty(true), &refusal(rubbish, CertificateError::BadEncoding));
        assert!(text.starts_with("what the server presented cannot be read as a certificate"), "{text}");
        assert!(!explain(&TrustStore::empty(true), &refusal(Vec::new(), CertificateError::BadEncoding)).is_empty());
    }

    #[test]
    fn a_reason_that_nobody_foresaw_shows_at_most_a_name() {
        let [_, _, leaf] = chain(&["localhost"]);
        let text = explain(&TrustStore::empty(true), &refusal(vec![leaf], CertificateError::Revoked));
        assert!(text.contains("breaks a rule of RFC 5280;"), "{text}");
    }

    /// What webpki calls its own errors, in the order in which they are explained.
    #[test]
    fn no_name_of_webpkis_is_an_explanation() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}(Context)")]
        struct Webpki(&'static str);
        let [_, _, leaf] = chain(&["localhost"]);
        for name in [
            "CaUsedAsEndEntity",
            "NameConstraintViolation",
            "PathLenConstraintViolated",
            "MaximumSignatureChecksExceeded",
            "MaximumPathBuildCallsExceeded",
            "MaximumPathDepthExceeded",
            "UnsupportedCertVersion",
            "UnsupportedCriticalExtension",
        ] {
            let reason = CertificateError::Other(rustls::OtherError(std::sync::Arc::new(Webpki(name))));
            let text = explain(&TrustStore::empty(true), &refusal(vec![leaf.clone()], reason));
            assert!(!text.contains(name) && !text.contains("RFC 5280"), "{text}");
        }
        let reason = CertificateError::Other(rustls::OtherError(std::sync::Arc::new(Webpki("SomethingNew"))));
        let text = explain(&TrustStore::empty(true), &refusal(vec![leaf], reason));
        assert!(text.contains("breaks a rule of RFC 5280 (SomethingNew);"), "{text}");
    }

    #[test]
    fn a_bucket_in_front_of_the_certificates_host_leads_to_path_style() {
        let [_, _, leaf] = chain(&["minio.example"]);
        let leaf = Certificate::parse(&leaf).unwrap();
        let verdict = wrong_name(&leaf, "models.minio.example");
        assert!(verdict.advice.contains(r#""addressing_style": "path""#), "{}", verdict.advice);
        let verdict = wrong_name(&leaf, "otherminio.example");
        assert!(!verdict.advice.contains("addressing_style"), "{}", verdict.advice);
    }
}
