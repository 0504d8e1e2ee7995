//! `storage-initializer migrate`: from the CA in the Secret to the CA in a ConfigMap, in two steps that can be taken back.
//!
//! ModelMesh reads the CA from the entry's `certificate`, KServe from the ConfigMap that `cabundle_configmap` names. The
//! first stage adds the name and keeps the text, so that both systems go on working; the second takes the text away.
//! Manifests in, manifests out: nothing here asks a cluster.
//!
//! What this promises:
//!
//! - All or nothing. Whatever stands in the way is said at once, and then there is no output.
//! - Nothing is lost on the way: `certificate` goes only where the ConfigMap is seen to hold all of it, and a ConfigMap is
//!   never written without what others need of it.
//! - What is not understood is not touched, and a second run changes nothing.
//! - Values reach the manifests that were asked for, and nothing else: notes, errors and the diff have none.
//!
//! Finding the entries is `migrate::candidates`, what migrating means for each `migrate::entries`, the ConfigMap's text `migrate::bundle`, writing `migrate::output`.

mod bundle;
pub mod candidates;
mod diff;
mod entries;
mod entry;
mod output;

use std::collections::BTreeMap;

use rustls::pki_types::CertificateDer;

use crate::{
    manifest::{
        File, Format, Manifests, Resource, SourceError,
        edit::{self, Edit},
    },
    storage_config::Field,
    trust_store::{CONFIGMAP_KEY, ca_bundle},
};
pub use diff::Change;
use entries::Found;
pub use entries::{Bundle, Options, Stage, is_name};
pub use output::{OutputError, print};

/// What was done.
pub struct Migration {
    /// The ConfigMaps that no input holds, in the order of their names.
    pub configmaps: Vec<NewConfigMap>,
    /// The inputs, each with its new text.
    pub files: Vec<Migrated>,
    /// What changed, without values.
    pub changes: Vec<Change>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// A ConfigMap that is to be made.
pub struct NewConfigMap {
    /// Its name.
    pub name: String,
    /// Its namespace, where one is known.
    pub namespace: Option<String>,
    /// Its manifest.
    pub text: String,
    /// How the manifest is written.
    pub format: Format,
}

/// An input and what became of it.
pub struct Migrated {
    /// The input.
    pub file: File,
    /// Its text now.
    pub text: String,
}

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The manifests cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Everything that stands in the way.
    #[error("nothing is written: {}", numbered(.0))]
    Problems(Vec<String>),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
}

fn numbered(problems: &[String]) -> String {
    match problems {
        [only] => only.clone(),
        several => {
            let numbered = several.iter().enumerate().map(|(index, problem)| format!("({}) {problem}", index + 1));
            format!("{} problems: {}", several.len(), numbered.collect::<Vec<_>>().join("; "))
        }
    }
}

impl Migration {
    /// Whether anything is left to migrate: an input changes.
    pub fn is_needed(&self) -> bool {
        !self.changes.is_empty()
    }
}

/// Migrates every storage-config entry of `manifests`.
///
/// # Errors
///
/// [`MigrateError::Problems`]: entries that cannot be read, certificates that cannot be repaired, and whatever could lose
/// a certificate; all of them.
pub fn migrate(manifests: Manifests, options: &Options) -> Result<Migration, MigrateError> {
    let mut work = Work::default();
    let format =
        if manifests.files.iter().all(|file| file.format == Format::Json) { Format::Json } else { Format::Yaml };
    let resources: Vec<Resource<'_>> = manifests.files.iter().flat_map(File::resources).collect();
    let found = entries::find(&resources, options, &mut work.notes, &mut work.problems);
    if found.is_empty() && work.problems.is_empty() {
        work.notes.push("no Secret with a storage-config entry is among these manifests".to_owned());
    }
    for (target, entries) in by_target(&found) {
        work.configmap(target, &entries, &found, &resources, options, format);
    }
    for entry in &found {
        work.entry(entry, options.stage);
    }
    work.warn_of_modelmesh(&found, options.stage);
    let Work { edits, configmaps, changes, notes, mut problems } = work;
    let mut texts = Vec::new();
    for file in &manifests.files {
        let edits: Vec<Edit> =
            edits.iter().filter(|(name, _)| std::ptr::eq(*name, file)).map(|(_, edit)| edit.clone()).collect();
        match edit::apply(file, &edits) {
            Ok(text) => texts.push(text),
            Err(error) => problems.push(format!("{}: {error}", file.name)),
        }
    }
    if !problems.is_empty() {
        return Err(MigrateError::Problems(problems));
    }
    let files = manifests.files.into_iter().zip(texts).map(|(file, text)| Migrated { file, text }).collect();
    Ok(Migration { configmaps, files, changes, notes })
}

/// A ConfigMap by namespace and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target<'a> {
    namespace: Option<&'a str>,
    name: &'a str,
}

/// The entries that hold a certificate, by the ConfigMap that is to hold it too; sorted by Secret and entry.
fn by_target<'f>(found: &'f [Found<'f>]) -> BTreeMap<Target<'f>, Vec<&'f Found<'f>>> {
    let mut groups: BTreeMap<Target<'_>, Vec<&Found<'_>>> = BTreeMap::new();
    for entry in found.iter().filter(|entry| !entry.certificates.is_empty()) {
        let target = Target { namespace: entry.namespace, name: entry.configmap() };
        groups.entry(target).or_default().push(entry);
    }
    for group in groups.values_mut() {
        group.sort_by_key(|entry| (entry.resource.name(), entry.datum.key));
    }
    groups
}

/// The output while it grows.
#[derive(Default)]
struct Work<'a> {
    edits: Vec<(&'a File, Edit)>,
    configmaps: Vec<NewConfigMap>,
    changes: Vec<Change>,
    notes: Vec<String>,
    problems: Vec<String>,
}

impl<'a> Work<'a> {
    /// Sees to it that the ConfigMap `target` holds the certificates of `entries`.
    fn configmap(
        &mut self,
        target: Target<'_>,
        entries: &[&Found<'a>],
        all: &[Found<'a>],
        resources: &[Resource<'a>],
        options: &Options,
        format: Format,
    ) {
        let mut wanted: Vec<CertificateDer<'static>> = Vec::new();
        for der in entries.iter().flat_map(|entry| &entry.certificates) {
            if !wanted.contains(der) {
                wanted.push(der.clone());
            }
        }
        // Whoever wrote another name keeps it, and the ConfigMap under it.
        let is_ours = entries.iter().any(|entry| entry.wanted_name == target.name);
        let present = resources.iter().find(|resource| resource.is("ConfigMap", target.name, target.namespace));
        match present {
            Some(configmap) if is_ours => self.complete(configmap, &wanted),
            Some(configmap) => self.compare(configmap, target, entries, &wanted, options.stage),
            None if is_ours => {
                let others = all.iter().filter(|other| {
                    other.certificates.is_empty()
                        && other.named_configmap.as_deref() == Some(target.name)
                        && other.namespace == target.namespace
                });
                let mut is_needed_elsewhere = false;
                for other in others {
                    is_needed_elsewhere = true;
                    self.problems.push(format!(
                        "{other}: it names ConfigMap {:?} too and carries no certificate, so writing that ConfigMap anew could take its CA away; add the ConfigMap's manifest to the input: `kubectl get configmap {} -o yaml`",
                        target.name, target.name
                    ));
                }
                if !is_needed_elsewhere {
                    self.create(target, entries, &wanted, format);
                }
            }
            None => self.not_given(target, entries, options.stage),
        }
    }

    /// A ConfigMap that no input holds.
    fn create(
        &mut self,
        target: Target<'_>,
        entries: &[&Found<'a>],
        wanted: &[CertificateDer<'static>],
        format: Format,
    ) {
        let pem = bundle::pem(wanted);
        let shown = diff::configmap_name(target.name, target.namespace);
        self.notes.extend(bundle::size_warning(pem.len()).map(|warning| format!("{shown}: {warning}")));
        // An entry that names it already was migrated before: the ConfigMap is written again, and nothing is new.
        if entries.iter().any(|entry| entry.named_configmap.is_none()) {
            self.changes.push(Change::new_configmap(&shown, wanted));
        }
        self.configmaps.push(NewConfigMap {
            name: target.name.to_owned(),
            namespace: target.namespace.map(str::to_owned),
            text: bundle::manifest(target.name, target.namespace, &pem, format),
            format,
        });
    }

    /// A ConfigMap of the input that is to hold the certificates.
    fn complete(&mut self, configmap: &Resource<'a>, wanted: &[CertificateDer<'static>]) {
        let datum = configmap.value(CONFIGMAP_KEY);
        let present = match datum.as_ref().map(|datum| datum.content()).transpose() {
            Ok(present) => present.unwrap_or_default(),
            Err(error) => return self.problems.push(format!("{configmap}, key {:?}: {error}", CONFIGMAP_KEY)),
        };
        let Some(text) = bundle::completed(&present, wanted) else { return };
        for remark in ca_bundle::scan(&present).remarks.iter().filter(|_| !present.is_empty()) {
            self.notes.push(format!("{configmap}, key {:?}: {remark}", CONFIGMAP_KEY));
        }
        self.notes.extend(bundle::size_warning(text.len()).map(|warning| format!("{configmap}: {warning}")));
        self.changes.push(Change::completed(&configmap.to_string(), &present, text.as_bytes()));
        let edit = match (&datum, configmap.node.get("data")) {
            (Some(datum), _) => Edit::replace(datum.key_node, datum.node, datum.encode(&text)),
            (None, Some(data)) => Edit::insert_first(data, CONFIGMAP_KEY, text),
            (None, None) => Err(edit::EditError),
        };
        match edit {
            Ok(edit) => self.edit(configmap, edit),
            Err(_) if datum.is_none() => self.problems.push(format!(
                "{configmap}: it has no \"data\" with a key to put {:?} beside; add the key with an empty value, or choose another name with --configmap-name",
                CONFIGMAP_KEY
            )),
            Err(error) => self.problems.push(format!("{configmap}, key {:?}: {error}", CONFIGMAP_KEY)),
        }
    }

    /// A ConfigMap of the input that an entry names by itself: it is compared, and left as it is.
    fn compare(
        &mut self,
        configmap: &Resource<'a>,
        target: Target<'_>,
        entries: &[&Found<'a>],
        wanted: &[CertificateDer<'static>],
        stage: Stage,
    ) {
        let content = configmap.value(CONFIGMAP_KEY).and_then(|datum| datum.content().ok()).unwrap_or_default();
        let held = ca_bundle::scan(&content).certificates;
        let missing = wanted.iter().filter(|der| held.iter().all(|found| found.der != **der)).count();
        if missing == 0 {
            return;
        }
        let name = target.name;
        for entry in entries {
            let what = format!(
                "{entry}: it names ConfigMap {name:?} already, and {missing} of the certificates are not in that ConfigMap's {:?}",
                CONFIGMAP_KEY
            );
            match stage {
                Stage::Both => self.notes.push(format!(
                    "{what}; nothing is changed here: to have them added, run again with --configmap-name {name}"
                )),
                Stage::ConfigmapOnly => self.problems.push(format!(
                    "{what}: without \"certificate\" they would be lost; to have them added, run again with --configmap-name {name}"
                )),
            }
        }
    }

    /// A ConfigMap that an entry names by itself, and that is not to be seen.
    fn not_given(&mut self, target: Target<'_>, entries: &[&Found<'a>], stage: Stage) {
        let name = target.name;
        for entry in entries {
            let what = format!(
                "{entry}: it names ConfigMap {name:?} already, which is not among the manifests, so whether it holds the certificate cannot be seen"
            );
            match stage {
                Stage::Both => self.notes.push(format!("{what}; nothing is changed here")),
                Stage::ConfigmapOnly => self.problems.push(format!(
                    "{what}; add its manifest to the input (`kubectl get configmap {name} -o yaml`), or have it written anew from the certificate with --configmap-name {name}"
                )),
            }
        }
    }

    fn edit(&mut self, resource: &Resource<'a>, edit: Edit) {
        let immutable =
            resource.is_immutable().then(|| "it is immutable: delete it before you apply the new one".to_owned());
        let owned =
            resource.owner().map(|owner| format!("it is made by {owner}, which may make it anew without this change"));
        for note in [immutable, owned].into_iter().flatten().map(|what| format!("{resource}: {what}")) {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        self.edits.push((resource.file, edit));
    }

    /// Whoever reads `certificate` alone loses its CA.
    fn warn_of_modelmesh(&mut self, found: &[Found<'a>], stage: Stage) {
        let dropped = found.iter().filter(|entry| !entry.certificates.is_empty()).count();
        if stage == Stage::ConfigmapOnly && dropped > 0 && self.problems.is_empty() {
            self.notes.push(format!(
                "\"certificate\" goes from {dropped} {}: a ModelMesh that still reads this Secret has no CA then",
                if dropped == 1 { "entry" } else { "entries" }
            ));
        }
    }

    /// The entry in its Secret.
    fn entry(&mut self, entry: &Found<'a>, stage: Stage) {
        if entry.certificates.is_empty() {
            return;
        }
        let named = match &entry.named_configmap {
            Some(_) => Some(entry.text.clone()),
            None => entry::name_configmap(&entry.text, &entry.wanted_name),
        };
        let text = match stage {
            Stage::Both => named,
            Stage::ConfigmapOnly => named.and_then(|text| entry::drop_certificate(&text)),
        };
        let Some(text) = text else {
            return self.problems.push(format!("{entry}: its JSON cannot be edited; this is a bug"));
        };
        if text == entry.text {
            return;
        }
        self.changes.push(Change::of_entry(entry, stage));
        match Edit::replace(entry.datum.key_node, entry.datum.node, entry.datum.encode(&text)) {
            Ok(edit) => self.edit(&entry.resource, edit),
            Err(error) => self.problems.push(format!("{entry}, field {:?}: {error}", Field::Certificate.name())),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const OPTIONS: Options =
        Options { stage: Stage::Both, bundle: Bundle::One, configmap_name: None, namespace: None, secret: None };

    fn pem() -> String {
        CertificateParams::new(Vec::<String>::new()).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn run(text: &str, options: &Options) -> Result<Migration, MigrateError> {
        let file = File::parse("f".to_owned(), "f".into(), text.to_owned()).unwrap();
        migrate(Manifests { files: vec![file] }, options)
    }

    /// A Secret with these lines below `stringData`.
    fn secret(head: &str, values: &[(&str, serde_json::Value)]) -> String {
        let lines: String =
            values.iter().map(|(key, value)| format!("  {key}: {}\n", serde_json::json!(value.to_string()))).collect();
        format!("kind: Secret\nmetadata: {{name: storage-config}}\n{head}stringData:\n{lines}")
    }

    #[test]
    fn what_is_immutable_is_edited_with_one_note() {
        let entry = serde_json::json!({"type": "s3", "certificate": pem()});
        let note = |head: &str| {
            let migration = run(&secret(head, &[("a", entry.clone()), ("b", entry.clone())]), &OPTIONS).ok().unwrap();
            migration.notes.iter().filter(|note| note.contains("delete it before you apply")).count()
        };
        assert_eq!((note("immutable: true\n"), note("immutable: false\n"), note("")), (1, 0, 0));
    }

    #[test]
    fn who_may_undo_the_change_is_named() {
        let entry = serde_json::json!({"type": "s3", "certificate": pem()});
        let text = secret("", &[("a", entry)]);
        let notes = |metadata: &str| {
            let text = text.replace("{name: storage-config}", &format!("{{name: storage-config, {metadata}}}"));
            run(&text, &OPTIONS).ok().unwrap().notes
        };
        assert!(notes("ownerReferences: [{kind: Vault, name: v}]")[0].contains("made by Vault \"v\""));
        assert!(notes("labels: {opendatahub.io/managed: 'true'}")[0].contains("made by OpenShift AI"));
        assert!(notes("labels: {team: 'x'}").is_empty());
    }

    #[test]
    fn an_entry_of_another_storage_is_left_as_it_is() {
        let text = secret("", &[("a", serde_json::json!({"type": "azure", "bucket": "b", "certificate": pem()}))]);
        let migration = run(&text, &OPTIONS).ok().unwrap();
        assert_eq!(migration.stream(), text);
        assert!(!migration.is_needed() && migration.notes[0].contains("type \"azure\""), "{:?}", migration.notes);
    }

    #[test]
    fn what_stands_under_string_data_hides_the_same_name_under_data() {
        let entry = serde_json::json!({"type": "s3", "certificate": pem()});
        let text = secret("data: {a: AAAA}\n", &[("a", entry)]);
        let migration = run(&text, &OPTIONS).ok().unwrap();
        assert!(migration.stream().contains("data: {a: AAAA}\n"));
        assert_eq!(migration.configmaps.len(), 1);
    }

    #[test]
    fn manifests_without_an_entry_come_out_as_they_went_in_with_a_note() {
        let text = "# nothing\nkind: Service\n";
        let migration = run(text, &OPTIONS).ok().unwrap();
        assert_eq!((migration.stream().as_str(), migration.notes.len()), (text, 1));
    }

    #[test]
    fn a_name_that_yaml_takes_for_something_else_stands_in_quotes() {
        let entry = serde_json::json!({"type": "s3", "certificate": pem()});
        for (name, written) in [("null", "\"null\""), ("12345678", "\"12345678\""), ("team-ca", "team-ca")] {
            let options = Options { configmap_name: Some(name.to_owned()), ..OPTIONS };
            let stream = run(&secret("", &[("a", entry.clone())]), &options).ok().unwrap().stream();
            assert!(stream.contains(&format!("metadata:\n  name: {written}\n")), "{stream}");
        }
    }

    #[test]
    fn all_problems_come_together() {
        let bad = serde_json::json!({"type": "s3", "certificate": "see the wiki"});
        let error = run(&secret("", &[("a", bad.clone()), ("b", bad)]), &OPTIONS).err().unwrap().to_string();
        assert!(error.starts_with("nothing is written: 2 problems: (1) f, document 1, Secret"), "{error}");
        assert!(error.contains("; (2) f, document 1"), "{error}");
    }
}
