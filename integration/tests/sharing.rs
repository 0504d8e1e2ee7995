//! Many machines download one model through the cache of docs/SHARING.md, whose configuration is used here as it is.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use std::{collections::BTreeMap, io::Write as _, path::Path};

use serde_json::{Value, json};
use storage_initializer_integration::{
    initializer::{Initializer, Outcome},
    nginx::Nginx,
    pki::LeafSpec,
    pod::{ACCESS_KEY_ID, Pod, SECRET_ACCESS_KEY},
    s3_client::S3Client,
    s3_server::{Checksum, Object, Operation},
    tree::Tree,
};

/// How many init containers start at the same time.
const MACHINES: usize = 4;

/// Fetched in ranges, and no multiple of the cache's slices.
const LARGE_BYTES: u64 = (70 << 20) + 12_345;

/// Fetched in one piece, and longer than a slice.
const MIDDLE_BYTES: u64 = 20 << 20;

struct Scene {
    pod: Pod,
    cache: Nginx,
}

impl Scene {
    fn new() -> Option<Self> {
        let pod = Pod::new();
        for (name, object) in model() {
            pod.put(&format!("m/{name}"), object);
        }
        let leaf = pod.authority.issue(LeafSpec::new());
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("sharing/nginx.conf");
        let cache = Nginx::start(
            &config,
            &[
                ("listen.conf", "listen 127.0.0.1:[port] ssl; ssl_certificate tls.crt; ssl_certificate_key tls.key;"),
                ("store.conf", &format!("server {};", pod.server.address())),
                ("store-name.conf", "proxy_ssl_name localhost;"),
                ("tls.crt", &leaf.chain_pem()),
                ("tls.key", &leaf.key_pem()),
                ("store-ca.crt", &pod.authority.pem()),
            ],
        );
        if cache.is_none() {
            let why = "sharing: LEFT OUT the cache: there is no nginx here (Debian: apt-get install nginx-light)";
            let _ = writeln!(std::io::stderr(), "{why}");
        }
        Some(Self { pod, cache: cache? })
    }

    fn machine(&self, number: usize) -> std::path::PathBuf {
        self.pod.path(&format!("machine-{number}"))
    }

    /// A run of one machine by way of the cache, whose entry has other fields.
    fn run(&self, number: usize, changes: Value) -> Initializer {
        let mut entry =
            self.pod.entry_with(json!({"endpoint_url": format!("https://localhost:{}", self.cache.port())}));
        for (field, value) in changes.as_object().unwrap() {
            entry[field] = value.clone();
        }
        let mount = self.pod.mount(&format!("storage-config-{number}"), [("default", entry.to_string())]);
        let models = self.machine(number);
        self.pod.bare().env("STORAGE_CONFIG_DIR", mount).args(["s3://models/m".as_ref(), models.as_os_str()])
    }

    /// All machines at once.
    #[track_caller]
    fn run_all(&self, expected: &Tree) -> Vec<Outcome> {
        let running: Vec<_> = (0..MACHINES).map(|number| self.run(number, json!({})).spawn()).collect();
        let outcomes: Vec<Outcome> = running.into_iter().map(|running| running.wait()).collect();
        for (number, outcome) in outcomes.iter().enumerate() {
            outcome.assert_exit(0);
            Tree::read(&self.machine(number)).assert_equals(expected);
        }
        outcomes
    }

    /// How many bytes of each object the store has sent, and how many GETs it has answered.
    fn sent(&self) -> BTreeMap<String, (u64, usize)> {
        let mut sent = BTreeMap::new();
        for get in self.pod.server.requests_of(Operation::GetObject) {
            let of_key: &mut (u64, usize) = sent.entry(get.key.unwrap()).or_default();
            *of_key = (of_key.0 + get.bytes_sent, of_key.1 + 1);
        }
        sent
    }
}

fn model() -> [(&'static str, Object); 4] {
    [
        ("config.json", Object::text("{}").checksum(Checksum::Crc64Nvme)),
        ("sub/tokenizer with space+.json", Object::text("tokens").checksum(Checksum::Crc64Nvme)),
        ("middle.bin", Object::pattern(1, MIDDLE_BYTES).checksum(Checksum::Crc32c)),
        ("large.bin", Object::pattern(2, LARGE_BYTES).checksum(Checksum::Crc64Nvme)),
    ]
}

fn tree() -> Tree {
    model().iter().fold(Tree::new(), |tree, (name, object)| tree.file(name, object.data()))
}

#[test]
fn so_many_machines_fetch_each_object_once() {
    let Some(scene) = Scene::new() else { return };
    let outcomes = scene.run_all(&tree());
    let slices = LARGE_BYTES.div_ceil(8 << 20) as usize;
    let once = BTreeMap::from([
        ("m/config.json".to_owned(), (2, 1)),
        ("m/sub/tokenizer with space+.json".to_owned(), (6, 1)),
        ("m/middle.bin".to_owned(), (MIDDLE_BYTES, 1)),
        ("m/large.bin".to_owned(), (LARGE_BYTES, slices)),
    ]);
    assert_eq!(scene.sent(), once);
    for outcome in outcomes {
        // The store's checksums come through the cache.
        assert!(!outcome.last_line().contains("etag-only"), "{}", outcome.last_line());
    }
}

#[test]
fn without_the_cache_each_machine_fetches_each_object() {
    let Some(scene) = Scene::new() else { return };
    let direct = json!({"endpoint_url": scene.pod.server.endpoint()});
    for number in 0..2 {
        scene.run(number, direct.clone()).run().assert_exit(0);
    }
    assert_eq!(scene.sent()["m/middle.bin"], (2 * MIDDLE_BYTES, 2));
}

#[test]
fn an_object_that_was_replaced_is_fetched_once_more() {
    let Some(scene) = Scene::new() else { return };
    scene.run_all(&tree());
    // Of the same size, and within the same second or not: the ETag is another one.
    let newer = Object::pattern(3, LARGE_BYTES);
    scene.pod.put("m/large.bin", newer.clone());
    scene.pod.put("m/config.json", Object::text("[]"));
    scene.pod.server.forget_requests();
    scene.run_all(&tree().file("large.bin", newer.data()).bytes("config.json", "[]"));
    let sent = scene.sent();
    assert_eq!(sent.keys().collect::<Vec<_>>(), ["m/config.json", "m/large.bin"]);
    assert_eq!((sent["m/config.json"].0, sent["m/large.bin"].0), (2, LARGE_BYTES));
}

#[test]
fn who_has_no_key_of_the_store_gets_nothing_from_the_cache() {
    let Some(scene) = Scene::new() else { return };
    scene.run_all(&tree());
    let outcome = scene.run(MACHINES, json!({"secret_access_key": "another"})).run();
    outcome.assert_exit(77);
    assert!(Tree::read(&scene.machine(MACHINES)).files().is_empty());
}

#[test]
fn a_client_that_signs_its_range_is_refused_where_a_slice_is_another_one() {
    let Some(scene) = Scene::new() else { return };
    let endpoint = format!("https://localhost:{}", scene.cache.port());
    let ca = scene.pod.authority.pem();
    let client = S3Client::new(&endpoint, &ca, ACCESS_KEY_ID, SECRET_ACCESS_KEY, "us-east-1");
    let etag = scene.pod.server.store().etag("models", "m/large.bin").unwrap();
    let get = |headers: &[(&str, &str)]| client.get("models", "m/large.bin", headers).status.as_u16();
    assert_eq!(get(&[("if-match", &etag), ("range", "bytes=0-9")]), 403);
    // As long as the first slice is, and what is of no known state: that is not cut.
    assert_eq!(get(&[("if-match", &etag), ("range", "bytes=0-8388607")]), 206);
    assert_eq!(get(&[("range", "bytes=0-9")]), 206);
}
