//! Which files are read: those named, those of a directory, or standard input.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use super::File;

/// Largest manifest that is read, in bytes. The API server takes objects of 3 MiB at most (etcd's
/// request limit), and a file may hold many.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The name of standard input, on the command line and in messages.
const STDIN: &str = "-";

/// Every manifest that was given.
#[derive(Debug)]
pub struct Manifests {
    /// In the order of the command line; those of a directory in the order of their names.
    pub files: Vec<File>,
}

/// Why manifests cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or directory that cannot be read.
    #[error("{path} cannot be read")]
    Unreadable {
        /// Its path, or `-`.
        path: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A directory without manifests.
    #[error("{} holds no .yaml, .yml or .json file", .0.display())]
    NoManifest(PathBuf),
    /// Files that are neither YAML nor JSON, all of them.
    #[error("{}", .0.join("; "))]
    Syntax(Vec<String>),
}

impl Manifests {
    /// Reads files and directories; `-`, or nothing at all, is standard input.
    ///
    /// # Errors
    ///
    /// [`SourceError`]; of files that are no manifests, all at once.
    pub fn read(paths: &[PathBuf]) -> Result<Self, SourceError> {
        let stdin = [PathBuf::from(STDIN)];
        let mut texts = Vec::new();
        for path in if paths.is_empty() { &stdin } else { paths } {
            if path.as_os_str() == STDIN {
                if io::stdin().is_terminal() {
                    tracing::info!("reading manifests from standard input");
                }
                let text = read_bounded(io::stdin().lock()).map_err(|source| unreadable(Path::new(STDIN), source))?;
                texts.push(("standard input".to_owned(), PathBuf::from(STDIN), text));
                continue;
            }
            for (file, relative) in manifests_at(path)? {
                let text = fs::File::open(&file).and_then(read_bounded).map_err(|source| unreadable(&file, source))?;
                texts.push((file.display().to_string(), relative, text));
            }
        }
        let (mut files, mut problems) = (Vec::new(), Vec::new());
        for (name, relative, text) in texts {
            match File::parse(name.clone(), relative, text) {
                Ok(file) => files.push(file),
                Err(error) => problems.push(format!("{name}: {error}")),
            }
        }
        if problems.is_empty() { Ok(Self { files }) } else { Err(SourceError::Syntax(problems)) }
    }
}

fn unreadable(path: &Path, source: io::Error) -> SourceError {
    SourceError::Unreadable { path: path.display().to_string(), source }
}

fn read_bounded(reader: impl io::Read) -> io::Result<String> {
    let mut content = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 64 MiB: that is no manifest"));
    }
    // What PowerShell's `>` writes.
    let is_utf16 = content.starts_with(&[0xff, 0xfe]) || content.starts_with(&[0xfe, 0xff]);
    String::from_utf8(content).map_err(|_| {
        let what = if is_utf16 { "UTF-16 text; convert it: `iconv -f UTF-16 -t UTF-8 FILE`" } else { "not UTF-8 text" };
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// The files that `path` stands for, each with its path below `path`.
fn manifests_at(path: &Path) -> Result<Vec<(PathBuf, PathBuf)>, SourceError> {
    let metadata = fs::metadata(path).map_err(|source| unreadable(path, source))?;
    if !metadata.is_dir() {
        let name = path.file_name().map_or_else(|| path.to_owned(), PathBuf::from);
        return Ok(vec![(path.to_owned(), name)]);
    }
    let mut found = Vec::new();
    collect(path, Path::new(""), &mut found)?;
    if found.is_empty() { Err(SourceError::NoManifest(path.to_owned())) } else { Ok(found) }
}

fn collect(directory: &Path, relative: &Path, found: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), SourceError> {
    let fail = |source| unreadable(directory, source);
    let mut names = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(fail)?;
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let (path, name) = (entry.path(), entry.file_name());
        // `.git`, and the kubelet's `..data`.
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let relative = relative.join(&name);
        // A link to a directory may lead back to where we are; a link to a file is as good as the file.
        let file_type = entry.file_type().map_err(|source| unreadable(&path, source))?;
        if file_type.is_dir() {
            collect(&path, &relative, found)?;
        } else if !path.is_dir()
            && path.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known))
        {
            found.push((path, relative));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_in_the_order_of_its_names_and_only_its_manifests_are() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("b/c")).unwrap();
        fs::create_dir(root.path().join(".git")).unwrap();
        for (name, text) in
            [("z.yml", "a: b"), ("b/c/x.json", "{}"), ("a.yaml", ""), ("README.md", "# {{"), (".git/x.yaml", "{{")]
        {
            fs::write(root.path().join(name), text).unwrap();
        }
        let manifests = Manifests::read(&[root.path().to_owned()]).unwrap();
        let relative: Vec<_> = manifests.files.iter().map(|file| file.relative.display().to_string()).collect();
        assert_eq!(relative, ["a.yaml", "b/c/x.json", "z.yml"]);
    }

    #[test]
    fn a_link_that_leads_back_ends_nowhere_and_utf_16_is_named() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("again")).unwrap();
        fs::write(root.path().join("a.yaml"), "a: b").unwrap();
        std::os::unix::fs::symlink("a.yaml", root.path().join("b.yaml")).unwrap();
        assert_eq!(Manifests::read(&[root.path().to_owned()]).unwrap().files.len(), 2);
        fs::write(root.path().join("c.yaml"), [0xff, 0xfe, b'a', 0]).unwrap();
        let error = Manifests::read(&[root.path().join("c.yaml")]).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("iconv -f UTF-16"), "{cause}");
    }

    #[test]
    fn what_is_missing_is_named_and_so_is_a_directory_without_manifests() {
        let root = tempfile::tempdir().unwrap();
        let missing = Manifests::read(&[root.path().join("none.yaml")]).unwrap_err();
        assert!(missing.to_string().ends_with("none.yaml cannot be read"), "{missing}");
        let empty = Manifests::read(&[root.path().to_owned()]).unwrap_err();
        assert!(matches!(empty, SourceError::NoManifest(_)), "{empty}");
    }

    #[test]
    fn every_file_that_cannot_be_parsed_is_named_at_once() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.yaml"), "a: [").unwrap();
        fs::write(root.path().join("b.json"), "{").unwrap();
        let error = Manifests::read(&[root.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("a.yaml: not valid YAML") && error.contains("b.json: not valid JSON"), "{error}");
    }
}
