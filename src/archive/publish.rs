//! From the staging directory to the final names.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::volume::VolumeError;

/// Moves everything in `staging` to the directory `destination`, which is on the same file system. What is in the way is
/// treated as for a downloaded file: a file or a link under a file's name is replaced, a directory that is there already
/// is kept and filled, and a file or a link in the place of a directory is an error. All of that is checked before the
/// first rename.
///
/// # Errors
///
/// [`VolumeError`] where something is in the way or the volume refuses.
pub fn publish_tree(staging: &Path, destination: &Path) -> Result<(), VolumeError> {
    check_ways(staging, destination)?;
    move_all(staging, destination)
}

fn check_ways(staging: &Path, destination: &Path) -> Result<(), VolumeError> {
    for (from, is_directory) in entries(staging)? {
        let to = destination.join(from.file_name().unwrap_or_default());
        match fs::symlink_metadata(&to) {
            Ok(there) if is_directory && there.is_dir() => check_ways(&from, &to)?,
            Ok(there) if is_directory => {
                let found = if there.is_symlink() { "a symbolic link" } else { "a file" };
                return Err(VolumeError::NotADirectory { path: to, found });
            }
            Ok(there) if there.is_dir() => return Err(VolumeError::IsADirectory(to)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(write_error(&to, error)),
        }
    }
    Ok(())
}

fn move_all(staging: &Path, destination: &Path) -> Result<(), VolumeError> {
    // Directories first, so that a model server that watches for the files at the top finds what is below them.
    let (directories, files): (Vec<_>, Vec<_>) =
        entries(staging)?.into_iter().partition(|(_, is_directory)| *is_directory);
    for (from, is_directory) in directories.into_iter().chain(files) {
        let to = destination.join(from.file_name().unwrap_or_default());
        // A directory that is not there yet arrives whole.
        if is_directory && fs::symlink_metadata(&to).is_ok_and(|there| there.is_dir()) {
            move_all(&from, &to)?;
        } else {
            fs::rename(&from, &to).map_err(|error| write_error(&to, error))?;
        }
    }
    Ok(())
}

/// What is in a directory, in the order of the names, with whether it is a directory itself.
fn entries(directory: &Path) -> Result<Vec<(PathBuf, bool)>, VolumeError> {
    let read = || {
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            entries.push((entry.path(), entry.file_type()?.is_dir()));
        }
        entries.sort();
        Ok(entries)
    };
    read().map_err(|error| write_error(directory, error))
}

fn write_error(path: &Path, error: io::Error) -> VolumeError {
    VolumeError::Write { path: path.to_owned(), source: error.into() }
}
