//! Where the body of an answer ends (RFC 9112, section 6).

use super::head::Head;

/// A line of a chunked body: a size with its extensions, or a trailer.
const MAX_LINE_BYTES: usize = 4096;

/// All trailers together.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// How much of a body is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// Whatever comes until the connection closes.
    UntilClose,
}

/// Why an answer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    #[error("the answer's Content-Length is no length: {0:?}")]
    Length(String),
    #[error("the answer's Transfer-Encoding is not \"chunked\": {0:?}")]
    Encoding(String),
    #[error("the body's chunks are malformed: {0}")]
    Chunk(&'static str),
}

impl Framing {
    /// What the head of an answer to a GET or a CONNECT announces.
    pub(super) fn of(head: &Head) -> Result<Self, FramingError> {
        if head.status < 200 || matches!(head.status, 204 | 304) {
            return Ok(Self::Length(0));
        }
        if let Some(encoding) = head.header("transfer-encoding") {
            // Nothing else was asked for; and what is both is how requests are smuggled.
            return match head.headers_of("transfer-encoding").count() {
                1 if encoding.eq_ignore_ascii_case("chunked") => Ok(Self::Chunked(Chunks::default())),
                _ => Err(FramingError::Encoding(encoding.to_owned())),
            };
        }
        let mut lengths = head.headers_of("content-length").flat_map(|value| value.split(',')).map(str::trim);
        let Some(length) = lengths.next() else {
            return Ok(Self::UntilClose);
        };
        let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        match length.parse() {
            // The same length twice is a proxy's clumsiness, two lengths are an attack.
            Ok(bytes) if is_number && lengths.all(|other| other == length) => Ok(Self::Length(bytes)),
            _ => Err(FramingError::Length(head.headers_of("content-length").collect::<Vec<_>>().join(", "))),
        }
    }

    /// How many of the next bytes belong to the body; 0 where the framing has to be read first, or
    /// where the body has ended.
    pub(super) fn next_bytes(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(chunks) => chunks.left,
            Self::UntilClose => u64::MAX,
        }
    }

    /// So many of the body's bytes were taken.
    pub(super) fn take(&mut self, count: u64) {
        match self {
            Self::Length(left) => *left -= count,
            Self::Chunked(chunks) => chunks.take(count),
            Self::UntilClose => {}
        }
    }

    /// Whether the body has ended, so that the next answer begins.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.at == At::End,
            Self::UntilClose => false,
        }
    }
}

/// A chunked body between its chunks' bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunks {
    at: At,
    left: u64,
    line: Vec<u8>,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    Data,
    DataEnd,
    Trailer,
    End,
}

impl Chunks {
    /// Reads framing from the beginning of `bytes` up to the next chunk's bytes, or to the body's
    /// end. Returns how many bytes that were.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        let mut used = 0;
        while !matches!(self.at, At::Data | At::End) && used < bytes.len() {
            used += self.feed_line(&bytes[used..])?;
        }
        Ok(used)
    }

    fn feed_line(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        let end = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let part = &bytes[..end.unwrap_or(bytes.len())];
        if self.line.len() + part.len() > MAX_LINE_BYTES {
            return Err(FramingError::Chunk("a line is longer than 4 KiB"));
        }
        self.line.extend_from_slice(part);
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r\n").ok_or(FramingError::Chunk("a line does not end with CR LF"))?;
            self.read_line(line)?;
        }
        Ok(part.len())
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), FramingError> {
        match self.at {
            At::Size => {
                self.left = chunk_size(line)?;
                self.at = if self.left == 0 { At::Trailer } else { At::Data };
            }
            At::DataEnd if line.is_empty() => self.at = At::Size,
            At::DataEnd => return Err(FramingError::Chunk("a chunk is longer than its size")),
            At::Trailer if line.is_empty() => self.at = At::End,
            At::Trailer => {
                self.trailer_bytes += line.len();
                if self.trailer_bytes > MAX_TRAILER_BYTES {
                    return Err(FramingError::Chunk("the trailers are longer than 16 KiB"));
                }
            }
            At::Data | At::End => {}
        }
        Ok(())
    }

    fn take(&mut self, count: u64) {
        self.left -= count;
        if self.left == 0 {
            self.at = At::DataEnd;
        }
    }
}

/// A hexadecimal size, and extensions that mean nothing to us.
fn chunk_size(line: &[u8]) -> Result<u64, FramingError> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let is_hexadecimal = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
    let size = std::str::from_utf8(size).ok().filter(|_| is_hexadecimal);
    size.and_then(|size| u64::from_str_radix(size, 16).ok()).ok_or(FramingError::Chunk("a chunk has no size"))
}
