//! The floors of the product's modules: a module imports only from lower floors, so data flows one way.

#![allow(clippy::unwrap_used, reason = "a source tree that cannot be read fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Every module of `src/` with its floor, from the ground up.
const FLOORS: [(u8, &[&str]); 10] = [
    (
        0,
        &[
            "cause",
            "cgroup",
            "checksum",
            "destination",
            "env",
            "filter",
            "manifest",
            "mount",
            "ranges",
            "retry",
            "secret",
            "units",
            "uri",
        ],
    ),
    (1, &["storage_config", "volume"]),
    (2, &["settings"]),
    (3, &["trust_store"]),
    (4, &["http", "migrate"]),
    (5, &["s3"]),
    (6, &["plan"]),
    (7, &["report", "transfer"]),
    (8, &["cli", "error", "logging", "termination"]),
    (9, &["check", "manifest_commands"]),
];

/// Modules of one floor that may use each other, in this direction only: (from, to).
const NEIGHBOURS: [(&str, &str); 4] =
    [("transfer", "report"), ("termination", "error"), ("error", "cli"), ("manifest_commands", "check")];

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, modules)| modules.contains(&module)).map(|(floor, _)| *floor)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../src")
}

/// The source files of each top-level module.
fn modules() -> BTreeMap<String, Vec<PathBuf>> {
    fn collect(path: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, into);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                into.push(path);
            }
        }
    }
    let mut modules: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(sources()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let files = modules.entry(name).or_default();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
    modules
}

/// The top-level modules that a source text names after `crate::`, comments aside.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(names_of_group(group)),
            None => found.extend(leading_name(rest)),
        }
    }
    found
}

fn leading_name(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    Some(text[..end].to_owned()).filter(|name| !name.is_empty())
}

/// The first names of `a::b, c::{d, e}, f}`: what stands at the group's own depth.
fn names_of_group(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = Vec::new();
    let mut at_start = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if c.is_whitespace() => {}
            _ if at_start => {
                names.extend(leading_name(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn every_module_stands_on_a_floor() {
    let unknown: Vec<String> = modules()
        .into_keys()
        .filter(|module| !matches!(module.as_str(), "lib" | "main") && floor(module).is_none())
        .collect();
    assert!(unknown.is_empty(), "modules without a floor in this test's table: {unknown:?}");
}

#[test]
fn every_module_imports_only_from_lower_floors() {
    let mut wrong = Vec::new();
    for (module, files) in modules() {
        // The library's root and the binary stand above all floors.
        let Some(own) = floor(&module) else { continue };
        for file in files {
            for import in imports(&fs::read_to_string(&file).unwrap()) {
                let allowed = import == module
                    || floor(&import).is_none_or(|theirs| theirs < own)
                    || NEIGHBOURS.contains(&(module.as_str(), import.as_str()));
                if !allowed {
                    wrong.push(format!("{}: {module} (floor {own}) imports {import}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that go upwards or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn an_upward_import_would_be_seen() {
    let text =
        "use crate::{\n    settings::{Limits, Trust},\n    http::Http,\n};\n// crate::plan\nfn f() { crate::s3::g() }";
    assert_eq!(imports(text).into_iter().collect::<Vec<_>>(), ["http", "s3", "settings"]);
}

#[test]
fn only_one_module_reads_the_environment_and_only_one_decodes_pem() {
    for (needle, home) in [("env::var", "env.rs"), ("rustls_pemfile::", "repair.rs")] {
        let users: Vec<PathBuf> = modules()
            .into_values()
            .flatten()
            .filter(|file| {
                fs::read_to_string(file)
                    .unwrap()
                    .lines()
                    .any(|line| line.split("//").next().is_some_and(|code| code.contains(needle)))
            })
            .filter(|file| !file.ends_with(home))
            .collect();
        assert!(users.is_empty(), "{needle} outside {home}: {users:?}");
    }
}
