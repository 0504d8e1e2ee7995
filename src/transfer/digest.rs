//! `VERIFICATION_DIGEST`: a SHA-256 that somebody has pinned, of one object or of a whole tree.
//!
//! Of one object, named by its exact key, it is the SHA-256 of its bytes. Of anything else it is that of a manifest of
//! the tree: what `sha256sum` prints of all files, sorted by their paths. Whoever has the model can compute it:
//!
//! ```sh
//! find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum
//! ```

use std::{
    fs::File,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::TransferError;
use crate::{
    checksum::{Hash, HashAlgorithm, Hasher},
    destination::RelativePath,
    volume::read_all,
};

/// A file that belongs to what is pinned.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its path in the model.
    pub(super) path: RelativePath,
    /// Where its bytes are now.
    pub(super) at: PathBuf,
}

/// The SHA-256 of the manifest of these files, and that of each, in the order of the paths.
pub(super) fn of_tree(members: Vec<Member>) -> Result<(Hash, Vec<(RelativePath, Hash)>), TransferError> {
    let mut hashes = of_each(members)?;
    hashes.sort_by(|(left, _), (right, _)| left.as_str().cmp(right.as_str()));
    let mut manifest = Hasher::new(HashAlgorithm::Sha256);
    for (path, hash) in &hashes {
        manifest.update(line(path, hash).as_bytes());
    }
    Ok((manifest.finish(), hashes))
}

/// As `sha256sum` writes it, which marks a name that it has to escape with a backslash before the line.
fn line(path: &RelativePath, hash: &Hash) -> String {
    let name = path.as_str();
    if name.contains(['\\', '\n', '\r']) {
        let name = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        return format!("\\{}  {name}\n", hash.hex());
    }
    format!("{}  {name}\n", hash.hex())
}

/// One file per core at a time.
pub(super) fn of_each(members: Vec<Member>) -> Result<Vec<(RelativePath, Hash)>, TransferError> {
    let next = AtomicUsize::new(0);
    let result = Mutex::new(Ok(Vec::with_capacity(members.len())));
    let work = || {
        while let Some(member) = members.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut hasher = Hasher::new(HashAlgorithm::Sha256);
            let read = File::open(&member.at).and_then(|file| read_all(&file, |bytes| hasher.update(bytes)));
            let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
            match (read, &mut *result) {
                (Ok(()), Ok(hashes)) => hashes.push((member.path.clone(), hasher.finish())),
                (Err(source), Ok(_)) => *result = Err(TransferError::Unreadable { path: member.at.clone(), source }),
                (_, Err(_)) => return,
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(members.len());
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    result.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    const NAMES: [&str; 6] = ["weights.bin", "a/b.json", "a.b", "a b", "back\\slash", "Z"];

    fn members(root: &std::path::Path) -> Vec<Member> {
        fs::create_dir(root.join("a")).unwrap();
        let member = |name: &&str| {
            let path = RelativePath::parse(name).unwrap();
            let at = path.join_to(root);
            fs::write(&at, name.repeat(1000)).unwrap();
            Member { path, at }
        };
        NAMES.iter().map(member).collect()
    }

    #[test]
    fn the_digest_of_a_tree_is_what_the_documented_command_prints() {
        let root = tempfile::tempdir().unwrap();
        let members = members(root.path());
        let (digest, hashes) = of_tree(members).unwrap();
        let command = r"find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum";
        let output = Command::new("sh").args(["-c", command]).current_dir(root.path()).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed.split_whitespace().next(), Some(digest.hex().as_str()));
        assert_eq!(hashes.len(), NAMES.len());
    }

    #[test]
    fn a_file_that_has_gone_is_named() {
        let root = tempfile::tempdir().unwrap();
        let mut members = members(root.path());
        fs::remove_file(&members.remove(2).at).unwrap();
        of_tree(members.clone()).unwrap();
        fs::remove_file(&members[0].at).unwrap();
        let error = of_tree(members).unwrap_err().to_string();
        assert!(error.contains("weights.bin"), "{error}");
    }
}
