//! What is answered to a request: the head as bytes, and which bytes follow it.

use std::{fmt::Write as _, ops::Range};

use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};

use super::{BUCKET, Shared, request::Request, request::byte_range};
use crate::s3_server::{hex, listing};

/// The most that is uploaded in one part: above it, an ETag is no MD5.
const SINGLE_PART_BYTES: u64 = 1 << 20;

/// An object, with all that its headers need.
pub(super) struct Stored {
    offset: u64,
    size: u64,
    /// With its quotes.
    etag: String,
    /// CRC64NVME of the whole object, in base64.
    checksum: String,
}

impl Stored {
    /// The `size` bytes of the data file from `offset` on. Reads them all: after this they are in memory.
    pub(super) fn new(content: &[u8], offset: u64, size: u64) -> Self {
        let bytes = &content[index(offset)..index(offset + size)];
        let crc = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes).to_be_bytes();
        let etag = if size <= SINGLE_PART_BYTES {
            format!("\"{}\"", hex(&Md5::digest(bytes)))
        } else {
            format!("\"{}-1\"", hex(&Md5::digest(crc)))
        };
        Self { offset, size, etag, checksum: base64_simd::STANDARD.encode_to_string(crc) }
    }
}

/// What follows the head.
#[derive(Debug)]
pub(super) enum Body {
    /// Nothing.
    None,
    /// A document.
    Document(String),
    /// These bytes of the data file.
    Content(Range<usize>),
}

/// The head, complete with its empty line, and the body.
pub(super) fn answer(request: &Request, shared: &Shared) -> (String, Body) {
    let (bucket, key) = request.path.trim_start_matches('/').split_once('/').unwrap_or((&request.path[1..], ""));
    if bucket != BUCKET {
        return failure(request, "404 Not Found", "NoSuchBucket");
    }
    match (request.method.as_str(), key) {
        ("GET", "") if request.parameter("location").is_some() => document(
            request,
            "200 OK",
            "<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>".to_owned(),
        ),
        ("GET", "") => document(request, "200 OK", list(request, shared)),
        ("HEAD", "") => (head("200 OK", 0, "x-amz-bucket-region: us-east-1\r\n"), Body::None),
        ("GET" | "HEAD", key) => match shared.objects.get(key) {
            Some(stored) => object(request, stored),
            None => failure(request, "404 Not Found", "NoSuchKey"),
        },
        _ => failure(request, "405 Method Not Allowed", "MethodNotAllowed"),
    }
}

fn object(request: &Request, stored: &Stored) -> (String, Body) {
    if request.if_match.as_ref().is_some_and(|wanted| *wanted != stored.etag && wanted != "*") {
        return failure(request, "412 Precondition Failed", "PreconditionFailed");
    }
    let mut headers = format!(
        "ETag: {}\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n\
         Content-Type: binary/octet-stream\r\n",
        stored.etag
    );
    let (status, range) = match request.range.as_deref().map(|range| byte_range(range, stored.size)) {
        None => ("200 OK", 0..stored.size),
        Some(Ok(range)) => {
            let _ = write!(headers, "Content-Range: bytes {}-{}/{}\r\n", range.start, range.end - 1, stored.size);
            ("206 Partial Content", range)
        }
        Some(Err(())) => return failure(request, "416 Requested Range Not Satisfiable", "InvalidRange"),
    };
    // A range has no checksum of its own, and S3 does not send the whole object's with it.
    if request.checksum && request.range.is_none() {
        let _ =
            write!(headers, "x-amz-checksum-crc64nvme: {}\r\nx-amz-checksum-type: FULL_OBJECT\r\n", stored.checksum);
    }
    let body = match request.method.as_str() {
        "HEAD" => Body::None,
        _ => Body::Content(index(stored.offset + range.start)..index(stored.offset + range.end)),
    };
    (head(status, range.end - range.start, &headers), body)
}

/// A page of ListObjectsV2, or of the first ListObjects for who still asks that.
fn list(request: &Request, shared: &Shared) -> String {
    let second = request.parameter("list-type") == Some("2");
    let after = if second {
        request.parameter("continuation-token").or_else(|| request.parameter("start-after"))
    } else {
        request.parameter("marker")
    };
    let keys: Vec<&str> = shared.objects.keys().map(String::as_str).collect();
    let prefix = request.parameter("prefix").unwrap_or_default();
    let most = request.parameter("max-keys").and_then(|most| most.parse().ok()).unwrap_or(1000).min(1000);
    let query = listing::Query {
        prefix,
        delimiter: request.parameter("delimiter").filter(|delimiter| !delimiter.is_empty()),
        after: after.filter(|after| !after.is_empty()),
        max_entries: most,
    };
    let page = listing::page(&keys, &query);
    let mut entries = String::new();
    let mut prefixes = String::new();
    for entry in &page.entries {
        let _ = match entry {
            listing::Entry::CommonPrefix(prefix) => {
                write!(prefixes, "<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>")
            }
            listing::Entry::Key(index) => {
                let (key, stored) = (keys[*index], &shared.objects[keys[*index]]);
                let (etag, size) = (stored.etag.replace('"', "&quot;"), stored.size);
                write!(
                    entries,
                    "<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag>\
                     <ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>\
                     <Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
                )
            }
        };
    }
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult \
         xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{BUCKET}</Name><Prefix>{prefix}</Prefix>\
         <MaxKeys>{most}</MaxKeys><IsTruncated>{}</IsTruncated>",
        page.next_after.is_some()
    );
    // The keys of the benchmark are such that their encoding is themselves.
    if request.parameter("encoding-type").is_some() {
        text += "<EncodingType>url</EncodingType>";
    }
    if second {
        let _ = write!(text, "<KeyCount>{}</KeyCount>", page.entries.len());
    }
    if let Some(next) = &page.next_after {
        let name = if second { "NextContinuationToken" } else { "NextMarker" };
        let _ = write!(text, "<{name}>{next}</{name}>");
    }
    text + &entries + &prefixes + "</ListBucketResult>"
}

fn failure(request: &Request, status: &str, code: &str) -> (String, Body) {
    document(request, status, format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"))
}

fn document(request: &Request, status: &str, text: String) -> (String, Body) {
    let head = head(status, text.len() as u64, "Content-Type: application/xml\r\n");
    (head, if request.method == "HEAD" { Body::None } else { Body::Document(text) })
}

fn head(status: &str, length: u64, headers: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nServer: benchmark\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
         x-amz-request-id: 0000000000000000\r\nContent-Length: {length}\r\n{headers}\r\n"
    )
}

/// An offset into the data file, which is mapped: it fits.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("an address space that holds the data file")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Three objects of a data file of 100 bytes.
    fn shared() -> Shared {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &[7; 100]).unwrap();
        let objects = json!([["set/a", 0, 60], ["set/b", 60, 40], ["other/c", 0, 10]]);
        Shared::of(&json!({"data": file.path(), "objects": objects}))
    }

    fn ask(method: &str, target: &str, headers: &str) -> (String, Body) {
        let request = Request::parse(&format!("{method} {target} HTTP/1.1\r\n{headers}\r\n")).unwrap();
        answer(&request, &shared())
    }

    #[test]
    fn a_range_is_a_slice_of_the_object_without_its_checksum() {
        let (head, body) = ask("GET", "/models/set/b", "Range: bytes=10-19\r\nx-amz-checksum-mode: ENABLED\r\n");
        assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
        assert!(
            head.contains("Content-Range: bytes 10-19/40\r\n") && head.contains("Content-Length: 10\r\n"),
            "{head}"
        );
        assert!(!head.contains("x-amz-checksum"), "{head}");
        assert!(matches!(body, Body::Content(range) if range == (70..80)));
    }

    #[test]
    fn a_head_tells_the_checksum_when_it_is_asked_for() {
        let (head, body) = ask("HEAD", "/models/set/a", "x-amz-checksum-mode: ENABLED\r\n");
        assert!(head.contains("x-amz-checksum-crc64nvme: ") && head.contains("FULL_OBJECT"), "{head}");
        assert!(head.contains("Content-Length: 60\r\n") && matches!(body, Body::None), "{head}");
        assert!(!ask("HEAD", "/models/set/a", "").0.contains("x-amz-checksum"));
    }

    #[test]
    fn a_listing_goes_on_where_its_first_page_ended() {
        let page = |query: &str| match ask("GET", &format!("/models?{query}"), "").1 {
            Body::Document(text) => text,
            body => panic!("{body:?}"),
        };
        let first = page("list-type=2&prefix=set%2F&max-keys=1");
        assert!(first.contains("<Key>set/a</Key>") && first.contains("<NextContinuationToken>set/a<"), "{first}");
        let second = page("list-type=2&prefix=set%2F&max-keys=1&continuation-token=set%2Fa");
        assert!(second.contains("<Key>set/b</Key>") && second.contains("<IsTruncated>false<"), "{second}");
    }

    #[test]
    fn what_is_not_there_or_has_changed_is_refused() {
        assert!(ask("GET", "/models/set/x", "").0.starts_with("HTTP/1.1 404 "));
        assert!(ask("GET", "/elsewhere/set/a", "").0.starts_with("HTTP/1.1 404 "));
        assert!(ask("GET", "/models/set/a", "If-Match: \"another\"\r\n").0.starts_with("HTTP/1.1 412 "));
        assert!(ask("GET", "/models/set/a", "Range: bytes=60-\r\n").0.starts_with("HTTP/1.1 416 "));
    }
}
