//! The layers that a setting can come from, and which of them wins.
//!
//! Lowest first: plain environment; a mounted Secret, be it an entry file or one variable per
//! file; `STORAGE_CONFIG`; `STORAGE_OVERRIDE_CONFIG`. Later wins, field by field.

use std::path::{Path, PathBuf};

use super::{
    Problem,
    origin::{EntryName, Origin, Sourced},
};
use crate::{
    env::Environment,
    mount::{Mount, MountError},
    storage_config::{Entry, Field},
};

/// Where the storage-config Secret is mounted, as ModelMesh has it.
const DEFAULT_STORAGE_CONFIG_DIR: &str = "/storage-config";

/// The entries that are taken where `STORAGE_KEY` names none, in this order. ModelMesh falls back
/// to `default_<type>`, then `default`; the only type here is `s3`.
const DEFAULT_ENTRIES: [&str; 2] = ["default_s3", "default"];

/// One setting under the names that each layer has for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// Environment variables, the first that is set wins. A Secret with one variable per file has
    /// the same names.
    pub(super) variables: &'static [&'static str],
    /// Further names that only such Secrets have.
    pub(super) secret_files: &'static [&'static str],
    /// The field of an entry.
    pub(super) field: Option<Field>,
}

/// Everything that settings are read from, each layer parsed and none interpreted.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    environment: &'a Environment,
    secret_variables: Option<Mount>,
    pub(super) entry: Option<(EntryName, Entry)>,
    /// How long the entry is, as KServe would have to pass it in one variable.
    pub(super) entry_bytes: usize,
    overrides: Option<Entry>,
    pub(super) warnings: Vec<String>,
}

impl<'a> Layers<'a> {
    /// Reads the mounted Secret and both variables. What is wrong is added to `problems`; the
    /// layers that can be read are used all the same, so that their problems are reported too.
    pub(super) fn read(environment: &'a Environment, problems: &mut Vec<Problem>) -> Self {
        let mut layers = Self {
            environment,
            secret_variables: None,
            entry: None,
            entry_bytes: 0,
            overrides: None,
            warnings: Vec::new(),
        };
        if let Some(text) = environment.value("STORAGE_CONFIG") {
            layers.warn_of_unused_mount();
            layers.entry = layers
                .parse(EntryName::StorageConfig, text.as_bytes(), problems)
                .map(|entry| (EntryName::StorageConfig, entry));
        } else {
            layers.read_mount(problems);
        }
        if let Some(text) = environment.value("STORAGE_OVERRIDE_CONFIG") {
            layers.overrides = layers.parse(EntryName::StorageOverrideConfig, text.as_bytes(), problems);
        }
        layers
    }

    /// The value of the highest layer that has one. An override that is `""` or `null` removes the
    /// entry's value.
    pub(super) fn find(&self, names: Names) -> Option<Sourced<&str>> {
        if let Some(field) = names.field {
            if let Some(overrides) = &self.overrides
                && let Some(value) = overrides.value(field)
            {
                let entry = EntryName::StorageOverrideConfig;
                return Some(Sourced::new(value, Origin::Entry { entry, field }));
            }
            let removed = self.overrides.as_ref().is_some_and(|overrides| overrides.mentions(field));
            if !removed
                && let Some((entry, fields)) = &self.entry
                && let Some(value) = fields.value(field)
            {
                let entry = entry.clone();
                return Some(Sourced::new(value, Origin::Entry { entry, field }));
            }
        }
        self.find_variable(names)
    }

    /// The value among the variables alone: the Secret's files, else the environment.
    fn find_variable(&self, names: Names) -> Option<Sourced<&str>> {
        if let Some(mount) = &self.secret_variables {
            for name in names.variables.iter().chain(names.secret_files) {
                // A value that is not UTF-8 is none of these variables; a trailing line break is
                // what `--from-file` leaves.
                let value = mount
                    .file(name)
                    .and_then(|content| std::str::from_utf8(content).ok())
                    .map(|text| text.trim_end_matches(['\r', '\n']))
                    .filter(|text| !text.is_empty());
                if let Some(value) = value {
                    return Some(Sourced::new(value, Origin::SecretFile(mount.path_of(name))));
                }
            }
        }
        names.variables.iter().find_map(|name| {
            let value = self.environment.value(name)?;
            Some(Sourced::new(value, Origin::Environment(name)))
        })
    }

    /// The height of an origin, for values that belong together: a session token belongs to the
    /// layer of its key.
    pub(super) fn height(origin: &Origin) -> u8 {
        match origin {
            Origin::Default | Origin::Argument | Origin::SourceUri | Origin::EndpointHost => 0,
            Origin::Environment(_) => 1,
            Origin::SecretFile(_) => 2,
            Origin::Entry { entry, .. } => match entry {
                EntryName::Mounted(_) | EntryName::StorageConfig => 3,
                EntryName::StorageOverrideConfig => 4,
            },
        }
    }

    fn mount_point(&self) -> (PathBuf, bool) {
        match self.environment.value("STORAGE_CONFIG_DIR") {
            Some(directory) => (PathBuf::from(directory), true),
            None => (PathBuf::from(DEFAULT_STORAGE_CONFIG_DIR), false),
        }
    }

    fn warn_of_unused_mount(&mut self) {
        let (directory, _) = self.mount_point();
        if Mount::read(&directory).is_ok_and(|mount| !mount.is_empty()) {
            self.warnings.push(format!(
                "the Secret mounted at {} is not read: env STORAGE_CONFIG is set and wins; remove one of the two",
                directory.display()
            ));
        }
    }

    fn read_mount(&mut self, problems: &mut Vec<Problem>) {
        let (directory, explicit) = self.mount_point();
        let mount = match Mount::read(&directory) {
            Ok(mount) => mount,
            Err(MountError::Missing(_)) if !explicit => {
                self.expect_no_key(None, &directory, problems);
                return;
            }
            Err(source) => {
                let variable = explicit.then_some("STORAGE_CONFIG_DIR");
                problems.push(Problem::StorageConfigDir { variable, source });
                return;
            }
        };
        let entries: Vec<&str> = mount.keys().filter(|key| !key.starts_with('.') && !is_variable(key)).collect();
        if entries.is_empty() {
            self.expect_no_key(Some(&mount), &directory, problems);
            if mount.is_empty() && explicit {
                self.warnings.push(format!(
                    "the Secret mounted at {} is empty; only the environment is used",
                    directory.display()
                ));
            }
            self.secret_variables = Some(mount);
            return;
        }
        if let Some(name) = self.choose(&entries, &directory, problems) {
            let path = EntryName::Mounted(mount.path_of(name));
            let content = mount.file(name).unwrap_or_default();
            self.entry = self.parse(path.clone(), content, problems).map(|entry| (path, entry));
        }
    }

    /// `STORAGE_KEY` names an entry, and there is none at all.
    fn expect_no_key(&self, mount: Option<&Mount>, directory: &Path, problems: &mut Vec<Problem>) {
        if let Some(key) = self.environment.value("STORAGE_KEY") {
            problems.push(Problem::NoSuchEntry {
                key: key.to_owned(),
                directory: directory.to_owned(),
                present: mount.map_or_else(Vec::new, |mount| mount.keys().map(String::from).collect()),
            });
        }
    }

    fn choose<'e>(&mut self, entries: &[&'e str], directory: &Path, problems: &mut Vec<Problem>) -> Option<&'e str> {
        let named = |wanted: &str| entries.iter().copied().find(|entry| *entry == wanted);
        let present = || entries.iter().map(|entry| (*entry).to_owned()).collect();
        if let Some(key) = self.environment.value("STORAGE_KEY") {
            let found = named(key);
            if found.is_none() {
                problems.push(Problem::NoSuchEntry {
                    key: key.to_owned(),
                    directory: directory.to_owned(),
                    present: present(),
                });
            }
            return found;
        }
        if let Some(entry) = DEFAULT_ENTRIES.into_iter().find_map(named) {
            return Some(entry);
        }
        if let [only] = entries {
            self.warnings
                .push(format!("env STORAGE_KEY is not set: using {only:?}, the only entry of {}", directory.display()));
            return Some(only);
        }
        problems.push(Problem::AmbiguousEntry { directory: directory.to_owned(), present: present() });
        None
    }

    fn parse(&mut self, name: EntryName, content: &[u8], problems: &mut Vec<Problem>) -> Option<Entry> {
        match Entry::parse(content) {
            Ok(entry) => {
                // An override is a few keys; the entry is what can grow.
                self.entry_bytes = self.entry_bytes.max(content.len());
                for remark in entry.remarks() {
                    self.warnings.push(format!("{name}: {remark}"));
                }
                Some(entry)
            }
            Err(source) => {
                problems.push(Problem::Entry { name, source });
                None
            }
        }
    }
}

/// Whether a file of a mounted Secret is one variable of an OpenShift data connection or of a
/// KServe service-account secret, rather than an entry.
fn is_variable(key: &str) -> bool {
    // KServe's own names in full: an entry may well be called `aws-production`.
    const KSERVE: [&str; 3] = ["awsAccessKeyID", "awsSecretAccessKey", "awsAnonymousCredential"];
    key.starts_with("AWS_") || key.starts_with("S3_") || KSERVE.contains(&key)
}
