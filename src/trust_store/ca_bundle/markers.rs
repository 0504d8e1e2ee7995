//! Where the BEGIN and END markers are, wherever they stand on their line.
//!
//! RFC 7468, section 3, wants five hyphens and a line of its own. What people paste has lost its
//! line breaks, its spaces or a hyphen, or was typeset with long dashes; a marker that still says
//! what it is counts, and says that it is `malformed`.

use super::text::{blank, escape, is_line_break};

/// One `-----BEGIN …-----` or `-----END …-----`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) side: Side,
    pub(super) label: Label,
    /// Offset of its first hyphen. Hyphens between two markers on one line belong to both.
    pub(super) start: usize,
    /// Offset behind its last hyphen.
    pub(super) end: usize,
    /// It is not written as RFC 7468 has it, and other programs do not find it.
    pub(super) malformed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Begin,
    End,
}

/// What a marker says its block is; the words of RFC 7468 and of OpenSSL's `pem.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Certificate,
    /// OpenSSL's old word for the same thing.
    X509Certificate,
    TrustedCertificate,
    CertificateRequest,
    Pkcs7,
    PublicKey,
    PrivateKey,
    Crl,
    Other,
}

impl Label {
    /// The label, from its words without the spaces between them: `tr -d ' '` leaves nothing else.
    fn from_words(words: &[u8]) -> Self {
        match words {
            b"CERTIFICATE" => Self::Certificate,
            b"X509CERTIFICATE" => Self::X509Certificate,
            b"TRUSTEDCERTIFICATE" => Self::TrustedCertificate,
            b"CERTIFICATEREQUEST" | b"NEWCERTIFICATEREQUEST" => Self::CertificateRequest,
            b"PKCS7" | b"PKCS#7SIGNEDDATA" | b"CMS" => Self::Pkcs7,
            b"X509CRL" => Self::Crl,
            _ if words.windows(10).any(|part| part == b"PRIVATEKEY") => Self::PrivateKey,
            _ if words.ends_with(b"PUBLICKEY") => Self::PublicKey,
            _ => Self::Other,
        }
    }

    pub(super) fn is_certificate(self) -> bool {
        matches!(self, Self::Certificate | Self::X509Certificate)
    }
}

/// All markers of `text`, in order. Linear in its length.
pub(super) fn find(text: &[u8]) -> Vec<Marker> {
    let mut markers = Vec::new();
    let mut at = 0;
    // Hyphens are 0x2d, dashes start with 0xe2.
    while let Some(skipped) = text.get(at..).unwrap_or_default().iter().position(|byte| matches!(byte, b'-' | 0xe2)) {
        at += skipped;
        let hyphens = Hyphens::at(text, at);
        if hyphens.count == 0 {
            at += 1;
            continue;
        }
        at = hyphens.end;
        if let Some((marker, words_end)) = marker(text, hyphens) {
            markers.push(marker);
            // Not behind the marker: its last hyphens may be the first of the next one.
            at = words_end;
        }
    }
    markers
}

/// The marker whose first hyphens are these, and where its words end.
fn marker(text: &[u8], opening: Hyphens) -> Option<(Marker, usize)> {
    if opening.count < 2 && opening.plain {
        return None;
    }
    let mut at = opening.end;
    let mut tidy = opening.tidy();
    while at < opening.end + 2 && text.get(at) == Some(&b' ') {
        at += 1;
        tidy = false;
    }
    let rest = text.get(at..)?;
    let side = match rest {
        [b'B', b'E', b'G', b'I', b'N', ..] => Side::Begin,
        [b'E', b'N', b'D', ..] => Side::End,
        _ => return None,
    };
    at += match side {
        Side::Begin => 5,
        Side::End => 3,
    };
    let words = Words::at(text, at)?;
    let closing = Hyphens::at(text, words.end);
    let label = Label::from_words(&words.letters);
    tidy &= words.tidy && closing.tidy();
    // Only what is written properly may have a label that we do not know: prose between dashes is
    // no marker.
    if label == Label::Other && !tidy {
        return None;
    }
    let marker = Marker { side, label, start: opening.start, end: closing.end, malformed: !tidy };
    Some((marker, words.end))
}

/// A run of hyphens, or of the dashes that word processors make of them.
#[derive(Clone, Copy)]
struct Hyphens {
    start: usize,
    end: usize,
    count: usize,
    /// All of them ASCII.
    plain: bool,
}

impl Hyphens {
    fn at(text: &[u8], start: usize) -> Self {
        let mut run = Self { start, end: start, count: 0, plain: true };
        loop {
            match text.get(run.end..).unwrap_or_default() {
                [b'-', ..] => run.end += 1,
                // U+2010 hyphen to U+2015 bar, and U+2212 minus.
                [0xe2, 0x80, 0x90..=0x95, ..] | [0xe2, 0x88, 0x92, ..] => {
                    run.end += 3;
                    run.plain = false;
                }
                _ => return run,
            }
            run.count += 1;
        }
    }

    /// Five, or ten where an END and a BEGIN share a line.
    fn tidy(&self) -> bool {
        self.plain && matches!(self.count, 5 | 10)
    }
}

/// The words of a label.
struct Words {
    letters: Vec<u8>,
    end: usize,
    tidy: bool,
}

/// Longest label, without its spaces. The longest one that we know has 20 letters.
const MAX_LETTERS: usize = 40;
/// Most blanks between two words.
const MAX_BLANKS: usize = 8;

impl Words {
    /// Words up to the closing hyphens. Where those are missing, the words must be all that is left
    /// of the line.
    fn at(text: &[u8], start: usize) -> Option<Self> {
        let mut words = Self { letters: Vec::with_capacity(24), end: start, tidy: text.get(start) == Some(&b' ') };
        let mut first_line: Option<Self> = None;
        let mut blanks = 0;
        loop {
            let rest = text.get(words.end..).unwrap_or_default();
            match rest {
                [byte @ (b'A'..=b'Z' | b'0'..=b'9' | b'#'), ..] if words.letters.len() < MAX_LETTERS => {
                    words.letters.push(*byte);
                    words.end += 1;
                    blanks = 0;
                }
                [byte, ..] if blank(rest) > 0 && blanks < MAX_BLANKS => {
                    if is_line_break(*byte) || blank(rest) > 1 || words.letters.is_empty() && blanks > 0 {
                        if is_line_break(*byte) && first_line.is_none() && !words.letters.is_empty() {
                            first_line = Some(Self { letters: words.letters.clone(), tidy: false, ..words });
                        }
                        words.tidy = false;
                    }
                    words.end += blank(rest);
                    blanks += 1;
                }
                _ if words.letters.is_empty() => return None,
                _ if Hyphens::at(rest, 0).count > 0 => {
                    words.tidy &= blanks == 0;
                    return Some(words);
                }
                _ if first_line.is_some() => return first_line,
                _ if rest.is_empty() || escape(rest).is_some() || matches!(rest.first(), Some(b'"' | b'\'')) => {
                    return Some(Self { tidy: false, ..words });
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Marker {
        let markers = find(text.as_bytes());
        assert_eq!(markers.len(), 1, "in {text:?}");
        markers[0]
    }

    #[test]
    fn a_marker_is_found_wherever_it_stands() {
        for text in [
            "-----BEGIN CERTIFICATE-----",
            "  -----BEGIN CERTIFICATE-----\r\n",
            "a: \"-----BEGIN CERTIFICATE-----\\nMII",
        ] {
            let marker = only(text);
            assert_eq!((marker.side, marker.label, marker.malformed), (Side::Begin, Label::Certificate, false));
        }
        assert_eq!(only("-----END X509 CERTIFICATE-----").label, Label::X509Certificate);
    }

    #[test]
    fn a_marker_that_lost_its_shape_is_found_and_says_so() {
        for text in [
            "----BEGIN CERTIFICATE-----",
            "-----BEGIN CERTIFICATE----",
            "-----BEGIN CERTIFICATE",
            "-----BEGIN CERTIFICATE\nMII",
            "-----BEGINCERTIFICATE-----",
            "-----BEGIN\nCERTIFICATE-----",
            "-----BEGIN\u{a0}CERTIFICATE-----",
            "-----BEGIN  CERTIFICATE-----",
            "----- BEGIN CERTIFICATE -----",
            "\u{2014}\u{2014}-BEGIN CERTIFICATE\u{2014}\u{2014}-",
        ] {
            let marker = only(text);
            assert_eq!((marker.label, marker.malformed), (Label::Certificate, true), "{text:?}");
        }
    }

    #[test]
    fn prose_is_no_marker() {
        for text in [
            "BEGIN CERTIFICATE",
            "-BEGIN CERTIFICATE-",
            "--BEGINNING--",
            "-----BEGIN-----",
            "--BEGIN here",
            "-----BEGIN CERTIFICATE of",
        ] {
            assert_eq!(find(text.as_bytes()), [], "{text:?}");
        }
    }

    #[test]
    fn two_markers_share_the_hyphens_between_them() {
        let markers = find(b"-----END CERTIFICATE----------BEGIN CERTIFICATE-----");
        assert_eq!(markers.iter().map(|marker| marker.side).collect::<Vec<_>>(), [Side::End, Side::Begin]);
        assert!(markers.iter().all(|marker| !marker.malformed));
    }
}
