//! Where the manifests go: one stream, or files.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{Migrated, Migration};
use crate::manifest::Format;

/// Why the output cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The file system's reason.
    #[error("{} cannot be written", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two inputs would become one file.
    #[error("two inputs would become {}; give the directory that holds both, or migrate them one by one", .0.display())]
    Collision(PathBuf),
    /// A ConfigMap's file that is there already, with other content.
    #[error("{} exists and says something else; give it as an input too, so that nothing in it is lost, or remove it", .0.display())]
    Exists(PathBuf),
}

/// Writes to standard output, to its end.
///
/// # Errors
///
/// [`OutputError::Io`] where nobody reads it, for example.
pub fn print(text: &str) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|source| OutputError::Io { path: "standard output".into(), source })
}

impl Migration {
    /// What changes, without values.
    pub fn diff(&self) -> String {
        self.changes.iter().map(ToString::to_string).collect()
    }

    /// All manifests as one stream that `kubectl apply -f -` takes: the ConfigMaps first, so that they are there when an
    /// entry names them.
    pub fn stream(&self) -> String {
        let chunks = self.configmaps.iter().map(|configmap| (configmap.format, configmap.text.as_str()));
        let chunks: Vec<_> =
            chunks.chain(self.files.iter().map(|file| (file.file.format, file.text.as_str()))).collect();
        let is_json = chunks.iter().all(|(format, _)| *format == Format::Json);
        let mut stream = String::new();
        for (_, text) in &chunks {
            // A mark in the middle would be a letter.
            let text = if stream.is_empty() { text } else { text.trim_start_matches('\u{feff}') };
            if !stream.is_empty() {
                if !stream.ends_with('\n') {
                    stream.push('\n');
                }
                stream.push_str(match first_word(text) {
                    _ if is_json => "",
                    // A directive belongs to the document behind it, and only an end may stand before it.
                    Some('%') => "...\n",
                    Some(_) | None if text.starts_with("---") => "",
                    Some(_) | None => "---\n",
                });
            }
            stream.push_str(text);
        }
        stream
    }

    /// Writes each input under its own name, and each new ConfigMap under its, into `directory`, and answers the files
    /// that changed. A file that says the right thing already is not touched, and none is ever half written.
    ///
    /// # Errors
    ///
    /// [`OutputError`]; collisions are found before the first file is written.
    pub fn write(&self, directory: &Path) -> Result<Vec<PathBuf>, OutputError> {
        let mut planned: Vec<(PathBuf, &str)> = Vec::new();
        for configmap in &self.configmaps {
            let ending = if configmap.format == Format::Json { "json" } else { "yaml" };
            let is_only = self.configmaps.iter().filter(|other| other.name == configmap.name).count() == 1;
            let namespace = configmap.namespace.as_ref().filter(|_| !is_only);
            let namespace = namespace.map_or(String::new(), |namespace| format!("{namespace}-"));
            let path = directory.join(format!("configmap-{namespace}{}.{ending}", configmap.name));
            if fs::read(&path).is_ok_and(|there| there != configmap.text.as_bytes()) {
                return Err(OutputError::Exists(path));
            }
            planned.push((path, &configmap.text));
        }
        planned.extend(self.files.iter().map(|file| (directory.join(file_name(file)), file.text.as_str())));
        for (index, (path, _)) in planned.iter().enumerate() {
            if planned.iter().take(index).any(|(other, _)| other == path) {
                return Err(OutputError::Collision(path.clone()));
            }
        }
        let mut written = Vec::new();
        for (path, text) in planned {
            if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
                continue;
            }
            replace(&path, text).map_err(|source| OutputError::Io { path: path.clone(), source })?;
            written.push(path);
        }
        Ok(written)
    }
}

/// The first letter that is neither blank nor in a comment.
fn first_word(text: &str) -> Option<char> {
    let mut lines = text.lines().map(str::trim_start);
    lines.find(|line| !line.is_empty() && !line.starts_with('#')).and_then(|line| line.chars().next())
}

fn file_name(migrated: &Migrated) -> PathBuf {
    match (migrated.file.relative.as_os_str() == "-", migrated.file.format) {
        (true, Format::Yaml) => "stdin.yaml".into(),
        (true, Format::Json) => "stdin.json".into(),
        (false, _) => migrated.file.relative.clone(),
    }
}

/// Writes beside the file and renames. Secrets are for their owner; whoever opened a file to others keeps that.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = directory.join(format!(".{name}.partial"));
    let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial).and_then(
        |mut file| {
            file.write_all(text.as_bytes())?;
            if let Ok(there) = fs::metadata(path) {
                file.set_permissions(there.permissions())?;
            }
            file.sync_all()
        },
    );
    written.and_then(|()| fs::rename(&partial, path)).inspect_err(|_| {
        // What is half written is worth nothing.
        let _ = fs::remove_file(&partial);
    })
}
