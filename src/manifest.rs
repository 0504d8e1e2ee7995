//! Kubernetes manifests as text that can be edited.
//!
//! A manifest is read into nodes that know their place in the text, and an edit replaces the text of
//! the scalars concerned: comments, the order of keys, quotes, and whatever this program does not
//! know stay as they are, byte for byte. Each edit is proved by reading its result again
//! (`manifest::edit`).
//!
//! YAML and JSON, one document or many, `kind: List` included. What a Secret's or a ConfigMap's
//! values mean is not known here. They may be secrets: no `Debug` and no message shows one.

pub mod edit;
pub mod json;
mod node;
mod resource;
mod source;
mod yaml;

pub use node::{Node, Scalar, Style, Value};
pub use resource::{Datum, DatumError, Resource, Section};
pub use source::{Manifests, SourceError};

use std::path::PathBuf;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML documents.
    Yaml,
    /// JSON values, one behind the other.
    Json,
}

/// One file of manifests.
pub struct File {
    /// Its name in messages.
    pub name: String,
    /// Where it stands below the directory that was given; of a file, its name alone.
    pub relative: PathBuf,
    /// How it is written.
    pub format: Format,
    text: String,
    documents: Vec<Node>,
}

/// Why a text is no manifest. Neither the text nor a part of it is repeated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// It is no YAML.
    #[error("not valid YAML: {message} at line {line}, column {column}{}", .hint.map_or(String::new(), |hint| format!("; {hint}")))]
    Yaml {
        /// What the parser says.
        message: String,
        /// From one.
        line: usize,
        /// From one.
        column: usize,
        /// The usual cause, where the text gives it away.
        hint: Option<&'static str>,
    },
    /// It begins like JSON and is none, nor YAML.
    #[error("not valid JSON: {0}")]
    Json(String),
}

impl File {
    /// Reads the documents of a text.
    ///
    /// # Errors
    ///
    /// [`SyntaxError`] where it is neither YAML nor JSON.
    pub fn parse(name: String, relative: PathBuf, text: String) -> Result<Self, SyntaxError> {
        let (format, documents) = parse(&text)?;
        Ok(Self { name, relative, format, text, documents })
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The documents' roots.
    pub fn documents(&self) -> &[Node] {
        &self.documents
    }

    /// Every resource, those of a `List` one by one.
    pub fn resources(&self) -> Vec<Resource<'_>> {
        resource::resources(self)
    }
}

/// The name alone: the rest may be secret.
impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("name", &self.name).finish_non_exhaustive()
    }
}

/// JSON by its own parser, because YAML's knows neither surrogate pairs nor tabs everywhere; else YAML.
fn parse(text: &str) -> Result<(Format, Vec<Node>), SyntaxError> {
    if !text.trim_start_matches('\u{feff}').trim_start().starts_with('{') {
        return Ok((Format::Yaml, yaml::documents(text)?));
    }
    match json::documents(text) {
        Ok(documents) => Ok((Format::Json, documents)),
        Err(error) => match yaml::documents(text) {
            // Flow style with a comment, or several documents of JSON between `---`.
            Ok(documents) => Ok((Format::Yaml, documents)),
            Err(_) if text.contains("{{") => Err(yaml::documents(text).err().unwrap_or(error)),
            Err(_) => Err(error),
        },
    }
}
