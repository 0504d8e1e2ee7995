//! Which bytes to ask for, and whether the answer holds them.
//!
//! Owns the arithmetic of byte ranges (RFC 9110 section 14). Which ranges an object is asked for in is left to
//! `transfer`, and that an answer has status 206 to whoever reads it.

use std::fmt;
use std::num::NonZeroU64;

use thiserror::Error;

/// A stretch of an object: never empty, never past 2^64 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    offset: u64,
    len: NonZeroU64,
}

impl ByteRange {
    /// `len_bytes` bytes from `offset_bytes` on; `None` where that is empty or ends beyond 2^64 - 1.
    pub fn new(offset_bytes: u64, len_bytes: u64) -> Option<ByteRange> {
        offset_bytes.checked_add(len_bytes)?;
        Some(ByteRange { offset: offset_bytes, len: NonZeroU64::new(len_bytes)? })
    }

    /// Where the range begins.
    pub fn offset_bytes(&self) -> u64 {
        self.offset
    }

    /// How long it is, at least one byte.
    pub fn len_bytes(&self) -> u64 {
        self.len.get()
    }

    /// Where the next range begins.
    pub fn end_bytes(&self) -> u64 {
        self.offset + self.len.get()
    }

    /// The value of the `Range` header; its second number is the last byte, not the end.
    pub fn header(&self) -> String {
        format!("bytes={self}")
    }

    /// What is left once the first `written_bytes` are in place; `None` where that is nothing.
    pub fn after(&self, written_bytes: u64) -> Option<ByteRange> {
        let left = self.len_bytes().checked_sub(written_bytes)?;
        ByteRange::new(self.offset + written_bytes, left)
    }
}

/// First and last byte, as both headers spell them: `0-9`.
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.offset, self.end_bytes() - 1)
    }
}

/// The `Content-Range` header of a 206: `bytes 0-9/100`, or `bytes 0-9/*` where the server does not tell the total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// What the body holds.
    pub range: ByteRange,
    /// The object's size in bytes, where the server tells it.
    pub total_bytes: Option<u64>,
}

/// Why an answer is not the one that was asked for.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ContentRangeError {
    /// Not the grammar of RFC 9110 section 14.4, or `bytes */100`, which belongs to a 416.
    #[error("the server sent Content-Range {value:?}, which is not \"bytes first-last/total\"")]
    Malformed {
        /// The header as received.
        value: String,
    },
    /// Other bytes, or bytes of an object of another size.
    #[error("the server sent bytes {actual} where bytes {expected} were asked for")]
    Mismatch {
        /// What was asked for, as `first-last/total`.
        expected: String,
        /// What the server sent, in the same form.
        actual: ContentRange,
    },
}

impl ContentRange {
    /// Parses the header's value. The unit may be in any case, as RFC 9110 section 14.1 has it.
    pub fn parse(value: &str) -> Result<ContentRange, ContentRangeError> {
        parse_content_range(value).ok_or_else(|| ContentRangeError::Malformed { value: value.to_owned() })
    }

    /// Refuses anything but exactly the range that was asked for, of an object of `total_bytes`. A server that does not
    /// tell the total is refused too: without it, a changed object goes unnoticed where `If-Match` is ignored.
    pub fn matches(&self, asked: ByteRange, total_bytes: u64) -> Result<(), ContentRangeError> {
        if self.range == asked && self.total_bytes == Some(total_bytes) {
            return Ok(());
        }
        Err(ContentRangeError::Mismatch { expected: format!("{asked}/{total_bytes}"), actual: *self })
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.total_bytes {
            Some(total) => write!(f, "{}/{total}", self.range),
            None => write!(f, "{}/*", self.range),
        }
    }
}

fn parse_content_range(value: &str) -> Option<ContentRange> {
    let (unit, rest) = value.trim().split_once(' ')?;
    let (range, total) = rest.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total_bytes = if total == "*" { None } else { Some(number(total)?) };
    let len = last.checked_sub(first)?.checked_add(1)?;
    let range = ByteRange::new(first, len)?;
    let inside = total_bytes.is_none_or(|total| range.end_bytes() <= total);
    (unit.eq_ignore_ascii_case("bytes") && inside).then_some(ContentRange { range, total_bytes })
}

/// Digits alone: `str::parse` would take a plus sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(offset: u64, len: u64) -> ByteRange {
        ByteRange::new(offset, len).unwrap()
    }

    #[test]
    fn a_range_is_neither_empty_nor_endless() {
        assert_eq!(ByteRange::new(3, 0), None);
        assert_eq!(ByteRange::new(u64::MAX, 1), None);
        assert_eq!(ByteRange::new(u64::MAX - 1, 1).unwrap().end_bytes(), u64::MAX);
    }

    #[test]
    fn the_header_names_the_last_byte() {
        assert_eq!(range(0, 1).header(), "bytes=0-0");
        assert_eq!(range(100, 50).header(), "bytes=100-149");
    }

    #[test]
    fn a_broken_range_continues_after_what_is_written() {
        assert_eq!(range(100, 50).after(0), Some(range(100, 50)));
        assert_eq!(range(100, 50).after(49), Some(range(149, 1)));
        assert_eq!(range(100, 50).after(50), None);
        assert_eq!(range(100, 50).after(51), None);
    }

    #[test]
    fn a_content_range_is_read_as_rfc_9110_writes_it() {
        let parsed = |value| ContentRange::parse(value).unwrap();
        assert_eq!(parsed("bytes 0-9/100"), ContentRange { range: range(0, 10), total_bytes: Some(100) });
        assert_eq!(parsed("Bytes  0-9/*"), ContentRange { range: range(0, 10), total_bytes: None });
        assert_eq!(parsed("bytes 0-0/1").to_string(), "0-0/1");
    }

    #[test]
    fn what_is_not_a_content_range_is_refused() {
        for value in [
            "",
            "bytes",
            "bytes 0-9",
            "bytes */100",
            "bytes 9-0/100",
            "bytes 0-100/100",
            "bytes +0-9/100",
            "bytes -9/100",
            "items 0-9/100",
            "bytes 0-9/-1",
            "bytes 0-18446744073709551615/*",
            "bytes 0-9/100, bytes 0-9/100",
            "bytes=0-9/100",
        ] {
            assert_eq!(
                ContentRange::parse(value),
                Err(ContentRangeError::Malformed { value: value.into() }),
                "{value}"
            );
        }
    }

    #[test]
    fn only_the_range_that_was_asked_for_matches() {
        let asked = range(10, 10);
        let check = |value| ContentRange::parse(value).and_then(|got| got.matches(asked, 100));
        assert_eq!(check("bytes 10-19/100"), Ok(()));
        let wrong =
            ["bytes 10-18/100", "bytes 0-9/100", "bytes 0-99/100", "bytes 10-19/101", "bytes 10-19/*", "bytes */100"];
        insta::assert_snapshot!(wrong.map(|value| check(value).unwrap_err().to_string()).join("\n"), @r#"
            the server sent bytes 10-18/100 where bytes 10-19/100 were asked for
            the server sent bytes 0-9/100 where bytes 10-19/100 were asked for
            the server sent bytes 0-99/100 where bytes 10-19/100 were asked for
            the server sent bytes 10-19/101 where bytes 10-19/100 were asked for
            the server sent bytes 10-19/* where bytes 10-19/100 were asked for
            the server sent Content-Range "bytes */100", which is not "bytes first-last/total"
            "#);
    }

    proptest! {
        #[test]
        fn what_is_written_and_what_is_left_make_the_range(
            offset in 0_u64..1 << 40, len in 1_u64..1 << 40, cut in 0_u64..1 << 40,
        ) {
            let whole = range(offset, len);
            match whole.after(cut) {
                Some(left) => {
                    prop_assert_eq!(left.offset_bytes(), offset + cut);
                    prop_assert_eq!(left.end_bytes(), whole.end_bytes());
                }
                None => prop_assert!(cut >= len),
            }
        }

        #[test]
        fn a_printed_content_range_parses_to_itself(
            offset in 0_u64..1 << 60, len in 1_u64..1 << 60, more in proptest::option::of(0_u64..1 << 60),
        ) {
            let range = range(offset, len);
            let sent = ContentRange { range, total_bytes: more.map(|more| range.end_bytes() + more) };
            prop_assert_eq!(ContentRange::parse(&format!("bytes {sent}")), Ok(sent));
        }

        #[test]
        fn no_header_panics(value in ".{0,40}|bytes [0-9]{0,22}-[0-9]{0,22}/[0-9]{0,22}") {
            let _ = ContentRange::parse(&value);
        }
    }
}
