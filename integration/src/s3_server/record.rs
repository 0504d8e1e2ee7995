//! What the server saw: every request in the order of arrival, and what was sent for it.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hyper::header::HOST;
use hyper::{HeaderMap, Method, Uri};

use super::host::BaseDomain;

/// The operations that the harness tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// HEAD of a bucket.
    HeadBucket,
    /// A page of a listing.
    ListObjectsV2,
    /// HEAD of an object.
    HeadObject,
    /// GET of an object, or of a range of it.
    GetObject,
    /// GET of an object's attributes.
    GetObjectAttributes,
    /// PUT of an object.
    PutObject,
    /// Anything else.
    Other,
}

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// Which connection it came on, counted from 1.
    pub connection: u64,
    /// The operation that method, path and query make.
    pub operation: Operation,
    /// The HTTP method.
    pub method: Method,
    /// The bucket, if the request names one.
    pub bucket: Option<String>,
    /// The key with its percent-encoding undone, if the request names one.
    pub key: Option<String>,
    /// The query as it came, without its question mark.
    pub query: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The status of the reply; 0 while there is none, and where the connection was closed instead.
    pub status: u16,
    /// How many bytes of the reply's body were given to the connection.
    pub bytes_sent: u64,
    /// When the request's headers were read.
    pub at: Instant,
}

impl RecordedRequest {
    pub(crate) fn read(
        connection: u64,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        base_domain: Option<&BaseDomain>,
    ) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let path = percent_decoded(uri.path().trim_start_matches('/'));
        let host = text(HOST).unwrap_or_default();
        let (bucket, key) = match base_domain.and_then(|base| base.bucket(host)) {
            Some(bucket) => (bucket.to_owned(), path),
            None => match path.split_once('/') {
                Some((bucket, key)) => (bucket.to_owned(), key.to_owned()),
                None => (path, String::new()),
            },
        };
        let query = uri.query().unwrap_or_default();
        let has = |name: &str| query.split('&').any(|parameter| parameter.split('=').next() == Some(name));
        let operation = match (method.as_str(), bucket.is_empty(), key.is_empty()) {
            ("HEAD", false, true) => Operation::HeadBucket,
            ("GET", false, true) if has("list-type") => Operation::ListObjectsV2,
            ("HEAD", false, false) => Operation::HeadObject,
            ("GET", false, false) if has("attributes") => Operation::GetObjectAttributes,
            ("GET", false, false) => Operation::GetObject,
            ("PUT", false, false) => Operation::PutObject,
            _ => Operation::Other,
        };
        Self {
            connection,
            operation,
            method: method.clone(),
            bucket: Some(bucket).filter(|bucket| !bucket.is_empty()),
            key: Some(key).filter(|key| !key.is_empty()),
            query: query.to_owned(),
            range: text(hyper::header::RANGE).map(str::to_owned),
            headers: headers.clone(),
            status: 0,
            bytes_sent: 0,
            at: Instant::now(),
        }
    }

    /// The first and the last byte that were asked for, where the `Range` header names both or only the first.
    pub fn range_bytes(&self) -> Option<(u64, Option<u64>)> {
        let (first, last) = self.range.as_deref()?.strip_prefix("bytes=")?.split_once('-')?;
        let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
        Some((first.parse().ok()?, last))
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let hex = |rest: &std::str::Bytes<'_>| {
            let mut rest = rest.clone();
            let digits = [rest.next()?, rest.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()
        };
        match (byte, hex(&bytes)) {
            (b'%', Some(value)) => {
                decoded.push(value);
                bytes.nth(1);
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The log of all requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    request: RecordedRequest,
    reply: Reply,
}

/// Where a reply notes what became of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply(Arc<(AtomicU16, AtomicU64)>);

impl Reply {
    pub(crate) fn status(&self, status: u16) {
        self.0.0.store(status, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.0.1.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Log {
    pub(crate) fn push(&self, request: RecordedRequest) -> Reply {
        let reply = Reply::default();
        self.lock().push(Entry { request, reply: reply.clone() });
        reply
    }

    pub(crate) fn requests(&self) -> Vec<RecordedRequest> {
        self.lock()
            .iter()
            .map(|Entry { request, reply }| RecordedRequest {
                status: reply.0.0.load(Ordering::Relaxed),
                bytes_sent: reply.0.1.load(Ordering::Relaxed),
                ..request.clone()
            })
            .collect()
    }

    pub(crate) fn bytes_sent(&self) -> u64 {
        self.lock().iter().map(|entry| entry.reply.0.1.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_once() {
        assert_eq!(percent_decoded("a%20b%2Bc+d%25e%C3%A9"), "a b+c+d%eé");
        assert_eq!(percent_decoded("100%"), "100%");
    }

    #[test]
    fn paths_and_queries_make_operations() {
        let read = |method: Method, uri: &'static str| {
            RecordedRequest::read(1, &method, &Uri::from_static(uri), &HeaderMap::new(), None)
        };
        let list = read(Method::GET, "/models?list-type=2&prefix=a");
        assert_eq!(list.operation, Operation::ListObjectsV2);
        let get = read(Method::GET, "/models/a/b%20c");
        assert_eq!(get.operation, Operation::GetObject);
        assert_eq!(get.key.as_deref(), Some("a/b c"));
        assert_eq!(read(Method::HEAD, "/models").operation, Operation::HeadBucket);
        assert_eq!(read(Method::GET, "/m/k?attributes").operation, Operation::GetObjectAttributes);
    }
}
