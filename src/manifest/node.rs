//! What YAML and JSON have in common, with places.

use std::ops::Range;

/// A value and where it stands.
#[derive(Clone)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Its bytes in the text. Of a block scalar, those of its content. Of a mapping or sequence in
    /// block style, empty, at its first key or item.
    pub span: Range<usize>,
    /// It has an anchor, so that an alias may stand for it elsewhere.
    pub is_anchored: bool,
}

/// The kinds of nodes.
#[derive(Clone)]
pub enum Value {
    /// Text, in whatever style.
    Scalar(Scalar),
    /// Keys and values, in order.
    Mapping(Vec<(Node, Node)>),
    /// Items, in order.
    Sequence(Vec<Node>),
    /// YAML's `*name`, which stands for another node.
    Alias,
}

/// A text and how it is written.
#[derive(Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text, unescaped.
    pub text: String,
    /// How it is written.
    pub style: Style,
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: text, number, boolean or null. JSON's are of this style as well.
    Plain,
    /// `'...'`
    SingleQuoted,
    /// `"..."`
    DoubleQuoted,
    /// `|` or `>`
    Block,
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            Value::Mapping(_) | Value::Sequence(_) | Value::Alias => None,
        }
    }

    /// Whether it is nothing: YAML's and JSON's null.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(Scalar { text, style: Style::Plain }) => {
                matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Value::Scalar(_) | Value::Mapping(_) | Value::Sequence(_) | Value::Alias => false,
        }
    }

    /// The pairs of a mapping; of anything else, none.
    pub fn pairs(&self) -> &[(Node, Node)] {
        match &self.value {
            Value::Mapping(pairs) => pairs,
            Value::Scalar(_) | Value::Sequence(_) | Value::Alias => &[],
        }
    }

    /// The items of a sequence; of anything else, none.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::Sequence(items) => items,
            Value::Scalar(_) | Value::Mapping(_) | Value::Alias => &[],
        }
    }

    /// The key and the value under `key`: of several, the last, as JSON's readers have it.
    pub fn pair(&self, key: &str) -> Option<&(Node, Node)> {
        self.pairs().iter().rev().find(|(name, _)| name.text() == Some(key))
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.pair(key).map(|(_, value)| value)
    }

    /// The text of the scalar under `key`, unless it is null.
    pub fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_null()).and_then(Node::text)
    }

    /// `a mapping`, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Scalar(_) => "text",
            Value::Mapping(_) => "a mapping",
            Value::Sequence(_) => "a list",
            Value::Alias => "a YAML alias",
        }
    }
}
