//! What is on a volume: every entry, with nothing skipped.
//!
//! A [`Tree`] holds all files with length and SHA-256, and all directories, symlinks and other entries. Hidden entries
//! count: after a successful download there must be none. Two trees are compared with a diff that a person can read.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use aws_lc_rs::digest;

use crate::s3_server::ObjectData;

/// Names that some layer between a bucket and a disk takes for syntax.
pub const ODD_NAMES: [&str; 11] = [
    "with space.txt",
    "a+b.txt",
    "100%.txt",
    "percent%2Fencoded.txt",
    "hash#tag.txt",
    "question?mark=1&x.txt",
    "ünïcödé/模型.bin",
    "quote\"and'.txt",
    "semi;colon,comma.txt",
    "tilde~(paren)!*.txt",
    ".hidden/.file",
];

/// One entry of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// Its length in bytes.
        len: u64,
        /// Its SHA-256 in lower-case hexadecimal.
        sha256: String,
    },
    /// A directory.
    Directory,
    /// A symlink and where it points, not followed.
    Symlink(String),
    /// A socket, a pipe or a device.
    Other,
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::File { len, sha256 } => {
                write!(formatter, "file of {len} bytes, sha256 {sha256}")
            }
            Entry::Directory => write!(formatter, "directory"),
            Entry::Symlink(target) => write!(formatter, "symlink to {target}"),
            Entry::Other => write!(formatter, "neither file, directory nor symlink"),
        }
    }
}

/// The entries of a volume by their path below it, with `/` between the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// An empty tree, to build an expectation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads everything below `root`. A root that does not exist is an empty tree. Panics where it cannot read.
    pub fn read(root: &Path) -> Self {
        let mut tree = Self::new();
        if root.exists() {
            tree.read_below(root, "");
        }
        tree
    }

    fn read_below(&mut self, directory: &Path, prefix: &str) {
        let names = fs::read_dir(directory).unwrap_or_else(|error| panic!("list {}: {error}", directory.display()));
        for name in names {
            let name = name.expect("a directory entry");
            let path = name.path();
            let relative = format!("{prefix}{}", name.file_name().to_string_lossy());
            let kind = name.file_type().expect("the type of a directory entry");
            let entry = if kind.is_dir() {
                self.read_below(&path, &format!("{relative}/"));
                Entry::Directory
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).expect("the target of a symlink");
                Entry::Symlink(target.to_string_lossy().into_owned())
            } else if kind.is_file() {
                read_file(&path)
            } else {
                Entry::Other
            };
            self.entries.insert(relative, entry);
        }
    }

    /// Expects a file with the content of an object, and the directories above it.
    pub fn file(mut self, path: &str, content: &ObjectData) -> Self {
        self.add_parents(path);
        self.entries.insert(path.to_owned(), Entry::File { len: content.len(), sha256: content.sha256_hex() });
        self
    }

    /// Expects a file with these bytes, and the directories above it.
    pub fn bytes(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref().to_vec();
        self.file(path, &ObjectData::Bytes(content.into()))
    }

    /// Expects a directory, and those above it.
    pub fn directory(mut self, path: &str) -> Self {
        self.add_parents(path);
        self.entries.insert(path.to_owned(), Entry::Directory);
        self
    }

    /// Expects a symlink, and the directories above it.
    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        self.add_parents(path);
        self.entries.insert(path.to_owned(), Entry::Symlink(target.to_owned()));
        self
    }

    fn add_parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            self.entries.insert(path[..end].to_owned(), Entry::Directory);
        }
    }

    /// All entries by path.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// The length and SHA-256 of every file.
    pub fn files(&self) -> BTreeMap<&str, (u64, &str)> {
        self.entries
            .iter()
            .filter_map(|(path, entry)| match entry {
                Entry::File { len, sha256 } => Some((path.as_str(), (*len, sha256.as_str()))),
                Entry::Directory | Entry::Symlink(_) | Entry::Other => None,
            })
            .collect()
    }

    /// The paths with a name that begins with a dot somewhere.
    pub fn hidden(&self) -> Vec<&str> {
        let hidden = |path: &&str| path.split('/').any(|name| name.starts_with('.'));
        self.entries.keys().map(String::as_str).filter(hidden).collect()
    }

    /// One line per difference; empty where the trees are equal. `-` is expected and missing, `+` is there and was not
    /// expected.
    pub fn diff(&self, expected: &Tree) -> String {
        let mut lines = String::new();
        for (path, wanted) in &expected.entries {
            match self.entries.get(path) {
                Some(found) if found == wanted => {}
                Some(found) => lines.push_str(&format!("- {path}: {wanted}\n+ {path}: {found}\n")),
                None => lines.push_str(&format!("- {path}: {wanted}\n")),
            }
        }
        for (path, found) in &self.entries {
            if !expected.entries.contains_key(path) {
                lines.push_str(&format!("+ {path}: {found}\n"));
            }
        }
        lines
    }

    /// Panics with the diff where the trees differ.
    #[track_caller]
    pub fn assert_equals(&self, expected: &Tree) {
        let diff = self.diff(expected);
        assert!(diff.is_empty(), "the volume is not as expected:\n{diff}");
    }
}

fn read_file(path: &Path) -> Entry {
    let fail = |error: std::io::Error| -> ! { panic!("read {}: {error}", path.display()) };
    let mut file = File::open(path).unwrap_or_else(|error| fail(error));
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        let count = file.read(&mut buffer).unwrap_or_else(|error| fail(error));
        if count == 0 {
            break;
        }
        context.update(&buffer[..count]);
        len += count as u64;
    }
    let sha256 = crate::s3_server::hex(context.finish().as_ref());
    Entry::File { len, sha256 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read_and_every_difference_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("sub/.partial")).unwrap();
        fs::write(root.join("sub/a"), "alpha").unwrap();
        std::os::unix::fs::symlink("a", root.join("sub/link")).unwrap();
        let tree = Tree::read(root);
        tree.assert_equals(&Tree::new().bytes("sub/a", "alpha").directory("sub/.partial").symlink("sub/link", "a"));
        assert_eq!(tree.hidden(), ["sub/.partial"]);
        let diff = tree.diff(&Tree::new().bytes("sub/a", "beta").bytes("b", ""));
        assert_eq!(diff.lines().count(), 5, "{diff}");
        assert!(diff.starts_with("- b: file of 0 bytes"), "{diff}");
        assert_eq!(Tree::read(&root.join("nothing")), Tree::new());
    }
}
