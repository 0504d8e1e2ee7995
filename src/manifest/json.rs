//! JSON with the place of each value. `serde_json` says whether it is JSON; what remains is to
//! follow the brackets.

use super::{Node, Scalar, Style, SyntaxError, Value};

/// The values of a text, one behind the other.
///
/// # Errors
///
/// [`SyntaxError::Json`] in `serde_json`'s words, which never quote the text.
pub fn documents(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let body = text.trim_start_matches('\u{feff}');
    for value in serde_json::Deserializer::from_str(body).into_iter::<serde_json::Value>() {
        value.map_err(|error| SyntaxError::Json(error.to_string()))?;
    }
    let mut scanner = Scanner { text, at: text.len() - body.len() };
    let mut documents = Vec::new();
    while let Some(node) = scanner.value() {
        documents.push(node);
    }
    Ok(documents)
}

/// Over a text that is known to be JSON, so its depth is bounded as well.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn value(&mut self) -> Option<Node> {
        let start = self.skip_blanks();
        let value = match self.next_byte()? {
            b'{' => Value::Mapping(self.list(b'}', |scanner| Some((scanner.value()?, scanner.value()?)))),
            b'[' => Value::Sequence(self.list(b']', Self::value)),
            b'"' => self.string(),
            _ => self.literal(),
        };
        Some(Node { value, span: start..self.at, is_anchored: false })
    }

    /// What stands between brackets. Commas and colons are blanks to [`Self::skip_blanks`].
    fn list<T>(&mut self, end: u8, item: impl Fn(&mut Self) -> Option<T>) -> Vec<T> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.skip_blanks();
            if self.next_byte().is_none_or(|byte| byte == end) {
                self.at = (self.at + 1).min(self.text.len());
                return items;
            }
            items.extend(item(self));
        }
    }

    fn string(&mut self) -> Value {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.next_byte() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
        let text = self.text.get(start..self.at).and_then(|text| serde_json::from_str(text).ok());
        Value::Scalar(Scalar { text: text.unwrap_or_default(), style: Style::DoubleQuoted })
    }

    fn literal(&mut self) -> Value {
        let start = self.at;
        let rest = self.text.get(start..).unwrap_or_default();
        let is_end = |c: char| c.is_ascii_whitespace() || matches!(c, ',' | ':' | '}' | ']' | '{' | '[' | '"');
        self.at += rest.find(is_end).unwrap_or(rest.len()).max(1);
        let text = self.text.get(start..self.at).unwrap_or_default().to_owned();
        Value::Scalar(Scalar { text, style: Style::Plain })
    }

    fn next_byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) -> usize {
        while self.next_byte().is_some_and(|byte| byte.is_ascii_whitespace() || matches!(byte, b',' | b':')) {
            self.at += 1;
        }
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_bytes() {
        let text = r#" {"a": "x\"y", "b": [1.50, true, {"ü": null}], "c": {}} {"d": ""}"#;
        let documents = documents(text).unwrap();
        assert_eq!(documents.len(), 2);
        let bytes = |node: &Node| text[node.span.clone()].to_owned();
        let first = &documents[0];
        assert_eq!(bytes(first.get("a").unwrap()), r#""x\"y""#);
        assert_eq!(first.text_of("a"), Some("x\"y"));
        let items: Vec<String> = first.get("b").unwrap().items().iter().map(bytes).collect();
        assert_eq!(items, ["1.50", "true", r#"{"ü": null}"#]);
        assert_eq!(bytes(first.get("c").unwrap()), "{}");
        assert_eq!(bytes(&documents[1]), r#"{"d": ""}"#);
    }

    #[test]
    fn of_two_values_under_one_key_the_last_counts_and_both_are_there() {
        let documents = documents(r#"{"a": 1, "a": 2}"#).unwrap();
        assert_eq!(documents[0].pairs().len(), 2);
        assert_eq!(documents[0].text_of("a"), Some("2"));
    }

    #[test]
    fn what_is_no_json_is_refused_without_a_quotation() {
        for text in [r#"{"a": hunter2}"#, r#"{"a": "b" "hunter2"}"#, r#"{"a": "hunter2}"#] {
            let SyntaxError::Json(message) = documents(text).err().unwrap() else { panic!("{text}") };
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
