//! File systems of a test's own, where the user who runs it may mount.
//!
//! Who may not gets `None` and a word about it, and the test ends there: it has shown nothing, and says so.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::initializer::Initializer;

/// A file system, mounted while this lives.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// A tmpfs with these options at `at`, which is made.
    pub fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        Self::at(at, &["-t", "tmpfs", "-o", options, "tmpfs"])
    }

    /// An overlay at `at`, which is made, as a container's own root is one; its layers are in `scratch`.
    pub fn overlay(at: &Path, scratch: &Path) -> Option<Self> {
        let layers = ["lower", "upper", "work"].map(|name| scratch.join(name));
        layers.iter().for_each(|layer| fs::create_dir_all(layer).expect("make a layer"));
        let [lower, upper, work] = layers.map(|layer| layer.display().to_string());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        Self::at(at, &["-t", "overlay", "-o", &options, "overlay"])
    }

    fn at(at: &Path, arguments: &[&str]) -> Option<Self> {
        fs::create_dir_all(at).expect("make a mount point");
        let mut command = Command::new("mount");
        command.args(arguments).arg(at);
        succeeds(&mut command).then(|| {
            // The product's own user may write, where the file system can be written at all.
            let _ = fs::set_permissions(at, Permissions::from_mode(0o755));
            Self(at.to_owned())
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A run that sees other files than the rest of the machine: each `(there, instead)` has the content of `instead` at
/// `there`.
pub fn with_files(run: Initializer, files: &[(&Path, &Path)]) -> Option<Initializer> {
    let mut script = String::new();
    let mut arguments: Vec<&OsStr> = Vec::new();
    for (number, (there, instead)) in files.iter().enumerate() {
        script.push_str(&format!("mount --bind \"${{{}}}\" \"${{{}}}\" && ", 2 * number + 1, 2 * number + 2));
        arguments.extend([instead.as_os_str(), there.as_os_str()]);
    }
    let shell = |then: &str| [OsStr::new("sh").to_owned(), "-c".into(), format!("{script}{then}").into(), "sh".into()];
    let mut probe = Command::new("unshare");
    probe.arg("--mount").args(shell("true")).args(&arguments);
    succeeds(&mut probe).then(|| {
        let words = shell(&format!("shift {} && exec \"$@\"", arguments.len())).into_iter();
        run.under(
            Path::new("unshare"),
            [OsStr::new("--mount").to_owned()]
                .into_iter()
                .chain(words)
                .chain(arguments.iter().map(|argument| (*argument).to_owned())),
        )
    })
}

fn succeeds(command: &mut Command) -> bool {
    match command.output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            println!("skipped: {command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            println!("skipped: {command:?}: {error}");
            false
        }
    }
}
