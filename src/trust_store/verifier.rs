//! The verifier that rustls asks: a chain to an anchor, or an exact pin.
//!
//! webpki refuses a CA certificate that a server presents as its own (`CaUsedAsEndEntity`), which
//! is what `openssl req -x509` makes and what users of private stores paste. A certificate that the
//! user has put into the bundle, and that the server presents byte for byte, is trusted as the
//! server's own: in date, for this name, with a key usage that allows a server, and with a
//! handshake signature by its key. OpenSSL and Go accept the same certificate.
//!
//! Every refusal is kept with the chain that led to it, because the error that comes out of the
//! HTTP client's layers holds neither.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::certificate::{CaUse, Certificate, Validity};

/// A server certificate that was not accepted.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The name that was asked for.
    pub server_name: String,
    /// What the server presented, its own certificate first.
    pub presented: Vec<CertificateDer<'static>>,
    /// Why.
    pub reason: Error,
    /// Which of the two checks refused it.
    pub check: Check,
    /// The moment of the decision.
    pub at: UnixTime,
}

/// What is checked of a server certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The certificate: its chain or pin, its dates, its name and its purpose.
    Certificate,
    /// The signature by which the server shows that it has the certificate's key.
    HandshakeSignature,
}

/// A server certificate that was accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The server's own certificate.
    pub certificate: CertificateDer<'static>,
    /// Whether it is one of the trusted certificates itself, rather than issued by one.
    pub is_pinned: bool,
}

/// How the last handshakes ended. One run talks to one store, so the last refusal is also the one that ends it.
#[derive(Clone, Debug, Default)]
pub struct Handshakes {
    refused: Arc<Mutex<Option<Refusal>>>,
    accepted: Arc<Mutex<Option<Accepted>>>,
}

impl Handshakes {
    /// The last refusal, if there was one.
    pub fn last_refused(&self) -> Option<Refusal> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last certificate that was accepted, if there was one.
    pub fn last_accepted(&self) -> Option<Accepted> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, refusal: Refusal) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }

    fn keep_accepted(&self, accepted: Accepted) {
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepted);
    }
}

/// Accepts a chain to one of the anchors, or one of the pins.
#[derive(Debug)]
pub(super) struct AnchorOrPin {
    pub(super) anchors: RootCertStore,
    pub(super) pins: Vec<CertificateDer<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    pub(super) handshakes: Handshakes,
}

impl AnchorOrPin {
    /// Whether this one would have accepted what another refused.
    pub(super) fn would_accept(&self, refusal: &Refusal) -> bool {
        let Some((end_entity, intermediates)) = refusal.presented.split_first() else { return false };
        ServerName::try_from(refusal.server_name.as_str())
            .is_ok_and(|name| self.decide(end_entity, intermediates, &name, refusal.at).is_ok())
    }

    fn decide(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if self.pins.iter().any(|pin| pin == end_entity) {
            check_pinned(end_entity, now)?;
        } else {
            let (issuers, algorithms) = (issuers(intermediates), self.algorithms.all);
            verify_server_cert_signed_by_trust_anchor(&certificate, &self.anchors, &issuers, now, algorithms)?;
        }
        verify_server_name(&certificate, server_name)
    }

    /// Keeps why a handshake signature was refused; the name and the rest of the chain were fine.
    fn keep_signature_refusal(&self, certificate: &CertificateDer<'_>, reason: Error) -> Error {
        self.handshakes.keep(Refusal {
            server_name: String::new(),
            presented: vec![certificate.clone().into_owned()],
            reason: reason.clone(),
            check: Check::HandshakeSignature,
            at: UnixTime::now(),
        });
        reason
    }
}

/// Whether `end_entity` was signed with another key than `issuer`'s. Another fault that webpki finds
/// first hides the answer, which is then no.
pub(super) fn is_signed_by_another(
    end_entity: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
    now: UnixTime,
    algorithms: WebPkiSupportedAlgorithms,
) -> bool {
    let mut anchors = RootCertStore::empty();
    anchors.add_parsable_certificates([issuer.clone().into_owned()]);
    let Ok(certificate) = ParsedCertificate::try_from(end_entity) else { return false };
    let result = verify_server_cert_signed_by_trust_anchor(&certificate, &anchors, &[], now, algorithms.all);
    matches!(result, Err(Error::InvalidCertificate(CertificateError::BadSignature)))
}

/// The intermediates that may issue certificates. webpki looks for `CA:TRUE`, and never at the key
/// usage (RFC 5280, section 6.1.4 (n)); OpenSSL and Go look at both.
fn issuers<'a>(intermediates: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    let may_issue = |der: &&CertificateDer<'_>| {
        Certificate::parse(der).is_none_or(|certificate| certificate.ca != CaUse::NoKeyCertSign)
    };
    intermediates.iter().filter(may_issue).cloned().collect()
}

/// What a chain to an anchor would have checked, and a pin has to check by itself.
fn check_pinned(end_entity: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let Some(certificate) = Certificate::parse(end_entity) else {
        return Err(CertificateError::BadEncoding.into());
    };
    match certificate.validity_at(now) {
        Validity::InDate => {}
        Validity::Expired => return Err(CertificateError::Expired.into()),
        Validity::NotYetValid => return Err(CertificateError::NotValidYet.into()),
    }
    if !certificate.may_serve {
        return Err(CertificateError::InvalidPurpose.into());
    }
    Ok(())
}

impl ServerCertVerifier for AnchorOrPin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.decide(end_entity, intermediates, server_name, now) {
            Ok(()) => {
                let is_pinned = self.pins.iter().any(|pin| pin == end_entity);
                self.handshakes.keep_accepted(Accepted { certificate: end_entity.clone().into_owned(), is_pinned });
                Ok(ServerCertVerified::assertion())
            }
            Err(reason) => {
                let presented = std::iter::once(end_entity)
                    .chain(intermediates)
                    .map(|certificate| certificate.clone().into_owned())
                    .collect();
                self.handshakes.keep(Refusal {
                    server_name: server_name.to_str().into_owned(),
                    presented,
                    reason: reason.clone(),
                    check: Check::Certificate,
                    at: now,
                });
                Err(reason)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
            .map_err(|reason| self.keep_signature_refusal(certificate, reason))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
            .map_err(|reason| self.keep_signature_refusal(certificate, reason))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// `verify_ssl: false`: any certificate will do; the handshake is still a real one.
#[derive(Debug)]
pub(super) struct Unverified {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The reason inside an error of rustls, if it is about a certificate.
pub(super) fn certificate_error(error: &Error) -> Option<&CertificateError> {
    match error {
        Error::InvalidCertificate(reason) => Some(reason),
        _ => None,
    }
}

/// The name of webpki's own error, where rustls passes it on unchanged. A name and not a type: rustls
/// does not export webpki, and a second copy of it here could be of another version.
pub(super) fn webpki_reason(error: &CertificateError) -> Option<String> {
    match error {
        CertificateError::Other(OtherError(inner)) => {
            let words = inner.to_string();
            Some(words.chars().take_while(char::is_ascii_alphanumeric).collect())
        }
        _ => None,
    }
}
