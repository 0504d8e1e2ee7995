//! Where this program does otherwise than KServe, on purpose. Each has its paragraph in docs/SEMANTICS.md.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::case::{Archive, ArchiveEntry, Case, Content, Endpoint, Keys, Trust};

/// What becomes of a case to which a difference applies.
pub enum Effect {
    /// KServe does the same where the cause is taken away.
    Neutralised(fn(Case) -> Case),
    /// This program ends with this exit code, whatever KServe does.
    Refused(i32),
}

macro_rules! differences {
    ($($name:ident: $title:literal, $applies:expr, $effect:expr;)*) => {
        /// A deliberate difference.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Difference { $(#[doc = $title] $name,)* }

        impl Difference {
            /// All of them.
            pub const ALL: [Difference; [$($title),*].len()] = [$(Difference::$name),*];

            /// The words that begin its paragraph in docs/SEMANTICS.md.
            pub fn title(self) -> &'static str {
                match self { $(Difference::$name => $title,)* }
            }

            /// Whether it has a say in a case.
            pub fn applies(self, case: &Case) -> bool {
                let applies: fn(&Case) -> bool = match self { $(Difference::$name => $applies,)* };
                applies(case)
            }

            /// What it does to a case.
            pub fn effect(self) -> Effect {
                match self { $(Difference::$name => $effect,)* }
            }
        }
    };
}

differences! {
    SiblingPrefix: "A prefix ends where a name ends.",
        |case| case.pairs.iter().any(|pair| siblings(pair).next().is_some()),
        Effect::Neutralised(|mut case| {
            for pair in &mut case.pairs {
                let siblings: Vec<String> = siblings(pair).map(str::to_owned).collect();
                pair.objects.retain(|key, _| !siblings.contains(key));
            }
            case
        });
    EmptyObjects: "Empty objects are files.",
        |case| case.pairs.iter().any(|pair| pair.objects.values().any(|content| *content == Content::Empty)),
        Effect::Neutralised(|mut case| {
            let objects = case.pairs.iter_mut().flat_map(|pair| &mut pair.objects);
            objects.filter(|(key, content)| !key.ends_with('/') && **content == Content::Empty)
                .for_each(|(_, content)| *content = Content::StandIn);
            case
        });
    EscapingKeys: "Keys that would leave the destination are refused.",
        |case| any_path(case, |path| path.split('/').any(|segment| matches!(segment, "." | ".."))),
        Effect::Refused(65);
    ReservedName: "One name is the program's own.",
        |case| any_path(case, |path| path.split('/').next() == Some(".storage-initializer")),
        Effect::Refused(65);
    OneFile: "Two objects that would be one file are refused.",
        |case| {
            let mut seen = BTreeSet::new();
            case.pairs.iter().any(|pair| pair.taken().into_iter().any(|(_, path)| {
                let segments: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect();
                !seen.insert((pair.destination, segments))
            }))
        },
        Effect::Refused(65);
    UriCharacters: "`?` and `#` belong to the key.",
        |case| case.pairs.iter().any(|pair| pair.path.contains(['?', '#'])),
        Effect::Neutralised(|mut case| {
            for pair in &mut case.pairs {
                pair.path = pair.path.replace(['?', '#'], "_");
                pair.objects = std::mem::take(&mut pair.objects).into_iter()
                    .map(|(key, content)| (key.replace(['?', '#'], "_"), content)).collect();
            }
            case
        });
    NoList: "An exact object needs no permission to list.",
        |case| case.keys == Keys::WithoutList,
        Effect::Neutralised(|mut case| {
            if case.pairs.iter().all(|pair| pair.is_exact()) {
                case.keys = Keys::Good;
            }
            case
        });
    JsonTypes: "Booleans, numbers and null are values.",
        |case| in_entry(case, |value| !value.is_string()),
        Effect::Neutralised(|mut case| {
            for fields in [&mut case.fields, &mut case.overrides] {
                fields.retain(|_, value| !value.is_null());
                fields.values_mut().for_each(|value| {
                    if !value.is_string() {
                        *value = Value::String(value.to_string());
                    }
                });
            }
            case
        });
    EmptyCaBundle: "An empty `ca_bundle` is none.",
        |case| case.in_entry && case.trust == Trust::EmptyEntry,
        Effect::Neutralised(|mut case| { case.trust = Trust::Nothing; case });
    Certificate: "`certificate` is heeded.",
        |case| !case.plain && case.in_entry && case.trust == Trust::Certificate,
        Effect::Neutralised(|mut case| { case.trust = Trust::Variable; case });
    BrokenBundle: "A broken certificate costs only itself.",
        |case| !case.plain && case.trust == Trust::Broken,
        Effect::Neutralised(|mut case| { case.trust = Trust::Variable; case });
    SessionToken: "`session_token` is heeded.",
        |case| case.in_entry && case.keys == Keys::Temporary,
        Effect::Neutralised(|mut case| {
            case.variables.insert("AWS_SESSION_TOKEN".to_owned(), "temporary-token".to_owned());
            case
        });
    NoScheme: "An endpoint without a scheme is https.",
        |case| case.endpoint == Endpoint::Bare,
        Effect::Neutralised(|mut case| { case.endpoint = Endpoint::Full; case });
    NoType: "An entry without a type is S3's.",
        |case| in_entry(case, |value| *value == Value::String(String::new())) && case.fields.contains_key("type"),
        Effect::Neutralised(|mut case| { case.fields.remove("type"); case });
    OtherType: "An entry of another type is an error.",
        |case| case.fields.get("type").is_some_and(|kind| !matches!(kind.as_str(), Some("s3" | ""))),
        Effect::Refused(78);
    Blanks: "Blanks around a value are dropped.",
        |case| in_entry(case, |value| value.as_str().is_some_and(|text| text != text.trim())),
        Effect::Neutralised(|mut case| {
            for value in case.fields.values_mut().chain(case.overrides.values_mut()) {
                if let Value::String(text) = value {
                    *text = text.trim().to_owned();
                }
            }
            case
        });
    BrokenPatterns: "Patterns that are no patterns are an error.",
        |case| ["STORAGE_ALLOW_PATTERNS", "STORAGE_IGNORE_PATTERNS"].iter().any(|name| {
            case.variables.get(*name).is_some_and(|list| list.starts_with("['") || list.contains("null"))
        }),
        Effect::Refused(78);
    EmptyNumbers: "An empty value is no value.",
        |case| case.variables.iter().any(|(name, value)| is_number(name) && value.is_empty()),
        Effect::Neutralised(|mut case| {
            case.variables.retain(|name, value| !is_number(name) || !value.is_empty());
            case
        });
    Fractions: "Seconds may have fractions.",
        |case| case.variables.get("S3_READ_TIMEOUT").is_some_and(|seconds| seconds.contains('.')),
        Effect::Neutralised(|mut case| { case.variables.insert("S3_READ_TIMEOUT".to_owned(), "30".to_owned()); case });
    FlagOne: "`1` means true wherever `true` does.",
        |case| case.variables.get("awsAnonymousCredential").is_some_and(|flag| flag == "1"),
        Effect::Neutralised(|mut case| {
            case.variables.insert("awsAnonymousCredential".to_owned(), "true".to_owned());
            case
        });
    ArchiveNames: "Names in an archive that would lead elsewhere are refused.",
        |case| any_entry(case, |_, entry| entry.name.starts_with('/') || entry.name.split('/').any(|name| name == "..")),
        Effect::Refused(65);
    ArchiveReserved: "One name in an archive is the program's own.",
        |case| any_entry(case, |_, entry| entry.name.starts_with(".storage-initializer")),
        Effect::Refused(65);
    ArchiveTwice: "Two entries of one name are refused.",
        |case| archives(case).any(|archive| {
            let mut names = BTreeSet::new();
            archive.entries.iter().any(|entry| !names.insert(entry.name))
        }),
        Effect::Refused(65);
    ArchiveLinks: "A link in an archive may go up only at its beginning.",
        |case| any_entry(case, |_, entry| entry.kind == "symlink" && entry.content.contains("/../") && !entry.content.starts_with("..")),
        Effect::Refused(65);
    ArchiveThroughLinks: "Nothing is written through a link.",
        |case| archives(case).any(|archive| {
            let links = archive.entries.iter().filter(|entry| entry.kind == "symlink");
            links.map(|link| format!("{}/", link.name)).any(|link| archive.entries.iter().any(|e| e.name.starts_with(&link)))
        }),
        Effect::Refused(65);
    ZipLinks: "Links in a zip are links.",
        |case| any_entry(case, |archive, entry| archive.form == "zip" && entry.kind == "symlink" && !leads_out(entry.content)),
        Effect::Neutralised(|mut case| { change_archives(&mut case, |archive| archive.form = "tar"); rename(case, ".zip", ".tar") });
    ZipLinksOut: "Links in a zip that lead out are refused.",
        |case| any_entry(case, |archive, entry| archive.form == "zip" && entry.kind == "symlink" && leads_out(entry.content)),
        Effect::Refused(65);
    ZipMethods: "A zip is stored or deflated.",
        |case| archives(case).any(|archive| archive.form == "zip-bzip2"),
        Effect::Refused(65);
    Zstd: "zstd is unpacked, too.",
        |case| archives(case).any(|archive| archive.form == "tar.zst"),
        Effect::Neutralised(|mut case| { change_archives(&mut case, |archive| archive.form = "tar"); rename(case, ".tar.zst", ".tar") });
    NoEndMark: "A tar has a mark of its end.",
        |case| case.pairs.iter().any(|pair| pair.archive().is_some() && pair.objects.keys().any(|key| key.ends_with("no-end.tar"))),
        Effect::Refused(65);
}

impl Difference {
    /// The exit code, where it refuses.
    pub fn refusal(self) -> Option<i32> {
        match self.effect() {
            Effect::Refused(code) => Some(code),
            Effect::Neutralised(_) => None,
        }
    }
}

/// The objects that begin as the target does, in the middle of a name.
fn siblings(pair: &crate::case::Pair) -> impl Iterator<Item = &str> {
    let target = pair.target();
    let is_prefix = !target.is_empty() && !target.ends_with('/') && !pair.is_exact();
    let keys = pair.objects.keys().map(String::as_str).filter(move |_| is_prefix);
    keys.filter(move |key| key.strip_prefix(target).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')))
}

/// Whether a path in the destination is like that; an exact object's is its last name.
fn any_path(case: &Case, is: impl Fn(&str) -> bool) -> bool {
    case.pairs.iter().any(|pair| pair.taken().iter().any(|(_, path)| is(path)))
}

fn is_number(variable: &str) -> bool {
    ["S3_CONNECT_TIMEOUT", "S3_READ_TIMEOUT", "S3_MAX_ATTEMPTS", "S3_MAX_FILE_CONCURRENCY"].contains(&variable)
}

fn in_entry(case: &Case, is: impl Fn(&Value) -> bool) -> bool {
    case.fields.values().any(&is) || case.overrides.values().any(is)
}

/// The archives that are unpacked.
fn archives(case: &Case) -> impl Iterator<Item = &Archive> {
    case.pairs.iter().filter_map(|pair| pair.archive())
}

fn any_entry(case: &Case, is: impl Fn(&Archive, &ArchiveEntry) -> bool) -> bool {
    archives(case).any(|archive| archive.entries.iter().any(|entry| is(archive, entry)))
}

/// Whether the target of a link is none in the tree, for a link at the tree's top.
fn leads_out(target: &str) -> bool {
    target.starts_with('/') || target.starts_with("../../")
}

fn change_archives(case: &mut Case, change: impl Fn(&mut Archive)) {
    for content in case.pairs.iter_mut().flat_map(|pair| pair.objects.values_mut()) {
        if let Content::Archive(archive) = content {
            change(archive);
        }
    }
}

/// The case with other names for its archives.
fn rename(mut case: Case, from: &str, to: &str) -> Case {
    for pair in &mut case.pairs {
        pair.path = pair.path.replace(from, to);
        pair.objects = std::mem::take(&mut pair.objects)
            .into_iter()
            .map(|(key, content)| (key.replace(from, to), content))
            .collect();
    }
    case
}
