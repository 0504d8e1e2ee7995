//! KServe's package, in one Python process for all cases.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::case::Archive;

/// The process. Dropping it ends it.
pub struct KServe {
    child: Child,
    cases: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl KServe {
    /// Starts it with an interpreter that has `kserve-storage`.
    pub fn start(python: &str) -> Self {
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("differential/kserve.py");
        let mut command = Command::new(python);
        command.arg(driver).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("run {python}: {error}"));
        let cases = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, cases, answers }
    }

    /// An archive as Python packs it.
    pub fn pack(&mut self, archive: &Archive) -> Vec<u8> {
        let entries: Vec<Value> = archive
            .entries
            .iter()
            .map(|entry| json!({"name": entry.name, "kind": entry.kind, "content": entry.content}))
            .collect();
        let answer = self.ask(&json!({"pack": archive.form, "entries": entries}));
        let packed = answer["bytes"].as_str().unwrap();
        let mut bytes = base64_simd::STANDARD.decode_to_vec(packed).unwrap();
        bytes.truncate(bytes.len() - archive.cut_bytes.min(bytes.len()));
        bytes
    }

    /// Runs one case to its end; the error where it failed.
    pub fn run(&mut self, env: &BTreeMap<String, String>, pairs: &[(String, PathBuf)]) -> Result<(), String> {
        let answer = self.ask(&json!({"env": env, "pairs": pairs}));
        if answer["ok"] == true { Ok(()) } else { Err(answer["error"].as_str().unwrap_or_default().to_owned()) }
    }
}

impl KServe {
    fn ask(&mut self, question: &Value) -> Value {
        let cases = self.cases.as_mut().unwrap();
        writeln!(cases, "{question}").and_then(|()| cases.flush()).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("KServe's process gave no answer ({error}): is kserve-storage installed?"))
    }
}

impl Drop for KServe {
    fn drop(&mut self) {
        // Its loop ends with its input.
        drop(self.cases.take());
        let _ = self.child.wait();
    }
}
