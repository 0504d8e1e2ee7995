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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(lines: &str) -> Head {
        let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        Head::parse(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        for (lines, framing) in [
            ("Content-Length: 5\r\n", Framing::Length(5)),
            ("content-length: 5\r\nContent-Length: 5\r\n", Framing::Length(5)),
            ("Content-Length: 5, 5\r\n", Framing::Length(5)),
            ("Transfer-Encoding: Chunked\r\n", Framing::Chunked(Chunks::default())),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Framing::Chunked(Chunks::default())),
            ("ETag: \"a\"\r\n", Framing::UntilClose),
        ] {
            assert_eq!(Framing::of(&head(lines)), Ok(framing), "{lines}");
        }
    }

    #[test]
    fn a_head_that_says_two_things_is_refused() {
        for lines in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(Framing::of(&head(lines)).is_err(), "{lines}");
        }
    }

    /// The body of a chunked text that arrives in the given pieces, and how much of the text it was.
    fn decoded(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), FramingError> {
        let mut framing = Framing::Chunked(Chunks::default());
        let (mut body, mut used) = (Vec::new(), 0);
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() && !framing.is_done() {
                let next = usize::try_from(framing.next_bytes()).unwrap().min(rest.len());
                let count = if next > 0 {
                    body.extend_from_slice(&rest[..next]);
                    framing.take(next as u64);
                    next
                } else {
                    let Framing::Chunked(chunks) = &mut framing else { unreachable!() };
                    chunks.feed(rest)?
                };
                rest = &rest[count..];
                used += count;
            }
        }
        Ok((body, used, framing.is_done()))
    }

    #[test]
    fn extensions_and_trailers_are_no_part_of_the_body() {
        let text = b"4;a=b\r\nWiki\r\n5 \r\npedia\r\n0\r\nx-amz-checksum-crc32: AAAA\r\n\r\nHTTP/1.1 200";
        let (body, used, is_done) = decoded(&[text]).unwrap();
        assert_eq!((body.as_slice(), is_done), (b"Wikipedia".as_slice(), true));
        assert_eq!(&text[used..], b"HTTP/1.1 200", "the next answer is left alone");
    }

    #[test]
    fn chunks_that_are_none_are_refused() {
        let long = format!("1;{}\r\n", "x".repeat(MAX_LINE_BYTES));
        let trailers = format!("0\r\n{}", "name: value\r\n".repeat(2000));
        for text in
            ["x\r\n", "\r\n", "-1\r\n", "+1\r\n", "1\n", "1\r\nab\r\n", "fffffffffffffffff\r\n", &long, &trailers]
        {
            assert!(decoded(&[text.as_bytes()]).is_err(), "{text:.40}");
        }
    }

    #[test]
    fn an_endless_line_is_refused_before_its_end() {
        let pieces: Vec<&[u8]> = std::iter::repeat_n(b"1111".as_slice(), 2000).collect();
        assert!(decoded(&pieces).is_err());
    }

    proptest! {
        #[test]
        fn any_body_arrives_however_it_is_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(1_usize..30, 1..60),
            extension in "(;[a-z]{0,5})?",
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let mut pieces = Vec::new();
            let mut rest = text.as_slice();
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let (body, used, is_done) = decoded(&pieces).unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(used, text.len());
            prop_assert!(is_done);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded(&[&bytes]);
        }
    }
}
