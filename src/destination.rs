//! Which file an object becomes.
//!
//! Owns the way from a key to a path below the destination, and promises that a [`RelativePath`] stays below the
//! directory it is joined to, is a name that Linux can hold, and is not one of ours. Refuses whatever is not; nothing
//! is renamed, cut or escaped, for a model server looks for the names that the bucket has. Whether two objects want one
//! file is answered by [`check_collisions`] for the whole plan. Symbolic links that are already on the volume are left
//! to `volume`.
//!
//! The rule is KServe's (`_download_s3`): an exact object becomes its last segment; under a prefix, the path below the
//! prefix is kept, without slashes in front. `a//b` becomes `a/b`, as it does in KServe, where the file system does it.

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The hidden directory in the destination where half-done files live. No object may have it as its first segment.
pub const RESERVED: &str = ".storage-initializer";

/// NAME_MAX: the longest name that ext4, xfs, tmpfs and NFS hold, in bytes.
pub const MAX_SEGMENT_BYTES: usize = 255;

/// PATH_MAX is 4,096 bytes with the final NUL; a quarter of it is left to the destination. S3 keys end at 1,024 bytes,
/// so that only other stores get here.
pub const MAX_PATH_BYTES: usize = 4_095 - 1_024;

/// What the keys of one download are below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// The source is the object itself.
    Object,
    /// The source is everything below this prefix; empty for the whole bucket.
    Prefix(String),
}

impl Root {
    /// The part of the key that becomes the path, and that the filter sees: KServe's `target_key`. Not checked yet.
    /// `None` where the key is not below the prefix: `model2/x` is not below `model`, with or without a slash at its
    /// end.
    pub fn below<'a>(&self, key: &'a str) -> Option<&'a str> {
        match self {
            Root::Object => Some(key.rsplit_once('/').map_or(key, |(_, last)| last)),
            Root::Prefix(prefix) => {
                let rest = key.strip_prefix(prefix.as_str())?;
                let at_segment = prefix.is_empty() || prefix.ends_with('/') || rest.starts_with('/');
                at_segment.then(|| rest.trim_start_matches('/'))
            }
        }
    }
}

/// What an object becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// A file.
    File(RelativePath),
    /// Nothing: its key ends in `/`, so it stands for a directory, whatever its size.
    Marker,
}

/// A key that no file below the destination can have.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// The store answered a listing with a key that was not asked for.
    #[error("the store listed key {key:?}, which is not below prefix {prefix:?}")]
    Outside {
        /// The object's key.
        key: String,
        /// The prefix that was asked for.
        prefix: String,
    },
    /// The path below the prefix is not a path for a file.
    #[error(
        "key {key:?} cannot be a file below the destination: {reason}; rename the object, or exclude it with \
         STORAGE_IGNORE_PATTERNS"
    )]
    Refused {
        /// The object's key.
        key: String,
        /// What is wrong with it. Not a `source`: the message reads better with the reason before the advice.
        reason: PathError,
    },
}

/// Which file the object of this key becomes.
pub fn relative_path(key: &str, root: &Root) -> Result<Mapped, KeyError> {
    let Some(below) = root.below(key) else {
        let prefix = match root {
            Root::Object => String::new(),
            Root::Prefix(prefix) => prefix.clone(),
        };
        return Err(KeyError::Outside { key: key.to_owned(), prefix });
    };
    if key.ends_with('/') {
        return Ok(Mapped::Marker);
    }
    match RelativePath::parse(below) {
        Ok(path) => Ok(Mapped::File(path)),
        Err(reason) => Err(KeyError::Refused { key: key.to_owned(), reason }),
    }
}

/// The path of a file below a directory: one segment or more, none of them empty, `.` or `..`, nothing that Linux
/// refuses. Orders as text does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(Box<str>);

/// Why a text is not a [`RelativePath`].
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// Nothing, or slashes alone.
    #[error("it has no file name")]
    Empty,
    /// A slash in front, which an archive could use to reach anywhere. Keys have theirs dropped before.
    #[error("it begins with a slash")]
    Absolute,
    /// `.` or `..`.
    #[error("its segment {segment:?} would lead elsewhere")]
    DotSegment {
        /// Which of the two.
        segment: String,
    },
    /// A NUL ends a file name.
    #[error("it holds a NUL character")]
    Nul,
    /// A name of more than [`MAX_SEGMENT_BYTES`].
    #[error("its segment {segment:?} has {len_bytes} bytes; a file name has {MAX_SEGMENT_BYTES} at most")]
    SegmentTooLong {
        /// The first 32 characters of the segment.
        segment: String,
        /// Its length in bytes.
        len_bytes: usize,
    },
    /// A path of more than [`MAX_PATH_BYTES`].
    #[error("its path has {len_bytes} bytes; {MAX_PATH_BYTES} are the most")]
    PathTooLong {
        /// Its length in bytes.
        len_bytes: usize,
    },
    /// It would be among our own files.
    #[error("its first segment {RESERVED:?} is the storage initializer's own directory")]
    Reserved,
}

impl RelativePath {
    /// Takes a path with `/` between its segments. Empty segments drop out, as the file system would drop them; a
    /// backslash is a character like any other. Also for the entries of an archive.
    pub fn parse(path: &str) -> Result<RelativePath, PathError> {
        if path.starts_with('/') && path.contains(|c| c != '/') {
            return Err(PathError::Absolute);
        }
        if path.contains('\0') {
            return Err(PathError::Nul);
        }
        for segment in segments(path) {
            check_segment(segment)?;
        }
        let normal = join_segments(path);
        let first = segments(&normal).next().ok_or(PathError::Empty)?;
        if first == RESERVED {
            return Err(PathError::Reserved);
        }
        if normal.len() > MAX_PATH_BYTES {
            return Err(PathError::PathTooLong { len_bytes: normal.len() });
        }
        Ok(RelativePath(normal))
    }

    /// The path with `/` between its segments.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, at least one.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last segment.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The path below `directory`.
    pub fn join_to(&self, directory: &Path) -> PathBuf {
        directory.join(&*self.0)
    }
}

impl AsRef<Path> for RelativePath {
    fn as_ref(&self) -> &Path {
        Path::new(&*self.0)
    }
}

/// Escaped, for a name may hold line breaks and what else a terminal would act on.
impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn check_segment(segment: &str) -> Result<(), PathError> {
    if segment == "." || segment == ".." {
        return Err(PathError::DotSegment { segment: segment.to_owned() });
    }
    if segment.len() > MAX_SEGMENT_BYTES {
        let start = segment.chars().take(32).collect();
        return Err(PathError::SegmentTooLong { segment: start, len_bytes: segment.len() });
    }
    Ok(())
}

/// Without empty segments; most paths have none and are copied as they are.
fn join_segments(path: &str) -> Box<str> {
    if !path.contains("//") && !path.starts_with('/') && !path.ends_with('/') {
        return path.into();
    }
    segments(path).collect::<Vec<_>>().join("/").into()
}

/// Two objects of one plan that cannot both be there.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Collision {
    /// `a/b` and `a//b`.
    #[error(
        "keys {first:?} and {second:?} would both be the file {path}; remove one of the objects, or exclude it with \
         STORAGE_IGNORE_PATTERNS"
    )]
    SameFile {
        /// The key that was listed first.
        first: String,
        /// The other key.
        second: String,
        /// The file.
        path: RelativePath,
    },
    /// `a` and `a/b`: S3 can hold both, a file system cannot.
    #[error(
        "key {file:?} would be a file where key {below:?} needs a directory; remove one of the objects, or exclude it with \
         STORAGE_IGNORE_PATTERNS"
    )]
    FileAndDirectory {
        /// The key of the file.
        file: String,
        /// A key that needs the file to be a directory.
        below: String,
    },
}

/// Refuses a plan in which two keys want one path, or one a file where another one wants a directory. Names the first
/// collision in the order of the paths. Takes one sort; a listing comes almost sorted, so that a million keys take
/// little more than a pass.
pub fn check_collisions<'a>(files: impl IntoIterator<Item = (&'a str, &'a RelativePath)>) -> Result<(), Collision> {
    let mut files: Vec<_> = files.into_iter().collect();
    // Stable: of two equal paths, the key that was listed first stays first.
    files.sort_by(|(_, left), (_, right)| by_tree(left, right));
    for pair in files.windows(2) {
        let [(first_key, first), (second_key, second)] = pair else { continue };
        match second.0.strip_prefix(&*first.0) {
            Some("") => {
                return Err(Collision::SameFile {
                    first: (*first_key).to_owned(),
                    second: (*second_key).to_owned(),
                    path: (*first).clone(),
                });
            }
            Some(rest) if rest.starts_with('/') => {
                return Err(Collision::FileAndDirectory {
                    file: (*first_key).to_owned(),
                    below: (*second_key).to_owned(),
                });
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// The order of a tree: as if `/` came before every other character, so that what is below `a` follows `a` at once,
/// before `a.txt`. That is why [`check_collisions`] needs to look at neighbours only.
fn by_tree(left: &RelativePath, right: &RelativePath) -> Ordering {
    let (left, right) = (left.0.as_bytes(), right.0.as_bytes());
    match left.iter().zip(right).find(|(l, r)| l != r) {
        Some((b'/', _)) => Ordering::Less,
        Some((_, b'/')) => Ordering::Greater,
        Some((l, r)) => l.cmp(r),
        None => left.len().cmp(&right.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(prefix: &str) -> Root {
        Root::Prefix(prefix.to_owned())
    }

    fn file(key: &str, root: &Root) -> String {
        match relative_path(key, root) {
            Ok(Mapped::File(path)) => path.as_str().to_owned(),
            other => panic!("{key:?}: {other:?}"),
        }
    }

    fn collision(keys: &[&str]) -> Result<(), Collision> {
        let paths: Vec<_> = keys.iter().map(|key| RelativePath::parse(key).unwrap()).collect();
        check_collisions(keys.iter().copied().zip(&paths))
    }

    #[test]
    fn an_exact_object_becomes_its_last_segment() {
        assert_eq!(file("models/bert/model.onnx", &Root::Object), "model.onnx");
        assert_eq!(file("model.onnx", &Root::Object), "model.onnx");
        assert_eq!(file("../model.onnx", &Root::Object), "model.onnx");
        assert!(relative_path("models/..", &Root::Object).is_err());
    }

    #[test]
    fn under_a_prefix_the_path_below_it_is_kept() {
        assert_eq!(file("model/1/model.onnx", &prefix("model/")), "1/model.onnx");
        assert_eq!(file("model/1/model.onnx", &prefix("model")), "1/model.onnx");
        assert_eq!(file("model/1/model.onnx", &prefix("")), "model/1/model.onnx");
        assert_eq!(file("..//model/x", &prefix("..//model/")), "x");
    }

    #[test]
    fn slashes_in_front_drop_out_as_in_kserve_and_empty_segments_as_on_a_file_system() {
        assert_eq!(file("model//x", &prefix("model/")), "x");
        assert_eq!(file("/x", &prefix("")), "x");
        assert_eq!(file("model/a///b", &prefix("model/")), "a/b");
    }

    #[test]
    fn what_a_file_name_may_hold_is_kept_as_it_is() {
        for name in
            ["a b", "a\\..\\b", "ä", "模型", "...", "..a", "a..", "-rf", "~", "a\nb", "%2e%2e", ".hidden", "C:x", "*?"]
        {
            assert_eq!(file(&format!("model/{name}"), &prefix("model/")), name);
        }
        assert_eq!(file("model/a/.storage-initializer", &prefix("model/")), "a/.storage-initializer");
        assert_eq!(file("model/.storage-initializer2/x", &prefix("model/")), ".storage-initializer2/x");
    }

    #[test]
    fn a_key_that_ends_in_a_slash_is_a_marker() {
        for key in ["model/", "model/a/", "model/a//", "model/../"] {
            assert_eq!(relative_path(key, &prefix("model/")), Ok(Mapped::Marker));
        }
        assert_eq!(relative_path("model/", &Root::Object), Ok(Mapped::Marker));
    }

    #[test]
    fn a_key_beside_the_prefix_is_not_below_it() {
        assert_eq!(prefix("model").below("model2/x"), None);
        assert_eq!(prefix("model/").below("model"), None);
        assert_eq!(prefix("model").below("model/x"), Some("x"));
        assert!(matches!(relative_path("model2/x", &prefix("model")), Err(KeyError::Outside { .. })));
    }

    #[test]
    fn a_name_of_255_bytes_fits_and_one_of_256_does_not() {
        assert!(RelativePath::parse(&"a".repeat(255)).is_ok());
        assert!(matches!(RelativePath::parse(&"a".repeat(256)), Err(PathError::SegmentTooLong { len_bytes: 256, .. })));
        assert!(matches!(RelativePath::parse(&"ä".repeat(128)), Err(PathError::SegmentTooLong { len_bytes: 256, .. })));
    }

    #[test]
    fn a_path_of_3071_bytes_fits_and_one_of_3072_does_not() {
        let path = "ab/".repeat(1023) + "ab";
        assert_eq!(RelativePath::parse(&path).map(|path| path.as_str().len()), Ok(MAX_PATH_BYTES));
        assert_eq!(RelativePath::parse(&(path + "c")), Err(PathError::PathTooLong { len_bytes: MAX_PATH_BYTES + 1 }));
    }

    #[test]
    fn every_refusal_names_the_key_and_what_to_change() {
        let refusal =
            |below: &str| relative_path(&format!("model/{below}"), &prefix("model/")).unwrap_err().to_string();
        insta::assert_snapshot!(
            ["../x", "a/..", "a/./b", "a\0b", ".storage-initializer/x", "/.storage-initializer", "ä\u{1b}[2J/..", &"x".repeat(300)]
                .map(refusal)
                .join("\n"),
            @r#"
            key "model/../x" cannot be a file below the destination: its segment ".." would lead elsewhere; rename the object, or exclude it with STORAGE_IGNORE_PATTERNS
            key "model/a/.." cannot be a file below the destination: its segment ".." would lead elsewhere; rename the object, or exclude it with STORAGE_IGNORE_PATTERNS
            key "model/a/./b" cannot be a file below the destination: its segment "." would lead elsewhere; rename the object, or exclude it with STORAGE_IGNORE_PATTERNS
            key "model/a\0b" cannot be a file below the destination: it holds a NUL character; rename the object, or exclude it with STORAGE_IGNORE_PATTERNS
            key "model/.storage-initializer/x" cannot be a file below the destination: its first segment ".storage-initializer" is the storage initializer's own directory; rename the object, or exclude it with STORAGE_IGNORE_PATTERNS
            key "model//.storage-initializer" cannot be a file below the destination: its first segment ".storage-initializer" is the storage initializer's own directory; rename the object, or exclude it with STORAGE_IGNORE_PATTERNS
            key "model/ä\u{1b}[2J/.." cannot be a file below the destination: its segment ".." would lead elsewhere; rename the object, or exclude it with STORAGE_IGNORE_PATTERNS
            key "model/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" cannot be a file below the destination: its segment "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" has 300 bytes; a file name has 255 at most; rename the object, or exclude it with STORAGE_IGNORE_PATTERNS
            "#
        );
        insta::assert_snapshot!(relative_path("model2/x", &prefix("model/")).unwrap_err(), @r#"the store listed key "model2/x", which is not below prefix "model/""#);
    }

    #[test]
    fn an_archive_s_absolute_path_is_refused() {
        assert_eq!(RelativePath::parse("/etc/passwd"), Err(PathError::Absolute));
        assert_eq!(RelativePath::parse(""), Err(PathError::Empty));
        assert_eq!(RelativePath::parse("//"), Err(PathError::Empty));
        assert_eq!(RelativePath::parse("a/b/").map(|path| path.as_str().to_owned()), Ok("a/b".to_owned()));
    }

    #[test]
    fn a_path_knows_its_file_name_and_prints_escaped() {
        let path = RelativePath::parse("a/b\nc").unwrap();
        assert_eq!(path.file_name(), "b\nc");
        assert_eq!(path.to_string(), r#""a/b\nc""#);
        assert_eq!(path.join_to(Path::new("/mnt/models")), Path::new("/mnt/models/a/b\nc"));
        assert_eq!(RelativePath::parse("a").unwrap().file_name(), "a");
    }

    #[test]
    fn neighbours_in_a_tree_do_not_collide() {
        assert_eq!(collision(&["a", "a.txt", "a-b/c", "ab/c", "b/a", "b/b", "a b"]), Ok(()));
        assert_eq!(collision(&[]), Ok(()));
    }

    #[test]
    fn a_collision_names_both_keys() {
        let message = |keys: &[&str]| collision(keys).unwrap_err().to_string();
        insta::assert_snapshot!(message(&["a/x", "b/c", "b//c"]), @r#"keys "b/c" and "b//c" would both be the file "b/c"; remove one of the objects, or exclude it with STORAGE_IGNORE_PATTERNS"#);
        insta::assert_snapshot!(message(&["a", "a b", "a-c", "a.txt", "a/b"]), @r#"key "a" would be a file where key "a/b" needs a directory; remove one of the objects, or exclude it with STORAGE_IGNORE_PATTERNS"#);
    }

    #[test]
    fn a_file_deep_below_a_file_is_found_past_its_namesakes() {
        assert!(matches!(
            collision(&["m/a!x", "m/a.x", "m/a", "m/a0", "m/a/b/c/d", "m/a\u{1}"]),
            Err(Collision::FileAndDirectory { file, below }) if file == "m/a" && below == "m/a/b/c/d"
        ));
    }

    proptest! {
        #[test]
        fn an_accepted_key_stays_below_the_destination(key in "model/([a./\\\\\0 ]|\\.\\.|[^\\p{Cc}]){0,12}") {
            for root in [Root::Object, prefix("model/"), prefix("model"), prefix("")] {
                if let Ok(Mapped::File(path)) = relative_path(&key, &root) {
                    let joined = path.join_to(Path::new("/mnt/models"));
                    prop_assert!(joined.starts_with("/mnt/models"));
                    let below: Vec<_> = joined.strip_prefix("/mnt/models").unwrap().components().collect();
                    prop_assert!(!below.is_empty());
                    prop_assert!(below.iter().all(|part| matches!(part, std::path::Component::Normal(_))));
                    prop_assert_eq!(below.len(), path.segments().count());
                    prop_assert!(below[0].as_os_str() != RESERVED);
                    prop_assert!(!path.as_str().contains('\0'));
                }
            }
        }

        #[test]
        fn an_accepted_path_parses_to_itself(path in "[a./]{0,12}") {
            if let Ok(path) = RelativePath::parse(&path) {
                prop_assert_eq!(RelativePath::parse(path.as_str()), Ok(path));
            }
        }

        #[test]
        fn the_neighbours_find_what_a_comparison_of_all_pairs_finds(
            paths in proptest::collection::vec("[ab.!]{1,2}(/[ab.!]{1,2}){0,2}", 0..10),
        ) {
            let paths: Vec<_> = paths.iter().filter_map(|path| RelativePath::parse(path).ok()).collect();
            let collides = |i: usize, j: usize| {
                let (a, b) = (paths[i].as_str(), paths[j].as_str());
                i != j && (a == b || b.starts_with(&format!("{a}/")))
            };
            let any = (0..paths.len()).any(|i| (0..paths.len()).any(|j| collides(i, j)));
            let found = check_collisions(paths.iter().map(|path| (path.as_str(), path)));
            prop_assert_eq!(found.is_err(), any);
        }
    }
}
