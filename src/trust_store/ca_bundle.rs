//! Finds the certificates in whatever was pasted into a CA bundle.
//!
//! A CA travels through mails, chats, Windows editors, shells, YAML, JSON and two layers of base64
//! before it is in a Secret or a ConfigMap. On its way it loses its line breaks, its markers, its
//! encoding. Programs disagree about what is left: OpenSSL drops a whole file for one bad block, Go
//! and rustls drop a bad block, or all of them, without a word. What follows is a TLS error that
//! speaks of unknown issuers, and a user who sees the certificate in front of them.
//!
//! So a tolerant scanner of our own finds the blocks, and libraries decode each block strictly:
//!
//! 1. **Find.** `markers` finds each BEGIN and END wherever they stand. Between the markers,
//!    `unmarked` finds what came without any: DER, base64 of DER, base64 of a PEM.
//! 2. **Clean.** `repair` takes blanks, escapes and quotes out of a body and writes it anew, as
//!    RFC 7468 has it.
//! 3. **Decode.** `rustls-pemfile` decodes that one clean block, here and nowhere else. Its errors
//!    can contain the text they complain about, so they go no further than `repair`.
//! 4. **Parse.** `x509-parser` must read the bytes as one X.509 certificate with nothing behind it.
//! 5. **Say so.** What was repaired, what was skipped, and what a source is that is no bundle,
//!    becomes a [`Remark`]: where, what, and the command that puts it right. `recognise` knows
//!    the usual suspects.
//!
//! What this promises:
//!
//! - A good certificate is never lost because of what stands beside it, and a damaged one is never
//!   made up: only the wrapping is repaired, the bytes inside are taken whole or not at all.
//! - A CA that is commented out stays out, and a keystore is named, not mined: whoever put a
//!   certificate there did not ask to trust it.
//! - No remark holds a byte of what was pasted, because a private key is often among it.
//! - Any input ends, in time linear in its length: at most [`MAX_BYTES`], at most [`MAX_SKIPPED`]
//!   remarks on skipped blocks.
//!
//! Not here: which files are read (`mount`), and which certificates become trust anchors
//! (`verifier`): expired ones and ones that are no CA are still certificates.

use std::fmt;

use rustls::pki_types::CertificateDer;

use self::findings::Findings;
use self::markers::{Label, Marker, Side};
use self::text::{Text, blank, is_line_break};
use self::unmarked::Unmarked;

pub use self::remark::{Content, Kind, Place, Reason, Remark, Repair};

mod findings;
mod markers;
mod recognise;
mod remark;
mod repair;
mod text;
mod unmarked;

#[cfg(test)]
mod tests;

/// Largest source that is scanned, in bytes. The largest ConfigMap is 1 MiB and Mozilla's whole
/// root programme is a quarter of that, so this leaves room for a file on a volume that holds every
/// bundle of a company.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Most skipped blocks that get a remark each; the rest are counted in one.
pub const MAX_SKIPPED: usize = 32;

/// What one CA source held.
#[derive(Debug)]
pub struct CaBundle {
    /// Each certificate once, in the order of the source.
    pub certificates: Vec<FoundCertificate>,
    /// How many certificates were there again, byte for byte. webpki gives up on too many anchors
    /// of one name (`MaximumSignatureChecksExceeded`), and mounted bundles repeat themselves.
    pub duplicates: usize,
    /// What to tell the user, in the order of the source. Never empty when `certificates` is.
    pub remarks: Vec<Remark>,
}

/// One certificate, as it was found.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundCertificate {
    /// Its bytes: one X.509 certificate, whole, with nothing behind it.
    pub der: CertificateDer<'static>,
    /// From one; everything in the source that looks like a block counts, certificate or not.
    pub block: usize,
    /// From one: the line of its BEGIN as an editor shows it, of its first letter where it has no
    /// BEGIN; 1 for a DER file. Inside base64 of a PEM, the line after decoding.
    pub line: usize,
}

/// By hand: a certificate's bytes are many and say nothing.
impl fmt::Debug for FoundCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoundCertificate")
            .field("block", &self.block)
            .field("line", &self.line)
            .field("der_bytes", &self.der.len())
            .finish()
    }
}

/// Finds every certificate in `bytes`: PEM in any state, DER, base64 of either, several of them
/// mixed.
///
/// It never fails and never panics: what is wrong is in [`CaBundle::remarks`]. Sources of more than
/// [`MAX_BYTES`] are not looked at.
#[must_use]
pub fn scan(bytes: &[u8]) -> CaBundle {
    let mut findings = Findings::default();
    if bytes.len() > MAX_BYTES {
        findings.not_a_bundle(Content::TooLarge { bytes: bytes.len() }, false);
    } else {
        scan_source(&mut findings, bytes, false);
    }
    findings.finish()
}

/// Everything that one text holds; and if that is nothing, what the text is. `decoded` says that
/// the text was in the base64 of another one, which is undone only once.
fn scan_source(findings: &mut Findings, bytes: &[u8], decoded: bool) {
    if let Some(content) = recognise::binary(bytes) {
        return findings.not_a_bundle(content, decoded);
    }
    let (outcomes, certificates) = (findings.outcomes(), findings.certificates());
    scan_text(findings, &mut Text::new(bytes, decoded));
    if findings.certificates() > certificates {
        if let Some(surroundings) = recognise::surroundings(bytes) {
            findings.inside(surroundings);
        }
    } else if findings.outcomes() == outcomes && (decoded || !scan_base64(findings, bytes)) {
        findings.not_a_bundle(recognise::text(bytes), decoded);
    }
}

/// Scans what a source holds that is base64 from end to end. If nobody knows what that is, it was
/// no base64, and the answer is no.
fn scan_base64(findings: &mut Findings, bytes: &[u8]) -> bool {
    let Some(decoded) = recognise::whole_base64(bytes).and_then(|letters| recognise::decode_base64(&letters)) else {
        return false;
    };
    let mut inner = Findings::default();
    scan_source(&mut inner, &decoded, true);
    let known = !inner.is_unknown();
    if known {
        // Nothing was found before, or we would not be here.
        *findings = inner;
    }
    known
}

/// One pass over the markers and over what is between them.
fn scan_text(findings: &mut Findings, text: &mut Text<'_>) {
    let markers = markers::find(text.bytes);
    let mut rest = markers.as_slice();
    let mut at = 0;
    while let [marker, behind @ ..] = rest {
        if marker.end <= at {
            // It is inside a DER that we have just read.
            rest = behind;
            continue;
        }
        let unmarked = match marker.side {
            Side::End if marker.label.is_certificate() => Unmarked::NO_BEGIN,
            Side::Begin | Side::End => Unmarked::BARE,
        };
        let outcomes = findings.outcomes();
        let end_of_der = unmarked::scan(findings, text, at, marker.start, unmarked);
        if end_of_der > at.max(marker.start) {
            at = end_of_der;
            continue;
        }
        rest = behind;
        at = match (marker.side, behind) {
            (Side::Begin, [end, others @ ..]) if end.side == Side::End => {
                block(findings, text, marker, end);
                rest = others;
                end.end
            }
            (Side::Begin, _) => {
                let to = behind.first().map_or(text.bytes.len(), |next| next.start);
                begin_without_end(findings, text, marker, to);
                to.max(marker.end)
            }
            (Side::End, _) => {
                // What was found before it may be what it ends; a key is worth saying twice.
                if findings.outcomes() == outcomes || marker.label == Label::PrivateKey {
                    end_without_begin(findings, text, marker);
                }
                marker.end
            }
        };
    }
    unmarked::scan(findings, text, at, text.bytes.len(), Unmarked::BARE);
}

/// One BEGIN with its END.
fn block(findings: &mut Findings, text: &mut Text<'_>, begin: &Marker, end: &Marker) {
    let place = findings.place(text, begin.start);
    match begin.label {
        // A key counts even where it is commented out: it is there to be read.
        Label::PrivateKey => findings.private_key(place),
        _ if is_commented_out(text.bytes, begin.start) => findings.commented_out(place),
        Label::Certificate | Label::X509Certificate if end.label == Label::PrivateKey => {
            // Two blocks that lost the markers between them. What is before the key may still be a
            // certificate.
            findings.private_key(place);
            unmarked::scan(findings, text, begin.end, end.start, Unmarked::no_end(place));
        }
        Label::Certificate | Label::X509Certificate => certificate(findings, text, place, begin, end),
        Label::TrustedCertificate => findings.skip(place, Reason::OtherKind(Kind::TrustedCertificate)),
        Label::CertificateRequest => findings.skip(place, Reason::OtherKind(Kind::CertificateRequest)),
        Label::Pkcs7 => findings.skip(place, Reason::OtherKind(Kind::Pkcs7)),
        Label::PublicKey => findings.skip(place, Reason::OtherKind(Kind::PublicKey)),
        Label::Crl => findings.skip(place, Reason::OtherKind(Kind::Crl)),
        Label::Other => findings.skip(place, Reason::OtherKind(Kind::Other)),
    }
}

/// A block that says it is a certificate.
fn certificate(findings: &mut Findings, text: &mut Text<'_>, place: Place, begin: &Marker, end: &Marker) {
    let body = match repair::clean(text.bytes.get(begin.end..end.start).unwrap_or_default()) {
        Ok(body) => body,
        Err(offset) => {
            let line = text.line(begin.end + offset);
            return findings.skip(place, Reason::NotBase64 { line });
        }
    };
    if body.base64.is_empty() {
        return findings.skip(place, Reason::Empty);
    }
    let der = match repair::decode(&body.base64) {
        Ok(der) => der,
        // As some CAs label it, and as `openssl pkcs7` reads it.
        Err(Reason::OtherKind(Kind::Pkcs7Der)) => {
            return findings.skip(place, Reason::OtherKind(Kind::Pkcs7));
        }
        Err(reason) => return findings.skip(place, reason),
    };
    let repairs = [
        (text.decoded, Repair::Base64OfPem),
        (body.escaped, Repair::EscapedLineBreaks),
        (!body.on_own_lines, Repair::OneLine),
        (body.quoted || is_quoted(text.bytes, begin.start, end.end), Repair::Quoted),
        (begin.malformed || end.malformed, Repair::MisspeltMarker),
        (begin.label != end.label, Repair::DifferentLabels),
    ];
    for (_, repair) in repairs.iter().filter(|(needed, _)| *needed) {
        findings.repaired(place, *repair);
    }
    findings.keep(place, der);
}

/// A BEGIN that another BEGIN or the end of the text follows. A certificate knows its own length,
/// so it may still be whole.
fn begin_without_end(findings: &mut Findings, text: &mut Text<'_>, begin: &Marker, to: usize) {
    let place = findings.place(text, begin.start);
    if begin.label == Label::PrivateKey {
        return findings.private_key(place);
    }
    if is_commented_out(text.bytes, begin.start) {
        return findings.commented_out(place);
    }
    let outcomes = findings.outcomes();
    if begin.label.is_certificate() {
        unmarked::scan(findings, text, begin.end, to, Unmarked::no_end(place));
    }
    if findings.outcomes() == outcomes {
        findings.skip(place, Reason::NoEnd);
    }
}

/// An END that no BEGIN precedes, and no certificate either.
fn end_without_begin(findings: &mut Findings, text: &mut Text<'_>, end: &Marker) {
    let place = findings.place(text, end.start);
    if end.label == Label::PrivateKey {
        findings.private_key(place);
    } else if is_commented_out(text.bytes, end.start) {
        findings.commented_out(place);
    } else {
        findings.skip(place, Reason::NoBegin);
    }
}

/// Most bytes that are looked at beside a marker for a `#` or a quote.
const MAX_BESIDE: usize = 128;

/// Whether nothing but `#` and blanks precede the marker on its line. `# Issuer: …` on one line
/// with the PEM is a comment that lost its line break, and hides nothing.
fn is_commented_out(text: &[u8], marker: usize) -> bool {
    let before = before(text, marker);
    before.contains(&b'#') && before.iter().all(|byte| matches!(byte, b'#' | b' ' | b'\t'))
}

/// Whether a quote opens right before BEGIN or closes right after END, or does so for the whole
/// source.
fn is_quoted(text: &[u8], begin: usize, end: usize) -> bool {
    let is_quote = |byte: Option<&u8>| matches!(byte, Some(b'"' | b'\'' | b'`'));
    let blank_or_slash = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\\');
    let opens = before(text, begin).iter().rev().find(|byte| !blank_or_slash(byte));
    let closes = after(text, end).iter().find(|byte| !blank_or_slash(byte));
    is_quote(opens) || is_quote(closes) || begin < MAX_BESIDE && is_quote(text::trim(text).first())
}

/// What precedes `offset` on its line; an escaped line break starts one as well.
fn before(text: &[u8], offset: usize) -> &[u8] {
    let line = text.get(offset.saturating_sub(MAX_BESIDE)..offset).unwrap_or_default();
    let real = line.iter().rposition(|byte| is_line_break(*byte)).map_or(0, |at| at + 1);
    let escaped = line.windows(2).rposition(|pair| matches!(pair, br"\n" | br"\r")).map_or(0, |at| at + 2);
    let line = line.get(real.max(escaped)..).unwrap_or_default();
    // A byte order mark is no part of the line.
    line.get(blank(line)..).unwrap_or_default()
}

/// What follows `offset` on its line.
fn after(text: &[u8], offset: usize) -> &[u8] {
    let line = text.get(offset..text.len().min(offset + MAX_BESIDE)).unwrap_or_default();
    line.split(|byte| is_line_break(*byte)).next().unwrap_or_default()
}
