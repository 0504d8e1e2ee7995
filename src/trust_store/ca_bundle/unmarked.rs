//! Finds what came without BEGIN and END: DER, base64 of DER, base64 of a PEM.
//!
//! Each is known by how it starts, strictly enough that prose and `openssl -text` never look like
//! it, and each ends where its own length says or where its letters do. DER is looked for only
//! where something new can start, so that the certificates inside some other binary file stay
//! there.

use rustls::pki_types::CertificateDer;

use super::findings::Findings;
use super::markers;
use super::recognise::{self, Der};
use super::remark::{Place, Reason, Repair};
use super::text::{Escaped, Text, base64_run, blank, escape, is_line_break};
use super::{repair, scan_text};

/// What base64 without markers is reported as.
#[derive(Clone, Copy)]
pub(super) struct Unmarked {
    repair: Repair,
    /// That of the one marker which is there.
    place: Option<Place>,
}

impl Unmarked {
    pub(super) const BARE: Self = Self { repair: Repair::BareBase64, place: None };
    pub(super) const NO_BEGIN: Self = Self { repair: Repair::NoBegin, place: None };

    pub(super) fn no_end(begin: Place) -> Self {
        Self { repair: Repair::NoEnd, place: Some(begin) }
    }
}

/// `-----BEGIN` in base64, as a PEM starts.
const BEGIN_IN_BASE64: &[u8] = b"LS0tLS1CRUdJTi";
/// A word of so many letters is a line of base64: the shortest line that encoders write.
const LONG: usize = 64;

/// Looks at `from..to`, and returns `to`, or the end of a DER that runs past it.
pub(super) fn scan(findings: &mut Findings, text: &mut Text<'_>, from: usize, to: usize, unmarked: Unmarked) -> usize {
    let mut at = from;
    let mut starts_line = true;
    let mut starts_word = true;
    let mut in_damaged_der = false;
    while at < to {
        let rest = text.bytes.get(at..).unwrap_or_default();
        if let Some(gap) = Gap::at(rest) {
            starts_line |= gap.breaks_line;
            starts_word = true;
            at += gap.length;
            continue;
        }
        // What stands in a damaged DER is a part of it, unless it is a certificate again.
        let der_kind =
            recognise::der(rest).filter(|kind| starts_word && (*kind == Der::Certificate || !in_damaged_der));
        starts_word = false;
        let next = match der_kind {
            _ if starts_line && rest.starts_with(b"#") => {
                at + comment_length(text.bytes.get(at..to).unwrap_or_default())
            }
            Some(kind) if findings.may_parse_der() => match der(findings, text, at, kind) {
                Some(end) => {
                    // Another one may stand right behind.
                    starts_word = true;
                    end
                }
                None => {
                    in_damaged_der = true;
                    at + 1
                }
            },
            _ => match base64_run(text.bytes, at) {
                [] => at + 1,
                letters => match recognise::base64_der(letters) {
                    Some(kind) => base64_der(findings, text, at, kind, unmarked),
                    None if letters.starts_with(BEGIN_IN_BASE64) || letters.len() >= LONG => {
                        base64_pem(findings, text, at)
                    }
                    None => at + letters.len(),
                },
            },
        };
        starts_line = false;
        at = next;
    }
    at.max(to)
}

/// What may stand between two words: blanks, quotes, commas and escapes.
struct Gap {
    length: usize,
    breaks_line: bool,
}

impl Gap {
    fn at(text: &[u8]) -> Option<Self> {
        match (escape(text), text.first()?) {
            (Some((Escaped::Byte(_), _)), _) => None,
            (Some((meant, length)), _) => Some(Self { length, breaks_line: meant == Escaped::LineBreak }),
            (None, b'"' | b'\'' | b',') => Some(Self { length: 1, breaks_line: false }),
            (None, byte) => match blank(text) {
                0 => None,
                length => Some(Self { length, breaks_line: is_line_break(*byte) }),
            },
        }
    }
}

/// Up to the line break, real or escaped.
fn comment_length(text: &[u8]) -> usize {
    let ends = |at: &usize| Gap::at(text.get(*at..).unwrap_or_default()).is_some_and(|gap| gap.breaks_line);
    (0..text.len()).find(ends).unwrap_or(text.len())
}

/// A DER. Returns its end, or nothing where it is cut or damaged and has none to rely on.
fn der(findings: &mut Findings, text: &mut Text<'_>, at: usize, kind: Der) -> Option<usize> {
    let place = findings.place(text, at);
    let rest = text.bytes.get(at..)?;
    // One of indefinite length goes on to we know not where.
    let length = recognise::total_length(rest).unwrap_or(rest.len());
    let (own, behind) = rest.split_at(length.min(rest.len()));
    match kind {
        Der::PrivateKey => findings.private_key(place),
        Der::Other(kind) => findings.skip(place, Reason::OtherKind(kind)),
        Der::Certificate => {
            if let Err(reason) = repair::parse(own) {
                findings.damaged_der(place, reason);
                return None;
            }
            if !may_follow_der(behind) {
                let extra = behind.len();
                findings.skip(place, Reason::TrailingBytes { extra });
                return Some(at + own.len());
            }
            let repair = if text.decoded { Repair::BareBase64 } else { Repair::Der };
            findings.repaired(place, repair);
            findings.keep(place, CertificateDer::from(own.to_vec()));
        }
    }
    Some(at + own.len())
}

/// Nothing, a blank, another DER or a marker. Anything else is the trailing rubbish that makes a
/// file no DER.
fn may_follow_der(behind: &[u8]) -> bool {
    behind.is_empty() || behind.starts_with(b"-") || Gap::at(behind).is_some() || recognise::der(behind).is_some()
}

/// Base64 of a DER: as many letters as its header claims.
fn base64_der(findings: &mut Findings, text: &mut Text<'_>, at: usize, kind: Der, unmarked: Unmarked) -> usize {
    let length = recognise::base64_total_length(text.bytes.get(at..).unwrap_or_default());
    // Four letters for three bytes, padding aside.
    let wanted = length.and_then(|length| length.checked_mul(4)).map_or(usize::MAX, |bits| bits.div_ceil(3));
    let (letters, end) = letters(text.bytes, at, wanted);
    let place = match unmarked.place {
        Some(place) => place,
        None => findings.place(text, at),
    };
    match kind {
        Der::PrivateKey => findings.private_key(place),
        Der::Other(kind) => findings.skip(place, Reason::Base64OfOtherKind(kind)),
        Der::Certificate => match repair::decode(&letters) {
            Err(reason) => findings.skip(place, reason),
            Ok(der) => {
                findings.repaired(place, unmarked.repair);
                findings.keep(place, der);
            }
        },
    }
    end
}

/// Base64 that may be that of a PEM: undone once, and scanned like a text of its own.
fn base64_pem(findings: &mut Findings, text: &mut Text<'_>, at: usize) -> usize {
    let (letters, end) = letters(text.bytes, at, usize::MAX);
    if text.decoded {
        if letters.starts_with(BEGIN_IN_BASE64) {
            let place = findings.place(text, at);
            findings.skip(place, Reason::Base64Twice);
        }
        return end;
    }
    let decoded = recognise::decode_base64(&letters).unwrap_or_default();
    if !markers::find(&decoded).is_empty() {
        let outcomes = findings.outcomes();
        scan_text(findings, &mut Text::new(&decoded, true));
        if findings.outcomes() == outcomes {
            let place = findings.place(text, at);
            findings.skip(place, Reason::NoEnd);
        }
    }
    end
}

/// Letters from `at` on, over gaps, until there are enough, or padding ends them, or something else
/// starts; and where that is: no marker is passed, because hyphens are neither. Each start ends the
/// letters before it, so no letter is read more than twice however many starts there are.
fn letters(text: &[u8], at: usize, enough: usize) -> (Vec<u8>, usize) {
    let mut letters = Vec::new();
    let mut next = at;
    let mut end = at;
    while letters.len() < enough {
        let word = base64_run(text, next);
        let starts_anew = recognise::base64_der(word).is_some() || word.starts_with(BEGIN_IN_BASE64);
        if word.is_empty() || starts_anew && next > at {
            break;
        }
        letters.extend_from_slice(word);
        end = next + word.len();
        if text.get(end) == Some(&b'=') {
            break;
        }
        next = end;
        while let Some(gap) = text.get(next..).and_then(Gap::at) {
            next += gap.length;
        }
    }
    (letters, end)
}
