//! What can go wrong between this program and a server, in words that say which host, which step,
//! why, and what to change.

use std::{error::Error as StdError, io, time::Duration};

use crate::trust_store::{Refusal, TrustStore, explain};

/// What went wrong between this program and a server, before or within HTTP.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HttpError {
    /// The server's certificate is not trusted; the text is the trust store's explanation.
    #[error("TLS with {host} refused: {explanation}")]
    CertificateRefused {
        /// The host and port.
        host: String,
        /// What was presented, why it is refused, what to change.
        explanation: String,
    },
    /// TLS could not be agreed on.
    #[error("TLS with {host} failed: {explanation}")]
    Handshake {
        /// The host and port.
        host: String,
        /// Why.
        explanation: String,
    },
    /// The name has no address.
    #[error("host name {host} cannot be resolved: {cause}; check the endpoint's spelling and the cluster's DNS")]
    Dns {
        /// The host and port.
        host: String,
        /// The resolver's words.
        cause: String,
    },
    /// No TCP connection.
    #[error(
        "no connection to {host}: {cause}; is it the right host and port, may this pod reach it, and does a service mesh hold back the network until its sidecar runs?"
    )]
    Connect {
        /// The host and port.
        host: String,
        /// The system's words.
        cause: String,
    },
    /// No TCP connection through the proxy.
    #[error(
        "no connection to {host} through proxy {proxy}: {cause}; is the proxy up, and should NO_PROXY name this host?"
    )]
    ConnectByProxy {
        /// The host and port.
        host: String,
        /// The proxy, without its credentials.
        proxy: String,
        /// The system's words.
        cause: String,
    },
    /// The proxy wants to know who asks, or knows another password.
    #[error(
        "no connection to {host} through proxy {proxy}: {PROXY_WANTS_PASSWORD}; write http://USER:PASSWORD@HOST:PORT into the variable that names the proxy"
    )]
    ProxyPassword {
        /// The host and port.
        host: String,
        /// The proxy, without its credentials.
        proxy: String,
    },
    /// Nothing came in time.
    #[error("no answer from {host} within {} s", .after.as_secs_f32())]
    Timeout {
        /// The host and port.
        host: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("the connection to {host} broke: {cause}")]
    Broken {
        /// The host and port.
        host: String,
        /// The innermost words.
        cause: String,
    },
    /// The request cannot be sent at all.
    #[error("the request to {host} cannot be sent: {cause}")]
    Unsendable {
        /// The host and port.
        host: String,
        /// Why.
        cause: String,
    },
}

/// reqwest's words for a 407, and this program's.
pub(super) const PROXY_WANTS_PASSWORD: &str = "proxy authorization required";

impl HttpError {
    /// Whether another attempt would end the same way: certificates and protocols do not change
    /// within a run.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::CertificateRefused { .. }
            | Self::Handshake { .. }
            | Self::ProxyPassword { .. }
            | Self::Unsendable { .. } => true,
            Self::Dns { .. }
            | Self::Connect { .. }
            | Self::ConnectByProxy { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. } => false,
        }
    }

    /// What a refused or failed handshake means; `trust_store` has kept what the server presented.
    pub(super) fn of_tls(trust_store: &TrustStore, host: String, error: &rustls::Error) -> Self {
        if let rustls::Error::InvalidCertificate(_) = error {
            let explanation = trust_store
                .handshakes()
                .last_refused()
                .map_or_else(|| error.to_string(), |refusal: Refusal| explain(trust_store, &refusal));
            return Self::CertificateRefused { host, explanation };
        }
        let explanation = match error {
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
                "the server speaks plain HTTP on this port; write the endpoint with http://, or use the port that speaks TLS".to_owned()
            }
            rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion) => {
                "the server speaks only old TLS; enable TLS 1.2 or 1.3 on it".to_owned()
            }
            rustls::Error::PeerIncompatible(_)
            | rustls::Error::AlertReceived(rustls::AlertDescription::InsufficientSecurity) => {
                "the server has no TLS version or cipher suite that this client has; enable TLS 1.3 on it, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20".to_owned()
            }
            rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure) => {
                "the server ended the handshake: it has no cipher suite that this client has, or it wants a client certificate, which S3 does not have; enable TLS 1.3 on it, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20, or use a port without client certificates".to_owned()
            }
            rustls::Error::AlertReceived(rustls::AlertDescription::UnrecognisedName) => {
                "the server does not know this host name; check the endpoint's spelling and the routes in front of the store".to_owned()
            }
            rustls::Error::AlertReceived(
                rustls::AlertDescription::CertificateRequired
                | rustls::AlertDescription::BadCertificate,
            ) => "the server wants a client certificate, which S3 does not have; use the port that is meant for clients outside of a service mesh".to_owned(),
            _ => error.to_string(),
        };
        Self::Handshake { host, explanation }
    }

    /// A name without an address: the proxy's where there is one, because then no other is looked up.
    pub(super) fn of_resolving(host: String, proxy: Option<String>, cause: String) -> Self {
        match proxy {
            Some(proxy) => Self::ConnectByProxy { host, proxy, cause: format!("its name cannot be resolved: {cause}") },
            None => Self::Dns { host, cause },
        }
    }

    /// No connection, because of the proxy where there is one.
    pub(super) fn of_connecting(host: String, proxy: Option<String>, cause: String) -> Self {
        match proxy {
            Some(proxy) if cause.ends_with(PROXY_WANTS_PASSWORD) => Self::ProxyPassword { host, proxy },
            Some(proxy) => Self::ConnectByProxy { host, proxy, cause },
            None => Self::Connect { host, cause },
        }
    }
}

/// rustls' error, wherever in the chain it hides: an `io::Error` does not give its inner error as
/// its source.
pub(super) fn find_tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    find::<rustls::Error>(error)
}

pub(super) fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_inside_an_io_error_is_found() {
        let inner = io::Error::other(rustls::Error::DecryptError);
        let outer = io::Error::other(inner);
        assert_eq!(find_tls_error(&outer), Some(&rustls::Error::DecryptError));
        assert_eq!(find_tls_error(&io::Error::other("plain")), None);
    }
}
