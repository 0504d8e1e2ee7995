//! Why a server's certificate was refused, in words that lead to the fix.
//!
//! The order is fixed: what was configured and is missing, if anything; what the server presented;
//! why it is not trusted; what the trust store holds and from where; what to change.

use rustls::{CertificateError, Error, pki_types::UnixTime};

use super::{
    SourceKind, TrustStore,
    certificate::{CaUse, Certificate, Validity, date},
    is_anchor,
    verifier::{Refusal, certificate_error, webpki_reason},
};

/// One line that explains `refusal` by what `store` holds.
pub fn explain(store: &TrustStore, refusal: &Refusal) -> String {
    let chain: Vec<Certificate> = refusal.presented.iter().filter_map(|der| Certificate::parse(der)).collect();
    let mut parts = Vec::new();
    parts.extend(store.absent.clone());
    let Some(leaf) = chain.first() else {
        parts.push(format!("the server presented something that is not a certificate ({})", refusal.reason));
        return parts.join("; ");
    };
    parts.push(presented(leaf));
    let verdict = judge(store, refusal, &chain, leaf);
    parts.push(verdict.reason);
    parts.push(holdings(store));
    parts.push(verdict.advice);
    parts.join("; ")
}

fn presented(leaf: &Certificate) -> String {
    let issuer = if leaf.is_self_issued() { "self-signed".to_owned() } else { format!("issued by {:?}", leaf.issuer) };
    format!(
        "the server presented {:?} ({issuer}, valid until {}, SHA-256 {})",
        leaf.subject,
        date(leaf.not_after),
        leaf.sha256
    )
}

struct Verdict {
    reason: String,
    advice: String,
}

fn judge(store: &TrustStore, refusal: &Refusal, chain: &[Certificate], leaf: &Certificate) -> Verdict {
    let Some(reason) = certificate_error(&refusal.reason) else {
        return Verdict { reason: refusal.reason.to_string(), advice: "reissue the server's certificate".to_owned() };
    };
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            outdated(chain, refusal.at, "renew it on the server")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            outdated(chain, refusal.at, "check the clocks of this node and of the certificate's issuer")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            wrong_name(leaf, &refusal.server_name)
        }
        CertificateError::UnknownIssuer => unknown_issuer(store, refusal, chain, leaf),
        CertificateError::BadSignature => bad_signature(store, chain),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Verdict {
            reason: "its extended key usage does not allow a server".to_owned(),
            advice: "reissue it with extendedKeyUsage serverAuth".to_owned(),
        },
        other => Verdict {
            reason: webpki_reason(other).unwrap_or_else(|| Error::from(other.clone()).to_string()),
            advice: "reissue the server's certificate".to_owned(),
        },
    }
}

fn outdated(chain: &[Certificate], now: UnixTime, advice: &str) -> Verdict {
    let culprit = chain.iter().find(|certificate| certificate.validity_at(now) != Validity::InDate);
    let clock = date(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let reason = culprit.map_or_else(
        || format!("a certificate of its chain is out of date (this container's clock says {clock})"),
        |culprit| {
            format!(
                "{:?} is valid from {} until {}, and this container's clock says {clock}",
                culprit.subject,
                date(culprit.not_before),
                date(culprit.not_after)
            )
        },
    );
    Verdict { reason, advice: advice.to_owned() }
}

fn wrong_name(leaf: &Certificate, asked: &str) -> Verdict {
    let (carries, advice) = if leaf.names.is_empty() {
        (
            "no subject alternative name at all (Python clients accept the common name, this one does not)".to_owned(),
            format!("reissue it with the subject alternative name {asked}"),
        )
    } else {
        (
            leaf.names.join(", "),
            format!("use one of these names in the endpoint, or reissue the certificate for {asked}"),
        )
    };
    Verdict { reason: format!("the certificate is not for {asked:?}; it carries: {carries}"), advice }
}

fn unknown_issuer(store: &TrustStore, refusal: &Refusal, chain: &[Certificate], leaf: &Certificate) -> Verdict {
    // The last certificate of the presented chain names what is missing.
    let last = chain.last().unwrap_or(leaf);
    let held = store.bundle.iter().find(|held| last.names_as_issuer(&held.certificate));
    if let Some(held) = held
        && !is_anchor(&held.certificate, refusal.at)
    {
        return unfit_issuer(&held.certificate, &held.source, refusal.at);
    }
    if leaf.is_self_issued() {
        return Verdict {
            reason: "it is not in the trust store".to_owned(),
            advice: format!("put this certificate itself {}", where_to()),
        };
    }
    if chain.len() == 1 && !last.is_self_issued() && store_holds_an_issuer_chain(store) {
        return Verdict {
            reason: format!(
                "no certificate of its issuer {:?} is in the trust store, and the server sent no intermediate",
                last.issuer
            ),
            advice: format!(
                "have the server send its whole chain, or put the CA certificate {:?} {}",
                last.issuer,
                where_to()
            ),
        };
    }
    Verdict {
        reason: format!("no certificate of its issuer {:?} is in the trust store", last.issuer),
        advice: format!("put the CA certificate {:?} {}", last.issuer, where_to()),
    }
}

fn unfit_issuer(issuer: &Certificate, source: &str, now: UnixTime) -> Verdict {
    let why = match (issuer.validity_at(now), issuer.ca) {
        (Validity::Expired, _) => format!("it expired at {}", date(issuer.not_after)),
        (Validity::NotYetValid, _) => {
            format!("it is valid only from {}", date(issuer.not_before))
        }
        (Validity::InDate, CaUse::NotACa) => "it is not a CA (no CA:TRUE)".to_owned(),
        (Validity::InDate, CaUse::NoKeyCertSign) => "its key usage has no keyCertSign".to_owned(),
        (Validity::InDate, CaUse::Issuer) => "it does not lead to this server".to_owned(),
    };
    Verdict {
        reason: format!("its issuer {:?} is in {source}, but {why}", issuer.subject),
        advice: "replace it there with the CA that is in use".to_owned(),
    }
}

fn bad_signature(store: &TrustStore, chain: &[Certificate]) -> Verdict {
    let namesake = chain
        .iter()
        .find_map(|certificate| store.bundle.iter().find(|held| certificate.names_as_issuer(&held.certificate)));
    match namesake {
        Some(held) => Verdict {
            reason: format!(
                "{} holds a CA with the issuer's name {:?} but another key (SHA-256 {})",
                held.source, held.certificate.subject, held.certificate.sha256
            ),
            advice: "replace it there with the CA that is in use now".to_owned(),
        },
        None => Verdict {
            reason: "a signature in its chain is wrong".to_owned(),
            advice: "have the server send its own chain".to_owned(),
        },
    }
}

/// Whether the user has given CAs at all, so that a missing intermediate is a likely cause.
fn store_holds_an_issuer_chain(store: &TrustStore) -> bool {
    store.bundle.iter().any(|held| held.certificate.ca == CaUse::Issuer)
}

fn where_to() -> &'static str {
    "into the CA ConfigMap's key \"cabundle.crt\" or the storage-config entry's \"certificate\""
}

fn holdings(store: &TrustStore) -> String {
    let sources: Vec<String> = store
        .sources
        .iter()
        .map(|source| {
            let named = store
                .bundle
                .iter()
                .filter(|held| held.source == source.name)
                .take(3)
                .map(|held| format!("{:?}", held.certificate.subject))
                .collect::<Vec<_>>();
            if named.is_empty() || source.kind == SourceKind::System {
                source.to_string()
            } else {
                format!("{source} ({})", named.join(", "))
            }
        })
        .collect();
    if sources.is_empty() {
        "the trust store is empty".to_owned()
    } else {
        format!("looked in: {}", sources.join(", "))
    }
}
