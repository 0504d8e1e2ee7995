//! A minimal S3 client for the harness's own tests: one request, one connection, signed or not.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::S3Server;

/// What came back, and how it ended.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The error that cut the body short.
    pub(super) cut: Option<String>,
}

impl Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A request in the making.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    method: &'static str,
    /// Encoded path and query.
    target: String,
    host: String,
    headers: Vec<(String, String)>,
    root: Option<CertificateDer<'static>>,
}

impl Ask {
    pub(super) fn new(method: &'static str, target: &str) -> Self {
        Self { method, target: target.to_owned(), host: "localhost".to_owned(), headers: Vec::new(), root: None }
    }

    pub(super) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    pub(super) fn trusting(mut self, root: &CertificateDer<'static>) -> Self {
        self.root = Some(root.clone());
        self
    }

    /// Signs it. Comes last.
    pub(super) fn signed(mut self, server: &S3Server, id: &str, secret: &str, region: &str) -> Self {
        let authority = self.authority(server);
        self.headers =
            crate::s3_client::signed(self.method, &self.target, &authority, self.headers, id, secret, region);
        self
    }

    fn authority(&self, server: &S3Server) -> String {
        format!("{}:{}", self.host, server.address().port())
    }

    /// Sends it; the error says why there is no reply at all.
    pub(super) fn try_send(&self, server: &S3Server) -> Result<Answer, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tcp = TcpStream::connect(server.address()).await.map_err(|error| error.to_string())?;
            match &self.root {
                None => self.exchange(server, tcp).await,
                Some(root) => {
                    let mut roots = rustls::RootCertStore::empty();
                    roots.add(root.clone()).unwrap();
                    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                    let config = rustls::ClientConfig::builder_with_provider(provider)
                        .with_safe_default_protocol_versions()
                        .unwrap()
                        .with_root_certificates(roots)
                        .with_no_client_auth();
                    let name = ServerName::try_from(self.host.clone()).unwrap();
                    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
                    let tls = connector.connect(name, tcp).await.map_err(|error| error.to_string())?;
                    self.exchange(server, tls).await
                }
            }
        })
    }

    pub(super) fn send(&self, server: &S3Server) -> Answer {
        self.try_send(server).unwrap()
    }

    async fn exchange<S>(&self, server: &S3Server, stream: S) -> Result<Answer, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let mut request =
            Request::builder().method(self.method).uri(&self.target).header("host", self.authority(server));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let (parts, mut incoming) = sender.send_request(request).await.map_err(|error| chain(&error))?.into_parts();
        let mut body = Vec::new();
        let mut cut = None;
        while let Some(frame) = incoming.frame().await {
            match frame {
                Ok(frame) => body.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(error) => {
                    cut = Some(chain(&error));
                    break;
                }
            }
        }
        Ok(Answer { status: parts.status, headers: parts.headers, body, cut })
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
