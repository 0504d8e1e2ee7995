//! The stage of all cases: one store with and one without TLS, the keys, the files that configurations name.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use storage_initializer_integration::initializer::Initializer;
use storage_initializer_integration::mounted_volume::MountedVolume;
use storage_initializer_integration::pki::{Authority, LeafSpec};
use storage_initializer_integration::s3_server::{AccessKey, Object, ObjectData, S3Server, S3ServerBuilder};
use storage_initializer_integration::tree::{Entry, Tree};
use tempfile::TempDir;

use crate::case::{Case, Content, Endpoint, Keys, Trust};
use crate::kserve::KServe;

/// What an empty object holds for KServe, which drops empty ones: it counts as empty where trees are compared.
pub const STAND_IN: &str = "(stands for nothing)";

/// Two stores of one content.
pub struct Stage {
    authority: Authority,
    tls: S3Server,
    plain: S3Server,
    scratch: TempDir,
    runs: Cell<usize>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    /// The trees by destination, where it succeeded.
    pub tree: Option<Vec<BTreeMap<String, Entry>>>,
    /// The exit code of this program.
    pub code: Option<i32>,
    /// The last words.
    #[allow(dead_code, reason = "it is shown where two runs disagree")]
    pub message: String,
}

impl Ran {
    /// The same success or failure, and the same files.
    pub fn agrees_with(&self, other: &Ran) -> bool {
        self.tree == other.tree
    }
}

impl Stage {
    pub fn new() -> Self {
        let authority = Authority::new("Differential Root CA");
        let identity = authority.issue(LeafSpec::new()).identity();
        let keys = |builder: S3ServerBuilder| {
            builder
                .workers(1)
                .credentials(AccessKey::new("good", "good-secret"))
                .credentials(AccessKey::new("no-list", "no-list-secret").allow_list(false))
                .credentials(AccessKey::new("temporary", "temporary-secret").session_token("temporary-token"))
        };
        let tls = keys(S3Server::builder().identity(identity)).start();
        let plain = keys(S3Server::builder().plain()).start();
        let stage = Self { authority, tls, plain, scratch: tempfile::tempdir().unwrap(), runs: Cell::new(0) };
        let pem = stage.authority.pem();
        std::fs::write(stage.path("ca.pem"), &pem).unwrap();
        let broken = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
        std::fs::write(stage.path("broken.pem"), pem.to_owned() + broken).unwrap();
        MountedVolume::new().file("cabundle.crt", pem).create(&stage.path("ca-configmap"));
        std::fs::create_dir(stage.path("home")).unwrap();
        std::fs::create_dir(stage.path("no-storage-config")).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Runs this program.
    pub fn run_ours(&self, case: &Case, kserve: &mut KServe) -> Ran {
        let pairs = self.put(case, kserve);
        let mut run = Initializer::new();
        for (name, value) in self.environment(case) {
            run = run.env(name, value);
        }
        for (source, destination) in &pairs {
            run = run.arg(source).arg(destination);
        }
        let outcome = run.run();
        let code = outcome.code();
        let message = outcome.termination_message.clone().unwrap_or_default();
        if code != Some(0) {
            let visible: Vec<String> = trees(&pairs).into_iter().flatten().map(|(path, _)| path).collect();
            let visible: Vec<&String> = visible.iter().filter(|path| !path.starts_with('.')).collect();
            assert!(visible.is_empty(), "a run that failed left {visible:?}\n{case:#?}\n{}", outcome.stderr);
        }
        let tree = (code == Some(0)).then(|| trees(&pairs));
        Ran { tree, code, message }
    }

    /// Runs KServe's package.
    pub fn run_kserve(&self, case: &Case, kserve: &mut KServe) -> Ran {
        let pairs = self.put(case, kserve);
        let result = kserve.run(&self.environment(case), &pairs);
        let tree = result.is_ok().then(|| trees(&pairs));
        Ran { tree, code: None, message: result.err().unwrap_or_default() }
    }

    /// Fills the buckets of the case, and answers the pairs.
    fn put(&self, case: &Case, kserve: &mut KServe) -> Vec<(String, PathBuf)> {
        // Each run has buckets of its own: one may hold what another may not see.
        let run = self.runs.replace(self.runs.get() + 1);
        let root = self.path("models");
        let _ = std::fs::remove_dir_all(&root);
        let mut pairs = Vec::new();
        for (number, pair) in case.pairs.iter().enumerate() {
            let bucket = format!("case-{}-run-{run}-{number}", case.number);
            let server = self.server(case);
            server.store().create_bucket(&bucket);
            for (key, content) in &pair.objects {
                server.put(&bucket, key, object(content, kserve));
            }
            pairs.push((format!("s3://{bucket}{}", pair.path), root.join(format!("destination-{}", pair.destination))));
        }
        pairs
    }

    fn server(&self, case: &Case) -> &S3Server {
        if case.plain { &self.plain } else { &self.tls }
    }

    fn environment(&self, case: &Case) -> BTreeMap<String, String> {
        let mut environment: BTreeMap<String, String> = BTreeMap::new();
        let mut set = |name: &str, value: &str| environment.insert(name.to_owned(), value.to_owned());
        // What keeps both away from the machine that the test runs on.
        set("HOME", &self.path("home").to_string_lossy());
        set("AWS_EC2_METADATA_DISABLED", "true");
        // What fails here fails for good, and each of KServe's processes takes its time to start.
        set("S3_MAX_ATTEMPTS", "1");
        set("S3_MAX_FILE_CONCURRENCY", "1");
        set("STORAGE_CONFIG_DIR", &self.path("no-storage-config").to_string_lossy());
        let endpoint = self.server(case).endpoint();
        let endpoint = match case.endpoint {
            Endpoint::Full => endpoint,
            Endpoint::Slash => endpoint + "/",
            Endpoint::Bare => endpoint.replace("https://", ""),
        };
        let (id, secret) = match case.keys {
            Keys::Good => ("good", "good-secret"),
            Keys::WithoutList => ("no-list", "no-list-secret"),
            Keys::WrongSecret => ("good", "another-secret"),
            Keys::Unknown => ("unknown", "unknown-secret"),
            Keys::Temporary => ("temporary", "temporary-secret"),
        };
        let mut entry = json!({"type": "s3"});
        let mut field = |field: &str, variable: &str, value: &str| {
            if case.in_entry {
                entry[field] = value.into();
            } else {
                set(variable, value);
            }
        };
        field("endpoint_url", "AWS_ENDPOINT_URL", &endpoint);
        field("access_key_id", "AWS_ACCESS_KEY_ID", id);
        field("secret_access_key", "AWS_SECRET_ACCESS_KEY", secret);
        field("region", "AWS_DEFAULT_REGION", "us-east-1");
        if case.keys == Keys::Temporary {
            field("session_token", "AWS_SESSION_TOKEN", "temporary-token");
        }
        let file = |name: &str| self.path(name).to_string_lossy().into_owned();
        match case.trust {
            Trust::Variable => set("AWS_CA_BUNDLE", &file("ca.pem")),
            Trust::MissingFile => set("AWS_CA_BUNDLE", &file("no-such-file.pem")),
            Trust::Broken => set("AWS_CA_BUNDLE", &file("broken.pem")),
            Trust::ConfigMap => {
                set("CA_BUNDLE_CONFIGMAP_NAME", "store-ca");
                set("CA_BUNDLE_VOLUME_MOUNT_POINT", &file("ca-configmap"))
            }
            Trust::Entry => {
                entry["ca_bundle"] = file("ca.pem").into();
                None
            }
            Trust::EmptyEntry => {
                entry["ca_bundle"] = "".into();
                None
            }
            Trust::Certificate => {
                entry["certificate"] = self.authority.pem().into();
                None
            }
            Trust::Nothing => None,
        };
        for (name, value) in &case.fields {
            entry[name] = value.clone();
        }
        if case.in_entry {
            set("STORAGE_CONFIG", &entry.to_string());
        } else if !case.fields.is_empty() {
            set("STORAGE_CONFIG", &Value::Object(case.fields.clone()).to_string());
        }
        if !case.overrides.is_empty() {
            set("STORAGE_OVERRIDE_CONFIG", &Value::Object(case.overrides.clone()).to_string());
        }
        for (name, value) in &case.variables {
            set(name, value);
        }
        environment
    }
}

fn object(content: &Content, kserve: &mut KServe) -> Object {
    match content {
        Content::Empty => Object::text(""),
        Content::StandIn => Object::text(STAND_IN),
        Content::Small(seed) => Object::text(&format!("content {seed}")),
        Content::Large(seed) => Object::pattern(*seed, 9 << 20),
        Content::Archive(archive) => Object::bytes(kserve.pack(archive)),
    }
}

/// The files of each destination. Directories are left out: KServe makes those of objects that it does not fetch.
fn trees(pairs: &[(String, PathBuf)]) -> Vec<BTreeMap<String, Entry>> {
    let stand_in = Tree::new().bytes("x", STAND_IN).entries()["x"].clone();
    let nothing = Tree::new().file("x", &ObjectData::Bytes(Vec::new().into())).entries()["x"].clone();
    let files = |tree: Tree| {
        let files = tree.entries().clone().into_iter().filter(|(_, entry)| *entry != Entry::Directory);
        files.map(|(path, entry)| (path, if entry == stand_in { nothing.clone() } else { entry })).collect()
    };
    pairs.iter().map(|(_, destination)| files(Tree::read(destination))).collect()
}
