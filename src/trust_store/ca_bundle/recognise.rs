//! What a text or some bytes are when they are no PEM certificate: by their first bytes, never by
//! their name.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::remark::{Content, Kind};
use super::text::{Escaped, blank, escape, is_base64, is_line_break, trim};

/// What DER, or the BER that keystores are written in, starts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Der {
    Certificate,
    PrivateKey,
    Other(Kind),
}

/// Bytes that `der` needs to tell its kinds apart; the object identifier of PKCS#7 behind two
/// headers is the furthest.
const HEAD_BYTES: usize = 24;
/// The same in base64: a whole number of groups.
const HEAD_LETTERS: usize = HEAD_BYTES / 3 * 4;

/// Recognises the structures of RFC 5280, 2986, 2315, 7292, 5958, 8017 and 5915 by how they start.
/// It says what they mean to be, not that they are whole. Each start has a byte that no text has.
pub(super) fn der(bytes: &[u8]) -> Option<Der> {
    let (outer, length) = sequence(bytes)?;
    // The smallest of them, an Ed25519 key, has 46 bytes.
    if length.is_some_and(|length| length < 40) {
        return None;
    }
    match outer {
        // SignedData, by its object identifier 1.2.840.113549.1.7.2.
        [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02, ..] => Some(Der::Other(Kind::Pkcs7Der)),
        // PFX: version 3, then a SEQUENCE.
        [0x02, 0x01, 0x03, 0x30, ..] => Some(Der::Other(Kind::Pkcs12)),
        // PKCS#8 (a SEQUENCE follows, version 0 or 1), PKCS#1 (the modulus follows), SEC 1 (version
        // 1, then the key).
        [0x02, 0x01, 0x00 | 0x01, 0x30, ..] | [0x02, 0x01, 0x00, 0x02, ..] => Some(Der::PrivateKey),
        [0x02, 0x01, 0x01, 0x04, ..] => Some(Der::PrivateKey),
        // EncryptedPrivateKeyInfo, by PBES2, 1.2.840.113549.1.5.13.
        [0x30, _, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d, ..] => Some(Der::PrivateKey),
        // SubjectPublicKeyInfo: rsaEncryption, id-ecPublicKey, and 1.3.101 for Ed25519.
        [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, ..]
        | [0x30, _, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, ..]
        | [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, ..] => Some(Der::Other(Kind::PublicKey)),
        _ => match sequence(outer)? {
            // TBSCertificate: an explicit version, or in version 1 a serial number and then an
            // algorithm. A request starts with its version 0 and then a name, whose first SET
            // (0x31) tells it from that algorithm.
            ([0xa0, 0x03, 0x02, 0x01, 0x00..=0x02, ..], _) => Some(Der::Certificate),
            ([0x02, 0x01, 0x00, 0x30, name @ ..], _) if starts_with_set(name) => {
                Some(Der::Other(Kind::CertificateRequest))
            }
            // TBSCertList has its version 2 where a certificate of version 1 has its serial number.
            ([0x02, 0x01, 0x01, tbs @ ..], _) if is_dated_by_one_time(tbs) => Some(Der::Other(Kind::Crl)),
            // The same in version 1, which has no number.
            ([0x30, _, 0x06, ..], _) => Some(Der::Other(Kind::Crl)),
            ([0x02, 1..=20, ..], _) => Some(Der::Certificate),
            _ => None,
        },
    }
}

/// Whether the content of a Name follows: its length, then a SET; or no content at all.
fn starts_with_set(name: &[u8]) -> bool {
    matches!(name, [0, ..] | [1..=0x7f, 0x31, ..] | [0x81, _, 0x31, ..] | [0x82, _, _, 0x31, ..])
}

/// Whether an algorithm, a name and then a Time follow, as in a revocation list; a certificate has a
/// SEQUENCE of two there.
fn is_dated_by_one_time(algorithm: &[u8]) -> bool {
    let behind = |der: &[u8]| total_length(der).map(|length| length.min(der.len()));
    behind(algorithm)
        .and_then(|length| algorithm.get(length..))
        .and_then(|name| name.get(behind(name)?..))
        .is_some_and(|date| matches!(date, [0x17 | 0x18, ..]))
}

/// Recognises what base64 without markers starts as, from its first letters.
pub(super) fn base64_der(letters: &[u8]) -> Option<Der> {
    der(&decode_base64(letters.get(..HEAD_LETTERS)?)?)
}

/// The length, header included, that the first element of `der` claims. `None` where it has no
/// definite one.
pub(super) fn total_length(der: &[u8]) -> Option<usize> {
    let (_, content, length) = element(der)?;
    (der.len() - content.len()).checked_add(length?)
}

/// The length that the base64 of a DER claims, in bytes.
pub(super) fn base64_total_length(letters: &[u8]) -> Option<usize> {
    total_length(&decode_base64(letters.get(..HEAD_LETTERS)?)?)
}

/// The bytes of a certificate's outer SEQUENCE behind its three elements (RFC 5280, section 4.1).
pub(super) fn unclaimed_bytes(certificate: &[u8]) -> usize {
    let own = total_length(certificate).and_then(|length| certificate.get(..length));
    let Some((mut rest, _)) = own.and_then(sequence) else {
        return 0;
    };
    for _ in 0..3 {
        rest = total_length(rest).and_then(|length| rest.get(length..)).unwrap_or_default();
    }
    rest.len()
}

/// What follows the header of the SEQUENCE at the start of `der`, and its length unless that is
/// indefinite.
fn sequence(der: &[u8]) -> Option<(&[u8], Option<usize>)> {
    match element(der)? {
        (0x30, content, length) => Some((content, length)),
        _ => None,
    }
}

/// Tag, what follows the header, and the length (X.690, section 8.1.3). A length of more than four
/// bytes is no length.
fn element(der: &[u8]) -> Option<(u8, &[u8], Option<usize>)> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    match *first {
        short @ 0..=0x7f => Some((*tag, rest, Some(usize::from(short)))),
        0x80 => Some((*tag, rest, None)),
        long => {
            let (length, rest) =
                rest.split_at_checked(usize::from(long & 0x7f)).filter(|(length, _)| length.len() <= 4)?;
            let length =
                length.iter().try_fold(0usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))?;
            Some((*tag, rest, Some(length)))
        }
    }
}

/// Base64 as people have it: with padding or without.
pub(super) fn decode_base64(letters: &[u8]) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    // A letter too many is what is left of a cut group.
    let whole = letters.len() - usize::from(letters.len() % 4 == 1);
    GeneralPurpose::new(&alphabet::STANDARD, config).decode(letters.get(..whole)?).ok()
}

/// Binary files that are known by how they start, and texts that cannot be read at all.
pub(super) fn binary(bytes: &[u8]) -> Option<Content> {
    if trim(bytes).iter().all(|byte| *byte == 0) {
        return Some(Content::Empty);
    }
    if let Some(encoding) = utf16(bytes) {
        return Some(Content::Utf16 { encoding });
    }
    match bytes {
        [0xfe, 0xed, 0xfe, 0xed, ..] | [0xce, 0xce, 0xce, 0xce, ..] => Some(Content::Kind(Kind::JavaKeystore)),
        [b'P', b'K', 0x03, 0x04, ..] | [0x1f, 0x8b, 0x08, ..] => Some(Content::Archive),
        [0x30, ..] => match der(bytes)? {
            Der::Other(kind) => Some(Content::Kind(kind)),
            Der::Certificate | Der::PrivateKey => None,
        },
        _ => None,
    }
}

/// By its byte order mark, or by the zero in each of its first characters. The answer is iconv's
/// name for it.
fn utf16(bytes: &[u8]) -> Option<&'static str> {
    if matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return Some("UTF-16");
    }
    let pairs = bytes.as_chunks::<2>().0;
    let first = pairs.get(..pairs.len().min(32)).filter(|first| first.len() >= 2)?;
    if first.iter().all(|pair| pair[0] != 0 && pair[1] == 0) {
        Some("UTF-16LE")
    } else if first.iter().all(|pair| pair[0] == 0 && pair[1] != 0) {
        Some("UTF-16BE")
    } else {
        None
    }
}

/// What a text is in which nothing was found.
pub(super) fn text(bytes: &[u8]) -> Content {
    let trimmed = trim(bytes);
    let bare = trimmed.strip_prefix(b"\"").or_else(|| trimmed.strip_prefix(b"'")).unwrap_or(trimmed);
    match bare {
        [b'{', b'{', ..] | [b'$', b'{' | b'(', ..] | [b'<', b'%', ..] => Content::Placeholder,
        [b'<', b'!' | b'?' | b'a'..=b'z' | b'A'..=b'Z', ..] => Content::Html,
        _ if surroundings(bytes) == Some(Surroundings::Json) => Content::Json,
        _ if surroundings(bytes) == Some(Surroundings::Yaml) => Content::Yaml,
        _ if is_path(bare) => Content::Path,
        _ => {
            Content::Unknown { bytes: bytes.len(), is_text: std::str::from_utf8(bytes).is_ok() && !bytes.contains(&0) }
        }
    }
}

/// One line that names a file.
fn is_path(line: &[u8]) -> bool {
    /// Linux's `PATH_MAX`.
    const MAX_PATH: usize = 4096;
    let line = line.trim_ascii_end();
    let line = line.strip_suffix(b"\"").or_else(|| line.strip_suffix(b"'")).unwrap_or(line).to_ascii_lowercase();
    let named = [&b".crt"[..], b".pem", b".cer"].iter().any(|suffix| line.ends_with(suffix));
    line.len() <= MAX_PATH && !line.iter().copied().any(is_line_break) && (line.starts_with(b"/") || named)
}

/// A document that certificates were pasted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surroundings {
    Json,
    Yaml,
}

/// Recognises a JSON document by its first character, a YAML one by the first line that says
/// something.
pub(super) fn surroundings(bytes: &[u8]) -> Option<Surroundings> {
    let text = trim(bytes);
    match text {
        [b'{', ..] => return Some(Surroundings::Json),
        // Not the section of an INI file.
        [b'[', rest @ ..] if matches!(trim(rest), [b'"' | b'{' | b'[', ..]) => {
            return Some(Surroundings::Json);
        }
        _ => {}
    }
    let line = text
        .split(|byte| is_line_break(*byte))
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty() && !line.starts_with(b"#") && *line != b"---")?;
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (key, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    let manifest = matches!(key, b"apiVersion" | b"kind" | b"metadata" | b"data" | b"stringData");
    let block = matches!(value, b"|" | b"|-" | b"|+" | b">" | b">-") && key.iter().all(|byte| byte.is_ascii_graphic());
    (manifest || block).then_some(Surroundings::Yaml)
}

/// The letters of a text that is base64 from end to end (blanks, escapes, quotes and padding
/// aside), if it is one.
pub(super) fn whole_base64(bytes: &[u8]) -> Option<Vec<u8>> {
    /// Anything shorter is a word.
    const MIN_LETTERS: usize = 32;
    let mut letters = Vec::with_capacity(bytes.len());
    let mut padded = false;
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        let rest = bytes.get(at..).unwrap_or_default();
        match (escape(rest), blank(rest)) {
            (Some((Escaped::Byte(_), _)), _) => return None,
            (Some((_, length)), _) => at += length,
            (None, 0) => {
                match byte {
                    b'"' | b'\'' => {}
                    b'=' => padded = true,
                    _ if is_base64(byte) && !padded => letters.push(byte),
                    _ => return None,
                }
                at += 1;
            }
            (None, length) => at += length,
        }
    }
    (letters.len() >= MIN_LETTERS).then_some(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_in_all_their_forms() {
        assert_eq!(total_length(&[0x30, 0x05]), Some(7));
        assert_eq!(total_length(&[0x30, 0x81, 0xc8]), Some(203));
        assert_eq!(total_length(&[0x30, 0x82, 0x01, 0x00]), Some(260));
        assert_eq!(total_length(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), Some(0xffff_ffff + 6));
    }

    #[test]
    fn a_length_that_is_none_is_refused() {
        assert_eq!(total_length(&[0x30, 0x80, 0x00, 0x00]), None, "indefinite");
        assert_eq!(total_length(&[0x30, 0x82, 0x01]), None, "cut");
        assert_eq!(total_length(&[0x30, 0x85, 0, 0, 0, 0, 1]), None, "five bytes");
        assert_eq!(total_length(&[]), None);
    }

    #[test]
    fn a_revocation_list_is_told_from_a_certificate_of_version_1_with_serial_number_1() {
        let start = |date: &[u8]| {
            let head = [0x30, 0x82, 0x01, 0x00, 0x30, 0x81, 0xc0, 0x02, 0x01, 0x01];
            let algorithm = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
            let name = [0x30, 0x02, 0x31, 0x00];
            [&head[..], &algorithm, &name, date].concat()
        };
        assert_eq!(der(&start(&[0x30, 0x1e, 0x17, 0x0d])), Some(Der::Certificate));
        assert_eq!(der(&start(&[0x17, 0x0d])), Some(Der::Other(Kind::Crl)));
        assert_eq!(der(&start(&[])), Some(Der::Certificate), "cut");
    }

    #[test]
    fn a_path_is_one_line() {
        assert!(is_path(b"/etc/ssl/custom-certs/cabundle.crt"));
        assert!(is_path(b"ca.PEM\n"));
        assert!(!is_path(b"/etc/ssl\nand more"));
        assert!(!is_path(b"ca.key"));
    }

    #[test]
    fn yaml_is_known_by_its_first_line_and_not_by_openssls_text() {
        assert_eq!(surroundings(b"---\n# mine\nkind: ConfigMap\n"), Some(Surroundings::Yaml));
        assert_eq!(surroundings(b"cabundle.crt: |\n  -----BEGIN"), Some(Surroundings::Yaml));
        assert_eq!(surroundings(b"Certificate:\n    Data:\n"), None);
        assert_eq!(surroundings(b"# Issuer: CN=a\nsubject=CN = a\n"), None);
    }
}
