//! Edits of a manifest's text, and the proof that they did what they were meant to.
//!
//! A replaced scalar keeps its style where the new text allows it: base64 stays plain, a block stays
//! a block with its indentation and its comment, quotes stay quotes. The result is read again and
//! compared with what was there, node by node: only then it is handed out. So where a text is odd
//! enough to be misjudged here, it ends in an error and not in a damaged manifest.

use std::ops::Range;

use super::{File, Format, Node, Style, Value, parse};

/// One change of one file.
#[derive(Clone, PartialEq, Eq)]
pub enum Edit {
    /// The scalar at `span` becomes `text`.
    Replace {
        /// The scalar's [`Node::span`].
        span: Range<usize>,
        /// Where the key in front of it ends.
        key_end: usize,
        /// Its new text, unescaped.
        text: String,
    },
    /// A new key in front of the first one of a mapping.
    InsertFirst {
        /// The [`Node::span`] of the mapping's first key.
        first_key: Range<usize>,
        /// Whether the mapping is written with braces.
        is_flow: bool,
        /// The new key, of letters, digits, `-`, `_` and `.`.
        key: String,
        /// Its value, unescaped.
        text: String,
    },
}

/// A text that cannot be edited without risk.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this text cannot be edited without touching something else; write the value in another style, for example as a block behind \"|\""
)]
pub struct EditError;

impl Edit {
    /// Replaces the value of a pair.
    ///
    /// # Errors
    ///
    /// [`EditError`] where the value is no scalar, or an alias elsewhere stands for it.
    pub fn replace(key: &Node, value: &Node, text: String) -> Result<Self, EditError> {
        if value.text().is_none() || value.is_anchored {
            return Err(EditError);
        }
        Ok(Self::Replace { span: value.span.clone(), key_end: key.span.end, text })
    }

    /// Adds a key in front of the others of `mapping`.
    ///
    /// # Errors
    ///
    /// [`EditError`] where there are no others, whose place and style could be taken over.
    pub fn insert_first(mapping: &Node, key: &str, text: String) -> Result<Self, EditError> {
        let (first, _) = mapping.pairs().first().ok_or(EditError)?;
        let is_flow = mapping.span.start < first.span.start;
        Ok(Self::InsertFirst { first_key: first.span.clone(), is_flow, key: key.to_owned(), text })
    }

    fn start(&self) -> usize {
        match self {
            Self::Replace { span, .. } => span.start,
            Self::InsertFirst { first_key, .. } => first_key.start,
        }
    }
}

/// The text of `file` with all edits made.
///
/// # Errors
///
/// [`EditError`] where the result, read again, differs in more than what was to change.
pub fn apply(file: &File, edits: &[Edit]) -> Result<String, EditError> {
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|edit| edit.start());
    let mut edited = file.text().to_owned();
    // From the end to the front, so that the places in front stay where they are.
    for edit in edits.iter().rev() {
        let (range, replacement) = written(file, edit).ok_or(EditError)?;
        if !edited.is_char_boundary(range.start) || !edited.is_char_boundary(range.end) {
            return Err(EditError);
        }
        edited.replace_range(range, &replacement);
    }
    let (format, documents) = parse(&edited).map_err(|_| EditError)?;
    let is_the_same = documents.len() == file.documents().len()
        && file.documents().iter().zip(&documents).all(|(before, after)| is_as_meant(before, after, &edits));
    if is_the_same && format == file.format { Ok(edited) } else { Err(EditError) }
}

/// Whether `after` is `before` with the edits made, and nothing else.
fn is_as_meant(before: &Node, after: &Node, edits: &[&Edit]) -> bool {
    let meant = |node: &Node| {
        edits.iter().find_map(|edit| match edit {
            Edit::Replace { span, text, .. } if *span == node.span => Some(text),
            Edit::Replace { .. } | Edit::InsertFirst { .. } => None,
        })
    };
    let inserted = |pairs: &[(Node, Node)]| {
        let (first, _) = pairs.first()?;
        edits.iter().find_map(|edit| match edit {
            Edit::InsertFirst { first_key, key, text, .. } if *first_key == first.span => Some((key, text)),
            Edit::Replace { .. } | Edit::InsertFirst { .. } => None,
        })
    };
    match (&before.value, &after.value) {
        (Value::Scalar(old), Value::Scalar(new)) => match meant(before) {
            Some(text) => *text == new.text,
            None => old == new,
        },
        (Value::Mapping(old), Value::Mapping(new)) => {
            let new = match inserted(old) {
                Some((key, text)) => match new.split_first() {
                    Some(((name, value), rest)) if name.text() == Some(key) && value.text() == Some(text) => rest,
                    _ => return false,
                },
                None => new.as_slice(),
            };
            old.len() == new.len()
                && old.iter().zip(new).all(|((key, value), (new_key, new_value))| {
                    is_as_meant(key, new_key, &[]) && is_as_meant(value, new_value, edits)
                })
        }
        (Value::Sequence(old), Value::Sequence(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| is_as_meant(old, new, edits))
        }
        (Value::Alias, Value::Alias) => true,
        (Value::Scalar(_) | Value::Mapping(_) | Value::Sequence(_) | Value::Alias, _) => false,
    }
}

/// Which bytes of the text an edit replaces, and with what.
fn written(file: &File, edit: &Edit) -> Option<(Range<usize>, String)> {
    let source = file.text();
    let line_break = if source.contains("\r\n") { "\r\n" } else { "\n" };
    match edit {
        Edit::Replace { span, key_end, text } => {
            let style = style_at(file.documents(), span)?;
            if style == Style::Block {
                let block = Block::of(source, *key_end, span.start)?;
                return Some((block.range.clone(), block.with(text, line_break)));
            }
            Some((span.clone(), scalar(text, style)))
        }
        Edit::InsertFirst { first_key, is_flow: true, key, text } => {
            let before = source.get(..first_key.start)?;
            let blanks = before.get(before.trim_end().len()..).unwrap_or_default();
            Some((first_key.start..first_key.start, format!("{}: {},{blanks}", quoted(key), quoted(text))))
        }
        Edit::InsertFirst { first_key, is_flow: false, key, text } => {
            let line_start = source.get(..first_key.start)?.rfind('\n').map_or(0, |at| at + 1);
            let indent = source.get(line_start..first_key.start)?;
            // A list's `- ` would be repeated.
            if file.format == Format::Json || !indent.chars().all(|c| c == ' ') {
                return None;
            }
            let body =
                block_scalar(text, &format!("{indent}  "), line_break, "", false).unwrap_or_else(|| quoted(text));
            Some((first_key.start..first_key.start, format!("{key}: {body}{line_break}{indent}")))
        }
    }
}

fn style_at(documents: &[Node], span: &Range<usize>) -> Option<Style> {
    fn find(node: &Node, span: &Range<usize>) -> Option<Style> {
        match &node.value {
            Value::Scalar(scalar) => (node.span == *span).then_some(scalar.style),
            Value::Mapping(pairs) => pairs.iter().find_map(|(_, value)| find(value, span)),
            Value::Sequence(items) => items.iter().find_map(|item| find(item, span)),
            Value::Alias => None,
        }
    }
    documents.iter().find_map(|node| find(node, span))
}

/// A scalar on one line.
fn scalar(text: &str, style: Style) -> String {
    let is_base64 =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
    match style {
        Style::Plain if is_base64 => text.to_owned(),
        Style::SingleQuoted if !text.contains(is_special) => format!("'{}'", text.replace('\'', "''")),
        Style::Plain | Style::SingleQuoted | Style::DoubleQuoted | Style::Block => quoted(text),
    }
}

/// A JSON string, which is a double-quoted scalar of YAML as well.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.chars().map(|c| if is_special(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect()
}

/// What YAML readers disagree about: control characters, and what YAML 1.1 takes for a line break.
fn is_special(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// A text behind `|`, without the line break at its end; `None` where a block cannot hold it. Blank lines at its end are
/// only for a block that has kept some before: what follows another one may be blank as well.
fn block_scalar(text: &str, indent: &str, line_break: &str, comment: &str, keeps_blank_lines: bool) -> Option<String> {
    if text.contains(|c: char| is_special(c) && !matches!(c, '\n' | '\t')) || text.trim_end_matches('\n').is_empty() {
        return None;
    }
    let content = text.trim_end_matches('\n');
    let chomping = match text.len() - content.len() {
        0 => "-",
        1 => "",
        _ if keeps_blank_lines => "+",
        _ => return None,
    };
    // A first line that begins with a space would be taken for more indentation.
    if content.starts_with([' ', '\n']) {
        return None;
    }
    let mut block = format!("|{chomping}{comment}");
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        block.push_str(line_break);
        if !line.is_empty() {
            block.push_str(indent);
            block.push_str(line);
        }
    }
    Some(block)
}

/// A block scalar in the text: from its indicator to its last line's end.
struct Block {
    range: Range<usize>,
    indent: String,
    /// What follows the indicator on its line.
    comment: String,
    /// `|+`: the blank lines behind it are part of it.
    keeps_blank_lines: bool,
}

impl Block {
    /// Between the key and the content there is the header: `: |- # comment`.
    fn of(source: &str, key_end: usize, content: usize) -> Option<Self> {
        let gap = source.get(key_end..content)?;
        let header = gap.lines().next()?;
        let behind_colon = header.trim_start().strip_prefix(':')?;
        let start = key_end + header.len() - behind_colon.trim_start().len();
        let indicator = source.get(start..key_end + header.len())?;
        let behind = indicator.strip_prefix(['|', '>'])?.trim_start_matches(|c: char| "+-123456789".contains(c));
        let keeps_blank_lines = indicator.split([' ', '#']).next().is_some_and(|header| header.contains('+'));
        let comment = behind.trim_end_matches('\r').to_owned();
        if !comment.trim().is_empty() && !comment.trim_start().starts_with('#') {
            return None;
        }
        let first_line = source.get(..content)?.rfind('\n').map_or(0, |at| at + 1);
        let indent: String = source.get(first_line..content)?.chars().take_while(|c| *c == ' ').collect();
        let mut end = key_end + header.len();
        let mut at = end + source.get(end..)?.find('\n').map_or(0, |found| found + 1);
        for line in source.get(at..)?.split_inclusive('\n') {
            let text = line.trim_end_matches(['\r', '\n']);
            let is_blank = text.trim_matches(' ').is_empty();
            if !is_blank && !text.starts_with(&indent) {
                break;
            }
            // Blank lines at the end are no content, unless they are kept.
            if !is_blank || keeps_blank_lines {
                end = at + text.len();
            }
            at += line.len();
        }
        Some(Self { range: start..end, indent, comment, keeps_blank_lines })
    }

    fn with(&self, text: &str, line_break: &str) -> String {
        block_scalar(text, &self.indent, line_break, &self.comment, self.keeps_blank_lines)
            .unwrap_or_else(|| format!("{}{}", quoted(text), self.comment))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, proptest};

    use super::*;

    fn file(text: &str) -> File {
        File::parse("test".to_owned(), "test".into(), text.to_owned()).unwrap()
    }

    /// Replaces `data.a`.
    fn replaced(text: &str, new: &str) -> Result<String, EditError> {
        let file = file(text);
        let (key, value) = file.documents()[0].get("data").unwrap().pair("a").unwrap();
        apply(&file, &[Edit::replace(key, value, new.to_owned())?])
    }

    #[test]
    fn a_scalar_keeps_its_style_and_everything_else_its_bytes() {
        let cases = [
            ("data:  # x\n  a: YWJj # y\n  b:   2\n", "eHl6", "data:  # x\n  a: eHl6 # y\n  b:   2\n"),
            ("data: {b: 'q', a: YWJj}\n", "eHl6", "data: {b: 'q', a: eHl6}\n"),
            ("data:\n  a: 'it''s'\n", "it's {}", "data:\n  a: 'it''s {}'\n"),
            ("data:\n  \"a\": \"x\"\n", "\"\n", "data:\n  \"a\": \"\\\"\\n\"\n"),
            ("data:\n  a: 'x'\n", "two\nlines", "data:\n  a: \"two\\nlines\"\n"),
            (
                "data:\n  a: |  # why\n      {\n        x\n      }\n\n  # tail\n  b: c\n",
                "{\n  y\n\n}\n",
                "data:\n  a: |  # why\n      {\n        y\n\n      }\n\n  # tail\n  b: c\n",
            ),
            ("data:\n  a: >-\n    x\n    y", "z", "data:\n  a: |-\n    z"),
            ("data:\n  a: |+\n    x\n\n  b: c\n", "y\n\n", "data:\n  a: |+\n    y\n\n  b: c\n"),
            ("data:\r\n  a: |\r\n    x\r\n  b: c\r\n", "y\nz\n", "data:\r\n  a: |\r\n    y\r\n    z\r\n  b: c\r\n"),
            ("data:\n  a: |\n    x\n", " y\n", "data:\n  a: \" y\\n\"\n"),
            (
                "\u{feff}{\"ü\": 1.50,\t\"data\":{\"a\":\"x\"}}",
                "\u{e9}\u{1}",
                "\u{feff}{\"ü\": 1.50,\t\"data\":{\"a\":\"é\\u0001\"}}",
            ),
        ];
        for (before, new, after) in cases {
            assert_eq!(replaced(before, new).as_deref(), Ok(after), "{before:?}");
        }
    }

    #[test]
    fn what_an_alias_stands_for_is_not_touched() {
        assert_eq!(replaced("data:\n  a: &x y\n  b: *x\n", "z"), Err(EditError));
        assert_eq!(replaced("data:\n  b: &x y\n  a: *x\n", "z"), Err(EditError));
        assert!(replaced("data:\n  a: y\n  b: &x y\n  c: *x\n", "z").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_can_stand_for_any_scalar(new in "(.|\\n){0,40}|[ -~]{0,30}|[ \\n\\t#:'\\\\-]{0,8}") {
            for before in [
                "data:\n  a: abc # x\n  b: c\n",
                "data:\n  a: 'x'\n",
                "data: {\"a\": \"x\", b: [c]}\n",
                "data:\n  a: |\n   x\n\n  # y\n  b: c\n",
                "data:\n  a: >+\n   x\n\n---\nz: y\n",
                "- x\n---\ndata:\n    a: |-\n        x",
                "{\"data\": {\"a\": \"x\", \"b\": [1.50, null]}}",
            ] {
                let file = file(before);
                let data = file.documents().iter().find_map(|node| node.get("data")).unwrap();
                let (key, value) = data.pair("a").unwrap();
                let edit = Edit::replace(key, value, new.clone()).ok().unwrap();
                prop_assert!(apply(&file, &[edit]).is_ok(), "{:?}", before);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "([a-z{}\\[\\]:,|>&*!#'\"\\- ]|\\n|é){0,60}") {
            if let Ok(file) = File::parse(String::new(), "x".into(), text) {
                prop_assert!(apply(&file, &[]).is_ok_and(|same| same == file.text()));
            }
        }
    }

    #[test]
    fn a_result_that_reads_differently_is_not_handed_out() {
        // The comment holds what looks like the header.
        assert_eq!(replaced("data:\n  a: # |\n    |\n    x\n", "y\n"), Err(EditError));
        // A tag in front of the header is not understood.
        assert_eq!(replaced("data:\n  a: !!binary |\n    x\n", "y\n"), Err(EditError));
    }

    #[test]
    fn a_key_is_added_in_front_of_the_others_in_their_style() {
        let cases = [
            ("data:\n  b: c\n", "data:\n  a: |\n    x\n    y\n  b: c\n"),
            ("data: {b: c}\n", "data: {\"a\": \"x\\ny\\n\",b: c}\n"),
            ("{\"data\": {\n  \"b\": \"c\"}}", "{\"data\": {\n  \"a\": \"x\\ny\\n\",\n  \"b\": \"c\"}}"),
        ];
        for (before, after) in cases {
            let file = file(before);
            let data = file.documents()[0].get("data").unwrap();
            let edit = Edit::insert_first(data, "a", "x\ny\n".to_owned()).ok().unwrap();
            assert_eq!(apply(&file, &[edit]).as_deref(), Ok(after));
        }
        let empty = file("data: {}\n");
        assert!(Edit::insert_first(empty.documents()[0].get("data").unwrap(), "a", String::new()).is_err());
    }
}
