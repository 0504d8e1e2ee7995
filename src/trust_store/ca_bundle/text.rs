//! What lies between the letters of a pasted text: blanks, escape sequences, line numbers.
//!
//! Everything here looks at the start of a slice and answers in bounded time, so that a scan stays
//! linear.

/// The length of the blank at the start of `text`, or zero: ASCII white space, and the invisible
/// characters that editors, chats and web pages leave behind (no-break and zero-width spaces, line
/// separators, the byte order mark).
pub(super) fn blank(text: &[u8]) -> usize {
    match text {
        [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => 1,
        [0xc2, 0xa0, ..] => 2,
        [0xe2, 0x80, 0x8b..=0x8d | 0xa8 | 0xa9, ..] => 3,
        [0xef, 0xbb, 0xbf, ..] => 3,
        _ => 0,
    }
}

/// `text` without the blanks at either end.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    loop {
        match blank(text) {
            0 => return text.trim_ascii_end(),
            length => text = text.get(length..).unwrap_or_default(),
        }
    }
}

/// Whether this byte ends a line of the original text.
pub(super) fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Whether this byte belongs to the standard base64 alphabet, padding aside.
pub(super) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// The base64 letters that `text` has at `at`.
pub(super) fn base64_run(text: &[u8], at: usize) -> &[u8] {
    let text = text.get(at..).unwrap_or_default();
    let length = text.iter().position(|byte| !is_base64(*byte)).unwrap_or(text.len());
    text.get(..length).unwrap_or_default()
}

/// What an escape sequence stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escaped {
    /// `\n` or `\r`, escaped any number of times.
    LineBreak,
    /// A tab, or a backslash before a real line break, as shells and YAML continue a line.
    Blank,
    /// A quote, as strings in JSON carry them.
    Quote,
    /// A character that did not need it: `\/`, `\u002B`.
    Byte(u8),
}

/// Longest run of backslashes that is still read as one escape: each program that escapes a text
/// once more doubles it, so this is four programs.
const MAX_BACKSLASHES: usize = 8;

/// The escape sequence at the start of `text`, and its length. JSON, YAML, shells and `.env` files
/// share these.
pub(super) fn escape(text: &[u8]) -> Option<(Escaped, usize)> {
    let slashes = text.iter().take(MAX_BACKSLASHES + 1).take_while(|byte| **byte == b'\\').count();
    if slashes == 0 || slashes > MAX_BACKSLASHES {
        return None;
    }
    let rest = text.get(slashes..)?;
    match rest {
        [b'n' | b'r', ..] => Some((Escaped::LineBreak, slashes + 1)),
        [b't', ..] => Some((Escaped::Blank, slashes + 1)),
        [b'"' | b'\'', ..] => Some((Escaped::Quote, slashes + 1)),
        [b'/', ..] => Some((Escaped::Byte(b'/'), slashes + 1)),
        // The line break itself is left to be counted.
        [byte, ..] if is_line_break(*byte) => Some((Escaped::Blank, slashes)),
        [b'u' | b'U', hex @ ..] => {
            let code = std::str::from_utf8(hex.get(..4)?).ok()?;
            let meant = match u8::from_str_radix(code, 16).ok()? {
                byte if is_line_break(byte) => Escaped::LineBreak,
                b' ' | b'\t' => Escaped::Blank,
                b'"' | b'\'' => Escaped::Quote,
                byte => Escaped::Byte(byte),
            };
            Some((meant, slashes + 5))
        }
        _ => None,
    }
}

/// A text under scan, with its lines counted on the way forward: each byte is looked at once
/// however often it is asked.
pub(super) struct Text<'a> {
    pub(super) bytes: &'a [u8],
    /// It was in the base64 of another text.
    pub(super) decoded: bool,
    counted: usize,
    line: usize,
}

impl<'a> Text<'a> {
    pub(super) fn new(bytes: &'a [u8], decoded: bool) -> Self {
        Self { bytes, decoded, counted: 0, line: 1 }
    }

    /// The line, from one, of the byte at `offset`. Offsets only grow; an earlier one gets the line
    /// reached so far. LF, CRLF and a CR alone each end a line.
    pub(super) fn line(&mut self, offset: usize) -> usize {
        let offset = offset.min(self.bytes.len());
        while self.counted < offset {
            let next = self.bytes.get(self.counted + 1);
            match self.bytes.get(self.counted) {
                Some(b'\n') => self.line += 1,
                Some(b'\r') if next != Some(&b'\n') => self.line += 1,
                _ => {}
            }
            self.counted += 1;
        }
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_escaped_once_or_several_times_is_one_escape() {
        assert_eq!(escape(br"\nMII"), Some((Escaped::LineBreak, 2)));
        assert_eq!(escape(br"\\nMII"), Some((Escaped::LineBreak, 3)));
        assert_eq!(escape(br"\\\\nMII"), Some((Escaped::LineBreak, 5)));
        assert_eq!(escape(br"\u000aMII"), Some((Escaped::LineBreak, 6)));
        assert_eq!(escape(br"\u002BMII"), Some((Escaped::Byte(b'+'), 6)));
        assert_eq!(escape(br"\/MII"), Some((Escaped::Byte(b'/'), 2)));
    }

    #[test]
    fn a_backslash_before_anything_else_is_no_escape() {
        assert_eq!(escape(br"\xMII"), None);
        assert_eq!(escape(br"\"), None);
        assert_eq!(escape(br"\u00"), None);
        assert_eq!(escape(br"\\\\\\\\\n"), None, "nine backslashes");
    }

    #[test]
    fn lf_crlf_and_cr_each_end_one_line() {
        let mut text = Text::new(b"1\n2\r\n3\r4", false);
        assert_eq!([0, 2, 5, 7].map(|offset| text.line(offset)), [1, 2, 3, 4]);
        assert_eq!(text.line(usize::MAX), 4);
    }
}
