//! `storage-initializer migrate`: the CA moves from the Secret into a ConfigMap, and every pod keeps its model.
//!
//! The first tests run fifty manifests through both stages: what people paste for a certificate, in every way to write
//! a Secret. What comes out is read by another YAML reader than the product's, mounted as the kubelet mounts it, and
//! downloaded with from a TLS server that only this certificate vouches for, as KServe's pod and as ModelMesh's.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails it by a panic")]

use std::path::{Path, PathBuf};

use base64_simd::STANDARD;
use serde_json::{Value, json};
use serde_yaml_ng::Deserializer;
use storage_initializer_integration::{
    initializer::{Initializer, Outcome, Profile, binary},
    pki::{Authority, AuthoritySpec, LeafSpec, Validity},
    pod::{Pod, SECRET_ACCESS_KEY},
    s3_server::Object,
    tree::Tree,
};

mod fifty {
    use super::*;

    /// What is pasted into `certificate` so that the right CA can be told from it, or what the refusal says.
    struct Pasted {
        name: &'static str,
        text: String,
        refusal: Option<&'static str>,
    }

    fn block(label: &str, bytes: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode_to_string(bytes))
    }

    /// `ca` is the one that counts.
    fn table(ca: &Authority) -> Vec<Pasted> {
        let pem = ca.pem();
        let other = Authority::new("Another Team's CA");
        let expired = Authority::from_spec(AuthoritySpec::new("Last Year's CA").validity(Validity::Expired));
        let one_line = pem.replace('\n', "");
        let base64 = STANDARD.encode_to_string(&pem);
        let wrapped: String = base64.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line) + "\n").collect();
        let indented: String = pem.lines().map(|line| format!("    {line}\n")).collect();
        let commented: String = pem.lines().map(|line| format!("# {line}\n")).collect();
        let old_commented: String = other.pem().lines().map(|line| format!("# {line}\n")).collect();
        let corrupt = |pem: &str| {
            let mut lines: Vec<String> = pem.lines().map(str::to_owned).collect();
            lines[3].replace_range(5..6, "?");
            lines.join("\n") + "\n"
        };
        let truncated = |pem: &str| {
            let lines: Vec<&str> = pem.lines().collect();
            format!("{}\n{}\n", lines[..4].join("\n"), lines[lines.len() - 1])
        };
        let trailing = |ca: &Authority| block("CERTIFICATE", &[ca.der().as_ref(), &[0, 0, 0]].concat());
        let accepted = [
            ("plain", pem.clone()),
            ("Windows line ends", pem.replace('\n', "\r\n")),
            ("lone CR line ends", pem.replace('\n', "\r")),
            ("trailing blanks", format!("\n\n{}\n \n", pem.replace('\n', "  \t\n\n"))),
            ("indented", indented.clone()),
            ("no line break at the end", pem.trim_end().to_owned()),
            ("Bag Attributes", format!("Bag Attributes\n    localKeyID: 54 69\nsubject=O = Harness\n\n{pem}")),
            (
                "comments and a CA that is commented out",
                format!("# the store's, \"prod\"\n{pem}# old:\n{old_commented}"),
            ),
            ("a byte order mark before two", format!("\u{feff}{pem}{}", other.pem())),
            ("END and BEGIN on one line", format!("{}{pem}", other.pem().trim_end())),
            ("the label X509 CERTIFICATE", pem.replace("CERTIFICATE", "X509 CERTIFICATE")),
            ("one CA 120 times, then the new one", ca.rekeyed().pem().repeat(120) + &pem),
            (r"\n for line breaks", pem.replace('\n', "\\n")),
            (r"\\n for line breaks", pem.replace('\n', "\\\\n")),
            ("in double quotes", format!("\"{pem}\"")),
            ("in single quotes", format!("'{}'\n", pem.trim_end())),
            (r"in quotes with \n", format!("\"{}\"", pem.replace('\n', "\\n"))),
            ("on one line with blanks", pem.replace('\n', " ")),
            ("on one line", one_line),
            ("base64 of the PEM", base64.clone()),
            ("wrapped base64 of the PEM", wrapped),
            ("base64 without markers", STANDARD.encode_to_string(ca.der())),
            ("a lost hyphen", pem.replacen("-----BEGIN", "----BEGIN", 1)),
            ("no END", pem.replace("-----END CERTIFICATE-----\n", "")),
            ("no BEGIN", pem.replace("-----BEGIN CERTIFICATE-----\n", "")),
            ("different labels", pem.replace("END CERTIFICATE", "END X509 CERTIFICATE")),
            ("a ConfigMap's manifest", format!("kind: ConfigMap\ndata:\n  cabundle.crt: |\n{indented}")),
            ("a JSON document", json!({"ca": pem}).to_string()),
            ("beside a corrupt one", corrupt(&other.pem()) + &pem),
            ("beside a truncated one", pem.clone() + &truncated(&other.pem())),
            ("beside one with trailing bytes", trailing(&other) + &pem),
            ("before a private key", pem.clone() + &other.key_pem()),
            ("behind a private key", other.key_pem() + &pem),
            ("beside an expired one", expired.pem() + &pem),
            ("beside a request", block("CERTIFICATE REQUEST", b"\x30\x03\x02\x01\x00") + &pem),
            ("a chain", ca.issue(LeafSpec::new()).chain_pem() + &pem),
        ];
        let refused = [
            ("TRUSTED CERTIFICATE", block("TRUSTED CERTIFICATE", ca.der()), "openssl x509 -in FILE -out ca.crt"),
            ("trailing bytes", trailing(ca), "trailing bytes: 3 more"),
            ("corrupt", corrupt(&pem), "holds a character that base64 does not have"),
            ("truncated", truncated(&pem), "cut short: 144 of"),
            ("base64 of base64", STANDARD.encode_to_string(base64), "base64 -d FILE | base64 -d"),
            ("a request", block("CERTIFICATE REQUEST", b"\x30\x03\x02\x01\x00"), "a certificate signing request"),
            ("PKCS#7", block("PKCS7", b"\x30\x03\x02\x01\x00"), "openssl pkcs7 -print_certs"),
            ("a public key", block("PUBLIC KEY", b"\x30\x03\x02\x01\x00"), "a public key"),
            ("a private key", ca.key_pem(), "PRIVATE KEY in a CA bundle"),
            ("a web page", "<!DOCTYPE html>\n<html>Please sign in</html>\n".to_owned(), "HTML or XML"),
            ("words", "the certificate is on the wiki".to_owned(), "no certificate in it: 30 bytes of text"),
            ("a placeholder", "{{ .Values.caBundle }}".to_owned(), "a template's placeholder"),
            ("commented out", commented, "commented out"),
            ("JSON without one", r#"{"ca": "see the wiki"}"#.to_owned(), "JSON without a certificate"),
            ("YAML without one", "kind: ConfigMap\ndata: {}\n".to_owned(), "YAML without a certificate"),
        ];
        let accepted = accepted.into_iter().map(|(name, text)| Pasted { name, text, refusal: None });
        let refused = refused.into_iter().map(|(name, text, why)| Pasted { name, text, refusal: Some(why) });
        accepted.chain(refused).collect()
    }

    /// Every manifest of the table: the layouts take turns.
    fn manifests(pod: &Pod) -> Vec<(Pasted, Layout, String)> {
        let table = table(&pod.authority);
        assert!(table.len() >= 50, "{} manifests", table.len());
        let write = |(index, pasted): (usize, Pasted)| {
            let layout = Layout::ALL[index % Layout::ALL.len()];
            let entry = pod.entry_with(json!({"bucket": "models", "certificate": pasted.text, "weight": 1.50}));
            (pasted, layout, layout.secret(&entry))
        };
        table.into_iter().enumerate().map(write).collect()
    }

    /// Takes the manifests of the table through `stage` and downloads as both systems.
    fn each_manifest_works_after(stage: &str) {
        let pod = with_model();
        let mut count = 0;
        for (pasted, layout, manifest) in manifests(&pod).into_iter().filter(|(pasted, _, _)| pasted.refusal.is_none())
        {
            println!("{} as {layout:?}", pasted.name);
            let cluster = Cluster::apply(&pod, &migrated(&pod, &manifest, &["--stage", stage]));
            let entry = cluster.entry("localMinIO");
            assert_eq!(entry["cabundle_configmap"], "storage-config-ca");
            assert_eq!(entry["weight"], 1.50);
            assert_eq!(entry.get("certificate").and_then(Value::as_str), (stage == "both").then_some(&*pasted.text));
            let bundle = cluster.bundle("storage-config-ca");
            assert!(!bundle.contains("PRIVATE KEY") && bundle.contains(&pod.authority.pem()), "{bundle}");
            // ModelMesh alone mounts no ConfigMap; once the text is gone, this program needs it there, too.
            let mounts = if stage == "both" { None } else { Some("storage-config-ca") };
            downloads(&pod, modelmesh(&pod, &cluster, "localMinIO", mounts));
            downloads(&pod, kserve(&pod, &cluster, "localMinIO"));
            count += 1;
        }
        assert!(count >= 35, "{count} manifests");
    }

    #[test]
    fn every_certificate_that_can_be_repaired_works_with_both_fields() {
        each_manifest_works_after("both");
    }

    #[test]
    fn every_certificate_that_can_be_repaired_works_from_the_configmap_alone() {
        each_manifest_works_after("configmap-only");
    }

    #[test]
    fn every_certificate_that_cannot_be_repaired_is_refused_with_its_place_and_nothing_is_written() {
        let pod = with_model();
        let mut count = 0;
        for (pasted, layout, manifest) in manifests(&pod) {
            let Some(refusal) = pasted.refusal else { continue };
            for stage in ["both", "configmap-only"] {
                let outcome = migrate(&pod, &manifest, &["--stage", stage]);
                outcome.assert_exit(78);
                assert_eq!(outcome.stdout, "", "{}", pasted.name);
                let place = format!(
                    "Secret \"storage-config\"{}, entry \"localMinIO\", field \"certificate\": ",
                    layout.namespace()
                );
                for part in ["secret.", "document ", &place, refusal] {
                    let message = outcome.last_line();
                    assert!(message.contains(part), "{} as {layout:?}: no {part:?} in {message}", pasted.name);
                }
            }
            count += 1;
        }
        assert!(count >= 14, "{count} manifests");
    }

    #[test]
    fn a_second_run_changes_nothing_and_check_agrees() {
        let pod = with_model();
        for (pasted, layout, manifest) in manifests(&pod).into_iter().filter(|(pasted, _, _)| pasted.refusal.is_none())
        {
            println!("{} as {layout:?}", pasted.name);
            migrate(&pod, &manifest, &["--check"]).assert_exit(1);
            let both = migrated(&pod, &manifest, &[]);
            assert_eq!(migrated(&pod, &both, &[]), both);
            let check = migrate(&pod, &both, &["--check"]);
            check.assert_exit(0);
            assert_eq!(check.stdout, "");
            migrate(&pod, &both, &["--check", "--stage", "configmap-only"]).assert_exit(1);
            let only = migrated(&pod, &both, &["--stage", "configmap-only"]);
            for stage in ["both", "configmap-only"] {
                assert_eq!(migrated(&pod, &only, &["--stage", stage]), only);
                migrate(&pod, &only, &["--check", "--stage", stage]).assert_exit(0);
            }
            check_config(&pod, &only).assert_exit(0);
        }
    }

    #[test]
    fn what_is_not_understood_is_neither_changed_nor_lost() {
        let pod = with_model();
        for (pasted, layout, manifest) in manifests(&pod).into_iter().filter(|(pasted, _, _)| pasted.refusal.is_none())
        {
            println!("{} as {layout:?}", pasted.name);
            let before = documents(&manifest);
            let after = documents(&migrated(&pod, &manifest, &["--stage", "configmap-only"]));
            let strip = |value: &Value| {
                let mut value = value.clone();
                for secret in secrets_mut(&mut value) {
                    for section in ["data", "stringData"] {
                        if let Some(values) = secret.get_mut(section).and_then(Value::as_object_mut) {
                            values.remove("localMinIO");
                        }
                    }
                }
                value
            };
            let (before, after) = (before.iter().map(strip), after[1..].iter().map(strip));
            assert_eq!(before.collect::<Vec<_>>(), after.collect::<Vec<_>>());
        }
    }

    #[test]
    fn neither_a_diff_nor_a_note_nor_an_error_holds_a_value() {
        let pod = with_model();
        for (pasted, layout, manifest) in manifests(&pod) {
            println!("{} as {layout:?}", pasted.name);
            let diff = migrate(&pod, &manifest, &["--dry-run", "--stage", "configmap-only"]);
            let full = migrate(&pod, &manifest, &[]);
            let checked = check_config(&pod, &manifest);
            let said = [&diff.stdout, &diff.stderr, &full.stderr, &checked.stdout, &checked.stderr]
                .map(String::as_str)
                .concat();
            assert_silent(&said, &pasted.text);
            if pasted.refusal.is_none() {
                assert!(diff.stdout.contains("-  \"certificate\": ***"), "{}", diff.stdout);
                assert!(diff.stdout.contains("+  \"cabundle_configmap\": \"storage-config-ca\""), "{}", diff.stdout);
            }
        }
    }

    fn assert_silent(said: &str, pasted: &str) {
        let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
        for run in pasted.split(|c| !is_base64(c)).filter(|run| run.len() >= 40) {
            assert!(!said.contains(&run[..40]), "what was pasted is in the output:\n{said}");
        }
        for secret in [SECRET_ACCESS_KEY, &STANDARD.encode_to_string(SECRET_ACCESS_KEY)[..20], "PASSWORD"] {
            assert!(!said.contains(secret), "{secret} is in the output:\n{said}");
        }
    }
}

/// How a Secret is written.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Data,
    LiteralBlock,
    SingleQuoted,
    DoubleQuoted,
    ListOfSecrets,
    BesideOthers,
    Json,
    JsonList,
    WrappedBase64,
    WindowsFile,
    Folded,
    Flow,
}

impl Layout {
    const ALL: [Self; 12] = [
        Self::Data,
        Self::LiteralBlock,
        Self::SingleQuoted,
        Self::DoubleQuoted,
        Self::ListOfSecrets,
        Self::BesideOthers,
        Self::Json,
        Self::JsonList,
        Self::WrappedBase64,
        Self::WindowsFile,
        Self::Folded,
        Self::Flow,
    ];

    fn namespace(self) -> &'static str {
        match self {
            Self::Data | Self::BesideOthers | Self::JsonList => " (namespace \"models\")",
            _ => "",
        }
    }

    /// A Secret whose entry is `localMinIO`, among comments and other people's values.
    fn secret(self, entry: &Value) -> String {
        let (compact, pretty) = (entry.to_string(), format!("{entry:#}"));
        let base64 = STANDARD.encode_to_string(&compact);
        let lines = |text: &str, indent: &str| text.lines().map(|line| format!("{indent}{line}\n")).collect::<String>();
        let wrapped: String = base64.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line) + "\n").collect();
        let head =
            "# our stores\napiVersion: v1\nkind: Secret\nmetadata:\n  name: storage-config # as KServe calls it\n";
        match self {
            Self::Data => format!(
                "{head}  namespace: models\n  annotations:\n    last: 'PASSWORD'\ntype: Opaque\ndata:\n  # base64\n  localMinIO: {base64} # one\n  token: UEFTU1dPUkQ=\n"
            ),
            Self::LiteralBlock => {
                format!(
                    "{head}stringData:\n  localMinIO: | # JSON\n{}\n  # tail\n  token: PASSWORD\n",
                    lines(&pretty, "     ")
                )
            }
            Self::SingleQuoted => format!("{head}stringData:\n  localMinIO: '{}'\n", compact.replace('\'', "''")),
            Self::DoubleQuoted => {
                format!("{head}stringData:\n  \"localMinIO\": {}\n  token: PASSWORD\n", json!(pretty))
            }
            Self::ListOfSecrets => format!(
                "kind: List\napiVersion: v1\nitems:\n- kind: Secret # other\n  metadata: {{name: other}}\n  data: {{token: UEFTU1dPUkQ=}}\n- apiVersion: v1\n  kind: Secret\n  metadata:\n    name: storage-config\n  data:\n    localMinIO: \"{base64}\"\n"
            ),
            Self::BesideOthers => format!(
                "%YAML 1.2\n---\nkind: Deployment\nspec: &spec\n  replicas: 1\nother: *spec\n---\n\n---\n{head}  namespace: \"models\"\ndata:\n  localMinIO: '{base64}'\n---\nkind: Secret\nmetadata:\n  name: tls\ndata:\n  tls.key: UEFTU1dPUkQ=\n"
            ),
            Self::Json => format!(
                "{{\n\t\"kind\": \"Secret\",\n\t\"metadata\": {{\"name\": \"storage-config\", \"labels\": {{\"\\uD83D\\uDE00\": \"x\\/y\"}}}},\n\t\"data\": {{\"localMinIO\": \"{base64}\", \"token\": \"UEFTU1dPUkQ=\"}}}}\n"
            ),
            Self::JsonList => {
                let secret = json!({
                    "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                    "metadata": {"name": "storage-config", "namespace": "models"},
                    "stringData": {"localMinIO": compact, "token": "PASSWORD"},
                });
                format!("{:#}\n", json!({"kind": "SecretList", "items": [{"kind": "Secret"}, secret]}))
            }
            Self::WrappedBase64 => {
                format!("{head}data:\n  localMinIO: |\n{}  token: UEFTU1dPUkQ=\n", lines(&wrapped, "    "))
            }
            Self::WindowsFile => {
                format!("{head}stringData:\n  localMinIO: |-\n{}  token: PASSWORD\n", lines(&pretty, "    "))
                    .replace('\n', "\r\n")
            }
            Self::Folded => format!("{head}stringData:\n  localMinIO: >-\n    {compact}\n  token: PASSWORD"),
            Self::Flow => format!(
                "{{kind: Secret, metadata: {{name: storage-config}}, # flow\n data: {{localMinIO: {base64}, token: UEFTU1dPUkQ=}}}}\n"
            ),
        }
    }
}

fn with_model() -> Pod {
    let pod = Pod::new();
    pod.put("bert/config.json", Object::text("{}"));
    pod
}

/// Writes a manifest and runs the binary on it.
fn run_on(pod: &Pod, manifest: &str, arguments: &[&str], after: &[&str]) -> Outcome {
    let ending = if manifest.starts_with('{') { "json" } else { "yaml" };
    let path = pod.path(&format!("secret.{ending}"));
    std::fs::write(&path, manifest).unwrap();
    Initializer::new().args(arguments).arg(path).args(after).run()
}

fn migrate(pod: &Pod, manifest: &str, options: &[&str]) -> Outcome {
    run_on(pod, manifest, &["migrate"], options)
}

fn check_config(pod: &Pod, manifest: &str) -> Outcome {
    run_on(pod, manifest, &["check", "--config"], &[])
}

#[track_caller]
fn migrated(pod: &Pod, manifest: &str, options: &[&str]) -> String {
    let outcome = migrate(pod, manifest, options);
    outcome.assert_exit(0);
    outcome.stdout
}

/// The documents of a stream, by another reader than the product's.
#[track_caller]
fn documents(stream: &str) -> Vec<Value> {
    if stream.starts_with('{') && serde_json::from_str::<Value>(stream).is_err() {
        let json: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(stream).into_iter().collect();
        if let Ok(values) = json {
            return values;
        }
    }
    if let Ok(value) = serde_json::from_str(stream) {
        return vec![value];
    }
    use serde::Deserialize as _;
    let values = Deserializer::from_str(stream).map(|document| Value::deserialize(document).expect("a YAML document"));
    values.filter(|value| !value.is_null()).collect()
}

fn secrets_mut(value: &mut Value) -> Vec<&mut Value> {
    if value["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) {
        return value["items"].as_array_mut().unwrap().iter_mut().collect();
    }
    vec![value]
}

/// What a cluster would hold after `kubectl apply`.
struct Cluster {
    objects: Vec<Value>,
    directory: PathBuf,
}

impl Cluster {
    fn apply(pod: &Pod, stream: &str) -> Self {
        let mut documents = documents(stream);
        let objects = documents.iter_mut().flat_map(secrets_mut).map(|object| object.clone()).collect();
        let directory = tempfile::Builder::new().prefix("cluster-").tempdir_in(pod.path("")).unwrap().keep();
        Self { objects, directory }
    }

    fn object(&self, kind: &str, name: &str) -> &Value {
        let found: Vec<&Value> =
            self.objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name).collect();
        assert_eq!(found.len(), 1, "{kind} {name}");
        found[0]
    }

    /// The text of an entry, as the kubelet mounts it.
    fn entry_text(&self, name: &str) -> String {
        let secret = self.object("Secret", "storage-config");
        if let Some(text) = secret["stringData"][name].as_str() {
            return text.to_owned();
        }
        let letters: String = secret["data"][name].as_str().unwrap().split_whitespace().collect();
        String::from_utf8(STANDARD.decode_to_vec(letters).unwrap()).unwrap()
    }

    fn entry(&self, name: &str) -> Value {
        serde_json::from_str(&self.entry_text(name)).unwrap()
    }

    fn bundle(&self, configmap: &str) -> String {
        self.object("ConfigMap", configmap)["data"]["cabundle.crt"].as_str().unwrap().to_owned()
    }

    fn mount(&self, pod: &Pod, name: &str, key: &str, text: String) -> PathBuf {
        let relative = self.directory.join(format!("{name}-{}", std::fs::read_dir(&self.directory).unwrap().count()));
        pod.mount(relative.to_str().unwrap(), [(key, text)])
    }
}

/// ModelMesh mounts the Secret and names the entry and the path.
fn modelmesh(pod: &Pod, cluster: &Cluster, entry: &str, configmap: Option<&str>) -> Initializer {
    let secret = cluster.mount(pod, "storage-config", entry, cluster.entry_text(entry));
    let run = pod.bare().env("STORAGE_CONFIG_DIR", secret).env("STORAGE_KEY", entry).env("STORAGE_PATH", "bert");
    match configmap {
        Some(name) => {
            run.env("CA_BUNDLE_VOLUME_MOUNT_POINT", cluster.mount(pod, name, "cabundle.crt", cluster.bundle(name)))
        }
        None => run,
    }
}

/// KServe passes the entry in a variable and mounts the ConfigMap that it names. It ignores `certificate`, so an
/// override takes it away here.
fn kserve(pod: &Pod, cluster: &Cluster, entry: &str) -> Initializer {
    let text = cluster.entry_text(entry);
    let name = cluster.entry(entry)["cabundle_configmap"].as_str().unwrap().to_owned();
    pod.bare()
        .env("STORAGE_CONFIG", text)
        .env("STORAGE_OVERRIDE_CONFIG", r#"{"certificate": ""}"#)
        .env("CA_BUNDLE_CONFIGMAP_NAME", &name)
        .env("CA_BUNDLE_VOLUME_MOUNT_POINT", cluster.mount(pod, &name, "cabundle.crt", cluster.bundle(&name)))
        .args(["s3://models/bert".as_ref(), pod.models().as_os_str()])
}

#[track_caller]
fn downloads(pod: &Pod, run: Initializer) {
    run.run().assert_exit(0);
    pod.tree().assert_equals(&Tree::new().bytes("config.json", "{}"));
    std::fs::remove_dir_all(pod.models()).unwrap();
}

fn secret_with(entries: &[(&str, Value)]) -> String {
    let values: serde_json::Map<String, Value> =
        entries.iter().map(|(name, entry)| ((*name).to_owned(), entry.to_string().into())).collect();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "storage-config"}, "stringData": values,
    });
    serde_yaml_ng::to_string(&secret).unwrap()
}

#[test]
fn without_the_configmap_the_second_stage_trusts_nobody() {
    let pod = with_model();
    let manifest = secret_with(&[("localMinIO", pod.entry_with(json!({"bucket": "models"})))]);
    let cluster = Cluster::apply(&pod, &migrated(&pod, &manifest, &["--stage", "configmap-only"]));
    let message = pod.refused(&modelmesh(&pod, &cluster, "localMinIO", None).run(), 76);
    assert!(message.contains(r#"names ConfigMap "storage-config-ca", but nothing is mounted"#), "{message}");
    downloads(&pod, modelmesh(&pod, &cluster, "localMinIO", Some("storage-config-ca")));
}

#[test]
fn a_configmap_of_another_ca_is_no_replacement() {
    let pod = with_model();
    let stranger = Authority::new("Another Team's CA").pem();
    let manifest = secret_with(&[("localMinIO", pod.entry_with(json!({"certificate": stranger, "bucket": "models"})))]);
    let cluster = Cluster::apply(&pod, &migrated(&pod, &manifest, &[]));
    pod.refused(&kserve(&pod, &cluster, "localMinIO").run(), 76);
}

#[test]
fn several_entries_share_a_bundle_or_have_one_each() {
    let pod = with_model();
    let [b, a, shared] = ["B", "A", "Shared"].map(|name| Authority::new(name).pem());
    let manifest = secret_with(&[
        ("zeta_1", pod.entry_with(json!({"certificate": format!("{shared}{b}")}))),
        ("Alpha", pod.entry_with(json!({"certificate": format!("{a}{shared}")}))),
    ]);
    let one = Cluster::apply(&pod, &migrated(&pod, &manifest, &[]));
    assert_eq!(one.bundle("storage-config-ca"), format!("{a}{shared}{b}"));
    let each = Cluster::apply(&pod, &migrated(&pod, &manifest, &["--bundle", "per-entry"]));
    assert_eq!(each.bundle("storage-config-ca-alpha"), format!("{a}{shared}"));
    assert_eq!(each.bundle("storage-config-ca-zeta-1"), format!("{shared}{b}"));
    assert_eq!(each.entry("zeta_1")["cabundle_configmap"], "storage-config-ca-zeta-1");
    let clash = secret_with(&[("a_b", pod.entry()), ("a-b", pod.entry())]);
    let outcome = migrate(&pod, &clash, &["--bundle", "per-entry"]);
    outcome.assert_exit(78);
    assert!(outcome.last_line().contains("would be called \"storage-config-ca-a-b\""), "{}", outcome.last_line());
}

#[test]
fn names_and_namespace_are_options_and_what_is_no_name_is_a_usage_error() {
    let pod = with_model();
    let manifest = secret_with(&[("default", pod.entry())]);
    let stream = migrated(&pod, &manifest, &["--configmap-name", "models-ca", "--namespace", "models"]);
    let cluster = Cluster::apply(&pod, &stream);
    assert_eq!(cluster.entry("default")["cabundle_configmap"], "models-ca");
    assert_eq!(cluster.object("ConfigMap", "models-ca")["metadata"]["namespace"], "models");
    assert_eq!(cluster.object("Secret", "storage-config")["metadata"].get("namespace"), None);
    for wrong in ["Models_CA", "", "-x", "a..b"] {
        migrate(&pod, &manifest, &["--configmap-name", wrong]).assert_exit(64);
        migrate(&pod, &manifest, &["--namespace", wrong]).assert_exit(64);
    }
    migrate(&pod, &manifest, &["--secret", "another"]).assert_exit(78);
    migrate(&pod, &manifest, &["--secret", "storage-config"]).assert_exit(0);
}

mod a_configmap_that_somebody_named {
    use super::*;

    fn manifest(pod: &Pod, configmap: Option<&str>) -> String {
        let entry = pod.entry_with(json!({"cabundle_configmap": "team-ca"}));
        let secret = secret_with(&[("default", entry)]);
        match configmap {
            Some(pem) => {
                let value = json!({
                    "kind": "ConfigMap", "metadata": {"name": "team-ca"},
                    "data": {"README": "ask Ann", "cabundle.crt": pem},
                });
                format!("{}---\n{secret}", serde_yaml_ng::to_string(&value).unwrap())
            }
            None => secret,
        }
    }

    #[test]
    fn is_never_written_without_being_seen() {
        let pod = with_model();
        let manifest = manifest(&pod, None);
        let outcome = migrate(&pod, &manifest, &[]);
        outcome.assert_exit(0);
        assert_eq!(outcome.stdout, manifest);
        assert!(
            outcome.stderr.contains("names ConfigMap \\\"team-ca\\\" already, which is not among the manifests")
                || outcome.stderr.contains("names ConfigMap \"team-ca\" already, which is not among the manifests"),
            "{}",
            outcome.stderr
        );
        let outcome = migrate(&pod, &manifest, &["--stage", "configmap-only"]);
        outcome.assert_exit(78);
        assert!(outcome.last_line().contains("kubectl get configmap team-ca -o yaml"), "{}", outcome.last_line());
    }

    #[test]
    fn is_enough_where_it_holds_the_certificate() {
        let pod = with_model();
        let bundle = Authority::new("Another Team's CA").pem() + &pod.authority.pem();
        let manifest = manifest(&pod, Some(&bundle));
        let cluster = Cluster::apply(&pod, &migrated(&pod, &manifest, &["--stage", "configmap-only"]));
        assert_eq!(cluster.bundle("team-ca"), bundle);
        assert_eq!(cluster.entry("default").get("certificate"), None);
        downloads(&pod, kserve(&pod, &cluster, "default"));
    }

    #[test]
    fn is_completed_only_when_it_is_asked_for_by_name() {
        let pod = with_model();
        let theirs = format!("# Ann's\n{}", Authority::new("Another Team's CA").pem());
        let manifest = manifest(&pod, Some(&theirs));
        let outcome = migrate(&pod, &manifest, &[]);
        outcome.assert_exit(0);
        assert_eq!(outcome.stdout, manifest);
        let refused = migrate(&pod, &manifest, &["--stage", "configmap-only"]);
        refused.assert_exit(78);
        assert!(refused.last_line().contains("they would be lost"), "{}", refused.last_line());
        let asked = ["--stage", "configmap-only", "--configmap-name", "team-ca"];
        let cluster = Cluster::apply(&pod, &migrated(&pod, &manifest, &asked));
        assert_eq!(cluster.bundle("team-ca"), theirs + &pod.authority.pem());
        assert_eq!(cluster.object("ConfigMap", "team-ca")["data"]["README"], "ask Ann");
        downloads(&pod, kserve(&pod, &cluster, "default"));
    }

    #[test]
    fn is_repaired_where_its_readers_would_find_nothing() {
        let pod = with_model();
        let manifest = manifest(&pod, Some(&pod.authority.pem().replace('\n', "\\n")));
        let stream = migrated(&pod, &manifest, &["--configmap-name", "team-ca"]);
        let cluster = Cluster::apply(&pod, &stream);
        assert_eq!(cluster.bundle("team-ca"), pod.authority.pem());
        assert_eq!(migrated(&pod, &stream, &["--configmap-name", "team-ca"]), stream);
    }

    #[test]
    fn keeps_what_an_entry_without_a_certificate_needs_of_it() {
        let pod = with_model();
        let done = pod.entry_with(json!({"certificate": null, "cabundle_configmap": "storage-config-ca"}));
        let manifest = secret_with(&[("done", done), ("default", pod.entry())]);
        let outcome = migrate(&pod, &manifest, &[]);
        outcome.assert_exit(78);
        assert!(
            outcome.last_line().contains("entry \"done\": it names ConfigMap \"storage-config-ca\" too"),
            "{}",
            outcome.last_line()
        );
        let old = Authority::new("The CA of done").pem();
        let configmap = format!(
            "---\nkind: ConfigMap\nmetadata: {{name: storage-config-ca}}\ndata:\n  cabundle.crt: {}\n",
            json!(old)
        );
        let cluster = Cluster::apply(&pod, &migrated(&pod, &(manifest + &configmap), &[]));
        assert_eq!(cluster.bundle("storage-config-ca"), old + &pod.authority.pem());
    }
}

mod files {
    use super::*;

    fn directory(pod: &Pod) -> PathBuf {
        let directory = pod.path("manifests");
        std::fs::create_dir_all(directory.join("prod")).unwrap();
        std::fs::write(directory.join("prod/secret.yaml"), secret_with(&[("default", pod.entry())])).unwrap();
        std::fs::write(directory.join("service.yml"), "kind: Service # ours\n").unwrap();
        std::fs::write(directory.join("README.md"), "{{ not a manifest").unwrap();
        directory
    }

    fn run(arguments: &[&Path]) -> Outcome {
        Initializer::new().arg("migrate").args(arguments).run()
    }

    #[test]
    fn go_in_and_come_out_under_their_names_and_a_second_run_touches_none() {
        let pod = with_model();
        let (input, output) = (directory(&pod), pod.path("out"));
        run(&[&input, "--output".as_ref(), &output]).assert_exit(0);
        let names: Vec<String> = Tree::read(&output).files().into_keys().map(str::to_owned).collect();
        assert_eq!(names, ["configmap-storage-config-ca.yaml", "prod/secret.yaml", "service.yml"]);
        assert_eq!(std::fs::read_to_string(output.join("service.yml")).unwrap(), "kind: Service # ours\n");
        let before = std::fs::metadata(output.join("prod/secret.yaml")).unwrap().modified().unwrap();
        let again = run(&[&output, "--output".as_ref(), &output]);
        again.assert_exit(0);
        assert!(!again.stderr.contains("written"), "{}", again.stderr);
        assert_eq!(std::fs::metadata(output.join("prod/secret.yaml")).unwrap().modified().unwrap(), before);
        run(&[&output, "--check".as_ref()]).assert_exit(0);
        run(&[&input, "--check".as_ref()]).assert_exit(1);
    }

    #[test]
    fn may_be_edited_where_they_stand_and_keep_their_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let pod = with_model();
        let input = directory(&pod);
        let secret = input.join("prod/secret.yaml");
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
        run(&[&input, "--output".as_ref(), &input]).assert_exit(0);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&secret), mode(&input.join("configmap-storage-config-ca.yaml"))), (0o640, 0o600));
        run(&[&input, "--check".as_ref()]).assert_exit(0);
    }

    #[test]
    fn none_is_written_where_one_cannot_be_migrated() {
        let pod = with_model();
        let (input, output) = (directory(&pod), pod.path("out"));
        let broken = pod.entry_with(json!({"certificate": "see the wiki"}));
        std::fs::write(input.join("z.yaml"), secret_with(&[("broken", broken)])).unwrap();
        let outcome = run(&[&input, "--output".as_ref(), &output]);
        outcome.assert_exit(78);
        assert!(
            outcome.last_line().contains("z.yaml, document 1, Secret \"storage-config\", entry \"broken\""),
            "{}",
            outcome.last_line()
        );
        assert!(!output.exists());
    }

    #[test]
    fn a_configmap_that_is_there_with_other_content_is_not_overwritten() {
        let pod = with_model();
        let (input, output) = (directory(&pod), pod.path("out"));
        std::fs::create_dir(&output).unwrap();
        std::fs::write(output.join("configmap-storage-config-ca.yaml"), "kind: ConfigMap # Ann's\n").unwrap();
        let outcome = run(&[&input, "--output".as_ref(), &output]);
        outcome.assert_exit(78);
        assert!(outcome.last_line().contains("give it as an input too"), "{}", outcome.last_line());
        assert!(!output.join("prod").exists());
    }

    #[test]
    fn standard_input_is_read_and_a_missing_file_is_named() {
        let pod = with_model();
        std::fs::write(pod.path("in.yaml"), secret_with(&[("default", pod.entry())])).unwrap();
        let script = format!(
            "{0} migrate < in.yaml > out.yaml && {0} migrate - --check < out.yaml",
            binary(Profile::Dev).display()
        );
        let shell = Initializer::of_program(Path::new("/bin/sh")).args(["-c", &script]).current_dir(&pod.path(""));
        shell.run().assert_exit(0);
        let missing = run(&["/no/such.yaml".as_ref()]);
        missing.assert_exit(66);
        assert!(missing.last_line().contains("/no/such.yaml cannot be read"), "{}", missing.last_line());
        std::fs::write(pod.path("broken.yaml"), "a: [").unwrap();
        run(&[&pod.path("broken.yaml")]).assert_exit(78);
        std::fs::write(pod.path("file"), "").unwrap();
        run(&[&pod.path("in.yaml"), "--output".as_ref(), &pod.path("file/out")]).assert_exit(74);
    }
}

#[test]
fn a_bundle_that_kubernetes_or_kubectl_refuses_is_warned_of() {
    let pod = with_model();
    let many = |count: usize| {
        let pems: String = (0..count).map(|_| Authority::new(&"Some CA with a long name ".repeat(30)).pem()).collect();
        migrate(&pod, &secret_with(&[("default", pod.entry_with(json!({"certificate": pems})))]), &[])
    };
    let small = many(3);
    small.assert_exit(0);
    assert!(!small.stderr.contains("bytes"), "{}", small.stderr);
    let large = many(110);
    large.assert_exit(0);
    assert!(large.stderr.contains("use kubectl apply --server-side"), "{}", large.stderr);
    let huge = many(480);
    huge.assert_exit(0);
    assert!(huge.stderr.contains("more than the 1048576 that Kubernetes takes"), "{}", huge.stderr);
}

#[test]
fn what_is_no_embedded_certificate_is_left_as_it_is() {
    let pod = with_model();
    for (value, note) in [
        (json!("/etc/ssl/custom-certs/cabundle.crt"), "rename the field to \"ca_bundle\""),
        (json!(""), ""),
        (json!(null), ""),
    ] {
        let mut entry = pod.entry();
        entry["certificate"] = value;
        let manifest = secret_with(&[("default", entry)]);
        for stage in ["both", "configmap-only"] {
            let outcome = migrate(&pod, &manifest, &["--stage", stage]);
            outcome.assert_exit(0);
            assert_eq!(outcome.stdout, manifest);
            assert!(outcome.stderr.contains(note), "{}", outcome.stderr);
        }
    }
}
