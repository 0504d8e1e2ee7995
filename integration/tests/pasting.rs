//! What people paste where a CA certificate belongs.
//!
//! Every shape is pasted into each place that can hold it: the entry's `certificate` (text only), the ConfigMap's
//! `cabundle.crt`, and the file that `ca_bundle` names. Where it is accepted, the model arrives through a TLS
//! connection that only this certificate makes possible, and the warnings are exactly those in the snapshot. Where it
//! is refused, the exit code is 78, and the snapshot says what was found and what puts it right. `[source]` stands for
//! the name of the place. Where a message names a command, the command is run, and its output must be accepted.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails it by a panic")]

use std::path::Path;
use std::process::{Command, Stdio};

use base64_simd::STANDARD;
use insta::assert_snapshot;
use storage_initializer_integration::pki::{Authority, LeafSpec, ServerIdentity, openssl};
use storage_initializer_integration::scene::{Run, Scene};

/// A private CA and the server that it vouches for.
struct Store {
    ca: Authority,
    identity: ServerIdentity,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Certificate,
    ConfigMap,
    CaBundle,
}

impl Place {
    /// How messages name it, under which key if it is a directory.
    fn source(self) -> &'static str {
        match self {
            Self::Certificate => {
                r#"storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "certificate""#
            }
            Self::ConfigMap => "CA ConfigMap at [pod]/ca: cabundle.crt",
            Self::CaBundle => {
                r#"storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle" -> [pod]/ca-bundle-file.pem"#
            }
        }
    }
}

impl Store {
    fn new() -> Self {
        let ca = Authority::new("Store CA");
        let identity = ca.issue(LeafSpec::new()).identity();
        Self { ca, identity }
    }

    fn pem(&self) -> String {
        self.ca.pem()
    }

    /// The PEM's base64, without line breaks.
    fn base64(&self) -> String {
        STANDARD.encode_to_string(self.ca.der())
    }

    fn paste(&self, place: Place, pasted: &[u8]) -> Run {
        let scene = Scene::with_server(self.identity.clone());
        match place {
            Place::Certificate => scene.certificate(String::from_utf8(pasted.to_vec()).expect("text")),
            Place::ConfigMap => scene.configmap(pasted),
            Place::CaBundle => scene.ca_bundle(pasted),
        }
        .run()
    }

    /// Whatever `judge` answers, the same for each place that can hold it.
    #[track_caller]
    fn everywhere(&self, pasted: &[u8], judge: impl Fn(&Run) -> String) -> String {
        let mut places = vec![Place::ConfigMap, Place::CaBundle];
        if str::from_utf8(pasted).is_ok_and(|text| !text.is_empty() && !looks_like_a_path(text)) {
            places.push(Place::Certificate);
        }
        let mut answers = Vec::new();
        for place in places {
            println!("pasted into {place:?}:");
            answers.push(judge(&self.paste(place, pasted)).replace(place.source(), "[source]"));
        }
        let first = answers.remove(0);
        for other in answers {
            assert_eq!(other, first, "the places differ");
        }
        first
    }

    /// The model arrives; answers the warnings.
    #[track_caller]
    fn accepts(&self, pasted: impl AsRef<[u8]>) -> String {
        self.everywhere(pasted.as_ref(), Run::succeeds)
    }

    /// The model arrives without a word.
    #[track_caller]
    fn accepts_quietly(&self, pasted: impl AsRef<[u8]>) {
        assert_eq!(self.accepts(pasted), "");
    }

    /// Exit code 78; answers the message.
    #[track_caller]
    fn refuses(&self, pasted: impl AsRef<[u8]>) -> String {
        self.everywhere(pasted.as_ref(), |run| run.fails(78))
    }

    /// Runs the command that `message` names on what was pasted, and pastes what comes out.
    #[track_caller]
    fn obeys(&self, message: &str, pasted: impl AsRef<[u8]>, more: &str) {
        let (_, command) = message.split_once('`').expect("a command in the message");
        let (command, _) = command.split_once('`').expect("a command in the message");
        let program = command.split(' ').next().unwrap_or_default();
        if run_shell(Path::new("/"), &format!("command -v {program}")).is_none() {
            println!("skipped: there is no {program} here to run `{command}`");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("FILE"), pasted).unwrap();
        run_shell(directory.path(), &format!("{command}{more}")).unwrap_or_else(|| panic!("`{command}` failed"));
        self.accepts_quietly(std::fs::read(directory.path().join("ca.crt")).unwrap());
    }
}

fn looks_like_a_path(text: &str) -> bool {
    text.trim().starts_with('/')
}

fn run_shell(directory: &Path, command: &str) -> Option<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(directory);
    let status = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    status.success().then_some(())
}

/// What the `openssl` command makes of `input`, or nothing, said aloud, where it is missing.
fn openssl_output(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let output = openssl::output(arguments, input);
    if output.is_none() {
        println!("skipped: no openssl command here that does {arguments:?}");
    }
    output
}

fn block(label: &str, bytes: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode_to_string(bytes))
}

mod is_accepted_without_a_word {
    use super::*;

    #[test]
    fn a_plain_pem() {
        let store = Store::new();
        store.accepts_quietly(store.pem());
    }

    #[test]
    fn windows_line_ends() {
        let store = Store::new();
        store.accepts_quietly(store.pem().replace('\n', "\r\n"));
    }

    #[test]
    fn line_ends_of_a_lone_cr() {
        let store = Store::new();
        store.accepts_quietly(store.pem().replace('\n', "\r"));
    }

    #[test]
    fn trailing_spaces_and_blank_lines() {
        let store = Store::new();
        store.accepts_quietly(format!("\n\n{}\n \n", store.pem().replace('\n', "  \t\n\n")));
    }

    #[test]
    fn an_indented_begin_and_an_indented_block() {
        let store = Store::new();
        let indented: String = store.pem().lines().map(|line| format!("    {line}\n")).collect();
        store.accepts_quietly(&indented);
        store.accepts_quietly(format!("  {}", store.pem()));
    }

    #[test]
    fn no_line_break_at_the_end() {
        let store = Store::new();
        store.accepts_quietly(store.pem().trim_end());
    }

    #[test]
    fn the_output_of_openssl_text() {
        let store = Store::new();
        let Some(text) = openssl_output(&["x509", "-text"], store.pem().as_bytes()) else { return };
        assert!(String::from_utf8_lossy(&text).contains("Signature Algorithm"));
        store.accepts_quietly(text);
    }

    #[test]
    fn bag_attributes_of_a_pkcs12_export() {
        let store = Store::new();
        let attributes = "Bag Attributes\n    friendlyName: store ca\n    localKeyID: 54 69 6D 65\nsubject=O = Harness, CN = Store CA\n\nissuer=O = Harness, CN = Store CA\n\n";
        store.accepts_quietly(attributes.to_owned() + &store.pem());
    }

    #[test]
    fn comments_and_a_ca_that_is_commented_out() {
        let store = Store::new();
        let old = Authority::new("Old CA").pem();
        let commented: String = old.lines().map(|line| format!("# {line}\n")).collect();
        store.accepts_quietly(format!("# the store's CA, \"production\"\n{}# until May:\n{commented}", store.pem()));
    }

    #[test]
    fn both_of_two_behind_a_byte_order_mark() {
        let store = Store::new();
        let other = Authority::new("Other CA");
        // The first block is the one that Go and rustls lose.
        store.accepts_quietly(format!("\u{feff}{}{}", store.pem(), other.pem()));
        store.accepts_quietly(format!("\u{feff}{}{}", other.pem(), store.pem()));
    }

    #[test]
    fn both_of_two_where_end_and_begin_share_a_line() {
        let store = Store::new();
        let other = Authority::new("Other CA").pem();
        store.accepts_quietly(format!("{}{}", other.trim_end(), store.pem()));
        store.accepts_quietly(format!("{}{other}", store.pem().trim_end()));
    }

    #[test]
    fn the_label_x509_certificate() {
        let store = Store::new();
        store.accepts_quietly(store.pem().replace("CERTIFICATE", "X509 CERTIFICATE"));
    }

    #[test]
    fn the_same_ca_120_times_and_the_new_one() {
        let store = Store::new();
        store.accepts_quietly(store.ca.rekeyed().pem().repeat(120) + &store.pem());
    }
}

mod is_repaired_with_one_warning {
    use super::*;

    #[test]
    fn literal_backslash_n_for_line_breaks() {
        let store = Store::new();
        assert_snapshot!(store.accepts(store.pem().replace('\n', "\\n")), @r"[source]: block 1 (line 1): line breaks are written as the characters \n; write real ones (inside JSON, \n and not \\n)");
        assert_snapshot!(store.accepts(store.pem().replace('\n', "\\\\n")), @r"[source]: block 1 (line 1): line breaks are written as the characters \n; write real ones (inside JSON, \n and not \\n)");
    }

    #[test]
    fn quotes_around_the_value() {
        let store = Store::new();
        assert_snapshot!(store.accepts(format!("\"{}\"", store.pem())), @"[source]: block 1 (line 1): the PEM is in quotes; remove them");
        assert_snapshot!(store.accepts(format!("'{}'\n", store.pem().trim_end())), @"[source]: block 1 (line 1): the PEM is in quotes; remove them");
    }

    #[test]
    fn a_quoted_value_with_literal_backslash_n() {
        let store = Store::new();
        assert_snapshot!(store.accepts(format!("\"{}\"", store.pem().replace('\n', "\\n"))), @r"
        [source]: block 1 (line 1): line breaks are written as the characters \n; write real ones (inside JSON, \n and not \\n)
        [source]: block 1 (line 1): the PEM is in quotes; remove them
        ");
    }

    #[test]
    fn everything_on_one_line_with_spaces() {
        let store = Store::new();
        assert_snapshot!(store.accepts(store.pem().replace('\n', " ")), @"[source]: block 1 (line 1): the PEM is on one line; put the BEGIN line, the base64 and the END line on lines of their own");
    }

    #[test]
    fn everything_on_one_line_without_spaces() {
        let store = Store::new();
        assert_snapshot!(store.accepts(store.pem().replace('\n', "")), @"[source]: block 1 (line 1): the PEM is on one line; put the BEGIN line, the base64 and the END line on lines of their own");
    }

    #[test]
    fn base64_of_a_pem() {
        let store = Store::new();
        let encoded = STANDARD.encode_to_string(store.pem());
        assert_snapshot!(store.accepts(&encoded), @"[source]: block 1 (line 1): base64 of a PEM, decoded once; paste what `base64 -d FILE` prints (kubectl and stringData encode by themselves)");
        let wrapped: String = encoded.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line) + "\n").collect();
        assert_snapshot!(store.accepts(wrapped), @"[source]: block 1 (line 1): base64 of a PEM, decoded once; paste what `base64 -d FILE` prints (kubectl and stringData encode by themselves)");
    }

    #[test]
    fn der() {
        let store = Store::new();
        let warning = store.accepts(store.ca.der());
        assert_snapshot!(warning, @"[source]: block 1 (line 1): DER, not PEM; convert it: `openssl x509 -inform DER -in FILE -out ca.crt`");
        store.obeys(&warning, store.ca.der(), "");
    }

    #[test]
    fn base64_of_der_without_begin_and_end() {
        let store = Store::new();
        assert_snapshot!(store.accepts(store.base64()), @"[source]: block 1 (line 1): base64 without BEGIN and END lines; add -----BEGIN CERTIFICATE----- before it and -----END CERTIFICATE----- after");
    }

    #[test]
    fn a_begin_line_that_lost_a_hyphen() {
        let store = Store::new();
        assert_snapshot!(store.accepts(store.pem().replacen("-----BEGIN", "----BEGIN", 1)), @"[source]: block 1 (line 1): the BEGIN or END line is misspelt; write it as -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----");
    }

    #[test]
    fn a_missing_end_line() {
        let store = Store::new();
        assert_snapshot!(store.accepts(store.pem().replace("-----END CERTIFICATE-----\n", "")), @"[source]: block 1 (line 1): the END line is missing; add -----END CERTIFICATE-----");
    }

    #[test]
    fn a_configmap_manifest_around_the_pem() {
        let store = Store::new();
        let indented: String = store.pem().lines().map(|line| format!("    {line}\n")).collect();
        let manifest = format!("apiVersion: v1\nkind: ConfigMap\ndata:\n  cabundle.crt: |\n{indented}");
        assert_snapshot!(store.accepts(manifest), @"[source]: block 1 (line 5): the certificates are inside YAML; paste only what is between BEGIN and END, these lines included");
    }
}

mod the_good_block_is_kept_and_the_bad_one_named {
    use super::*;

    #[test]
    fn beside_a_corrupt_one() {
        let store = Store::new();
        let mut lines: Vec<String> = Authority::new("Other CA").pem().lines().map(str::to_owned).collect();
        lines[3].replace_range(5..6, "?");
        assert_snapshot!(store.accepts(format!("{}{}\n", store.pem(), lines.join("\n"))), @"[source]: block 2 (line 12): skipped: damaged: line 15 holds a character that base64 does not have; paste the certificate again");
        assert_snapshot!(store.accepts(format!("{}\n{}", lines.join("\n"), store.pem())), @"[source]: block 1 (line 1): skipped: damaged: line 4 holds a character that base64 does not have; paste the certificate again");
    }

    #[test]
    fn beside_a_truncated_one() {
        let store = Store::new();
        let other = Authority::new("Other CA").pem();
        let lines: Vec<&str> = other.lines().collect();
        let cut = format!("{}\n{}\n", lines[..4].join("\n"), lines[lines.len() - 1]);
        assert_snapshot!(store.accepts(format!("{}{cut}", store.pem())), @"[source]: block 2 (line 12): skipped: cut short: 144 of [size] bytes; paste the whole certificate");
    }

    #[test]
    fn beside_one_with_trailing_bytes() {
        let store = Store::new();
        let trailing = [Authority::new("Other CA").der().as_ref(), &[0, 0, 0]].concat();
        assert_snapshot!(store.accepts(store.pem() + &block("CERTIFICATE", &trailing)), @"[source]: block 2 (line 12): skipped: trailing bytes: 3 more than the certificate has; write it anew: `openssl x509 -in FILE -out ca.crt`");
    }

    #[test]
    fn beside_a_private_key() {
        let store = Store::new();
        assert_snapshot!(store.accepts(store.pem() + &store.ca.key_pem()), @"[source]: block 2 (line 12): PRIVATE KEY in a CA bundle: everybody who can read the bundle has it; remove it from here, and replace the key and its certificate");
        assert_snapshot!(store.accepts(store.ca.key_pem() + &store.pem()), @"[source]: block 1 (line 1): PRIVATE KEY in a CA bundle: everybody who can read the bundle has it; remove it from here, and replace the key and its certificate");
    }

    #[test]
    fn beside_a_trusted_certificate() {
        let store = Store::new();
        let other = Authority::new("Other CA").pem();
        let arguments = ["x509", "-trustout", "-addtrust", "serverAuth"];
        let Some(trusted) = openssl_output(&arguments, other.as_bytes()) else { return };
        assert_snapshot!(store.accepts([store.pem().as_bytes(), &trusted].concat()), @"[source]: block 2 (line 12): skipped: a TRUSTED CERTIFICATE: OpenSSL's own format, with trust settings behind the certificate that only OpenSSL reads; take them off: `openssl x509 -in FILE -out ca.crt`");
    }
}

mod is_refused_with_its_name {
    use super::*;

    #[test]
    fn a_trusted_certificate_with_the_command_that_converts_it() {
        let store = Store::new();
        let arguments = ["x509", "-trustout", "-addtrust", "serverAuth"];
        let Some(trusted) = openssl_output(&arguments, store.pem().as_bytes()) else { return };
        let message = store.refuses(&trusted);
        assert_snapshot!(message, @r"
        no CA source holds a usable certificate: [source]: block 1 (line 1): skipped: a TRUSTED CERTIFICATE: OpenSSL's own format, with trust settings behind the certificate that only OpenSSL reads;
        take them off: `openssl x509 -in FILE -out ca.crt`
        ");
        store.obeys(&message, trusted, "");
    }

    #[test]
    fn trailing_bytes_inside_the_der() {
        let store = Store::new();
        let trailing = [store.ca.der().as_ref(), &[0, 0, 0]].concat();
        let pasted = block("CERTIFICATE", &trailing);
        let message = store.refuses(&pasted);
        store.obeys(&message, pasted, "");
        assert_snapshot!(message, @r"
        no CA source holds a usable certificate: [source]: block 1 (line 1): skipped: trailing bytes: 3 more than the certificate has;
        write it anew: `openssl x509 -in FILE -out ca.crt`
        ");
    }

    #[test]
    fn trailing_bytes_behind_a_der_file() {
        let store = Store::new();
        assert_snapshot!(store.refuses([store.ca.der().as_ref(), b"\0\0\0"].concat()), @r"
        no CA source holds a usable certificate: [source]: block 1 (line 1): skipped: trailing bytes: 3 more than the certificate has;
        write it anew: `openssl x509 -in FILE -out ca.crt`
        ");
    }

    #[test]
    fn a_corrupt_block_alone() {
        let store = Store::new();
        let mut lines: Vec<String> = store.pem().lines().map(str::to_owned).collect();
        lines[3].replace_range(5..6, "?");
        assert_snapshot!(store.refuses(lines.join("\n")), @r"
        no CA source holds a usable certificate: [source]: block 1 (line 1): skipped: damaged: line 4 holds a character that base64 does not have;
        paste the certificate again
        ");
    }

    #[test]
    fn a_truncated_block_alone() {
        let store = Store::new();
        let pem = store.pem();
        let lines: Vec<&str> = pem.lines().collect();
        assert_snapshot!(store.refuses(lines[..5].join("\n")), @r"
        no CA source holds a usable certificate: [source]: block 1 (line 1): skipped: cut short: 192 of [size] bytes;
        paste the whole certificate
        ");
    }

    #[test]
    fn utf_16_with_the_command_that_converts_it() {
        let store = Store::new();
        let utf16: Vec<u8> = format!("\u{feff}{}", store.pem()).encode_utf16().flat_map(u16::to_le_bytes).collect();
        let message = store.refuses(&utf16);
        assert_snapshot!(message, @r"
        no CA source holds a usable certificate: [source]: UTF-16 text, not UTF-8;
        convert it: `iconv -f UTF-16 -t UTF-8 FILE > ca.crt`
        ");
        store.obeys(&message, utf16, "");
    }

    #[test]
    fn base64_of_base64() {
        let store = Store::new();
        let twice = STANDARD.encode_to_string(STANDARD.encode_to_string(store.pem()));
        let message = store.refuses(&twice);
        assert_snapshot!(message, @r"
        no CA source holds a usable certificate: [source]: block 1 (line 1): skipped: base64 of base64 of a PEM;
        only one is undone, decode it: `base64 -d FILE | base64 -d`
        ");
        store.obeys(&message, twice, " > ca.crt");
    }

    #[test]
    fn a_certificate_signing_request() {
        let store = Store::new();
        let arguments = ["req", "-new", "-key", "/dev/stdin", "-subj", "/CN=store", "-batch"];
        let Some(request) = openssl_output(&arguments, store.ca.key_pem().as_bytes()) else { return };
        assert_snapshot!(store.refuses(request), @r"
        no CA source holds a usable certificate: [source]: block 1 (line 1): skipped: a certificate signing request: it holds no certificate;
        paste the certificate of the CA that it is sent to
        ");
    }

    #[test]
    fn pkcs7_with_the_command_that_converts_it() {
        let store = Store::new();
        let arguments = ["crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin"];
        let Some(pem) = openssl_output(&arguments, store.pem().as_bytes()) else { return };
        let message = store.refuses(&pem);
        assert_snapshot!(message, @r"
        no CA source holds a usable certificate: [source]: block 1 (line 1): skipped: PKCS#7, not a PEM certificate;
        convert it: `openssl pkcs7 -print_certs -in FILE -out ca.crt`
        ");
        store.obeys(&message, pem, "");
    }

    #[test]
    fn pkcs7_in_der_with_the_command_that_converts_it() {
        let store = Store::new();
        let arguments = ["crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin", "-outform", "DER"];
        let Some(der) = openssl_output(&arguments, store.pem().as_bytes()) else { return };
        let message = store.refuses(&der);
        assert_snapshot!(message, @r"
        no CA source holds a usable certificate: [source]: PKCS#7 in DER, not a PEM certificate;
        convert it: `openssl pkcs7 -inform DER -print_certs -in FILE -out ca.crt`
        ");
        store.obeys(&message, der, "");
    }

    #[test]
    fn pkcs12_with_the_command_that_converts_it() {
        let store = Store::new();
        let arguments = ["pkcs12", "-export", "-nokeys", "-in", "/dev/stdin", "-passout", "pass:changeit"];
        let Some(keystore) = openssl_output(&arguments, store.pem().as_bytes()) else { return };
        let message = store.refuses(&keystore);
        assert_snapshot!(message, @r"
        no CA source holds a usable certificate: [source]: a PKCS#12 keystore, not a PEM certificate;
        convert it: `openssl pkcs12 -in FILE -cacerts -nokeys -out ca.crt`
        ");
        store.obeys(&message, keystore, " -passin pass:changeit");
    }

    #[test]
    fn a_java_keystore() {
        let store = Store::new();
        // Magic, version 2, one entry; the certificate in it is not taken.
        let keystore = [&[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 1], store.ca.der().as_ref()].concat();
        assert_snapshot!(store.refuses(keystore), @r"
        no CA source holds a usable certificate: [source]: a Java keystore, not a PEM certificate;
        convert it: `keytool -exportcert -rfc -keystore FILE -alias ALIAS -file ca.crt` (`keytool -list -keystore FILE` names the aliases)
        ");
    }

    #[test]
    fn a_public_key() {
        let store = Store::new();
        let Some(key) = openssl_output(&["x509", "-pubkey", "-noout"], store.pem().as_bytes()) else { return };
        assert_snapshot!(store.refuses(key), @r"
        no CA source holds a usable certificate: [source]: block 1 (line 1): skipped: a public key: it names nobody and nobody signed it;
        paste the certificate of the CA instead
        ");
    }

    #[test]
    fn a_private_key_alone() {
        let store = Store::new();
        assert_snapshot!(store.refuses(store.ca.key_pem()), @r"
        no CA source holds a usable certificate: [source]: block 1 (line 1): PRIVATE KEY in a CA bundle: everybody who can read the bundle has it;
        remove it from here, and replace the key and its certificate
        ");
    }

    #[test]
    fn a_web_page() {
        let store = Store::new();
        assert_snapshot!(store.refuses("<!DOCTYPE html>\n<html><body>Please sign in</body></html>\n"), @r"
        no CA source holds a usable certificate: [source]: HTML or XML, perhaps the page of a login or an error instead of the file;
        download the certificate again and look at it
        ");
    }

    #[test]
    fn a_path() {
        let store = Store::new();
        assert_snapshot!(store.refuses("/etc/ssl/custom-certs/cabundle.crt\n"), @r"
        no CA source holds a usable certificate: [source]: a path or URL, not a certificate;
        paste the content of that file, or mount it and name it in ca_bundle
        ");
    }

    #[test]
    fn nothing() {
        let store = Store::new();
        assert_snapshot!(store.refuses(""), @r"
        no CA source holds a usable certificate: [source]: empty;
        paste the certificate of the CA, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----
        ");
        assert_snapshot!(store.refuses(" \n\n"), @r"
        no CA source holds a usable certificate: [source]: empty;
        paste the certificate of the CA, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----
        ");
    }

    #[test]
    fn json_without_a_certificate() {
        let store = Store::new();
        assert_snapshot!(store.refuses(r#"{"ca": "see the wiki"}"#), @r"
        no CA source holds a usable certificate: [source]: JSON without a certificate in it;
        paste the certificate itself, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----
        ");
    }

    #[test]
    fn yaml_without_a_certificate() {
        let store = Store::new();
        assert_snapshot!(store.refuses("apiVersion: v1\nkind: ConfigMap\ndata: {}\n"), @r"
        no CA source holds a usable certificate: [source]: YAML without a certificate in it;
        paste the certificate itself, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----
        ");
    }

    #[test]
    fn a_placeholder_that_nobody_filled_in() {
        let store = Store::new();
        assert_snapshot!(store.refuses("{{ .Values.caBundle }}"), @r"
        no CA source holds a usable certificate: [source]: a template's placeholder that was not filled in;
        look at what renders this value
        ");
    }

    #[test]
    fn a_ca_that_is_commented_out() {
        let store = Store::new();
        let commented: String = store.pem().lines().map(|line| format!("# {line}\n")).collect();
        assert_snapshot!(store.refuses(commented), @r"
        no CA source holds a usable certificate: [source]: block 1 (line 1): skipped: commented out;
        remove the # in front of its lines to use it
        ");
    }

    #[test]
    fn a_compressed_file() {
        let store = Store::new();
        assert_snapshot!(store.refuses(b"\x1f\x8b\x08\0\0\0\0\0\x02\x03"), @r"
        no CA source holds a usable certificate: [source]: a gzip or ZIP archive;
        unpack it and paste the certificates in it
        ");
    }

    #[test]
    fn words() {
        let store = Store::new();
        assert_snapshot!(store.refuses("the certificate is on the wiki"), @r"
        no CA source holds a usable certificate: [source]: no certificate in it: 30 bytes of text without a BEGIN CERTIFICATE line;
        paste the certificate of the CA, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----
        ");
    }
}
