//! YAML with the place of each node: the events of `saphyr-parser`, put together.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{Node, Scalar, Style, SyntaxError, Value};

/// Deepest nesting that is read: an object of the API server's is far from it, and recursion has to end.
const MAX_DEPTH: usize = 100;

/// The documents of a text. Empty ones are there as well, as null: who is told a number counts them.
///
/// # Errors
///
/// [`SyntaxError::Yaml`] with line and column.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let body = text.trim_start_matches('\u{feff}');
    let offsets = Offsets::new(text, text.len() - body.len());
    let mut documents = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(body) {
        let (event, span) = event.map_err(|error| SyntaxError::Yaml {
            message: error.info().to_owned(),
            line: error.marker().line(),
            column: error.marker().col() + 1,
            hint: hint(body, error.marker().line()),
        })?;
        let range = offsets.range(&span);
        if open.len() > MAX_DEPTH {
            let (line, column) = (span.start.line(), span.start.col() + 1);
            return Err(SyntaxError::Yaml { message: "nested too deeply".to_owned(), line, column, hint: None });
        }
        let node = match event {
            Event::Scalar(text, style, anchor, _) => Node {
                value: Value::Scalar(Scalar { text: text.into_owned(), style: style_of(style) }),
                span: range,
                is_anchored: anchor != 0,
            },
            Event::Alias(_) => Node { value: Value::Alias, span: range, is_anchored: false },
            Event::MappingStart(anchor, _) => {
                open.push(Open { start: range.start, is_mapping: true, children: Vec::new(), anchor });
                continue;
            }
            Event::SequenceStart(anchor, _) => {
                open.push(Open { start: range.start, is_mapping: false, children: Vec::new(), anchor });
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some(collection) => collection.close(text, range.end),
                None => continue,
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                continue;
            }
        };
        match open.last_mut() {
            Some(parent) => parent.children.push(node),
            None => documents.push(node),
        }
    }
    Ok(documents)
}

/// A mapping or sequence whose end has not come yet.
struct Open {
    start: usize,
    is_mapping: bool,
    children: Vec<Node>,
    anchor: usize,
}

impl Open {
    fn close(self, text: &str, end: usize) -> Node {
        // The end of a collection in block style is wherever the parser noticed it.
        let is_flow = text.as_bytes().get(self.start).is_some_and(|byte| matches!(byte, b'{' | b'['));
        let span = self.start..if is_flow { end } else { self.start };
        let value = if self.is_mapping {
            let mut children = self.children.into_iter();
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                pairs.push((key, value));
            }
            Value::Mapping(pairs)
        } else {
            Value::Sequence(self.children)
        };
        Node { value, span, is_anchored: self.anchor != 0 }
    }
}

fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::SingleQuoted,
        ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
    }
}

/// The parser counts characters, and Rust counts bytes.
struct Offsets {
    /// The bytes before the parser's first character.
    before: usize,
    /// The byte of each character; empty where the text is ASCII.
    of_characters: Vec<usize>,
    len: usize,
}

impl Offsets {
    fn new(text: &str, before: usize) -> Self {
        let body = text.get(before..).unwrap_or_default();
        let of_characters =
            if body.is_ascii() { Vec::new() } else { body.char_indices().map(|(byte, _)| byte).collect() };
        Self { before, of_characters, len: body.len() }
    }

    fn byte(&self, character: usize) -> usize {
        let byte = if self.of_characters.is_empty() {
            character
        } else {
            self.of_characters.get(character).copied().unwrap_or(self.len)
        };
        self.before + byte.min(self.len)
    }

    fn range(&self, span: &Span) -> std::ops::Range<usize> {
        let start = self.byte(span.start.index());
        start..self.byte(span.end.index()).max(start)
    }
}

/// The usual causes of what is no YAML.
fn hint(text: &str, line: usize) -> Option<&'static str> {
    let around = |line: &&str| line.contains("{{");
    if text.lines().take(line + 1).any(|line| around(&line)) {
        return Some("a template? render it first, for example with helm template");
    }
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    if line.starts_with('\t') {
        return Some("YAML is indented with spaces, not with tabs");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\u{feff}# ü\nkind: Secret\ndata:\n  a: abc  # hi\n  \"b\": 'x y'\n  c: |\n    text\n\n  d: [é, *q]\n---\n---\n{\"x\": \"y\"}\n";

    #[test]
    fn nodes_know_their_bytes_behind_a_mark_and_letters_of_several_bytes() {
        let documents = documents(TEXT).err().unwrap();
        // An alias without an anchor is an error.
        assert!(matches!(documents, SyntaxError::Yaml { line: 9, .. }), "{documents}");
        let text = TEXT.replace("*q", "ö");
        let documents = super::documents(&text).unwrap();
        assert_eq!(documents.len(), 3);
        assert!(documents[1].is_null());
        let data = documents[0].get("data").unwrap();
        let bytes = |key: &str| &text[data.get(key).unwrap().span.clone()];
        assert_eq!((bytes("a"), bytes("b"), bytes("d")), ("abc", "'x y'", "[é, ö]"));
        assert_eq!(data.text_of("c"), Some("text\n"));
        assert_eq!(&text[documents[2].span.clone()], "{\"x\": \"y\"}");
    }

    #[test]
    fn what_is_no_yaml_has_a_line_and_the_usual_cause() {
        let message = |text: &str| documents(text).err().unwrap().to_string();
        assert!(message(&"- ".repeat(5_000)).contains("nested too deeply"));
        assert!(message(&"[".repeat(5_000)).contains("recursion limit"));
        assert!(message("{{ if .Values.x }}\na: b\n").contains("render it first"));
        assert!(message("a:\n\tb: c\n").contains("line 2"));
        assert!(!message("a: \"hunter2\nb: c: d").contains("hunter2"));
    }
}
