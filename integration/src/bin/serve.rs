//! A store for pods: an S3 over TLS with a private CA, and the manifests that name it.
//!
//! `integration/pods.sh` runs it. It starts two servers on loopback, one with a small model and one with a model that is
//! larger than the memory of the pods, and writes the Secrets and the ConfigMap of `integration/kubernetes` with their
//! endpoint, keys and CA in place of the examples', once as they should be and once for each mistake. Then it answers
//! commands on stdin, one line each, until stdin ends:
//!
//! - `bytes`: how many bytes of objects were sent so far
//! - `requests`: how many requests came so far
//! - `hold`: from now on, requests for the second half of the large model are not answered
//! - `held`: answers `held` when such a request has come, which is when the download is in its middle
//! - `release`: requests are answered again

#![allow(clippy::expect_used, reason = "a harness that cannot set up has nothing to serve")]

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};
use storage_initializer_integration::pki::{Authority, LeafSpec};
use storage_initializer_integration::s3_server::faults::Gate;
use storage_initializer_integration::s3_server::{AccessKey, Checksum, Object, Operation, S3Server};

/// The key pair of the good entries.
const KEY_PAIR: (&str, &str) = ("pods-key-id", "pods-secret-4be1a9");

/// The objects of the small model: key below the prefix, size, checksum.
const SMALL: [(&str, u64, Option<Checksum>); 4] = [
    ("config.json", 571, Some(Checksum::Crc64Nvme)),
    ("tokenizer/vocab.txt", 231_508, Some(Checksum::Crc32c)),
    ("tokenizer/added_tokens.json", 0, None),
    ("weights/model.safetensors", 24 << 20, Some(Checksum::Crc64Nvme)),
];

/// Those of the large one: eight times the memory that the pods may use.
const LARGE: [(&str, u64, Option<Checksum>); 1] = [("model.safetensors", 512 << 20, Some(Checksum::Crc64Nvme))];

/// Where the large model is held up.
const HALF_OF_LARGE_BYTES: u64 = 256 << 20;

/// The manifests with the entry, and the one with the CA.
const SECRETS: [&str; 2] = ["storage-config.yaml", "storage-config-certificate.yaml"];
const CONFIGMAP: &str = "storage-ca.yaml";

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(manifests), Some(out), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: serve MANIFESTS OUT");
        std::process::exit(64);
    };
    let authority = Authority::new("Pods Root CA");
    let stranger = Authority::new("Somebody Else's Root CA");
    let small = start(&authority, &SMALL, &out.join("expected"));
    let large = start(&authority, &LARGE, &out.join("expected-large"));
    let without_model = start(&authority, &[], &out.join("expected-nothing"));
    let good = Variant { endpoint: small.endpoint(), ca: authority.pem(), key: "localMinIO", changes: json!({}) };
    let variants = [
        ("good", good.clone()),
        ("large", Variant { endpoint: large.endpoint(), ..good.clone() }),
        ("wrong-ca", Variant { ca: stranger.pem(), ..good.clone() }),
        ("no-credentials", good.with(json!({ "access_key_id": null, "secret_access_key": null }))),
        ("half-a-key-pair", good.with(json!({ "secret_access_key": null }))),
        ("wrong-secret", good.with(json!({ "secret_access_key": "not-the-one" }))),
        ("another-entry", Variant { key: "localMinio", ..good.clone() }),
        ("no-model", Variant { endpoint: without_model.endpoint(), ..good.clone() }),
    ];
    for (name, variant) in &variants {
        variant.write(&manifests, &out.join(name));
    }
    // What needs no Secret: `podman run --env-file`, with the CA's file mounted at /ca.
    for (name, endpoint) in [("small.env", small.endpoint()), ("large.env", large.endpoint())] {
        let (key_id, secret) = KEY_PAIR;
        let variables = format!(
            "AWS_ENDPOINT_URL={endpoint}\nAWS_ACCESS_KEY_ID={key_id}\nAWS_SECRET_ACCESS_KEY={secret}\n\
             AWS_REGION=us-east-1\nAWS_CA_BUNDLE=/ca/ca.pem\n"
        );
        fs::write(out.join(name), variables).expect("write the variables");
    }
    fs::create_dir_all(out.join("ca")).expect("create the CA's directory");
    fs::write(out.join("ca/ca.pem"), authority.pem()).expect("write the CA");
    println!("ready");
    let mut gate = Gate::new();
    for line in std::io::stdin().lock().lines() {
        let requests = || small.requests().into_iter().chain(large.requests());
        match line.expect("a line of stdin").as_str() {
            "bytes" => {
                let gets = requests().filter(|request| request.operation == Operation::GetObject);
                println!("{}", gets.map(|request| request.bytes_sent).sum::<u64>());
            }
            "requests" => println!("{}", requests().count()),
            "hold" => {
                gate = large.hold_after(HALF_OF_LARGE_BYTES);
                println!("armed");
            }
            "held" => {
                gate.wait_reached(Duration::from_secs(60));
                println!("held");
            }
            "release" => {
                gate.open();
                println!("released");
            }
            other => println!("no such command: {other}"),
        }
    }
}

/// A server with this model at `s3://models/bert`, whose digests go to a file as `sha256sum` prints them in the pod.
fn start(authority: &Authority, model: &[(&str, u64, Option<Checksum>)], expected: &Path) -> S3Server {
    let server = S3Server::builder()
        .identity(authority.issue(LeafSpec::new()).identity())
        .credentials(AccessKey::new(KEY_PAIR.0, KEY_PAIR.1))
        .bucket("models")
        .start();
    let mut digests = String::new();
    for (seed, &(name, size, checksum)) in (1..).zip(model) {
        let mut object = Object::pattern(seed, size);
        if let Some(checksum) = checksum {
            object = object.checksum(checksum);
        }
        digests += &format!("{}  /mnt/models/{name}\n", object.data().sha256_hex());
        server.put("models", &format!("bert/{name}"), object);
    }
    // A sibling that must not be taken for the model.
    server.put("models", "bert-large/config.json", Object::text("not this one"));
    fs::create_dir_all(expected.parent().expect("a path below a directory")).expect("create the directory");
    fs::write(expected, digests).expect("write the digests");
    server
}

/// What differs from the manifests that users copy.
#[derive(Clone)]
struct Variant {
    endpoint: String,
    ca: String,
    /// The entry's name.
    key: &'static str,
    /// Fields of the entry; `null` removes one.
    changes: Value,
}

impl Variant {
    fn with(&self, changes: Value) -> Self {
        Self { changes, ..self.clone() }
    }

    fn write(&self, manifests: &Path, out: &Path) {
        fs::create_dir_all(out).expect("create the variant's directory");
        for name in SECRETS {
            let mut secret = read(&manifests.join(name));
            let examples = secret.as_object_mut().and_then(|secret| secret.remove("stringData"));
            let entries: Map<String, Value> = examples
                .as_ref()
                .and_then(Value::as_object)
                .expect("an example Secret has stringData")
                .iter()
                .map(|(_, entry)| (self.key.to_owned(), self.entry(entry).into()))
                .collect();
            // As the API server keeps it.
            let encoded = entries.iter().map(|(key, entry)| {
                let entry = entry.as_str().unwrap_or_default();
                (key.clone(), Value::from(base64_simd::STANDARD.encode_to_string(entry)))
            });
            secret["data"] = encoded.collect::<Map<_, _>>().into();
            write(&out.join(name), &secret);
            // As podman before 4.4 wants it; see pods.sh.
            secret["data"] = entries.into();
            write(&out.join(name).with_extension("plain.yaml"), &secret);
        }
        let mut configmap = read(&manifests.join(CONFIGMAP));
        configmap["data"]["cabundle.crt"] = self.ca.as_str().into();
        write(&out.join(CONFIGMAP), &configmap);
    }

    /// The example's entry with this store's values in their places.
    fn entry(&self, example: &Value) -> String {
        let mut entry: Map<String, Value> =
            serde_json::from_str(example.as_str().expect("an entry is text")).expect("an entry is JSON");
        let mut set = |field: &str, value: &str| {
            let old = entry.insert(field.to_owned(), value.into());
            assert!(old.is_some(), "the example entry has no {field}");
        };
        set("endpoint_url", &self.endpoint);
        set("access_key_id", KEY_PAIR.0);
        set("secret_access_key", KEY_PAIR.1);
        set("certificate", &self.ca);
        for (field, value) in self.changes.as_object().into_iter().flatten() {
            match value {
                Value::Null => entry.remove(field),
                value => entry.insert(field.clone(), value.clone()),
            };
        }
        Value::from(entry).to_string()
    }
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// JSON is YAML.
fn write(path: &Path, manifest: &Value) {
    fs::write(path, format!("{manifest:#}\n")).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
