//! The HTTP client of the credential chain: small answers, read whole within a limit, and no secrets for the store.

use std::time::Duration;

use aws_smithy_runtime_api::{
    client::{
        http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    shared::IntoShared as _,
};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};

use crate::{
    http::{Http, HttpError},
    settings::Limits,
};

/// Far more than any answer of a metadata service or of STS.
const ANSWER_LIMIT_BYTES: usize = 1 << 20;

/// [`Http`], for what the chain asks.
#[derive(Clone, Debug)]
pub(super) struct IdentityHttp {
    http: Http,
    sts_endpoint: Option<String>,
    /// How long the body of an answer may take.
    body_limit: Duration,
}

/// A role of a profile, where the SDK takes the store for STS.
#[derive(Debug, thiserror::Error)]
#[error(
    "the role would be asked for at {host}, because AWS_ENDPOINT_URL counts for STS too in a profile; set AWS_ENDPOINT_URL_STS to the address of STS, for Amazon's own https://sts.REGION.amazonaws.com"
)]
struct NotSts {
    host: String,
}

impl IdentityHttp {
    pub(super) fn new(http: Http, sts_endpoint: Option<&str>, limits: &Limits) -> Self {
        Self { http, sts_endpoint: sts_endpoint.map(str::to_owned), body_limit: limits.stall_timeout.value }
    }

    /// STS is asked by POST, metadata services by GET and PUT. An STS is called so, unless the settings name another.
    fn check(&self, request: &HttpRequest) -> Result<(), NotSts> {
        let uri: http::Uri = request.uri().parse().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        let is_named_so = host.split('.').any(|label| label == "sts" || label.starts_with("sts-"));
        let is_meant = self.sts_endpoint.as_ref().is_some_and(|endpoint| {
            let endpoint: http::Uri = endpoint.parse().unwrap_or_default();
            (endpoint.host(), endpoint.port_u16()) == (uri.host(), uri.port_u16())
        });
        if request.method() != "POST" || is_named_so || is_meant {
            return Ok(());
        }
        Err(NotSts { host: uri.authority().map_or_else(String::new, ToString::to_string) })
    }
}

impl HttpClient for IdentityHttp {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        Connector { client: self.clone(), inner: self.http.http_connector(settings, components) }.into_shared()
    }
}

#[derive(Clone, Debug)]
struct Connector {
    client: IdentityHttp,
    inner: SharedHttpConnector,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if let Err(error) = self.client.check(&request) {
            return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into())));
        }
        let host = request.uri().to_owned();
        let limit = self.client.body_limit;
        let answer = self.inner.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await?;
            match tokio::time::timeout(limit, read_whole(answer)).await {
                Ok(answer) => answer,
                Err(_) => Err(ConnectorError::timeout(HttpError::Timeout { host, after: limit }.into())),
            }
        })
    }
}

/// The SDK reads a body for as long as it comes.
async fn read_whole(answer: HttpResponse) -> Result<HttpResponse, ConnectorError> {
    let (parts, body) =
        answer.try_into_http1x().map_err(|error| ConnectorError::other(error.into(), None))?.into_parts();
    let mut stream = ByteStream::new(body);
    let mut whole = Vec::new();
    while let Some(bytes) = stream.try_next().await.map_err(|error| ConnectorError::io(error.into()))? {
        whole.extend_from_slice(&bytes);
        if whole.len() > ANSWER_LIMIT_BYTES {
            return Err(ConnectorError::other("an answer of more than 1 MiB".into(), None));
        }
    }
    HttpResponse::try_from(http::Response::from_parts(parts, SdkBody::from(whole)))
        .map_err(|error| ConnectorError::other(error.into(), None))
}
