//! The head of an answer.

/// What no head exceeds: S3's have 1 KiB, and a proxy's additions do not make them a page.
pub(super) const MAX_HEAD_BYTES: usize = 32 * 1024;

const MAX_HEADERS: usize = 100;

/// Status and headers of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    headers: Vec<(Box<str>, Box<str>)>,
    /// Whether the version of HTTP keeps connections open where no header says so.
    pub(super) persists: bool,
}

impl Head {
    /// The head at the beginning of `bytes` with its length in bytes; `None` where more is to come.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, httparse::Error> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = response.parse(bytes)? else {
            return Ok(None);
        };
        let head = Self {
            status: response.code.unwrap_or_default(),
            persists: response.version == Some(1),
            headers: response
                .headers
                .iter()
                .map(|header| (header.name.into(), String::from_utf8_lossy(header.value).trim().into()))
                .collect(),
        };
        Ok(Some((head, length)))
    }

    /// The value of a header, without regard to the name's case; the first where there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers_of(name).next()
    }

    pub(super) fn headers_of(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// Whether a header that is a list has this element.
    pub(super) fn lists(&self, name: &str, element: &str) -> bool {
        self.headers_of(name).flat_map(|value| value.split(',')).any(|own| own.trim().eq_ignore_ascii_case(element))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 206 Partial Content\r\nETag:  \"a\" \r\nconnection: Keep-Alive, close\r\n\r\nbody";

    #[test]
    fn a_head_is_read_once_it_is_there_whole() {
        let end = ANSWER.len() - "body".len();
        for length in 0..end {
            assert_eq!(Head::parse(&ANSWER.as_bytes()[..length]), Ok(None), "{length}");
        }
        let (head, length) = Head::parse(ANSWER.as_bytes()).unwrap().unwrap();
        assert_eq!((head.status, length), (206, end));
        assert_eq!(head.header("etag"), Some("\"a\""));
        assert_eq!(head.header("content-length"), None);
        assert!(head.lists("Connection", "close") && !head.lists("connection", "upgrade"));
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for bytes in
            ["\x16\x03\x01", "SSH-2.0-OpenSSH_9.6\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n"]
        {
            assert!(Head::parse(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }
}
