//! A pod and its store: one small model behind TLS, a storage-config entry, a CA ConfigMap, and one run of the binary.
//!
//! Owns what the tests of trust share. Each begins with a server certificate, says what is mounted and pasted, runs,
//! and reads the outcome: the tree and the warnings, or the exit code and the message. System roots are a file with one
//! authority of the harness, so that no test depends on the machine's.
//!
//! Whatever was pasted is looked for in the output of every run: a private key or a line of a PEM there fails the test.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::initializer::{Initializer, Outcome, Running};
use crate::mounted_volume::{Mounted, MountedVolume};
use crate::pki::{Authority, ServerIdentity};
use crate::s3_server::{AccessKey, Object, S3Server, S3ServerBuilder};
use crate::tree::Tree;

/// The model: a file, a file in a directory, an empty one.
const MODEL: [(&str, &str); 3] = [("config.json", "{}"), ("weights/part-1", "a few bytes of weights"), ("empty", "")];

/// Shortest run of base64 letters that is taken for a piece of a key or certificate.
const SECRET_LETTERS: usize = 48;

/// A pod before its init container runs.
#[derive(Debug)]
pub struct Scene {
    server: Option<S3Server>,
    scratch: TempDir,
    entry: BTreeMap<String, Value>,
    environment: Vec<(String, OsString)>,
    pasted: Vec<Vec<u8>>,
    unprivileged: bool,
}

impl Scene {
    /// A store that presents `identity`, and a pod that trusts nobody but one public authority.
    pub fn with_server(identity: ServerIdentity) -> Self {
        Self::with_store(S3Server::builder().identity(identity))
    }

    /// A store without TLS.
    pub fn with_plain_server() -> Self {
        Self::with_store(S3Server::builder().plain())
    }

    /// A store as described, which gets a key and the model.
    pub fn with_store(builder: S3ServerBuilder) -> Self {
        let server = builder.workers(1).credentials(AccessKey::new("someone", "some-secret")).bucket("models").start();
        for (path, text) in MODEL {
            server.put("models", &format!("bert/{path}"), Object::text(text));
        }
        let endpoint = server.endpoint();
        Self::at(Some(server), &endpoint)
    }

    /// A pod in front of an endpoint that is not an [`S3Server`].
    pub fn with_endpoint(endpoint: &str) -> Self {
        Self::at(None, endpoint)
    }

    fn at(server: Option<S3Server>, endpoint: &str) -> Self {
        let scratch = tempfile::tempdir().expect("a directory for the pod's mounts");
        // Another user may have to pass through.
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).expect("open the directory");
        let scene = Self {
            server,
            scratch,
            entry: BTreeMap::new(),
            environment: Vec::new(),
            pasted: Vec::new(),
            unprivileged: false,
        };
        let public = scene.write("public-roots.pem", Authority::new("Some Public Root").pem());
        scene
            .field("type", "s3")
            .field("endpoint_url", endpoint)
            .field("region", "us-east-1")
            .field("access_key_id", "someone")
            .field("secret_access_key", "some-secret")
            .env("SSL_CERT_FILE", public)
    }

    /// The store.
    pub fn server(&self) -> &S3Server {
        self.server.as_ref().expect("this scene has a store of its own")
    }

    /// Sets a field of the entry.
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if let Some(text) = value.as_str() {
            self.pasted.push(text.as_bytes().to_vec());
        }
        self.entry.insert(name.to_owned(), value);
        self
    }

    /// Pastes a text into the entry's `certificate`, where ModelMesh reads it.
    pub fn certificate(self, text: impl Into<String>) -> Self {
        self.field("certificate", text.into())
    }

    /// Mounts a CA ConfigMap with the one key that KServe has for it, and names it in the entry.
    pub fn configmap(self, content: impl AsRef<[u8]>) -> Self {
        self.configmap_of(MountedVolume::new().file("cabundle.crt", content)).field("cabundle_configmap", "store-ca")
    }

    /// Mounts a CA ConfigMap, or a part of one.
    pub fn configmap_of(mut self, volume: MountedVolume) -> Self {
        self.pasted.extend(volume.contents().map(<[u8]>::to_vec));
        self.mount_configmap(volume);
        self
    }

    /// Mounts a CA ConfigMap and hands it out, to be updated.
    pub fn mount_configmap(&self, volume: MountedVolume) -> Mounted {
        volume.create(&self.configmap_path())
    }

    /// Where the CA ConfigMap is mounted, if it is.
    pub fn configmap_path(&self) -> PathBuf {
        self.path("ca")
    }

    /// Puts a file into the pod and the path of it into the entry's `ca_bundle`.
    pub fn ca_bundle(mut self, content: impl AsRef<[u8]>) -> Self {
        self.pasted.push(content.as_ref().to_vec());
        let path = self.write("ca-bundle-file.pem", content);
        let path = path.to_string_lossy().into_owned();
        self.field("ca_bundle", path)
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Removes an environment variable.
    pub fn without_env(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Runs as a user without privileges, as pods do.
    pub fn unprivileged(mut self) -> Self {
        self.unprivileged = true;
        self
    }

    /// A path in the pod.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Writes a file into the pod.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let directory = path.parent().unwrap_or(self.scratch.path());
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&path, content))
            .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        path
    }

    /// Runs the init container to its end.
    #[track_caller]
    pub fn run(&self) -> Run {
        let destination = self.destination();
        self.look_at(self.start(&destination).wait(), &destination)
    }

    /// Starts the init container with a volume of its own.
    pub fn start(&self, destination: &Path) -> Running {
        self.initializer(destination).spawn()
    }

    /// A fresh, empty model volume.
    pub fn destination(&self) -> PathBuf {
        let directory = tempfile::Builder::new().prefix("models-").tempdir_in(self.scratch.path());
        let path = directory.expect("a directory for the model").keep();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("open the model volume");
        path
    }

    /// What a run came to whose volume is `destination`.
    #[track_caller]
    pub fn look_at(&self, outcome: Outcome, destination: &Path) -> Run {
        let run = Run { tree: Tree::read(destination), outcome, scratch: self.scratch.path().to_owned() };
        self.assert_nothing_leaks(&run.outcome);
        run
    }

    fn initializer(&self, destination: &Path) -> Initializer {
        let entry = json!(self.entry).to_string();
        MountedVolume::new().file("localMinIO", entry).create(&self.path("storage-config"));
        let mut initializer = Initializer::new()
            .env("STORAGE_CONFIG_DIR", self.path("storage-config"))
            .env("STORAGE_KEY", "localMinIO")
            .env("CA_BUNDLE_VOLUME_MOUNT_POINT", self.configmap_path())
            .env("LOG_FORMAT", "json")
            .env("LOG_LEVEL", "debug")
            .args(["s3://models/bert".as_ref(), destination.as_os_str()]);
        if self.unprivileged {
            initializer = initializer.unprivileged();
        }
        self.environment.iter().fold(initializer, |initializer, (name, value)| initializer.env(name, value))
    }

    fn assert_nothing_leaks(&self, outcome: &Outcome) {
        let output = format!("{}{}", outcome.stdout, outcome.stderr);
        for pasted in &self.pasted {
            let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
            for run in pasted.split(|byte| !is_base64(byte)).filter(|run| run.len() >= SECRET_LETTERS) {
                let piece = String::from_utf8_lossy(&run[..SECRET_LETTERS]);
                assert!(!output.contains(&*piece), "what was pasted is in the output:\n{output}");
            }
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    outcome: Outcome,
    tree: Tree,
    scratch: PathBuf,
}

impl Run {
    /// The model is in place, and nothing else. Answers the warnings, one per line.
    #[track_caller]
    pub fn succeeds(&self) -> String {
        self.outcome.assert_exit(0);
        let expected = MODEL.iter().fold(Tree::new(), |tree, (path, text)| tree.bytes(path, text));
        self.tree.assert_equals(&expected);
        self.warnings()
    }

    /// The model is in place, and there was nothing to say.
    #[track_caller]
    pub fn succeeds_quietly(&self) {
        let warnings = self.succeeds();
        assert!(warnings.is_empty(), "warned:\n{warnings}");
    }

    /// It failed with this exit code, and no file is on the volume. Answers the message, one clause per line.
    #[track_caller]
    pub fn fails(&self, code: i32) -> String {
        self.outcome.assert_exit(code);
        assert!(self.tree.files().is_empty(), "files on the volume: {:?}", self.tree.files());
        let message = self.outcome.termination_message.as_deref().unwrap_or_default();
        let last: Value = serde_json::from_str(self.outcome.last_line()).unwrap_or_default();
        assert_eq!(last["message"], message, "the last line and the termination message differ");
        assert!(!message.contains('\n'), "more than one line: {message}");
        self.normalized(message).replace("; ", ";\n")
    }

    /// The warnings, one per line, each of which must be there once.
    #[track_caller]
    pub fn warnings(&self) -> String {
        let lines = self.outcome.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let warnings: Vec<String> = lines
            .filter(|line| line["level"] == "WARN")
            .filter_map(|line| Some(self.normalized(line["message"].as_str()?)))
            .collect();
        for (index, warning) in warnings.iter().enumerate() {
            assert!(!warnings[..index].contains(warning), "repeated: {warning}");
        }
        warnings.join("\n")
    }

    /// How many certificates each source held, as the log says.
    pub fn sources(&self) -> String {
        self.field_of("trust store", "certificates")
    }

    /// A field of the first log line with this message.
    pub fn field_of(&self, message: &str, field: &str) -> String {
        let lines = self.outcome.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found =
            lines.filter(|line| line["message"] == message).find_map(|line| Some(line[field].as_str()?.to_owned()));
        self.normalized(&found.unwrap_or_default())
    }

    /// The output and the exit code.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// A text without what differs from run to run: paths, ports, fingerprints and dates.
    pub fn normalized(&self, text: &str) -> String {
        let text = text.replace(&*self.scratch.to_string_lossy(), "[pod]");
        normalize(&text)
    }
}

/// Writes `[port]`, `[sha256]`, `[date]` and `[size]` for what looks like one.
fn normalize(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, word) = shape(rest, &normal);
        if word.is_empty() {
            normal.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            normal.push_str(word);
            rest = &rest[length..];
        }
    }
    normal
}

fn shape(text: &str, before: &str) -> (usize, &'static str) {
    let bytes = text.as_bytes();
    let is_pair = |at: usize| bytes[at..at + 2].iter().all(u8::is_ascii_hexdigit);
    let fingerprint = 32 * 3 - 1;
    if bytes.len() >= fingerprint && (0..32).all(|n| is_pair(n * 3)) && (1..32).all(|n| bytes[n * 3 - 1] == b':') {
        return (fingerprint, "[sha256]");
    }
    // 2026-01-01T00:00:00Z
    let date = 20;
    let like_a_date = |(at, byte): (usize, &u8)| match at {
        4 | 7 => *byte == b'-',
        10 => *byte == b'T',
        13 | 16 => *byte == b':',
        19 => *byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    if bytes.len() >= date && bytes[..date].iter().enumerate().all(like_a_date) {
        return (date, "[date]");
    }
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if before.ends_with(':') && (4..=5).contains(&digits) {
        return (digits, "[port]");
    }
    // An ECDSA signature has 70 to 72 bytes, so no two certificates are of one size.
    if before.ends_with(" of ") && digits > 0 && text[digits..].starts_with(" bytes") {
        return (digits, "[size]");
    }
    (0, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_named_and_the_rest_stays() {
        let pairs = ["AB"; 32].join(":");
        assert_eq!(normalize(&format!("SHA-256 {pairs}, ok")), "SHA-256 [sha256], ok");
        assert_eq!(normalize("cut short: 300 of 402 bytes"), "cut short: 300 of [size] bytes");
        assert_eq!(normalize("until 2026-01-01T00:00:00Z."), "until [date].");
        assert_eq!(normalize("https://localhost:43210/b"), "https://localhost:[port]/b");
        assert_eq!(normalize("block 2 (line 31): 1024 bits"), "block 2 (line 31): 1024 bits");
    }
}
