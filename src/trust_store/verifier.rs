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

use super::certificate::{Certificate, Validity};

/// A server certificate that was not accepted.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The name that was asked for.
    pub server_name: String,
    /// What the server presented, its own certificate first.
    pub presented: Vec<CertificateDer<'static>>,
    /// Why.
    pub reason: Error,
    /// The moment of the decision.
    pub at: UnixTime,
}

/// The last refusal. One run talks to one store, so the last is also the one that ends it.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<Option<Refusal>>>);

impl Refusals {
    /// The last refusal, if there was one.
    pub fn last(&self) -> Option<Refusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, refusal: Refusal) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }
}

/// Accepts a chain to one of the anchors, or one of the pins.
#[derive(Debug)]
pub(super) struct AnchorOrPin {
    pub(super) anchors: RootCertStore,
    pub(super) pins: Vec<CertificateDer<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    pub(super) refusals: Refusals,
}

impl AnchorOrPin {
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
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.anchors,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        verify_server_name(&certificate, server_name)
    }
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
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(reason) => {
                let presented = std::iter::once(end_entity)
                    .chain(intermediates)
                    .map(|certificate| certificate.clone().into_owned())
                    .collect();
                self.refusals.keep(Refusal {
                    server_name: server_name.to_str().into_owned(),
                    presented,
                    reason: reason.clone(),
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

/// webpki's own reason, where rustls passes it on unchanged.
pub(super) fn webpki_reason(error: &CertificateError) -> Option<String> {
    match error {
        CertificateError::Other(OtherError(inner)) => Some(inner.to_string()),
        _ => None,
    }
}
