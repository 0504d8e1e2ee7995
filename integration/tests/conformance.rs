//! What every S3 server has to show, one suite for all of them.
//!
//! Without further ado the server is the embedded one. `CONFORMANCE_ENDPOINT` and its companions (docs/SERVERS.md has
//! them) name a real one instead, into whose bucket the suite puts objects below a prefix of its own, over the wire, and
//! removes them at the end. What a server cannot do is in [`Abilities`], so that the suite says where it ends, and
//! notices where a newer version can.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::{Value, json};
use storage_initializer_integration::{
    initializer::{Initializer, Outcome},
    mounted_volume::MountedVolume,
    pki::{Authority, LeafSpec},
    pod::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, assert_nothing_visible},
    s3_client::S3Client,
    s3_server::{AccessKey, Checksum, Object, Operation, S3Server},
    tree::{ODD_NAMES, Tree},
};
use tempfile::TempDir;

/// Above what is fetched in one piece.
const LARGE_BYTES: u64 = 40 << 20;

/// What a server can do that another cannot; docs/SERVERS.md has the same as a table.
#[derive(Debug, Clone, Copy)]
struct Abilities {
    name: &'static str,
    /// It refuses a wrong signature.
    signatures: bool,
    /// It answers 412 where `If-Match` does not hold.
    if_match: bool,
    /// It keeps `a//b` apart from `a/b`.
    double_slash: bool,
    /// What a small object is verified by that was uploaded with a CRC-32C, and one without any checksum.
    verified: [&'static str; 2],
}

const SERVERS: [Abilities; 4] = [
    Abilities {
        name: "embedded",
        signatures: true,
        if_match: true,
        double_slash: true,
        verified: ["crc32c", "etag-only"],
    },
    Abilities {
        name: "garage",
        signatures: true,
        if_match: true,
        double_slash: true,
        verified: ["crc32c", "etag-only"],
    },
    Abilities {
        name: "moto",
        signatures: false,
        if_match: true,
        double_slash: true,
        verified: ["crc32c", "etag-only"],
    },
    Abilities {
        name: "minio",
        signatures: true,
        if_match: true,
        double_slash: false,
        verified: ["crc32c", "etag-only"],
    },
];

#[allow(clippy::disallowed_methods, reason = "the ban is for the product, where one module reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn required(name: &str) -> String {
    variable(name).unwrap_or_else(|| panic!("CONFORMANCE_ENDPOINT is set, so {name} has to be; see docs/SERVERS.md"))
}

/// Past the capture of the test harness: this is for whoever reads the log of a run that passed.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "conformance: {text}");
}

/// A server, a prefix in a bucket of it that is this test's own, and a place for the mounts and the model.
struct Scene {
    store: Store,
    abilities: Abilities,
    bucket: String,
    prefix: String,
    entry: Value,
    scratch: TempDir,
}

enum Store {
    Embedded(S3Server),
    Real { client: S3Client, put: Mutex<Vec<String>> },
}

impl Scene {
    fn new() -> Self {
        match variable("CONFORMANCE_ENDPOINT") {
            None => Self::embedded(),
            Some(endpoint) => Self::real(&endpoint, required("CONFORMANCE_BUCKET")),
        }
    }

    /// A bucket that keeps versions; `None` where the real server has none.
    fn versioned() -> Option<Self> {
        let Some(endpoint) = variable("CONFORMANCE_ENDPOINT") else { return Some(Self::embedded()) };
        let bucket = variable("CONFORMANCE_VERSIONED_BUCKET");
        if bucket.is_none() {
            say("LEFT OUT versions: CONFORMANCE_VERSIONED_BUCKET names no bucket");
        }
        Some(Self::real(&endpoint, bucket?))
    }

    fn embedded() -> Self {
        let authority = Authority::new("Conformance Root CA");
        let server = S3Server::builder().identity(authority.issue(LeafSpec::new()).identity());
        let server = server.bucket("models").versioned_bucket("versions");
        let server = server.credentials(AccessKey::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY)).start();
        let entry = entry(&server.endpoint(), &authority.pem(), ACCESS_KEY_ID, SECRET_ACCESS_KEY, "us-east-1");
        Self::of(Store::Embedded(server), "embedded", "models".to_owned(), entry)
    }

    fn real(endpoint: &str, bucket: String) -> Self {
        let ca = fs::read_to_string(required("CONFORMANCE_CA")).unwrap();
        let (id, secret) = (required("CONFORMANCE_ACCESS_KEY_ID"), required("CONFORMANCE_SECRET_ACCESS_KEY"));
        let region = variable("CONFORMANCE_REGION").unwrap_or_else(|| "us-east-1".to_owned());
        let client = S3Client::new(endpoint, &ca, &id, &secret, &region);
        let entry = entry(endpoint, &ca, &id, &secret, &region);
        Self::of(Store::Real { client, put: Mutex::default() }, &required("CONFORMANCE_SERVER"), bucket, entry)
    }

    fn of(store: Store, name: &str, bucket: String, entry: Value) -> Self {
        static SCENES: AtomicU32 = AtomicU32::new(0);
        let known = SERVERS.map(|server| server.name);
        let abilities = SERVERS.into_iter().find(|server| server.name == name);
        let abilities = abilities.unwrap_or_else(|| panic!("CONFORMANCE_SERVER={name} is none of {known:?}"));
        let prefix = format!("conformance-{}-{}", std::process::id(), SCENES.fetch_add(1, Ordering::Relaxed));
        Self { store, abilities, bucket, prefix, entry, scratch: tempfile::tempdir().unwrap() }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    fn put(&self, name: &str, object: &Object) {
        self.put_with(name, object, None);
    }

    fn put_text(&self, name: &str) {
        self.put(name, &Object::text(name));
    }

    fn put_with(&self, name: &str, object: &Object, checksum: Option<Checksum>) {
        let key = self.key(name);
        match &self.store {
            Store::Embedded(server) => {
                let object = Object::new(object.data().clone());
                let object = checksum.into_iter().fold(object, Object::checksum);
                server.put(&self.bucket, &key, object);
            }
            Store::Real { client, put } => {
                client.put(&self.bucket, &key, object.data(), checksum);
                put.lock().unwrap().push(key);
            }
        }
    }

    fn put_in_parts(&self, name: &str, object: &Object, part_bytes: u64) {
        let key = self.key(name);
        match &self.store {
            Store::Embedded(server) => {
                server.put(&self.bucket, &key, object.clone().multipart(part_bytes));
            }
            Store::Real { client, put } => {
                client.put_in_parts(&self.bucket, &key, object.data(), part_bytes);
                put.lock().unwrap().push(key);
            }
        }
    }

    fn remove(&self, name: &str) {
        match &self.store {
            Store::Embedded(server) => server.remove(&self.bucket, &self.key(name)),
            Store::Real { client, .. } => client.delete(&self.bucket, &self.key(name)),
        }
    }

    /// How many GETs of objects the server has answered below this test's prefix; `None` where nobody counts.
    fn gets(&self) -> Option<usize> {
        match &self.store {
            Store::Embedded(server) => Some(server.requests_of(Operation::GetObject).len()),
            Store::Real { .. } => {
                let log = fs::read_to_string(variable("CONFORMANCE_ACCESS_LOG")?).unwrap();
                let get = format!("GET /{}/{}/", self.bucket, self.prefix);
                Some(log.lines().filter(|line| line.contains(&get)).count())
            }
        }
    }

    /// The source URI of a name below this test's prefix.
    fn source(&self, name: &str) -> String {
        format!("s3://{}/{}", self.bucket, self.key(name))
    }

    fn models(&self) -> std::path::PathBuf {
        self.scratch.path().join("models")
    }

    fn report(&self) -> std::path::PathBuf {
        self.scratch.path().join("report.json")
    }

    fn run(&self, source: &str) -> Initializer {
        self.run_as(source, json!({}))
    }

    /// A run whose entry has other fields.
    fn run_as(&self, source: &str, changes: Value) -> Initializer {
        let mut entry = self.entry.clone();
        for (field, value) in changes.as_object().unwrap() {
            entry[field] = value.clone();
        }
        let mount = self.scratch.path().join("storage-config");
        MountedVolume::new().file("default", entry.to_string()).create(&mount);
        Initializer::new()
            .env("STORAGE_CONFIG_DIR", mount)
            .env("CA_BUNDLE_VOLUME_MOUNT_POINT", self.scratch.path().join("no-ca-configmap"))
            .env("TRUST_STORE", "bundle-only")
            .args(["--report".as_ref(), self.report().as_os_str(), source.as_ref(), self.models().as_os_str()])
    }

    #[track_caller]
    fn downloads(&self, source: &str, expected: &Tree) -> Outcome {
        let outcome = self.run(source).run();
        outcome.assert_exit(0);
        Tree::read(&self.models()).assert_equals(expected);
        outcome
    }

    #[track_caller]
    fn refuses(&self, run: Initializer, code: i32, words: &str) {
        let outcome = run.run();
        outcome.assert_exit(code);
        assert!(outcome.last_line().contains(words), "{words:?} is not in: {}", outcome.last_line());
        assert!(!outcome.stderr.contains(self.entry["secret_access_key"].as_str().unwrap()), "a secret was told");
        assert_nothing_visible(&self.models());
    }

    /// A field of each file in the last run's report, by path.
    fn reported(&self, field: &str) -> BTreeMap<String, String> {
        let report: Value = serde_json::from_slice(&fs::read(self.report()).unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        report["files"].as_array().unwrap().iter().map(|file| (text(&file["path"]), text(&file[field]))).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let Store::Real { client, put } = &self.store else { return };
        // A test that has failed already has said more than a failure here would.
        if !std::thread::panicking() {
            in_parallel(&put.lock().unwrap(), |key| client.delete(&self.bucket, key));
        }
    }
}

fn entry(endpoint: &str, ca: &str, id: &str, secret: &str, region: &str) -> Value {
    json!({
        "type": "s3",
        "access_key_id": id,
        "secret_access_key": secret,
        "endpoint_url": endpoint,
        "region": region,
        "certificate": ca,
    })
}

/// A thousand requests one after the other would take a server's latency a thousand times.
fn in_parallel<T: Sync>(items: &[T], each: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for chunk in items.chunks(items.len().div_ceil(4).max(1)) {
            scope.spawn(|| chunk.iter().for_each(&each));
        }
    });
}

/// Files whose content is the name that they were put by.
fn files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Tree {
    files.into_iter().fold(Tree::new(), |tree, (path, name)| tree.bytes(path, name))
}

#[test]
fn the_log_says_which_server_this_was() {
    match variable("CONFORMANCE_ENDPOINT") {
        Some(endpoint) => say(&format!("against {} at {endpoint}", required("CONFORMANCE_SERVER"))),
        None => say(
            "against the embedded server; LEFT OUT real ones: CONFORMANCE_ENDPOINT names none; integration/servers.sh starts \
             moto and Garage and runs this against them",
        ),
    }
}

#[test]
fn an_exact_object_arrives_alone() {
    let scene = Scene::new();
    scene.put_text("bert/model.onnx");
    scene.put_text("bert/model.onnx.bak");
    scene.downloads(&scene.source("bert/model.onnx"), &files([("model.onnx", "bert/model.onnx")]));
}

#[test]
fn a_prefix_arrives_without_its_siblings_and_its_markers_and_with_its_empty_files() {
    let scene = Scene::new();
    for name in ["model/config.json", "model/sub/x", "model2/other", "model-v2", "modelling/x"] {
        scene.put_text(name);
    }
    for name in ["model/", "model/sub/", "model/empty"] {
        scene.put(name, &Object::text(""));
    }
    let expected = files([("config.json", "model/config.json"), ("sub/x", "model/sub/x")]).bytes("empty", "");
    for spelling in ["model", "model/"] {
        scene.downloads(&scene.source(spelling), &expected);
        fs::remove_dir_all(scene.models()).unwrap();
    }
}

#[test]
fn a_whole_bucket_arrives_with_its_prefixes() {
    let scene = Scene::new();
    scene.put_text("config.json");
    scene.put_text("sub/x");
    let expected = files([(scene.key("config.json").as_str(), "config.json"), (scene.key("sub/x").as_str(), "sub/x")]);
    // A real server's bucket has what other tests put there at the same time.
    let run = scene.run(&format!("s3://{}", scene.bucket)).env("STORAGE_ALLOW_PATTERNS", scene.key("*"));
    run.run().assert_exit(0);
    Tree::read(&scene.models()).assert_equals(&expected);
}

#[test]
fn names_that_look_like_syntax_arrive_as_they_are() {
    let scene = Scene::new();
    for name in ODD_NAMES {
        scene.put_text(&format!("m/{name}"));
    }
    let names = ODD_NAMES.map(|name| (name, format!("m/{name}")));
    scene.downloads(&scene.source("m"), &files(names.iter().map(|(path, name)| (*path, name.as_str()))));
    for (name, put) in &names {
        fs::remove_dir_all(scene.models()).unwrap();
        let last = name.rsplit('/').next().unwrap();
        scene.downloads(&scene.source(put), &files([(last, put.as_str())]));
    }
}

#[test]
fn an_empty_segment_is_part_of_the_key() {
    let scene = Scene::new();
    if !scene.abilities.double_slash {
        return say(&format!("LEFT OUT keys with //: {} has none", scene.abilities.name));
    }
    scene.put_text("m/a//b.txt");
    scene.refuses(scene.run(&scene.source("m/a/b.txt")), 66, "nothing found");
    scene.downloads(&scene.source("m"), &files([("a/b.txt", "m/a//b.txt")]));
}

#[test]
fn more_keys_than_a_page_holds_arrive() {
    let scene = Scene::new();
    let names: Vec<String> = (0..1050).map(|number| format!("m/{:02}/{number:04}", number % 40)).collect();
    in_parallel(&names, |name| scene.put_text(name));
    scene.put_text("m2/other");
    let expected = files(names.iter().map(|name| (name.strip_prefix("m/").unwrap(), name.as_str())));
    scene.downloads(&scene.source("m"), &expected);
}

#[test]
fn a_large_object_that_was_uploaded_in_parts_arrives_byte_for_byte() {
    let scene = Scene::new();
    let object = Object::pattern(7, LARGE_BYTES);
    scene.put_in_parts("m/weights.bin", &object, 8 << 20);
    scene.put_text("m/config.json");
    let expected = files([("config.json", "m/config.json")]).file("weights.bin", object.data());
    scene.downloads(&scene.source("m"), &expected);
    if let Some(gets) = scene.gets() {
        assert!(gets > 2, "in one piece: {gets} requests for two objects");
    }
}

#[test]
fn content_is_compared_with_the_checksum_that_the_server_keeps() {
    let scene = Scene::new();
    scene.put_with("m/with", &Object::text("with"), Some(Checksum::Crc32c));
    scene.put("m/without", &Object::text("without"));
    scene.put_in_parts("m/large", &Object::pattern(3, LARGE_BYTES), 16 << 20);
    scene.run(&scene.source("m")).run().assert_exit(0);
    let verified = scene.reported("verified");
    assert_eq!([&*verified["with"], &*verified["without"]], scene.abilities.verified);
    assert!(!verified["large"].is_empty());
}

#[test]
fn a_condition_that_does_not_hold_is_refused() {
    let scene = Scene::new();
    scene.put_text("x");
    let key = scene.key("x");
    let (id, secret) = (&scene.entry["access_key_id"], &scene.entry["secret_access_key"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let [endpoint, ca, region] = ["endpoint_url", "certificate", "region"].map(|field| text(&scene.entry[field]));
    let client = S3Client::new(&endpoint, &ca, &text(id), &text(secret), &region);
    let whole = client.get(&scene.bucket, &key, &[]);
    assert_eq!((whole.status.as_u16(), whole.text().as_str()), (200, "x"));
    let same = client.get(&scene.bucket, &key, &[("if-match", whole.header("etag"))]);
    assert_eq!((same.status.as_u16(), same.text().as_str()), (200, "x"));
    let other = client.get(&scene.bucket, &key, &[("if-match", "\"00000000000000000000000000000000\"")]);
    assert_eq!(other.status == 412, scene.abilities.if_match, "{}", other.status);
}

#[test]
fn what_is_not_there_is_not_found() {
    let scene = Scene::new();
    scene.put_text("bert/model.onnx");
    scene.refuses(scene.run(&scene.source("bart")), 66, "bert/");
    scene.refuses(scene.run(&scene.source("bert/model.bin")), 66, "nothing found");
    scene.refuses(scene.run("s3://no-such-bucket-of-this-suite/bert"), 66, "no-such-bucket-of-this-suite");
    scene.downloads(&scene.source("bert"), &files([("model.onnx", "bert/model.onnx")]));
}

#[test]
fn a_wrong_secret_is_denied() {
    let scene = Scene::new();
    if !scene.abilities.signatures && variable("CONFORMANCE_SIGNATURES").is_none() {
        return say(&format!("LEFT OUT a wrong secret: {} was not started to check signatures", scene.abilities.name));
    }
    scene.put_text("bert/model.onnx");
    let wrong = json!({"secret_access_key": "not-the-secret-of-this-key-pair"});
    for source in ["bert", "bert/model.onnx"] {
        scene.refuses(scene.run_as(&scene.source(source), wrong.clone()), 77, "secret access key");
    }
    scene.downloads(&scene.source("bert/model.onnx"), &files([("model.onnx", "bert/model.onnx")]));
}

#[test]
fn a_wrong_ca_is_refused() {
    let scene = Scene::new();
    scene.put_text("bert/model.onnx");
    let other = json!({"certificate": Authority::new("Another Root CA").pem()});
    scene.refuses(scene.run_as(&scene.source("bert"), other), 76, "certificate");
    scene.downloads(&scene.source("bert"), &files([("model.onnx", "bert/model.onnx")]));
}

#[test]
fn a_restart_moves_no_byte_and_fetches_what_was_replaced_at_the_same_size() {
    let scene = Scene::new();
    for name in ["m/a", "m/b", "m/sub/c"] {
        scene.put_text(name);
    }
    let expected = files([("a", "m/a"), ("b", "m/b"), ("sub/c", "m/sub/c")]);
    scene.downloads(&scene.source("m"), &expected);
    let outcome = scene.downloads(&scene.source("m"), &expected);
    assert!(outcome.last_line().contains("unchanged"), "{}", outcome.last_line());
    let kept = |path: &str| (path.to_owned(), "kept".to_owned());
    assert_eq!(scene.reported("arrival"), BTreeMap::from(["a", "b", "sub/c"].map(kept)));
    // A log may lag behind, and so be short of lines; it has none too many.
    if let Some(gets) = scene.gets() {
        assert!(gets <= 3, "{gets} requests for three objects");
    }

    scene.put("m/b", &Object::text("M/B"));
    scene.downloads(&scene.source("m"), &files([("a", "m/a"), ("sub/c", "m/sub/c")]).bytes("b", "M/B"));
    assert_eq!(scene.reported("arrival")["b"], "fetched");
    assert_eq!(scene.reported("arrival")["a"], "kept");
}

#[test]
fn a_versioned_bucket_gives_the_newest_version_and_no_deleted_object() {
    let Some(mut scene) = Scene::versioned() else { return };
    if let Store::Embedded(_) = scene.store {
        scene.bucket = "versions".to_owned();
    }
    scene.put("m/weights.bin", &Object::pattern(1, LARGE_BYTES));
    let newest = Object::pattern(2, LARGE_BYTES);
    scene.put("m/weights.bin", &newest);
    scene.put_text("m/a");
    scene.put_text("m/gone");
    scene.remove("m/gone");
    scene.downloads(&scene.source("m"), &files([("a", "m/a")]).file("weights.bin", newest.data()));
    let scene_of_the_deleted = scene.source("m/gone");
    fs::remove_dir_all(scene.models()).unwrap();
    scene.refuses(scene.run(&scene_of_the_deleted), 66, "nothing found");
}
