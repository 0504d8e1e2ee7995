//! A ConfigMap or Secret volume as the kubelet lays it out.
//!
//! The files are in a directory named after the moment they were written, `..data` points to that directory, and each
//! key is a symlink through `..data`. An update writes a new directory, swaps `..data` by a rename, and only then
//! removes the old directory, so a reader that resolved `..data` before may find its files gone:
//! <https://github.com/kubernetes/kubernetes/blob/master/pkg/volume/util/atomic_writer.go>.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

/// The files of a volume, before it is mounted.
#[derive(Debug, Clone)]
pub struct MountedVolume {
    files: BTreeMap<String, Vec<u8>>,
    mode: u32,
}

impl Default for MountedVolume {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            // The kubelet's `defaultMode`.
            mode: 0o644,
        }
    }
}

impl MountedVolume {
    /// A volume without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key and its content.
    pub fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.insert(name.to_owned(), content.as_ref().to_vec());
        self
    }

    /// What the keys hold.
    pub fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.files.values().map(Vec::as_slice)
    }

    /// Sets the mode of the files, as `defaultMode` does.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Mounts it at `path`, which is made if it is not there.
    pub fn create(self, path: &Path) -> Mounted {
        let mounted = Mounted { path: path.to_owned() };
        fs::create_dir_all(path)
            .and_then(|()| mounted.publish(&self))
            .unwrap_or_else(|error| panic!("mount a volume at {}: {error}", path.display()));
        mounted
    }
}

/// A mounted volume. It stays where it is when this is dropped: the directory is the test's.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
}

impl Mounted {
    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that `..data` points to just now.
    pub fn data_directory(&self) -> PathBuf {
        let name = fs::read_link(self.path.join("..data")).expect("a mounted volume has ..data");
        self.path.join(name)
    }

    /// Replaces the whole content as the kubelet does after the ConfigMap was edited.
    pub fn update(&self, volume: MountedVolume) {
        self.publish(&volume).unwrap_or_else(|error| panic!("update the volume at {}: {error}", self.path.display()));
    }

    fn publish(&self, volume: &MountedVolume) -> io::Result<()> {
        let old = fs::read_link(self.path.join("..data")).ok();
        let name = self.fresh_name();
        let directory = self.path.join(&name);
        fs::create_dir(&directory)?;
        for (file, content) in &volume.files {
            let target = directory.join(file);
            fs::write(&target, content)?;
            fs::set_permissions(&target, Permissions::from_mode(volume.mode))?;
        }
        let swap = self.path.join("..data_tmp");
        symlink(&name, &swap)?;
        fs::rename(&swap, self.path.join("..data"))?;
        for file in volume.files.keys() {
            let link = self.path.join(file);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(file), link)?;
            }
        }
        self.remove_stale_links(volume)?;
        match old {
            Some(old) => fs::remove_dir_all(self.path.join(old)),
            None => Ok(()),
        }
    }

    fn remove_stale_links(&self, volume: &MountedVolume) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("..") && !volume.files.contains_key(&name) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// `..2026_01_01_00_00_00.123456789`: two dots, the second of writing, and a number that makes it unique.
    fn fresh_name(&self) -> String {
        let now = OffsetDateTime::now_utc();
        let second = format!(
            "..{:04}_{:02}_{:02}_{:02}_{:02}_{:02}",
            now.year(),
            u8::from(now.month()),
            now.day(),
            now.hour(),
            now.minute(),
            now.second()
        );
        (u64::from(now.nanosecond())..)
            .map(|number| format!("{second}.{number:09}"))
            .find(|name| !self.path.join(name).exists())
            .expect("some number is free")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_links_through_data_and_an_update_swaps_them_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("certs");
        let mounted = MountedVolume::new().file("cabundle.crt", "old").file("gone.crt", "x").create(&path);
        assert_eq!(fs::read_link(path.join("cabundle.crt")).unwrap(), Path::new("..data/cabundle.crt"));
        assert_eq!(fs::read_to_string(path.join("cabundle.crt")).unwrap(), "old");
        let before = mounted.data_directory();
        mounted.update(MountedVolume::new().file("cabundle.crt", "new").file("more.crt", "y"));
        assert_eq!(fs::read_to_string(path.join("cabundle.crt")).unwrap(), "new");
        assert_eq!(fs::read_to_string(path.join("more.crt")).unwrap(), "y");
        assert!(!before.exists() && fs::symlink_metadata(path.join("gone.crt")).is_err());
        assert_eq!(fs::read_dir(&path).unwrap().count(), 4);
    }
}
