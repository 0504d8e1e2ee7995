//! The HTTP clients: one for the store, one for credentials.
//!
//! Both are reqwest with this program's own rustls configuration, and serve the AWS SDK as its
//! [`HttpClient`]. HTTP/1.1 without redirects, without retries and without content decoding: S3
//! redirects need a new signature, retries belong to whoever knows what was already written, and
//! a model is stored as it is meant to be read. Proxies follow `HTTPS_PROXY`, `HTTP_PROXY` and
//! `NO_PROXY`.
//!
//! The bytes of objects come another way: a [`Link`] is one thread's blocking connection, with the
//! same TLS, proxies and words.
//!
//! Every failure leaves as an [`HttpError`] that says which host, which step and why; whether to
//! try again is for the caller to decide by [`HttpError::is_permanent`].

mod dial;
mod error;
mod framing;
mod head;
mod link;
#[cfg(test)]
pub(crate) mod peer;
mod stream;
mod tls;

use std::{
    error::Error as StdError,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    shared::IntoShared as _,
};
use aws_smithy_types::body::SdkBody;

use hyper_util::client::proxy::matcher::Matcher;

use self::error::{find, find_tls_error};
pub use self::{
    dial::Origin,
    error::HttpError,
    head::Head,
    link::{Link, Received, Request},
};
use crate::{
    cause::innermost,
    settings::Limits,
    trust_store::{TrustError, TrustStore},
};

/// One HTTP client with its trust store.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    /// For metadata services, which no proxy may see.
    direct: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
    trust_store: Arc<TrustStore>,
    /// reqwest reads the same variables by the same rules, and does not tell.
    proxies: Arc<Matcher>,
    connect_timeout: Duration,
    first_byte_timeout: Duration,
}

/// Why there is no HTTP client.
#[derive(Debug, thiserror::Error)]
pub enum HttpSetupError {
    /// The trust store does not make a TLS client.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// reqwest refuses, most often because of a proxy variable.
    #[error("the HTTP client cannot be set up; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")]
    Client(#[source] reqwest::Error),
}

impl Http {
    /// A client that trusts `trust_store`.
    ///
    /// # Errors
    ///
    /// [`HttpSetupError`] where reqwest or rustls refuse the configuration.
    pub fn new(trust_store: TrustStore, limits: &Limits) -> Result<Self, HttpSetupError> {
        let tls = trust_store.client_config()?;
        let builder = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .http1_only()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .dns_resolver(ShuffledResolver)
                .connect_timeout(limits.connect_timeout.value)
        };
        Ok(Self {
            client: builder().build().map_err(HttpSetupError::Client)?,
            direct: builder().no_proxy().build().map_err(HttpSetupError::Client)?,
            tls: Arc::new(tls),
            trust_store: Arc::new(trust_store),
            proxies: Arc::new(Matcher::from_env()),
            connect_timeout: limits.connect_timeout.value,
            first_byte_timeout: limits.first_byte_timeout.value,
        })
    }

    /// Whether `url` answers HTTP at all, whatever the answer.
    ///
    /// # Errors
    ///
    /// [`HttpError`], as any request would end.
    pub async fn probe(&self, url: &reqwest::Url) -> Result<(), HttpError> {
        let request = reqwest::Request::new(reqwest::Method::HEAD, url.clone());
        self.send(request, self.connect_timeout + self.first_byte_timeout).await.map(drop)
    }

    /// The proxy that requests to `url` go through, without its credentials.
    pub fn proxy_for(&self, url: &reqwest::Url) -> Option<String> {
        let url = url.as_str().parse().ok()?;
        Some(self.proxies.intercept(&url)?.uri().to_string())
    }

    /// Sends one request and waits for the head of its answer.
    async fn send(&self, request: reqwest::Request, timeout: Duration) -> Result<reqwest::Response, HttpError> {
        let url = request.url();
        let is_direct = is_metadata_service(url.host_str());
        let host = match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            _ => url.to_string(),
        };
        let proxy = if is_direct { None } else { self.proxy_for(url) };
        let client = if is_direct { &self.direct } else { &self.client };
        match tokio::time::timeout(timeout, client.execute(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.classify(host, proxy, &error)),
            Err(_) => Err(HttpError::Timeout { host, after: timeout }),
        }
    }

    /// Whose certificate was refused. By way of a proxy behind TLS there are two, told apart by the name that was asked for.
    fn refused(&self, host: String, proxy: Option<&str>) -> String {
        let proxy = proxy.and_then(|proxy| reqwest::Url::parse(proxy).ok()).filter(|proxy| proxy.scheme() == "https");
        let refusal = self.trust_store.handshakes().last_refused();
        let (Some(proxy), Some(refusal)) = (proxy, refusal) else { return host };
        let is_host = host.rsplit_once(':').is_some_and(|(name, _)| name == refusal.server_name);
        match (proxy.host_str(), proxy.port_or_known_default()) {
            (Some(name), Some(port)) if name == refusal.server_name && !is_host => format!("the proxy {name}:{port}"),
            _ => host,
        }
    }

    fn classify(&self, host: String, proxy: Option<String>, error: &reqwest::Error) -> HttpError {
        if let Some(tls) = find_tls_error(error) {
            return HttpError::of_tls(&self.trust_store, self.refused(host, proxy.as_deref()), tls);
        }
        let cause = innermost(error);
        if find::<NoAddress>(error).is_some() {
            HttpError::of_resolving(host, proxy, cause)
        } else if error.is_timeout() {
            HttpError::Timeout { host, after: self.connect_timeout }
        } else if error.is_connect() {
            HttpError::of_connecting(host, proxy, cause)
        } else if error.is_builder() {
            HttpError::Unsendable { host, cause }
        } else {
            HttpError::Broken { host, cause }
        }
    }
}

/// The link-local addresses and names of EC2's, ECS' and EKS' metadata services.
fn is_metadata_service(host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        // EC2 and EKS: fd00:ec2::254, fd00:ec2::23.
        Ok(IpAddr::V6(address)) => address.segments()[..2] == [0xfd00, 0x0ec2],
        Err(_) => false,
    }
}

/// What a name resolved to, in random order: many connections then reach many of the store's front
/// ends.
#[derive(Debug)]
struct ShuffledResolver;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoAddress(String);

impl reqwest::dns::Resolve for ShuffledResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let addresses =
                tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|error| NoAddress(error.to_string()))?;
            let mut addresses: Vec<SocketAddr> = addresses.collect();
            if addresses.is_empty() {
                return Err(NoAddress("it has no address".to_owned()).into());
            }
            fastrand::shuffle(&mut addresses);
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

impl HttpClient for Http {
    fn http_connector(&self, settings: &HttpConnectorSettings, _components: &RuntimeComponents) -> SharedHttpConnector {
        // The SDK's own clients bring their own limits: IMDS wants an answer within a second.
        let timeout = match (settings.connect_timeout(), settings.read_timeout()) {
            (None, None) => self.connect_timeout + self.first_byte_timeout,
            (connect, read) => connect.unwrap_or(self.connect_timeout) + read.unwrap_or(self.first_byte_timeout),
        };
        Connector { http: self.clone(), timeout }.into_shared()
    }
}

#[derive(Clone, Debug)]
struct Connector {
    http: Http,
    timeout: Duration,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move {
            let request = into_reqwest(request)?;
            let response = connector.http.send(request, connector.timeout).await.map_err(into_connector_error)?;
            from_reqwest(response)
        })
    }
}

fn into_reqwest(request: HttpRequest) -> Result<reqwest::Request, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (parts, body) = request.into_parts();
    // What this program sends is in memory: listings, heads, gets, and the forms of STS.
    let body =
        body.bytes().map(<[u8]>::to_vec).ok_or_else(|| ConnectorError::user("a streaming request body".into()))?;
    reqwest::Request::try_from(http::Request::from_parts(parts, body))
        .map_err(|error| ConnectorError::user(error.into()))
}

fn from_reqwest(response: reqwest::Response) -> Result<HttpResponse, ConnectorError> {
    let response = http::Response::<reqwest::Body>::from(response).map(SdkBody::from_body_1_x);
    HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
}

fn into_connector_error(error: HttpError) -> ConnectorError {
    match error {
        HttpError::Timeout { .. } => ConnectorError::timeout(error.into()),
        HttpError::Unsendable { .. } => ConnectorError::user(error.into()),
        HttpError::CertificateRefused { .. }
        | HttpError::Handshake { .. }
        | HttpError::Dns { .. }
        | HttpError::Connect { .. }
        | HttpError::ConnectByProxy { .. }
        | HttpError::ProxyPassword { .. }
        | HttpError::Broken { .. } => ConnectorError::io(error.into()),
    }
}

/// The [`HttpError`] inside an error of the SDK, if the failure was one of HTTP's.
pub fn http_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a HttpError> {
    find::<HttpError>(error)
}

/// Whether an error of the SDK is one of reading an answer whose head had come.
pub fn is_broken_body(error: &(dyn StdError + 'static)) -> bool {
    find::<reqwest::Error>(error).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_are_reached_without_a_proxy_and_stores_are_not() {
        for host in ["169.254.169.254", "169.254.170.23", "[fd00:ec2::254]"] {
            assert!(is_metadata_service(Some(host)), "{host}");
        }
        for host in ["10.0.0.1", "minio.example", "[::1]"] {
            assert!(!is_metadata_service(Some(host)), "{host}");
        }
    }
}
