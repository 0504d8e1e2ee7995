//! What people paste, row by row; each repair beside its nearest case that must not be repaired.

#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

use super::*;

mod properties;
mod time;

/// One CA.
struct Ca {
    pem: String,
    der: Vec<u8>,
    key_pem: String,
    key_der: Vec<u8>,
    request_pem: String,
    request_der: Vec<u8>,
    public_key_pem: String,
}

impl Ca {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let request = params.serialize_request(&key).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem().replace("\r\n", "\n"),
            der: certificate.der().to_vec(),
            key_pem: key.serialize_pem(),
            key_der: key.serialize_der(),
            request_pem: request.pem().unwrap(),
            request_der: request.der().to_vec(),
            public_key_pem: key.public_key_pem(),
        }
    }

    /// Without markers, on one line.
    fn base64(&self) -> String {
        STANDARD.encode(&self.der)
    }
}

/// Six CAs, so that the base64 of some ends with one `=`, of some with two, of some with none.
fn cas() -> &'static [Ca] {
    static CAS: OnceLock<Vec<Ca>> = OnceLock::new();
    CAS.get_or_init(|| (0..6).map(|n| Ca::new(&format!("test root {}", "x".repeat(n)))).collect())
}

fn ca() -> &'static Ca {
    &cas()[0]
}

fn other() -> &'static Ca {
    &cas()[1]
}

/// The certificates found are these and no others.
#[track_caller]
fn assert_finds(bundle: &CaBundle, expected: &[&Ca]) {
    let found: Vec<_> = bundle.certificates.iter().map(|found| found.der.to_vec()).collect();
    let expected: Vec<_> = expected.iter().map(|ca| ca.der.clone()).collect();
    assert!(found == expected, "found {} of {} in {bundle:?}", found.len(), expected.len());
}

/// All are found, and there is nothing to say.
#[track_caller]
fn assert_quiet(text: impl AsRef<[u8]>, expected: &[&Ca]) {
    let bundle = scan(text.as_ref());
    assert_finds(&bundle, expected);
    assert_eq!(bundle.remarks, []);
}

/// All are found, and exactly this was repaired.
#[track_caller]
fn assert_repaired(text: impl AsRef<[u8]>, expected: &[&Ca], repairs: &[Repair]) {
    let bundle = scan(text.as_ref());
    assert_finds(&bundle, expected);
    let found: Vec<_> = bundle
        .remarks
        .iter()
        .map(|remark| match remark {
            Remark::Repaired { repair, .. } => *repair,
            remark => panic!("{remark}"),
        })
        .collect();
    assert_eq!(found, repairs);
}

/// Nothing is found, and this is said of the source.
#[track_caller]
fn assert_content(text: impl AsRef<[u8]>, expected: Content) {
    let bundle = scan(text.as_ref());
    assert_finds(&bundle, &[]);
    assert_eq!(bundle.remarks, [Remark::NotABundle { content: expected, in_base64: false }]);
}

/// The first CA is found, and of one block this is said.
#[track_caller]
fn assert_skips(text: impl AsRef<[u8]>, block: usize, line: usize, reason: Reason) {
    let bundle = scan(text.as_ref());
    assert_finds(&bundle, &[ca()]);
    assert_eq!(bundle.remarks, [Remark::Skipped { place: Place { block, line }, reason }]);
}

fn block(label: &str, body: &str) -> String {
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn bytes_block(label: &str, bytes: &[u8]) -> String {
    block(label, &STANDARD.encode(bytes))
}

fn wrapped(base64: &str, columns: usize) -> String {
    base64.as_bytes().chunks(columns).map(|line| String::from_utf8_lossy(line) + "\n").collect()
}

mod accepted_quietly {
    use super::*;

    #[test]
    fn a_pem_as_openssl_writes_it() {
        assert_quiet(&ca().pem, &[ca()]);
        assert_quiet(cas().iter().map(|ca| &*ca.pem).collect::<String>(), &cas().iter().collect::<Vec<_>>());
    }

    #[test]
    fn block_and_line_are_those_of_the_original_text() {
        let bundle = scan(format!("# mine\n\n{}\r\n  {}", ca().pem, other().pem).as_bytes());
        let lines = ca().pem.lines().count();
        assert_eq!((bundle.certificates[0].block, bundle.certificates[0].line), (1, 3));
        assert_eq!((bundle.certificates[1].block, bundle.certificates[1].line), (2, 4 + lines));
    }

    #[test]
    fn crlf_and_cr_alone() {
        assert_quiet(ca().pem.replace('\n', "\r\n"), &[ca()]);
        assert_quiet(ca().pem.replace('\n', "\r"), &[ca()]);
    }

    #[test]
    fn trailing_spaces_blank_lines_and_indents() {
        assert_quiet(ca().pem.replace('\n', "  \t\n"), &[ca()]);
        assert_quiet(ca().pem.replace('\n', "\n\n"), &[ca()]);
        assert_quiet(ca().pem.lines().map(|line| format!("    {line}\n")).collect::<String>(), &[ca()]);
    }

    #[test]
    fn no_final_line_break_and_any_width_of_lines() {
        assert_quiet(ca().pem.trim_end(), &[ca()]);
        assert_quiet(block("CERTIFICATE", &ca().base64()), &[ca()]);
        assert_quiet(block("CERTIFICATE", &wrapped(&ca().base64(), 10)), &[ca()]);
        for ca in cas() {
            assert_quiet(block("CERTIFICATE", ca.base64().trim_end_matches('=')), &[ca]);
        }
    }

    #[test]
    fn openssl_text_bag_attributes_and_comments() {
        let text = "Certificate:\n    Data:\n        Version: 3 (0x2)\n        Serial Number:\n            02:4f:d8\n    Signature \
                    Value:\n        30:45:02:21:00\n";
        let bag =
            "Bag Attributes\n    localKeyID: 01 02 \n    friendlyName: MII a name\nsubject=CN = \"a\"\nissuer=CN = a\n";
        assert_quiet(format!("{text}{}{bag}{}# the end 'of it\n", ca().pem, other().pem), &[ca(), other()]);
    }

    #[test]
    fn a_byte_order_mark_before_any_block() {
        assert_quiet(format!("\u{feff}{}\u{feff}{}", ca().pem, other().pem), &[ca(), other()]);
        assert_quiet(format!("\u{feff}\r\n\u{feff}{}", ca().pem), &[ca()]);
    }

    #[test]
    fn end_and_begin_on_one_line() {
        let text = ca().pem.trim_end().to_owned() + &other().pem;
        assert!(text.contains("-----END CERTIFICATE----------BEGIN CERTIFICATE-----"));
        assert_quiet(text, &[ca(), other()]);
    }

    #[test]
    fn the_label_x509_certificate() {
        assert_quiet(ca().pem.replace("CERTIFICATE", "X509 CERTIFICATE"), &[ca()]);
    }

    #[test]
    fn the_same_ca_many_times_is_one() {
        let bundle = scan((ca().pem.repeat(120) + &other().pem).as_bytes());
        assert_finds(&bundle, &[ca(), other()]);
        assert_eq!(bundle.duplicates, 119);
        assert_eq!(bundle.remarks, []);
        assert_eq!(bundle.certificates[1].block, 121);
    }
}

mod repaired {
    use super::*;

    #[test]
    fn escaped_line_breaks_are_repaired() {
        for escaped in [r"\n", r"\r\n", r"\\n", r"\\r\\n", r"\\\\n", r"\u000a"] {
            let text = (ca().pem.clone() + &other().pem).replace('\n', escaped);
            assert_repaired(text, &[ca(), other()], &[Repair::EscapedLineBreaks]);
        }
        assert_repaired(ca().pem.replace('\n', "\\\n"), &[ca()], &[Repair::EscapedLineBreaks]);
    }

    #[test]
    fn escapes_inside_the_base64_are_repaired() {
        let text = ca().pem.replace('\n', r"\n").replace('/', r"\/").replace('+', r"\u002B");
        assert_repaired(text, &[ca()], &[Repair::EscapedLineBreaks]);
    }

    #[test]
    fn an_n_that_lost_its_backslash_is_not_repaired() {
        let bundle = scan(ca().pem.replace('\n', "n").as_bytes());
        assert_finds(&bundle, &[]);
        assert!(matches!(bundle.remarks[..], [Remark::Skipped { .. }]), "{bundle:?}");
    }

    #[test]
    fn quotes_around_the_value_are_repaired() {
        assert_repaired(format!("\"{}\"", ca().pem), &[ca()], &[Repair::Quoted]);
        assert_repaired(format!("'{}'", ca().pem.trim_end()), &[ca()], &[Repair::Quoted]);
        assert_repaired(format!("\"\n{}\n\"\n", ca().pem), &[ca()], &[Repair::Quoted]);
        assert_repaired(format!("CA=\"{}", ca().pem), &[ca()], &[Repair::Quoted]);
        assert_repaired(
            format!("\"{}\"", ca().pem.replace('\n', r"\n")),
            &[ca()],
            &[Repair::EscapedLineBreaks, Repair::Quoted],
        );
        let lines: String = ca().pem.lines().map(|line| format!("\"{line}\"\n")).collect();
        assert_repaired(lines, &[ca()], &[Repair::Quoted]);
    }

    #[test]
    fn quotes_in_a_comment_are_not_worth_a_word() {
        assert_quiet(format!("# the \"root\"\n{}# 'the end'\n", ca().pem), &[ca()]);
    }

    #[test]
    fn a_pem_on_one_line_is_repaired() {
        let both = ca().pem.clone() + &other().pem;
        assert_repaired(both.replace('\n', " "), &[ca(), other()], &[Repair::OneLine]);
        assert_repaired(both.replace('\n', ""), &[ca(), other()], &[Repair::OneLine]);
        assert_repaired(format!("# Issuer: a {}", both.replace('\n', " ")), &[ca(), other()], &[Repair::OneLine]);
    }

    #[test]
    fn a_pem_without_any_space_is_repaired() {
        let text: String = ca().pem.split_whitespace().collect();
        assert_repaired(text, &[ca()], &[Repair::OneLine, Repair::MisspeltMarker]);
    }

    #[test]
    fn a_pem_with_each_space_a_line_break_is_repaired() {
        assert_repaired(ca().pem.replace(' ', "\n"), &[ca()], &[Repair::MisspeltMarker]);
    }

    #[test]
    fn a_marker_that_lost_hyphens_is_repaired() {
        for (right, wrong) in [
            ("-----BEGIN", "----BEGIN"),
            ("-----BEGIN", "\u{2014}\u{2014}-BEGIN"),
            ("CERTIFICATE-----\n-----END", "CERTIFICATE-----\n---END"),
            ("END CERTIFICATE-----\n", "END CERTIFICATE"),
            ("END CERTIFICATE-----\n", "END CERTIFICATE--\n"),
        ] {
            let text = ca().pem.replace(right, wrong);
            if text != ca().pem {
                assert_repaired(text, &[ca()], &[Repair::MisspeltMarker]);
            }
        }
    }

    #[test]
    fn different_labels_that_mean_the_same_are_repaired() {
        let text = ca().pem.replace("END CERTIFICATE", "END X509 CERTIFICATE");
        assert_repaired(text, &[ca()], &[Repair::DifferentLabels]);
    }

    #[test]
    fn a_missing_end_or_begin_is_repaired_where_the_certificate_is_whole() {
        let (begin, end) = ("-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n");
        assert_repaired(ca().pem.replace(end, ""), &[ca()], &[Repair::NoEnd]);
        assert_repaired(ca().pem.replace(end, "") + &other().pem, &[ca(), other()], &[Repair::NoEnd]);
        assert_repaired(ca().pem.replace(begin, ""), &[ca()], &[Repair::NoBegin]);
        assert_repaired(other().pem.clone() + &ca().pem.replace(begin, ""), &[other(), ca()], &[Repair::NoBegin]);
    }

    #[test]
    fn a_missing_end_is_not_repaired_where_the_certificate_is_cut() {
        let cut = &other().pem[..300];
        let bundle = scan((cut.to_owned() + "\n" + &ca().pem).as_bytes());
        assert_finds(&bundle, &[ca()]);
        assert!(
            matches!(
                bundle.remarks[..],
                [Remark::Skipped { place: Place { block: 1, line: 1 }, reason: Reason::Truncated { .. } }]
            ),
            "{bundle:?}"
        );
    }

    #[test]
    fn base64_of_a_pem_is_decoded_once() {
        let both = ca().pem.clone() + &other().pem;
        let base64 = STANDARD.encode(&both);
        assert_repaired(&base64, &[ca(), other()], &[Repair::Base64OfPem]);
        assert_repaired(wrapped(&base64, 76), &[ca(), other()], &[Repair::Base64OfPem]);
        assert_repaired(format!("\"{base64}\"\n"), &[ca(), other()], &[Repair::Base64OfPem]);
        let commented = STANDARD.encode(format!("\u{feff}# mine\n{both}"));
        assert_repaired(wrapped(&commented, 76), &[ca(), other()], &[Repair::Base64OfPem]);
        assert_repaired(
            STANDARD.encode(both.replace('\n', r"\n")),
            &[ca(), other()],
            &[Repair::Base64OfPem, Repair::EscapedLineBreaks],
        );
    }

    #[test]
    fn base64_of_base64_of_a_pem_is_not_decoded_twice() {
        let bundle = scan(STANDARD.encode(STANDARD.encode(&ca().pem)).as_bytes());
        assert_finds(&bundle, &[]);
        let place = Place { block: 1, line: 1 };
        assert_eq!(bundle.remarks, [Remark::Skipped { place, reason: Reason::Base64Twice }]);
    }

    #[test]
    fn der_is_accepted() {
        assert_repaired(&ca().der, &[ca()], &[Repair::Der]);
        let bundle = scan(&ca().der);
        assert_eq!((bundle.certificates[0].block, bundle.certificates[0].line), (1, 1));
        assert_repaired([&*ca().der, b"\n"].concat(), &[ca()], &[Repair::Der]);
        assert_repaired([&*ca().der, &other().der].concat(), &[ca(), other()], &[Repair::Der]);
        assert_repaired([&*ca().der, b"\n", other().pem.as_bytes()].concat(), &[ca(), other()], &[Repair::Der]);
        assert_repaired([other().pem.as_bytes(), &ca().der].concat(), &[other(), ca()], &[Repair::Der]);
    }

    #[test]
    fn base64_of_der_without_markers_is_accepted() {
        for ca in cas() {
            assert_repaired(ca.base64(), &[ca], &[Repair::BareBase64]);
            assert_repaired(wrapped(&ca.base64(), 64), &[ca], &[Repair::BareBase64]);
            assert_repaired(wrapped(&ca.base64(), 76).replace('\n', r"\r\n"), &[ca], &[Repair::BareBase64]);
            assert_repaired(ca.base64().trim_end_matches('='), &[ca], &[Repair::BareBase64]);
        }
        let all: String = cas().iter().map(|ca| wrapped(&ca.base64(), 64)).collect();
        assert_repaired(all, &cas().iter().collect::<Vec<_>>(), &[Repair::BareBase64]);
        let json = format!(r#"["{}","{}"]"#, ca().base64(), other().base64());
        assert_repaired(json, &[ca(), other()], &[Repair::BareBase64, Repair::InsideJson]);
    }

    #[test]
    fn several_of_them_mixed_are_all_found() {
        let [a, b, c, d, e, f] = cas() else { unreachable!() };
        let text = [
            wrapped(&a.base64(), 64).as_bytes(),
            b"# a comment\n",
            b.pem.replace('\n', r"\n").as_bytes(),
            b"\n",
            STANDARD.encode(&c.pem).as_bytes(),
            b"\n\"",
            d.pem.replace('\n', " ").as_bytes(),
            b"\"\n",
            &e.der,
            b"\r\n\r\n",
            f.pem.as_bytes(),
        ]
        .concat();
        let bundle = scan(&text);
        assert_finds(&bundle, &[a, b, c, d, e, f]);
        assert!(bundle.remarks.iter().all(Remark::is_repair), "{bundle:?}");
        assert_eq!(bundle.certificates.iter().map(|found| found.block).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn certificates_inside_a_document_are_found() {
        let json = format!("{{\"cabundle.crt\": \"{}\"}}", ca().pem.replace('\n', r"\n"));
        assert_repaired(json, &[ca()], &[Repair::InsideJson]);
        let indented: String = ca().pem.lines().map(|line| format!("    {line}\n")).collect();
        assert_repaired(format!("apiVersion: v1\ndata:\n  ca.crt: |\n{indented}"), &[ca()], &[Repair::InsideYaml]);
        let commented = STANDARD.encode(format!("# mine\n{}", ca().pem));
        assert_repaired(
            format!("kind: Secret\ndata:\n  ca.crt: {commented}\n"),
            &[ca()],
            &[Repair::Base64OfPem, Repair::InsideYaml],
        );
        let secret = format!("kind: Secret\ndata:\n  ca.crt: {}\n", STANDARD.encode(&ca().pem));
        assert_repaired(secret, &[ca()], &[Repair::Base64OfPem, Repair::InsideYaml]);
    }

    #[test]
    fn one_mistake_in_many_blocks_is_one_remark() {
        let text: String = cas().iter().map(|ca| ca.pem.replace('\n', r"\n")).collect();
        let remarks = scan(text.as_bytes()).remarks;
        let first = Place { block: 1, line: 1 };
        assert_eq!(remarks, [Remark::Repaired { repair: Repair::EscapedLineBreaks, first, blocks: 6 }]);
    }
}

mod skipped {
    use super::*;

    #[test]
    fn a_damaged_block_is_named_and_the_good_one_kept() {
        let damaged = other().pem.replacen("MII", "M!I", 1);
        let line = ca().pem.lines().count() + 1;
        assert_skips(ca().pem.clone() + &damaged, 2, line, Reason::NotBase64 { line: line + 1 });
        assert_skips(damaged.clone() + &ca().pem, 1, 1, Reason::NotBase64 { line: 2 });
    }

    #[test]
    fn a_truncated_block_is_named_and_the_good_one_kept() {
        let expected = other().der.len();
        for letters in [400, 401, 402, 403] {
            let cut = block("CERTIFICATE", &other().base64()[..letters]);
            assert_skips(cut + &ca().pem, 1, 1, Reason::Truncated { present: letters * 3 / 4, expected });
        }
        let cut = bytes_block("CERTIFICATE", &other().der[..expected - 1]);
        assert_skips(cut + &ca().pem, 1, 1, Reason::Truncated { present: expected - 1, expected });
    }

    #[test]
    fn a_truncated_der_or_bare_base64_is_named() {
        let expected = other().der.len();
        for (text, present) in [(other().der[..100].to_vec(), 100), (other().base64().as_bytes()[..200].to_vec(), 150)]
        {
            let bundle = scan(&text);
            assert_finds(&bundle, &[]);
            let place = Place { block: 1, line: 1 };
            assert_eq!(bundle.remarks, [Remark::Skipped { place, reason: Reason::Truncated { present, expected } }]);
        }
    }

    #[test]
    fn a_letter_too_many_is_damage() {
        let whole = cas().iter().find(|ca| ca.der.len() % 3 == 0).map(Ca::base64);
        if let Some(base64) = whole {
            assert_skips(block("CERTIFICATE", &(base64 + "A")) + &ca().pem, 1, 1, Reason::Undecodable);
        }
        let padded = cas().iter().find(|ca| ca.der.len() % 3 != 0).map(Ca::base64).unwrap();
        assert_skips(block("CERTIFICATE", &(padded + "AAAA")) + &ca().pem, 1, 1, Reason::NotBase64 { line: 2 });
    }

    #[test]
    fn bytes_behind_a_certificate_are_named() {
        let der = [&*other().der, b"abc"].concat();
        assert_skips(bytes_block("CERTIFICATE", &der) + &ca().pem, 1, 1, Reason::TrailingBytes { extra: 3 });
        let der = [&*other().der, &*ca().der].concat();
        let reason = Reason::TrailingBytes { extra: ca().der.len() };
        assert_skips(bytes_block("CERTIFICATE", &der) + &ca().pem, 1, 1, reason);
    }

    #[test]
    fn bytes_behind_a_certificate_in_its_own_sequence_are_named() {
        let mut der = other().der.clone();
        assert_eq!(der[1], 0x82);
        der.extend([0x05, 0x00]);
        let length = u16::try_from(der.len() - 4).unwrap();
        der[2..4].copy_from_slice(&length.to_be_bytes());
        assert_skips(bytes_block("CERTIFICATE", &der) + &ca().pem, 1, 1, Reason::TrailingBytes { extra: 2 });
    }

    #[test]
    fn bytes_behind_a_der_file_are_named() {
        let bundle = scan(&[&*ca().der, b"abc"].concat());
        assert_finds(&bundle, &[]);
        let place = Place { block: 1, line: 1 };
        assert_eq!(bundle.remarks, [Remark::Skipped { place, reason: Reason::TrailingBytes { extra: 3 } }]);
    }

    #[test]
    fn a_trusted_certificate_is_named() {
        let der = [&*other().der, &[0x30, 0x00]].concat();
        let text = bytes_block("TRUSTED CERTIFICATE", &der) + &ca().pem;
        assert_skips(text, 1, 1, Reason::OtherKind(Kind::TrustedCertificate));
    }

    #[test]
    fn a_certificate_request_is_named() {
        let text = other().request_pem.clone() + &ca().pem;
        assert_skips(text, 1, 1, Reason::OtherKind(Kind::CertificateRequest));
        let text = bytes_block("NEW CERTIFICATE REQUEST", &other().request_der) + &ca().pem;
        assert_skips(text, 1, 1, Reason::OtherKind(Kind::CertificateRequest));
        let mislabelled = bytes_block("CERTIFICATE", &other().request_der) + &ca().pem;
        assert_skips(mislabelled, 1, 1, Reason::OtherKind(Kind::CertificateRequest));
        assert_content(&other().request_der, Content::Kind(Kind::CertificateRequest));
    }

    #[test]
    fn pkcs7_is_named() {
        let der = pkcs7();
        for label in ["PKCS7", "CMS", "PKCS #7 SIGNED DATA"] {
            assert_skips(bytes_block(label, &der) + &ca().pem, 1, 1, Reason::OtherKind(Kind::Pkcs7));
        }
        let mislabelled = bytes_block("CERTIFICATE", &der) + &ca().pem;
        assert_skips(mislabelled, 1, 1, Reason::OtherKind(Kind::Pkcs7));
        assert_content(&der, Content::Kind(Kind::Pkcs7Der));
    }

    #[test]
    fn a_public_key_a_revocation_list_and_parameters_are_named() {
        let text = other().public_key_pem.clone() + &ca().pem;
        assert_skips(text, 1, 1, Reason::OtherKind(Kind::PublicKey));
        assert_skips(bytes_block("X509 CRL", b"x") + &ca().pem, 1, 1, Reason::OtherKind(Kind::Crl));
        assert_skips(bytes_block("EC PARAMETERS", b"x") + &ca().pem, 1, 1, Reason::OtherKind(Kind::Other));
    }

    #[test]
    fn what_is_no_certificate_under_that_label_is_named() {
        assert_skips(bytes_block("CERTIFICATE", &[7; 300]) + &ca().pem, 1, 1, Reason::NotACertificate);
        assert_skips(block("CERTIFICATE", "") + &ca().pem, 1, 1, Reason::Empty);
        assert_skips(block("CERTIFICATE", "====") + &ca().pem, 1, 1, Reason::Empty);
    }

    /// Found by fuzzing: the parser looks at a tag's number and not at its class, and nobody else
    /// takes such a certificate.
    #[test]
    fn a_version_of_another_class_is_damage() {
        let version = [0xa0, 0x03, 0x02, 0x01, 0x02];
        let at = ca().der.windows(version.len()).position(|window| window == version).unwrap();
        let mut der = ca().der.clone();
        der[at + 2] = 0x42;
        let bundle = scan((other().pem.clone() + &bytes_block("CERTIFICATE", &der)).as_bytes());
        assert_finds(&bundle, &[other()]);
        let [Remark::Skipped { reason, .. }] = bundle.remarks[..] else { panic!("{bundle:?}") };
        assert_eq!(reason, Reason::NotACertificate);
    }

    #[test]
    fn markers_that_lost_each_other_are_named() {
        assert_skips(
            ca().pem.clone() + "-----BEGIN CERTIFICATE-----\n",
            2,
            ca().pem.lines().count() + 1,
            Reason::NoEnd,
        );
        assert_skips("-----BEGIN CERTIFICATE-----\n".to_owned() + &ca().pem, 1, 1, Reason::NoEnd);
        assert_skips("-----END CERTIFICATE-----\n".to_owned() + &ca().pem, 1, 1, Reason::NoBegin);
        assert_skips(ca().pem.clone() + "-----END CERTIFICATE-----", 2, ca().pem.lines().count() + 1, Reason::NoBegin);
    }

    #[test]
    fn a_ca_that_is_commented_out_stays_out() {
        let commented: String = other().pem.lines().map(|line| format!("# {line}\n")).collect();
        assert_quiet(commented.clone() + &ca().pem, &[ca()]);
        assert_quiet(ca().pem.clone() + &commented, &[ca()]);
        assert_repaired((commented.clone() + &ca().pem).replace('\n', r"\n"), &[ca()], &[Repair::EscapedLineBreaks]);
        let bundle = scan(commented.as_bytes());
        assert_finds(&bundle, &[]);
        let place = Place { block: 1, line: 1 };
        assert_eq!(bundle.remarks, [Remark::Skipped { place, reason: Reason::CommentedOut }]);
        let bare: String = wrapped(&other().base64(), 64).lines().map(|line| format!("#{line}\n")).collect();
        assert_quiet(bare + &ca().pem, &[ca()]);
    }

    #[test]
    fn more_skipped_blocks_than_anybody_reads_are_counted() {
        let bundle = scan((block("CERTIFICATE", "!").repeat(100) + &ca().pem).as_bytes());
        assert_finds(&bundle, &[ca()]);
        assert_eq!(bundle.remarks.len(), MAX_SKIPPED + 1);
        assert_eq!(bundle.remarks.last(), Some(&Remark::MoreSkipped { blocks: 100 - MAX_SKIPPED }));
    }
}

mod private_keys {
    use super::*;

    #[track_caller]
    fn assert_key(text: impl AsRef<[u8]>, expected: &[&Ca], block: usize, blocks: usize) {
        let bundle = scan(text.as_ref());
        assert_finds(&bundle, expected);
        let [Remark::PrivateKey { first, blocks: found }] = bundle.remarks[..] else { panic!("{bundle:?}") };
        assert_eq!((first.block, found), (block, blocks));
        assert!(!bundle.remarks[0].is_repair());
    }

    #[test]
    fn a_private_key_beside_the_certificate_is_a_loud_remark() {
        assert_key(ca().pem.clone() + &ca().key_pem, &[ca()], 2, 1);
        assert_key(ca().key_pem.clone() + &ca().pem, &[ca()], 1, 1);
        for label in ["RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"] {
            assert_key(bytes_block(label, &[1; 64]) + &ca().pem, &[ca()], 1, 1);
        }
        assert_key(ca().key_pem.repeat(3), &[], 1, 3);
    }

    #[test]
    fn a_private_key_in_disguise_is_a_private_key() {
        assert_key(bytes_block("CERTIFICATE", &ca().key_der) + &other().pem, &[other()], 1, 1);
        assert_key(&ca().key_der, &[], 1, 1);
        assert_key(STANDARD.encode(&ca().key_der), &[], 1, 1);
        assert_key(&ca().key_pem[..60], &[], 1, 1);
        let commented: String = ca().key_pem.lines().map(|line| format!("# {line}\n")).collect();
        assert_key(commented + &other().pem, &[other()], 1, 1);
    }

    #[test]
    fn a_certificate_that_runs_into_a_key_is_kept() {
        let text = ca().pem.replace("-----END CERTIFICATE-----\n", "") + &ca().key_pem;
        let bundle = scan(text.as_bytes());
        assert_finds(&bundle, &[ca()]);
        assert!(bundle.remarks.iter().any(|remark| matches!(remark, Remark::PrivateKey { .. })));
        let text = text.replace("-----BEGIN PRIVATE KEY-----\n", "");
        let bundle = scan(text.as_bytes());
        assert_finds(&bundle, &[ca()]);
        assert!(bundle.remarks.iter().any(|remark| matches!(remark, Remark::PrivateKey { .. })));
    }

    #[test]
    fn a_key_that_lost_its_begin_is_found_behind_a_certificate_that_lost_its_markers() {
        let key = ca().key_pem.lines().skip(2).collect::<Vec<_>>().join("\n");
        let bundle = scan(format!("{}\n{key}\n", ca().base64()).as_bytes());
        assert_finds(&bundle, &[ca()]);
        assert!(bundle.remarks.iter().any(|remark| matches!(remark, Remark::PrivateKey { .. })));
    }

    #[test]
    fn a_public_key_is_not_a_private_one() {
        let bundle = scan((ca().public_key_pem.clone() + &ca().pem).as_bytes());
        assert!(!bundle.remarks.iter().any(|remark| matches!(remark, Remark::PrivateKey { .. })));
    }
}

mod no_bundle {
    use super::*;

    #[test]
    fn empty_is_named() {
        for text in ["", " \r\n\t\n", "\u{feff}", "\u{feff}\n\u{a0}", "\0\0\0"] {
            assert_content(text, Content::Empty);
        }
    }

    #[test]
    fn too_large_is_named_and_the_largest_is_scanned() {
        let blank = vec![b'\n'; MAX_BYTES - ca().pem.len()];
        assert_quiet([&blank, ca().pem.as_bytes()].concat(), &[ca()]);
        let bytes = MAX_BYTES + 1;
        assert_content([&*blank, b"\n", ca().pem.as_bytes()].concat(), Content::TooLarge { bytes });
    }

    #[test]
    fn utf16_is_named() {
        let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        let marked = format!("\u{feff}{}", ca().pem);
        assert_content(little(&marked), Content::Utf16 { encoding: "UTF-16" });
        assert_content(big(&marked), Content::Utf16 { encoding: "UTF-16" });
        assert_content(little(&ca().pem), Content::Utf16 { encoding: "UTF-16LE" });
        assert_content(big(&ca().pem), Content::Utf16 { encoding: "UTF-16BE" });
        let place = Remark::NotABundle { content: Content::Utf16 { encoding: "UTF-16" }, in_base64: true };
        assert_eq!(scan(STANDARD.encode(little(&marked)).as_bytes()).remarks, [place]);
    }

    #[test]
    fn keystores_are_named_and_not_mined() {
        assert_content(pkcs12(), Content::Kind(Kind::Pkcs12));
        assert_content(java_keystore(), Content::Kind(Kind::JavaKeystore));
        let mined = [&java_keystore()[..], b"\n", &ca().der, ca().pem.as_bytes()].concat();
        assert_content(mined, Content::Kind(Kind::JavaKeystore));
        assert_content([&pkcs7()[..], b"\n", &ca().der].concat(), Content::Kind(Kind::Pkcs7Der));
        let in_base64 = |kind| [Remark::NotABundle { content: Content::Kind(kind), in_base64: true }];
        assert_eq!(scan(STANDARD.encode(java_keystore()).as_bytes()).remarks, in_base64(Kind::JavaKeystore));
    }

    #[test]
    fn keystores_in_base64_are_named() {
        for (bytes, kind) in [(pkcs12(), Kind::Pkcs12), (pkcs7(), Kind::Pkcs7Der)] {
            let bundle = scan(wrapped(&STANDARD.encode(bytes), 64).as_bytes());
            assert_finds(&bundle, &[]);
            let place = Place { block: 1, line: 1 };
            assert_eq!(bundle.remarks, [Remark::Skipped { place, reason: Reason::Base64OfOtherKind(kind) }]);
        }
    }

    #[test]
    fn an_archive_is_named() {
        assert_content(b"PK\x03\x04\x14\0\0\0", Content::Archive);
        assert_content(b"\x1f\x8b\x08\0\0\0", Content::Archive);
    }

    #[test]
    fn html_is_named() {
        assert_content("<!DOCTYPE html>\n<html><body>Sign in</body></html>", Content::Html);
        assert_content("\n<?xml version=\"1.0\"?><Error/>", Content::Html);
    }

    #[test]
    fn json_and_yaml_are_named() {
        assert_content(r#"{"type": "s3", "bucket": "models"}"#, Content::Json);
        assert_content("apiVersion: v1\nkind: ConfigMap\n", Content::Yaml);
    }

    #[test]
    fn a_placeholder_is_named() {
        for text in ["${CA_BUNDLE}", "{{ .Values.caBundle }}", "\"$(cat ca.crt)\""] {
            assert_content(text, Content::Placeholder);
        }
    }

    #[test]
    fn a_path_is_named() {
        for text in
            ["/etc/ssl/custom-certs/cabundle.crt\n", "ca.pem", "'certs/ca.CER'", "https://pki.example.com/ca.crt"]
        {
            assert_content(text, Content::Path);
        }
        assert_content("/etc/ssl/custom/certs/and/further/down", Content::Path);
    }

    #[test]
    fn anything_else_is_counted_and_not_quoted() {
        assert_content("changeme", Content::Unknown { bytes: 8, is_text: true });
        assert_content("a cafe\u{301}", Content::Unknown { bytes: 8, is_text: true });
        assert_content([0xff, 0x00, 0x80], Content::Unknown { bytes: 3, is_text: false });
        let word = "averylongwordofbase64lettersthatisnone";
        assert_content(word, Content::Unknown { bytes: word.len(), is_text: true });
    }
}

/// ContentInfo of a SignedData that carries one certificate; enough of it to be recognised, and to
/// be mined by mistake.
fn pkcs7() -> Vec<u8> {
    let oid = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    sequence(&[&oid, &ca().der])
}

/// PFX: version 3, then a SEQUENCE.
fn pkcs12() -> Vec<u8> {
    sequence(&[&[0x02, 0x01, 0x03], &sequence(&[&ca().der])])
}

/// Magic, version 2, one entry.
fn java_keystore() -> Vec<u8> {
    let mut store = vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 1, b'\n'];
    store.extend(&ca().der);
    store
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82], &length[..], &content].concat()
}

/// Every text that a remark can have.
#[test]
fn remarks_read_well() {
    let first = Place { block: 2, line: 31 };
    let mut lines = Vec::new();
    for repair in [
        Repair::EscapedLineBreaks,
        Repair::Quoted,
        Repair::OneLine,
        Repair::MisspeltMarker,
        Repair::DifferentLabels,
        Repair::NoEnd,
        Repair::NoBegin,
        Repair::Base64OfPem,
        Repair::BareBase64,
        Repair::Der,
        Repair::InsideJson,
        Repair::InsideYaml,
    ] {
        lines.push(Remark::Repaired { repair, first, blocks: 1 });
    }
    lines.push(Remark::Repaired { repair: Repair::Quoted, first, blocks: 3 });
    lines.push(Remark::PrivateKey { first, blocks: 1 });
    let kinds = [
        Kind::TrustedCertificate,
        Kind::CertificateRequest,
        Kind::Pkcs7,
        Kind::Pkcs7Der,
        Kind::Pkcs12,
        Kind::JavaKeystore,
        Kind::PublicKey,
        Kind::Crl,
        Kind::Other,
    ];
    let reasons = [
        Reason::Empty,
        Reason::NotBase64 { line: 33 },
        Reason::Undecodable,
        Reason::Truncated { present: 300, expected: 789 },
        Reason::TrailingBytes { extra: 3 },
        Reason::NotACertificate,
        Reason::NoEnd,
        Reason::NoBegin,
        Reason::CommentedOut,
        Reason::Base64Twice,
    ];
    lines.push(Remark::Skipped { place: first, reason: Reason::Base64OfOtherKind(Kind::Pkcs12) });
    for reason in reasons.into_iter().chain(kinds.map(Reason::OtherKind)) {
        lines.push(Remark::Skipped { place: first, reason });
    }
    lines.push(Remark::MoreSkipped { blocks: 7 });
    for content in [
        Content::Empty,
        Content::TooLarge { bytes: 9_000_000 },
        Content::Utf16 { encoding: "UTF-16LE" },
        Content::Html,
        Content::Json,
        Content::Yaml,
        Content::Placeholder,
        Content::Path,
        Content::Archive,
        Content::Kind(Kind::JavaKeystore),
        Content::Unknown { bytes: 8, is_text: true },
        Content::Unknown { bytes: 8, is_text: false },
    ] {
        lines.push(Remark::NotABundle { content, in_base64: false });
    }
    lines.push(Remark::NotABundle { content: Content::Kind(Kind::Pkcs12), in_base64: true });
    let lines: Vec<_> = lines.iter().map(Remark::to_string).collect();
    for line in &lines {
        assert!(!line.contains('\n') && !line.ends_with('.'), "{line}");
    }
    insta::with_settings!({ prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("ca_bundle_remarks", lines.join("\n"));
    });
}
