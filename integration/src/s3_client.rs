//! A small S3 client: what a test needs to fill a server that is not in its own process.
//!
//! One request, one connection; signed as
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html> says. It shares no code with the
//! product, so that the two cannot misread S3 in the same way.

use std::net::ToSocketAddrs as _;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::s3_server::{Checksum, ObjectData, hex};

/// Who asks, and whom.
#[derive(Debug)]
pub struct S3Client {
    scheme: String,
    host: String,
    port: u16,
    tls: Option<Arc<rustls::ClientConfig>>,
    id: String,
    secret: String,
    region: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Panics with the whole answer unless it is a success.
    #[track_caller]
    fn succeeded(self, what: &str) -> Self {
        assert!(self.status.is_success(), "{what}: {} {}", self.status, self.text());
        self
    }
}

impl S3Client {
    /// A client of `endpoint`, which believes the certificates of `ca_pem` and no others.
    pub fn new(endpoint: &str, ca_pem: &str, id: &str, secret: &str, region: &str) -> Self {
        let uri: Uri = endpoint.parse().expect("the endpoint is a URL");
        let scheme = uri.scheme_str().expect("the endpoint has a scheme").to_owned();
        let tls = (scheme == "https").then(|| Arc::new(config(ca_pem)));
        let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let host = uri.host().expect("the endpoint has a host").to_owned();
        Self { scheme, host, port, tls, id: id.to_owned(), secret: secret.to_owned(), region: region.to_owned() }
    }

    /// Puts an object in one piece, with its checksum where one is named.
    #[track_caller]
    pub fn put(&self, bucket: &str, key: &str, data: &ObjectData, checksum: Option<Checksum>) {
        // The SDKs send both, and moto ignores a checksum whose algorithm is not named.
        let headers = checksum.map(|checksum| {
            let named = ("x-amz-sdk-checksum-algorithm".to_owned(), checksum.name().to_uppercase());
            [named, (format!("x-amz-checksum-{}", checksum.name()), checksum.base64(data))]
        });
        let headers: Vec<(&str, &str)> =
            headers.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.send("PUT", &object(bucket, key), &headers, data.read(0..data.len())).succeeded(key);
    }

    /// Puts an object in parts of this size.
    #[track_caller]
    pub fn put_in_parts(&self, bucket: &str, key: &str, data: &ObjectData, part_bytes: u64) {
        let object = object(bucket, key);
        let begun = self.send("POST", &format!("{object}?uploads="), &[], Bytes::new()).succeeded(key).text();
        let upload = encoded(between(&begun, "<UploadId>", "</UploadId>"), false);
        let mut parts = String::new();
        for index in 0..data.len().div_ceil(part_bytes) {
            let bytes = data.read(index * part_bytes..data.len().min((index + 1) * part_bytes));
            let target = format!("{object}?partNumber={}&uploadId={upload}", index + 1);
            let answer = self.send("PUT", &target, &[], bytes).succeeded(key);
            let (number, etag) = (index + 1, answer.header("etag"));
            parts.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
        }
        let list = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let done = self.send("POST", &format!("{object}?uploadId={upload}"), &[], list.into()).succeeded(key);
        // S3 may report a failure in the body of a 200.
        assert!(done.text().contains("<ETag>"), "{key}: {}", done.text());
    }

    /// GET of an object under further headers, whatever comes back.
    pub fn get(&self, bucket: &str, key: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", &object(bucket, key), headers, Bytes::new())
    }

    /// Removes an object; one that is not there is no failure.
    #[track_caller]
    pub fn delete(&self, bucket: &str, key: &str) {
        self.send("DELETE", &object(bucket, key), &[], Bytes::new()).succeeded(key);
    }

    /// Sends one request; `target` is the encoded path and query.
    #[track_caller]
    pub fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("start a runtime");
        let sent = runtime.block_on(self.exchange(method, target, headers, body));
        sent.unwrap_or_else(|error| panic!("{method} {}://{}:{}{target}: {error}", self.scheme, self.host, self.port))
    }

    async fn exchange(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, Box<dyn std::error::Error>> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let authority = match (self.scheme.as_str(), self.port) {
            ("https", 443) | ("http", 80) => self.host.clone(),
            _ => format!("{}:{}", self.host, self.port),
        };
        let headers = signed(method, target, &authority, headers, &self.id, &self.secret, &self.region);
        let mut request = Request::builder().method(method).uri(target).header("host", authority);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body))?;
        let addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        let tcp = TcpStream::connect(&*addresses.collect::<Vec<_>>()).await?;
        match &self.tls {
            None => answer(tcp, request).await,
            Some(config) => {
                let name = ServerName::try_from(self.host.clone())?;
                let tls = tokio_rustls::TlsConnector::from(config.clone()).connect(name, tcp).await?;
                answer(tls, request).await
            }
        }
    }
}

async fn answer<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Box<dyn std::error::Error>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
}

fn config(ca_pem: &str) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.expect("a certificate in PEM")).expect("a certificate that can be an anchor");
    }
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS versions that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn object(bucket: &str, key: &str) -> String {
    format!("/{bucket}/{}", encoded(key, true))
}

/// RFC 3986's unreserved characters stay as they are.
fn encoded(text: &str, keep_slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            b'/' if keep_slashes => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let found = text.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
    found.unwrap_or_else(|| panic!("no {begin} in {text}")).0
}

/// The headers of a request and those that sign it, all of them but `Host` lower-case; the body is not signed.
pub(crate) fn signed(
    method: &str,
    target: &str,
    authority: &str,
    mut headers: Vec<(String, String)>,
    id: &str,
    secret: &str,
    region: &str,
) -> Vec<(String, String)> {
    let now = OffsetDateTime::now_utc();
    let day = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
    let stamp = format!("{day}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
    headers.push(("x-amz-date".to_owned(), stamp.clone()));
    headers.push(("x-amz-content-sha256".to_owned(), "UNSIGNED-PAYLOAD".to_owned()));
    let mut all = headers.clone();
    all.push(("host".to_owned(), authority.to_owned()));
    all.sort();
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let lines: String = all.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut query: Vec<String> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| if parameter.contains('=') { parameter.to_owned() } else { format!("{parameter}=") })
        .collect();
    query.sort();
    let canonical = format!("{method}\n{path}\n{}\n{lines}\n{names}\nUNSIGNED-PAYLOAD", query.join("&"));
    let scope = format!("{day}/{region}/s3/aws4_request");
    let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}");
    let key = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &to_sign));
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}");
    headers.push(("authorization".to_owned(), authorization));
    headers
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, LeafSpec};
    use crate::s3_server::{AccessKey, Object, S3Server};

    #[test]
    fn what_was_put_over_the_wire_is_what_a_get_brings() {
        let authority = Authority::new("Client Root CA");
        let server = S3Server::builder().identity(authority.issue(LeafSpec::new()).identity()).bucket("models");
        let server = server.credentials(AccessKey::new("id", "secret")).start();
        let client = S3Client::new(&server.endpoint(), &authority.pem(), "id", "secret", "us-east-1");
        let object = Object::text("alpha");
        client.put("models", "a b+c/ü%2F", object.data(), Some(Checksum::Crc32c));
        let answer = client.get("models", "a b+c/ü%2F", &[]);
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "alpha"));
        let denied = S3Client::new(&server.endpoint(), &authority.pem(), "id", "secreT", "us-east-1");
        assert_eq!(denied.get("models", "a b+c/ü%2F", &[]).status, 403);
    }
}
