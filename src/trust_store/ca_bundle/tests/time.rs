//! No input costs more than its length.

use std::time::{Duration, Instant};

use super::*;

/// Enough that quadratic work takes many minutes; linear work takes a fraction of a second,
/// optimised or not.
const BYTES: usize = 1024 * 1024;
const FAR_TOO_LONG: Duration = Duration::from_secs(10);

#[track_caller]
fn assert_linear(what: &str, part: &[u8]) {
    let text: Vec<u8> = part.iter().copied().cycle().take(BYTES).collect();
    let start = Instant::now();
    let bundle = scan(&text);
    let took = start.elapsed();
    assert!(took < FAR_TOO_LONG, "{what}: {took:?}");
    assert!(bundle.remarks.len() <= MAX_SKIPPED + 16, "{what}: {} remarks", bundle.remarks.len());
}

#[test]
fn no_hostile_input_takes_longer_than_its_length() {
    let head = &ca().der[..40];
    let mut greedy = head.to_vec();
    greedy[2..4].copy_from_slice(&[0xff, 0xff]);
    let greedy_letters = STANDARD.encode(&greedy[..24]);
    let spaced = format!("{greedy_letters} ");
    for (what, part) in [
        ("BEGIN without a label", &b"-----BEGIN"[..]),
        ("BEGIN", b"-----BEGIN CERTIFICATE-----"),
        ("BEGIN of something", b"-----BEGIN X-----"),
        ("END", b"-----END CERTIFICATE-----"),
        ("BEGIN with blanks", b"-----BEGIN                    "),
        ("BEGIN and a letter", b"-----BEGIN CERTIFICATE-----\nM"),
        ("pairs", b"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"),
        ("commented pairs", b"# -----BEGIN CERTIFICATE-----\n# MII\n# -----END CERTIFICATE-----\n"),
        ("hyphens", b"-"),
        ("dashes", "\u{2014}".as_bytes()),
        ("backslashes", b"\\"),
        ("escapes", b"\\n"),
        ("comments", b"#"),
        ("comments with backslashes", b"\n#\\\\\\\\\\\\\\\\\\"),
        ("quotes", b"\""),
        ("letters", b"M"),
        ("words", b"MII "),
        ("padding", b"="),
        ("heads of DER", head),
        ("heads of DER on lines", &[b"\n", head].concat()),
        ("greedy heads of DER", &[b"\n", &*greedy].concat()),
        ("heads of base64", spaced.as_bytes()),
        ("heads of base64 without end", greedy_letters.as_bytes()),
        ("base64 of BEGIN", b"LS0tLS1CRUdJTi "),
        ("carriage returns", b"\r"),
    ] {
        assert_linear(what, part);
    }
    let begun = [b"-----BEGIN CERTIFICATE-----\n", &*vec![b'A'; BYTES - 28]].concat();
    assert_linear("one long body", &begun);
    let nested = STANDARD.encode("-----BEGIN CERTIFICATE-----\n".repeat(BYTES / 40));
    assert_linear("base64 of many BEGIN", nested.as_bytes());
}

/// A few milliseconds when optimised: `cargo test --release -- --nocapture 500_cas`.
#[test]
fn a_bundle_of_500_cas_is_read_in_no_time() {
    let key = KeyPair::generate().unwrap();
    let mut text = String::new();
    for n in 0..500 {
        let mut params = CertificateParams::new(vec![format!("ca-{n}.example.com")]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        text += &params.self_signed(&key).unwrap().pem();
    }
    let start = Instant::now();
    let bundle = scan(text.as_bytes());
    let took = start.elapsed();
    println!("500 CAs, {} bytes: {took:?}", text.len());
    assert_eq!((bundle.certificates.len(), bundle.remarks.len()), (500, 0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}
