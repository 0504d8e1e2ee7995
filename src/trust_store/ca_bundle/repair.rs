//! From the body of a block to a certificate: clean it generously, then decode and parse it
//! strictly.
//!
//! What is repaired is only ever the wrapping. The bytes of a certificate are taken as they are or
//! not at all, because its own lengths and its parser say whether they are whole.

use rustls::pki_types::CertificateDer;
use rustls_pemfile::Item;

use super::recognise::{self, Der};
use super::remark::Reason;
use super::text::{Escaped, base64_run, blank, escape, is_base64, is_line_break};

/// The base64 of a block, and what stood around it.
pub(super) struct Body {
    /// Neither blanks nor padding.
    pub(super) base64: Vec<u8>,
    /// Line breaks, or base64 itself, were written as escape sequences.
    pub(super) escaped: bool,
    /// Quotes stood between the lines.
    pub(super) quoted: bool,
    /// A line break, real or escaped, parts it from both markers.
    pub(super) on_own_lines: bool,
}

/// Takes blanks, quotes, escapes and padding away. The error is the offset of the first byte that
/// is none of these.
pub(super) fn clean(text: &[u8]) -> Result<Body, usize> {
    let mut body = Body { base64: Vec::with_capacity(text.len()), escaped: false, quoted: false, on_own_lines: false };
    let mut padded = false;
    let mut broken_before = false;
    let mut broken_since = false;
    let mut at = 0;
    while let Some(rest @ [byte, ..]) = text.get(at..) {
        let (meant, length) = match escape(rest) {
            Some((meant, length)) => {
                body.escaped |= meant != Escaped::Quote;
                (meant, length)
            }
            None if is_line_break(*byte) => (Escaped::LineBreak, 1),
            None if blank(rest) > 0 => (Escaped::Blank, blank(rest)),
            None if matches!(byte, b'"' | b'\'') => (Escaped::Quote, 1),
            None => (Escaped::Byte(*byte), 1),
        };
        at += length;
        match meant {
            Escaped::LineBreak => broken_since = true,
            Escaped::Blank => {}
            Escaped::Quote => body.quoted = true,
            Escaped::Byte(b'=') => padded = true,
            Escaped::Byte(byte) if is_base64(byte) && !padded => {
                if body.base64.is_empty() {
                    broken_before = broken_since;
                }
                broken_since = false;
                body.base64.push(byte);
                // All of them but a few stand in long runs.
                let run = base64_run(text, at);
                body.base64.extend_from_slice(run);
                at += run.len();
            }
            Escaped::Byte(_) => return Err(at - length),
        }
    }
    body.on_own_lines = broken_before && broken_since;
    Ok(body)
}

/// The certificate in this base64 (no blanks, no padding), written out as one clean PEM block,
/// decoded by `rustls-pemfile` and parsed as `parse` does.
pub(super) fn decode(base64: &[u8]) -> Result<CertificateDer<'static>, Reason> {
    // No base64 has one letter over: with that one the text was cut, and how far is seen from the
    // rest.
    let odd = base64.len() % 4 == 1;
    let whole = base64.get(..base64.len() - usize::from(odd)).unwrap_or_default();
    match rustls_pemfile::read_one_from_slice(&pem(whole)) {
        Ok(Some((Item::X509Certificate(der), _))) => match parse(&der) {
            Ok(()) if odd => Err(Reason::Undecodable),
            Ok(()) => Ok(der),
            Err(reason) => Err(reason),
        },
        // Never its own words: they can hold the text.
        _ => Err(Reason::Undecodable),
    }
}

/// RFC 7468, section 2: 64 columns, padded.
fn pem(base64: &[u8]) -> Vec<u8> {
    let mut pem = Vec::with_capacity(base64.len() + base64.len() / 64 + 64);
    pem.extend_from_slice(b"-----BEGIN CERTIFICATE-----\n");
    for line in base64.chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    if !base64.len().is_multiple_of(4) {
        pem.pop();
        pem.extend(std::iter::repeat_n(b'=', 4 - base64.len() % 4));
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END CERTIFICATE-----\n");
    pem
}

/// Checks that `der` is one X.509 certificate and nothing else.
pub(super) fn parse(der: &[u8]) -> Result<(), Reason> {
    // The parser overlooks the class of some tags, which leaves a certificate that no TLS library
    // takes and that has lost what tells it from other files.
    if recognise::der(der) == Some(Der::Certificate)
        && let Ok((rest, _)) = x509_parser::parse_x509_certificate(der)
    {
        // The parser leaves alone what stands behind the signature, inside the outer SEQUENCE and
        // after it.
        return match rest.len() + recognise::unclaimed_bytes(der) {
            0 => Ok(()),
            extra => Err(Reason::TrailingBytes { extra }),
        };
    }
    Err(match (recognise::der(der), recognise::total_length(der)) {
        (Some(Der::Other(kind)), _) => Reason::OtherKind(kind),
        (Some(Der::PrivateKey), _) => Reason::PrivateKey,
        _ if der.first() != Some(&0x30) => Reason::NotACertificate,
        (_, Some(expected)) if expected > der.len() => Reason::Truncated { present: der.len(), expected },
        (_, Some(expected)) if expected < der.len() => Reason::TrailingBytes { extra: der.len() - expected },
        _ => Reason::NotACertificate,
    })
}
