//! Whether what is on the volume looks like a model: cheap, and on names and first bytes alone.
//!
//! What is found was in the bucket like this: the download is right, and the upload was not. The four mistakes are the
//! ones that otherwise show as a model server's stack trace: a shard that was not uploaded, a file that was cut off while
//! it was, Git LFS pointers instead of weights, and empty weight files.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{self, BufReader, Read},
    marker::PhantomData,
    path::Path,
};

use serde::{
    Deserialize,
    de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor},
};

use crate::{destination::RelativePath, units::ByteSize};

/// How Git LFS' pointer files begin: <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The specification's bound of a pointer file.
const MAX_POINTER_BYTES: u64 = 1024;

/// The bound of a header by the safetensors library.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Endings of files that hold weights, and are never empty.
const WEIGHTS: [&str; 14] =
    ["safetensors", "bin", "pt", "pth", "ckpt", "onnx", "gguf", "h5", "keras", "pb", "tflite", "pkl", "joblib", "bst"];

/// What looks wrong with the files of a model below `root`; each finding is a sentence that names its file. Files that
/// cannot be read are no finding of this module.
pub fn look<'a>(root: &Path, files: impl Iterator<Item = &'a RelativePath>) -> Vec<String> {
    files.filter_map(|file| Some(format!("{file} {}", of_file(root, file)?))).collect()
}

fn of_file(root: &Path, path: &RelativePath) -> Option<String> {
    let at = path.join_to(root);
    let file = File::open(&at).ok()?;
    let size = file.metadata().ok()?.len();
    let ending = path.file_name().rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    let is_weights = ending.as_deref().is_some_and(|ending| WEIGHTS.contains(&ending));
    if size == 0 && is_weights {
        return Some("is empty, and should hold weights; upload it again".to_owned());
    }
    if size <= MAX_POINTER_BYTES && is_lfs_pointer(&file).ok()? {
        return Some(
            "is a Git LFS pointer, and not the file itself; run git lfs pull before the upload, and upload again"
                .to_owned(),
        );
    }
    if ending.as_deref() == Some("safetensors") {
        return safetensors(&file, size);
    }
    if path.file_name().ends_with(".index.json") {
        return missing_shards(&file, at.parent()?);
    }
    None
}

fn is_lfs_pointer(mut file: &File) -> io::Result<bool> {
    let mut bytes = Vec::new();
    file.by_ref().take(LFS_POINTER.len() as u64).read_to_end(&mut bytes)?;
    io::Seek::rewind(&mut file)?;
    Ok(bytes == LFS_POINTER)
}

/// Eight bytes of length, a JSON header, and tensors that end where the file does:
/// <https://huggingface.co/docs/safetensors>.
fn safetensors(mut file: &File, size: u64) -> Option<String> {
    #[derive(Deserialize)]
    struct Tensor {
        data_offsets: Option<(u64, u64)>,
    }
    let mut length = [0; 8];
    if file.read_exact(&mut length).is_err() {
        return Some(format!("is no safetensors file: it has {} only", ByteSize(size)));
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Some("is no safetensors file: the length of its header makes no sense".to_owned());
    }
    let mut data_bytes = 0;
    let header = BufReader::new(file.take(length));
    let read = each_value(header, |tensor: Tensor| {
        data_bytes = data_bytes.max(tensor.data_offsets.map_or(0, |(_, end)| end));
    });
    if let Err(error) = read {
        return Some(format!("is no whole safetensors file: its header cannot be read ({error}); upload it again"));
    }
    let expected = data_bytes.checked_add(8 + length);
    (expected != Some(size)).then(|| {
        let expected = expected.map_or_else(|| "more".to_owned(), |bytes| ByteSize(bytes).to_string());
        format!("has {}, and its safetensors header speaks of {expected}; upload it again", ByteSize(size))
    })
}

/// The index of a model in shards names the file of each tensor: `{"weight_map": {"tensor": "file", ...}}`.
fn missing_shards(file: &File, directory: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Option<Names>,
    }
    // Another program's index is none of our business.
    let index: Index = serde_json::from_reader(BufReader::new(file)).ok()?;
    let names = index.weight_map?.0;
    let missing: Vec<&str> = names.iter().map(String::as_str).filter(|name| !directory.join(name).is_file()).collect();
    let (first, rest) = missing.split_first()?;
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    Some(format!(
        "names {} files, of which {first}{more} are missing; upload them, or look at STORAGE_ALLOW_PATTERNS",
        names.len()
    ))
}

/// The different values of an object, without its keys: an index has a line per tensor.
struct Names(BTreeSet<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut names = BTreeSet::new();
        deserializer.deserialize_map(EachValue(|name| _ = names.insert(name), PhantomData))?;
        Ok(Self(names))
    }
}

/// Hands over the values of a JSON object one by one, so that the memory does not grow with their number.
fn each_value<T: DeserializeOwned>(reader: impl Read, take: impl FnMut(T)) -> serde_json::Result<()> {
    serde_json::Deserializer::from_reader(reader).deserialize_map(EachValue(take, PhantomData))
}

struct EachValue<F, T>(F, PhantomData<T>);

impl<'de, T: DeserializeOwned, F: FnMut(T)> Visitor<'de> for EachValue<F, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while map.next_key::<IgnoredAny>()?.is_some() {
            (self.0)(map.next_value()?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn findings(files: &[(&str, &[u8])]) -> String {
        let root = tempfile::tempdir().unwrap();
        let paths: Vec<_> = files.iter().map(|(name, _)| RelativePath::parse(name).unwrap()).collect();
        for (path, (_, bytes)) in paths.iter().zip(files) {
            let at = path.join_to(root.path());
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, bytes).unwrap();
        }
        look(root.path(), paths.iter()).join("\n")
    }

    fn tensors(header: &str, data_bytes: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 0);
        bytes
    }

    const HEADER: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

    #[test]
    fn a_whole_safetensors_file_is_fine_and_one_that_was_cut_off_is_not() {
        assert_eq!(findings(&[("m/a.safetensors", &tensors(HEADER, 8))]), "");
        insta::assert_snapshot!(findings(&[("m/a.safetensors", &tensors(HEADER, 7))]), @r#""m/a.safetensors" has 100 B, and its safetensors header speaks of 101 B; upload it again"#);
        insta::assert_snapshot!(findings(&[("a.safetensors", &tensors(HEADER, 8)[..40])]), @r#""a.safetensors" is no whole safetensors file: its header cannot be read (EOF while parsing a value at line 1 column 32); upload it again"#);
        insta::assert_snapshot!(findings(&[("a.safetensors", b"<html>Not found</html>")]), @r#""a.safetensors" is no safetensors file: the length of its header makes no sense"#);
        insta::assert_snapshot!(findings(&[("a.safetensors", b"short")]), @r#""a.safetensors" is no safetensors file: it has 5 B only"#);
    }

    #[test]
    fn every_shard_of_an_index_has_to_be_there() {
        let index: &[u8] =
            br#"{"metadata":{"total_size":1},"weight_map":{"a":"1.bin","b":"2.bin","c":"2.bin","d":"3.bin"}}"#;
        let name = "m/pytorch_model.bin.index.json";
        assert_eq!(findings(&[(name, index), ("m/1.bin", b"1"), ("m/2.bin", b"2"), ("m/3.bin", b"3")]), "");
        insta::assert_snapshot!(findings(&[(name, index), ("m/1.bin", b"1")]), @r#""m/pytorch_model.bin.index.json" names 3 files, of which 2.bin and 1 more are missing; upload them, or look at STORAGE_ALLOW_PATTERNS"#);
        assert_eq!(findings(&[("a.index.json", b"[1, 2]"), ("b.index.json", b"{}")]), "");
    }

    #[test]
    fn a_git_lfs_pointer_is_no_weights() {
        let pointer: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
        insta::assert_snapshot!(findings(&[("model.onnx", pointer)]), @r#""model.onnx" is a Git LFS pointer, and not the file itself; run git lfs pull before the upload, and upload again"#);
        assert_eq!(findings(&[("README.md", b"version https://git-lfs.example\n")]), "");
    }

    #[test]
    fn an_empty_file_is_wrong_only_where_weights_belong() {
        insta::assert_snapshot!(findings(&[("model.BIN", b"")]), @r#""model.BIN" is empty, and should hold weights; upload it again"#);
        assert_eq!(findings(&[("__init__.py", b""), ("bin", b"")]), "");
    }
}
