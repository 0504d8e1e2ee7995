//! A pod in miniature: a store behind a private CA, a place for the mounts, and a model volume.
//!
//! What a test does not say is as good as it can be: the key pair is right, the CA is the server's, the volume is empty.
//! So a test shows the one thing that it is about.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::initializer::{Initializer, Outcome};
use crate::mounted_volume::MountedVolume;
use crate::pki::{Authority, LeafSpec};
use crate::s3_server::{AccessKey, Object, S3Server, S3ServerBuilder};
use crate::tree::Tree;

/// The key pair of every pod's entry.
pub const ACCESS_KEY_ID: &str = "harness-key-id";

/// Its secret, which no output may ever hold.
pub const SECRET_ACCESS_KEY: &str = "harness-secret-7d1f0c";

/// A store with the bucket `models`, and everything that reaches it.
#[derive(Debug)]
pub struct Pod {
    /// The CA that has signed the store's certificate.
    pub authority: Authority,
    /// The store.
    pub server: S3Server,
    scratch: TempDir,
}

impl Default for Pod {
    fn default() -> Self {
        Self::new()
    }
}

impl Pod {
    /// A pod whose key pair may do everything.
    pub fn new() -> Self {
        Self::with(|server| server)
    }

    /// A pod whose store is changed before it starts; a key pair of the same id as the pod's takes its place.
    pub fn with(change: impl FnOnce(S3ServerBuilder) -> S3ServerBuilder) -> Self {
        let authority = Authority::new("Harness Root CA");
        let identity = authority.issue(LeafSpec::new()).identity();
        let server = change(S3Server::builder().identity(identity).bucket("models"));
        // The first key pair of an id is the one that counts.
        let server = server.credentials(AccessKey::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY)).start();
        Self { authority, server, scratch: tempfile::tempdir().expect("a directory for the pod") }
    }

    /// Puts an object into the bucket `models`.
    pub fn put(&self, key: &str, object: Object) {
        self.server.put("models", key, object);
    }

    /// The storage-config entry of ModelMesh's documentation.
    pub fn entry(&self) -> Value {
        json!({
            "type": "s3",
            "access_key_id": ACCESS_KEY_ID,
            "secret_access_key": SECRET_ACCESS_KEY,
            "endpoint_url": self.server.endpoint(),
            "region": "us-east-1",
            "certificate": self.authority.pem(),
        })
    }

    /// The same entry with other fields; `null` removes one.
    pub fn entry_with(&self, changes: Value) -> Value {
        let (Value::Object(mut entry), Value::Object(changes)) = (self.entry(), changes) else {
            panic!("an entry is a JSON object")
        };
        for (field, value) in changes {
            match value {
                Value::Null => entry.remove(&field),
                value => entry.insert(field, value),
            };
        }
        entry.into()
    }

    /// A path of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Mounts a Secret or a ConfigMap and answers where.
    pub fn mount<'a>(&self, name: &str, files: impl IntoIterator<Item = (&'a str, String)>) -> PathBuf {
        let volume = files.into_iter().fold(MountedVolume::new(), |volume, (key, text)| volume.file(key, text));
        volume.create(&self.path(name)).path().to_owned()
    }

    /// The model volume.
    pub fn models(&self) -> PathBuf {
        self.path("models")
    }

    /// What is on the model volume.
    pub fn tree(&self) -> Tree {
        Tree::read(&self.models())
    }

    /// A run without a Secret. What the machine itself trusts stays out of the test.
    pub fn bare(&self) -> Initializer {
        Initializer::new()
            .env("MODEL_DIR", self.models())
            .env("STORAGE_CONFIG_DIR", self.mount("empty-storage-config", []))
            .env("CA_BUNDLE_VOLUME_MOUNT_POINT", self.path("no-ca-configmap"))
            .env("SSL_CERT_DIR", self.path("no-system-roots"))
            .env("SSL_CERT_FILE", self.path("no-system-roots.pem"))
    }

    /// A run with this one entry mounted.
    pub fn with_entry(&self, entry: &Value) -> Initializer {
        self.bare().env("STORAGE_CONFIG_DIR", self.mount("storage-config", [("default", entry.to_string())]))
    }

    /// A run that downloads `source` with the pod's own entry.
    pub fn download(&self, source: &str) -> Initializer {
        self.with_entry(&self.entry()).args([source.as_ref(), self.models().as_os_str()])
    }

    /// How a run ended, without what differs from run to run: for snapshots.
    pub fn message(&self, outcome: &Outcome) -> String {
        self.normalised(outcome.termination_message.as_deref().unwrap_or("no termination message"))
    }

    /// A text without what differs from run to run: paths, ports, dates and fingerprints.
    pub fn normalised(&self, text: &str) -> String {
        let text = text
            .replace(&self.scratch.path().display().to_string(), "/pod")
            .replace(&format!(":{}", self.server.address().port()), ":9000");
        let mut words: Vec<String> = text.split(' ').map(without_chance).collect();
        // "failed 3 times in 1 s": the waits are drawn by lot.
        for index in 2..words.len() {
            if words[index - 2..index] == ["times", "in"] {
                words[index] = "[n]".to_owned();
            }
        }
        words.join(" ")
    }

    /// Panics unless the run failed with this code, said why where Kubernetes looks, and left nothing that looks like a
    /// model file. Answers the message.
    #[track_caller]
    pub fn refused(&self, outcome: &Outcome, code: i32) -> String {
        outcome.assert_exit(code);
        let message = outcome.termination_message.as_deref().unwrap_or_default();
        assert!(!message.is_empty() && outcome.last_line().contains(message), "stderr:\n{}", outcome.stderr);
        assert_nothing_visible(&self.models());
        self.normalised(message)
    }
}

fn without_chance(word: &str) -> String {
    let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let is_fingerprint = core.split(':').count() > 19 && core.split(':').all(|byte| byte.len() == 2);
    let is_date = core.len() == 20 && core.starts_with("20") && core.ends_with('Z');
    let is_request_id = core.starts_with("HARNESS");
    let chance = [(is_fingerprint, "[fingerprint]"), (is_date, "[date]"), (is_request_id, "[id]")];
    match chance.into_iter().find(|(is, _)| *is) {
        Some((_, name)) => word.replace(core, name),
        None => word.to_owned(),
    }
}

/// Panics where a model server would see a file.
#[track_caller]
pub fn assert_nothing_visible(models: &Path) {
    let tree = Tree::read(models);
    let visible: Vec<&str> = tree.files().into_keys().filter(|path| !path.starts_with('.')).collect();
    assert!(visible.is_empty(), "left behind: {visible:?}");
}
