//! What holds of any input.

use proptest::prelude::*;

use super::*;

/// What a text may suffer without a certificate being lost.
#[derive(Clone, Copy, Debug)]
enum Mutation {
    Crlf,
    CarriageReturns,
    EscapedLineBreaks,
    EscapedTwice,
    TrailingSpaces,
    Indent,
    BlankLines,
    OneLineWithSpaces,
    OneLine,
    Quotes,
    ByteOrderMark,
    Comment,
    OldLabel,
    OneHyphenLess,
    NoPadding,
    EscapedSlashes,
}

const MUTATIONS: [Mutation; 16] = [
    Mutation::Crlf,
    Mutation::CarriageReturns,
    Mutation::EscapedLineBreaks,
    Mutation::EscapedTwice,
    Mutation::TrailingSpaces,
    Mutation::Indent,
    Mutation::BlankLines,
    Mutation::OneLineWithSpaces,
    Mutation::OneLine,
    Mutation::Quotes,
    Mutation::ByteOrderMark,
    Mutation::Comment,
    Mutation::OldLabel,
    Mutation::OneHyphenLess,
    Mutation::NoPadding,
    Mutation::EscapedSlashes,
];

fn mutated(text: &str, mutation: Mutation) -> String {
    match mutation {
        Mutation::Crlf => text.replace('\n', "\r\n"),
        Mutation::CarriageReturns => text.replace('\n', "\r"),
        Mutation::EscapedLineBreaks => text.replace('\n', r"\n"),
        Mutation::EscapedTwice => text.replace('\n', r"\\r\\n"),
        Mutation::TrailingSpaces => text.replace('\n', " \t \n"),
        Mutation::Indent => text.replace('\n', "\n   "),
        Mutation::BlankLines => text.replace('\n', "\n\n"),
        Mutation::OneLineWithSpaces => text.replace('\n', " "),
        Mutation::OneLine => text.replace('\n', ""),
        Mutation::Quotes => format!("\"{text}\""),
        Mutation::ByteOrderMark => format!("\u{feff}{text}"),
        Mutation::Comment => format!("subject=CN = mine\n{text}"),
        Mutation::OldLabel => text.replace(" CERTIFICATE", " X509 CERTIFICATE").replace("X509 X509", "X509"),
        Mutation::OneHyphenLess => text.replacen("-----BEGIN", "----BEGIN", 1),
        Mutation::NoPadding => text.replace('=', ""),
        Mutation::EscapedSlashes => text.replace('/', r"\/"),
    }
}

/// A whole text in another coat: nothing that is done to its characters afterwards is promised.
fn coated(text: String, coat: usize) -> Vec<u8> {
    match coat {
        0 => wrapped(&STANDARD.encode(text), 76).into_bytes(),
        1 => format!("{{\"ca\":\"{text}\"}}").into_bytes(),
        2 => format!("data:\n  ca: {}\n", STANDARD.encode(text)).into_bytes(),
        _ => text.into_bytes(),
    }
}

fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let body = "[ -~\n]{0,200}";
    prop_oneof![
        body.prop_map(|body| block("CERTIFICATE", &body.replace('-', "!")).into_bytes()),
        body.prop_map(|body| block("SOMETHING ELSE", &body.replace('-', "!")).into_bytes()),
        (0..cas().len(), 0..250usize)
            .prop_map(|(n, keep)| block("CERTIFICATE", &cas()[n].base64()[..keep]).into_bytes()),
        (0..cas().len()).prop_map(|n| cas()[n].key_pem.clone().into_bytes()),
        (0..cas().len()).prop_map(|n| cas()[n].request_pem.clone().into_bytes()),
        Just(b"-----END CERTIFICATE-----\n".to_vec()),
        // Whole, or it would be the beginning of what follows.
        prop::collection::vec(any::<u8>(), 0..100).prop_map(|bytes| bytes_block("CERTIFICATE", &bytes).into_bytes()),
    ]
}

/// Random bytes, the words of the trade, and pieces of real certificates, in any order.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "-----BEGIN CERTIFICATE-----",
        "-----END CERTIFICATE-----",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "-----",
        "-",
        "BEGIN",
        "END ",
        "CERTIFICATE",
        "\n",
        "\r",
        r"\n",
        r"\\",
        r"\u",
        "\"",
        "#",
        "=",
        " ",
        "\u{feff}",
        "\u{2014}",
        "LS0tLS1CRUdJTi",
        "{",
        "{{",
        "<",
        "/",
        ".crt",
        "kind: a",
    ];
    let piece = prop_oneof![
        3 => prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (0..cas().len(), any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(n, a, b)| {
            let text = cas()[n].pem.as_bytes();
            let (a, b) = (a.index(text.len()), b.index(text.len()));
            text[a.min(b)..a.max(b)].to_vec()
        }),
        1 => (0..cas().len(), any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(n, a, b)| {
            let der = &cas()[n].der;
            let (a, b) = (a.index(der.len()), b.index(der.len()));
            der[a.min(b)..a.max(b)].to_vec()
        }),
        1 => (0..cas().len()).prop_map(|n| cas()[n].der.clone()),
        1 => (0..cas().len()).prop_map(|n| cas()[n].base64().into_bytes()),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

/// What must hold of any result.
fn check(bundle: &CaBundle) -> Result<(), TestCaseError> {
    prop_assert!(!bundle.certificates.is_empty() || !bundle.remarks.is_empty(), "silent about nothing");
    for found in &bundle.certificates {
        // Pieces may fit by chance: nothing but its length tells a certificate that lost a letter
        // and found another.
        prop_assert!(repair::parse(&found.der).is_ok());
        prop_assert!(found.block >= 1 && found.line >= 1);
    }
    assert_no_leak(bundle)
}

/// No 16 letters of anything that is base64 in the fixtures, and no 16 hex digits or 5 numbers of
/// their bytes.
fn assert_no_leak(bundle: &CaBundle) -> Result<(), TestCaseError> {
    let shown: String = bundle.remarks.iter().map(|remark| format!("{remark}\n")).collect();
    let shown = format!("{shown}{bundle:?}{bundle:#?}");
    for window in shown.as_bytes().windows(16) {
        let letters = window.iter().all(|byte| is_letter(*byte));
        prop_assert!(!letters || !secrets().contains(window), "{}", String::from_utf8_lossy(window));
    }
    Ok(())
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// Every window of 16 letters of what must not be shown.
fn secrets() -> &'static std::collections::HashSet<Vec<u8>> {
    static SECRETS: OnceLock<std::collections::HashSet<Vec<u8>>> = OnceLock::new();
    SECRETS.get_or_init(|| {
        let mut windows = std::collections::HashSet::new();
        for ca in cas() {
            for der in [&ca.der, &ca.key_der, &ca.request_der] {
                let hex: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
                for text in [STANDARD.encode(der), hex] {
                    windows.extend(text.as_bytes().windows(16).map(<[u8]>::to_vec));
                }
            }
        }
        windows
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        check(&scan(&bytes))?;
    }

    #[test]
    fn any_soup_of_pieces_never_panics_nor_leaks(bytes in soup()) {
        check(&scan(&bytes))?;
        check(&scan(STANDARD.encode(&bytes).as_bytes()))?;
    }

    #[test]
    fn a_bundle_with_bytes_changed_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut text = cas().iter().map(|ca| &*ca.pem).collect::<String>().into_bytes();
        let length = text.len();
        for (index, byte) in changes {
            text[index.index(length)] = byte;
        }
        let bundle = scan(&text);
        prop_assert!(!bundle.certificates.is_empty() || !bundle.remarks.is_empty());
    }

    #[test]
    fn any_mutations_lose_no_certificate(
        n in 1..=6usize,
        mutations in prop::collection::vec(prop::sample::select(MUTATIONS.to_vec()), 0..6),
        coat in 0..6usize,
    ) {
        let text: String = cas()[..n].iter().map(|ca| &*ca.pem).collect();
        let text = mutations.iter().fold(text, |text, mutation| mutated(&text, *mutation));
        let bundle = scan(&coated(text, coat));
        let found: Vec<_> = bundle.certificates.iter().map(|found| found.der.to_vec()).collect();
        let expected: Vec<_> = cas()[..n].iter().map(|ca| ca.der.clone()).collect();
        prop_assert!(found == expected, "found {} of {n}: {:?}", found.len(), bundle.remarks);
        prop_assert!(bundle.remarks.iter().all(Remark::is_repair), "{:?}", bundle.remarks);
        assert_no_leak(&bundle)?;
    }

    #[test]
    fn good_certificates_survive_beside_garbage(
        parts in prop::collection::vec((garbage(), 0..6usize, prop::sample::select(MUTATIONS.to_vec())), 1..8),
    ) {
        let mut text = Vec::new();
        for (garbage, n, mutation) in &parts {
            text.extend(garbage);
            // Before a comment on its line everything is a comment.
            text.extend(b"\n");
            text.extend(mutated(&cas()[*n].pem, *mutation).into_bytes());
            text.extend(b"\n");
        }
        let bundle = scan(&text);
        for (_, n, mutation) in &parts {
            let found = bundle.certificates.iter().any(|found| *found.der == cas()[*n].der);
            prop_assert!(found, "lost {n} with {mutation:?}: {:?}", bundle.remarks);
        }
        for found in &bundle.certificates {
            prop_assert!(cas().iter().any(|ca| ca.der == *found.der), "made up a certificate");
        }
        check(&bundle)?;
    }

    #[test]
    fn nothing_pasted_is_shown(n in 0..6usize, cut in any::<prop::sample::Index>()) {
        let ca = &cas()[n];
        for text in [&ca.pem, &ca.key_pem, &ca.request_pem] {
            let cut = cut.index(text.len());
            assert_no_leak(&scan(&text.as_bytes()[..cut]))?;
            assert_no_leak(&scan(&text.as_bytes()[cut..]))?;
            assert_no_leak(&scan(STANDARD.encode(&text[..cut]).as_bytes()))?;
            let torn = format!("{}!{}", &text[..cut], &text[cut..]);
            assert_no_leak(&scan(torn.as_bytes()))?;
        }
    }
}
