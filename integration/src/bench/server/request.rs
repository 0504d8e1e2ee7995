//! One HTTP request, as far as a download needs it.

use std::ops::Range;

/// What was asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// Decoded, without the query.
    pub(super) path: String,
    /// Decoded, in order.
    pub(super) query: Vec<(String, String)>,
    pub(super) range: Option<String>,
    pub(super) if_match: Option<String>,
    /// Whether the object's checksum is wanted.
    pub(super) checksum: bool,
    /// Whether the connection ends with the answer.
    pub(super) close: bool,
}

impl Request {
    /// Reads a head, from the request line to the empty line. `None` where it is no HTTP/1 request.
    pub(super) fn parse(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let mut request = Self {
            method: method.to_owned(),
            path: decoded(path),
            query: pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decoded(name), decoded(value)))
                .collect(),
            close: version != "HTTP/1.1",
            ..Self::default()
        };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = Some(value.to_owned()),
                "if-match" => request.if_match = Some(value.to_owned()),
                "x-amz-checksum-mode" => request.checksum = value.eq_ignore_ascii_case("enabled"),
                "connection" => request.close |= value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Some(request)
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The bytes that a Range header means of an object of `size` bytes; an error where there are none. Several ranges are
/// what nobody asks here.
pub(super) fn byte_range(header: &str, size: u64) -> Result<Range<u64>, ()> {
    let (first, last) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or(())?;
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => first..size.min(last.saturating_add(1)),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(count)) if first.is_empty() => size.saturating_sub(count)..size,
        _ => return Err(()),
    };
    if range.is_empty() { Err(()) } else { Ok(range) }
}

/// Percent-decodes.
fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        plain.push(match byte {
            b'%' => match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => (high * 16 + low) as u8,
                _ => b'?',
            },
            byte => byte,
        });
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read() {
        let head = "GET /models?list-type=2&prefix=a%2Fb HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\
                    x-amz-checksum-mode: ENABLED\r\n\r\n";
        let request = Request::parse(head).unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/models"));
        assert_eq!(request.parameter("prefix"), Some("a/b"));
        assert_eq!(request.range.as_deref(), Some("bytes=0-9"));
        assert!(request.checksum && !request.close);
        assert_eq!(Request::parse("nonsense\r\n\r\n"), None);
    }

    #[test]
    fn ranges_mean_what_http_says() {
        assert_eq!(byte_range("bytes=0-9", 100), Ok(0..10));
        assert_eq!(byte_range("bytes=90-200", 100), Ok(90..100));
        assert_eq!(byte_range("bytes=90-", 100), Ok(90..100));
        assert_eq!(byte_range("bytes=-10", 100), Ok(90..100));
        assert_eq!(byte_range("bytes=100-", 100), Err(()));
        assert_eq!(byte_range("bytes=x-9", 100), Err(()));
    }
}
