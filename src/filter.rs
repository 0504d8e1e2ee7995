//! Which objects under a prefix are wanted: KServe's allow and ignore patterns.
//!
//! Owns the two lists and the meaning of a pattern, and promises the answers of Python's `fnmatch.fnmatchcase`, which
//! is what KServe's `_should_download` asks on Linux: a `*` crosses `/`, `[!seq]` negates, an unclosed `[` is a letter
//! like any other. No pattern takes exponential time. That an exact object is never filtered is left to the plan.
//!
//! The lists are read as KServe's `_parse_patterns_from_env` reads `STORAGE_ALLOW_PATTERNS` and
//! `STORAGE_IGNORE_PATTERNS`: a JSON array, a single JSON string, or what is between commas; blanks around a pattern
//! and empty patterns are dropped. Where KServe would go on with patterns that nobody meant, this refuses:
//! - a broken JSON array of strings, `['*.bin']` or `["*.bin",]`, which KServe cuts at the commas and reads as `[seq]`;
//! - entries that are neither strings nor numbers, which KServe turns into Python's spelling of them, such as `None`.

use thiserror::Error;

/// The allow and ignore patterns of one download. The default keeps everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    allow: Vec<Pattern>,
    ignore: Vec<Pattern>,
}

/// Why a pattern list cannot be read. The message says what is wrong with the value; `settings` names the variable.
#[derive(Debug, Error)]
pub enum FilterError {
    /// It begins and ends as a JSON array of strings does, but is none.
    #[error("{list:?} looks like a JSON array but is none ({reason}); write [\"*.json\", \"*.bin\"] or *.json,*.bin")]
    Json {
        /// The value as it was given.
        list: String,
        /// What is wrong, with line and column. Not a `source`: the message ends with the advice.
        reason: serde_json::Error,
    },
    /// An entry, or the value itself, that cannot be a pattern.
    #[error("{entry} is not a pattern; write [\"*.json\", \"*.bin\"] or *.json,*.bin")]
    NotAPattern {
        /// The entry as JSON.
        entry: String,
    },
}

impl Filter {
    /// Reads both lists. A list that is unset, blank or empty does not filter.
    pub fn parse(allow: Option<&str>, ignore: Option<&str>) -> Result<Filter, FilterError> {
        Ok(Filter { allow: parse_list(allow.unwrap_or(""))?, ignore: parse_list(ignore.unwrap_or(""))? })
    }

    /// Whether a file is wanted: it matches an allow pattern, if there are any, and no ignore pattern.
    ///
    /// `relative_path` is the key's part below the prefix, without slashes in front.
    pub fn keeps(&self, relative_path: &str) -> bool {
        if self.keeps_everything() {
            return true;
        }
        let path: Vec<char> = relative_path.chars().collect();
        (self.allow.is_empty() || self.allow.iter().any(|pattern| pattern.matches(&path)))
            && !self.ignore.iter().any(|pattern| pattern.matches(&path))
    }

    /// Whether there is no pattern at all.
    pub fn keeps_everything(&self) -> bool {
        self.allow.is_empty() && self.ignore.is_empty()
    }

    /// The allow patterns as they were written; for the log and for "nothing found".
    pub fn allow_patterns(&self) -> impl ExactSizeIterator<Item = &str> {
        self.allow.iter().map(|pattern| pattern.text.as_str())
    }

    /// The ignore patterns as they were written.
    pub fn ignore_patterns(&self) -> impl ExactSizeIterator<Item = &str> {
        self.ignore.iter().map(|pattern| pattern.text.as_str())
    }
}

fn parse_list(list: &str) -> Result<Vec<Pattern>, FilterError> {
    use serde_json::Value;

    let list = list.trim();
    let entries = match serde_json::from_str(list) {
        Ok(Value::Array(entries)) => entries.into_iter().map(entry_text).collect::<Result<Vec<_>, _>>()?,
        Ok(Value::String(entry)) => vec![entry],
        Ok(object @ Value::Object(_)) => return Err(FilterError::NotAPattern { entry: object.to_string() }),
        // A file may well be called `true` or `1`.
        Ok(Value::Null | Value::Bool(_) | Value::Number(_)) => vec![list.to_owned()],
        // A quote next to a bracket: `[abc].bin,[abc]` is a comma list, `['a', 'b']` wants to be an array.
        Err(reason) if opens_string_array(list) => return Err(FilterError::Json { list: list.to_owned(), reason }),
        Err(_) => list.split(',').map(str::to_owned).collect(),
    };
    Ok(entries.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty()).map(Pattern::new).collect())
}

fn entry_text(entry: serde_json::Value) -> Result<String, FilterError> {
    use serde_json::Value;

    match entry {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            Err(FilterError::NotAPattern { entry: entry.to_string() })
        }
    }
}

fn opens_string_array(list: &str) -> bool {
    list.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(['"', '\'']))
}

/// One `fnmatch` pattern, taken apart once for a million paths.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Star,
    Any,
    Literal(char),
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl Piece {
    /// Whether this piece, which is no star, takes `c`.
    fn takes(&self, c: char) -> bool {
        match self {
            Piece::Star => false,
            Piece::Any => true,
            Piece::Literal(literal) => *literal == c,
            Piece::Set { negated, ranges } => ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated,
        }
    }
}

impl Pattern {
    /// The steps of `fnmatch.translate`. Every text is a pattern.
    fn new(text: &str) -> Pattern {
        let chars: Vec<char> = text.chars().collect();
        let mut pieces = Vec::with_capacity(chars.len());
        let mut rest = chars.as_slice();
        while let [first, after @ ..] = rest {
            rest = after;
            match first {
                '*' if pieces.last() == Some(&Piece::Star) => {}
                '*' => pieces.push(Piece::Star),
                '?' => pieces.push(Piece::Any),
                '[' => match set_len(after) {
                    Some(len) => {
                        pieces.push(parse_set(&after[..len]));
                        rest = &after[len + 1..];
                    }
                    None => pieces.push(Piece::Literal('[')),
                },
                literal => pieces.push(Piece::Literal(*literal)),
            }
        }
        Pattern { text: text.to_owned(), pieces }
    }

    /// Only the last star is ever given more: what an earlier one could gain, the last one can gain as well. That
    /// bounds the steps by pieces times characters.
    fn matches(&self, path: &[char]) -> bool {
        let (mut piece, mut at) = (0, 0);
        let mut last_star: Option<(usize, usize)> = None;
        loop {
            match self.pieces.get(piece) {
                Some(Piece::Star) => {
                    last_star = Some((piece, at));
                    piece += 1;
                    continue;
                }
                Some(other) if path.get(at).is_some_and(|&c| other.takes(c)) => {
                    piece += 1;
                    at += 1;
                    continue;
                }
                None if at == path.len() => return true,
                Some(_) | None => {}
            }
            match last_star {
                Some((star, from)) if from < path.len() => {
                    last_star = Some((star, from + 1));
                    piece = star + 1;
                    at = from + 1;
                }
                Some(_) | None => return false,
            }
        }
    }
}

/// How long the content of a set is whose `[` has been read; `None` where no `]` closes it. A `]` in first place, also
/// after `!`, belongs to the content.
fn set_len(after: &[char]) -> Option<usize> {
    let mut begin = usize::from(after.first() == Some(&'!'));
    begin += usize::from(after.get(begin) == Some(&']'));
    after.get(begin..)?.iter().position(|&c| c == ']').map(|len| begin + len)
}

/// A set's content as `fnmatch.translate` and then Python's `re` understand it, oddities included: `[a-c-e]` is a to c,
/// `-` and e; a range whose ends are the wrong way round drops out, and what is left may then begin with `!`.
fn parse_set(content: &[char]) -> Piece {
    let mut chunks = chunks_between_ranges(content);
    for right in (1..chunks.len()).rev() {
        let (Some(low), Some(high)) = (chunks[right - 1].last(), chunks[right].first()) else { continue };
        if low > high {
            let removed = chunks.remove(right);
            let left = &mut chunks[right - 1];
            left.pop();
            left.extend(&removed[1..]);
        }
    }

    let negated = chunks[0].first() == Some(&'!');
    if negated {
        chunks[0].remove(0);
    }
    let mut ranges = Vec::with_capacity(content.len());
    let mut range_from: Option<char> = None;
    for (index, chunk) in chunks.iter().enumerate() {
        let mut chars = chunk.iter().copied();
        if let Some(low) = range_from.take() {
            ranges.extend(chars.next().map(|high| (low, high)));
        } else if index > 0 {
            // The chunk before lost all it had: the hyphen has become the first character, hence a letter.
            ranges.push(('-', '-'));
        }
        let mut chars: Vec<char> = chars.collect();
        if index + 1 < chunks.len() {
            range_from = chars.pop();
        }
        ranges.extend(chars.into_iter().map(|c| (c, c)));
    }
    Piece::Set { negated, ranges }
}

/// The content cut at the hyphens that make ranges, so that a range is from one chunk's last character to the next
/// one's first. A hyphen in first or last place, or right behind a range, is a letter.
fn chunks_between_ranges(content: &[char]) -> Vec<Vec<char>> {
    let mut chunks = Vec::new();
    let mut begin = 0;
    let mut search = if content.first() == Some(&'!') { 2 } else { 1 };
    while let Some(hyphen) = (search..content.len()).find(|&at| content[at] == '-') {
        chunks.push(content[begin..hyphen].to_vec());
        begin = hyphen + 1;
        search = hyphen + 3;
    }
    match chunks.last_mut() {
        Some(last) if begin == content.len() => last.push('-'),
        Some(_) | None => chunks.push(content[begin..].to_vec()),
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).matches(&path.chars().collect::<Vec<_>>())
    }

    fn filter(allow: &str, ignore: &str) -> Filter {
        Filter::parse(Some(allow), Some(ignore)).unwrap()
    }

    fn allowed(list: &str) -> Vec<String> {
        filter(list, "").allow_patterns().map(str::to_owned).collect()
    }

    /// Answers of `fnmatch.fnmatchcase(name, pattern)`, Python 3.11.
    const MATCHING: &[(&str, &str)] = &[
        ("*", "model.bin"),
        ("*", ""),
        ("", ""),
        ("*.bin", "model.bin"),
        ("*.bin", "sub/dir/model.bin"),
        ("*.bin", ".bin"),
        ("*/model", "sub/model"),
        ("sub/*", "sub/a/b/c"),
        ("sub/*", "sub/"),
        ("**", "a/b"),
        ("a**b", "a/x/b"),
        ("a*b*c", "aXbYc"),
        ("a*b*c", "abcbc"),
        ("?", "a"),
        ("?", "/"),
        ("?", "ä"),
        ("?", "\n"),
        ("*", "a\nb"),
        ("模?", "模型"),
        ("a?c", "abc"),
        ("(a|b)", "(a|b)"),
        ("$a^", "$a^"),
        ("a\\*", "a\\b"),
        ("[abc]", "b"),
        ("[a-c]", "b"),
        ("[!abc]", "d"),
        ("[!abc]", "/"),
        ("[!a-c]x", "dx"),
        ("[^a]", "a"),
        ("[^a]", "^"),
        ("[!^]", "a"),
        ("[", "["),
        ("[a", "[a"),
        ("a[", "a["),
        ("[]", "[]"),
        ("[]]", "]"),
        ("[]a]", "a"),
        ("[]a]", "]"),
        ("[!]", "[!]"),
        ("[!]]", "a"),
        ("[!", "[!"),
        ("[[]", "["),
        ("[[a]", "a"),
        ("[-a]", "-"),
        ("[-a]", "a"),
        ("[a-]", "-"),
        ("[a-]", "a"),
        ("[!-a]", "b"),
        ("[--0]", "."),
        ("[a-c-e]", "b"),
        ("[a-c-e]", "-"),
        ("[a-c-e]", "e"),
        ("[a-bc-d]", "c"),
        ("[!c-a]", "b"),
        ("[!c-a]", "/"),
        ("[c-ax]", "x"),
        ("[z-bz-a5]", "5"),
        ("[z-ab-d]", "c"),
        ("[b-a!x]", "q"),
        ("[b-a-z]", "-"),
        ("[b-a-z]", "z"),
        ("[b-a!-z]", "m"),
        ("[\\]", "\\"),
        ("[\\d]", "d"),
        ("[\\w-z]", "x"),
        ("[&&a]", "&"),
        ("[a||b]", "|"),
        ("[a~~b]", "~"),
        ("[a--b]", "b"),
        ("[0-9][0-9]", "42"),
        ("model-0000[!1]*.safetensors", "model-00002-of-00005.safetensors"),
        ("*[", "abc["),
        ("*[]*", "a[]b"),
        ("[а-я]*", "б"),
        ("checkpoint-*/", "checkpoint-1/"),
        ("*.[jJ][sS][oO][nN]", "a/Config.JSON"),
        ("*a", "ba"),
        ("*ab", "aab"),
        ("*aab*", "aaab"),
        ("*?", "a"),
        ("?*?", "ab"),
    ];

    /// The same, where the answer is no.
    const OTHER: &[(&str, &str)] = &[
        ("", "a"),
        ("*.bin", "model.bin.part"),
        ("*.bin", "model.BIN"),
        ("*.bin", "bin"),
        ("model", "sub/model"),
        ("*/model", "model"),
        ("sub/*", "subs/a"),
        ("a*b*c", "aXcYb"),
        ("*a*a*a*b", "aaaaaaaaaa"),
        ("?", ""),
        ("??", "ä"),
        ("a?c", "ac"),
        ("a.c", "abc"),
        ("a+c", "aac"),
        ("(a|b)", "a"),
        ("a\\*", "a*"),
        ("[abc]", "d"),
        ("[abc]", "abc"),
        ("[a-c]", "d"),
        ("[a-c]", "-"),
        ("[!abc]", "a"),
        ("[^a]", "b"),
        ("[!^]", "^"),
        ("[a", "a"),
        ("[]", "]"),
        ("[]a]", "b"),
        ("[!]", "a"),
        ("[!]]", "]"),
        ("[![]", "["),
        ("[-a]", "b"),
        ("[a-]", "b"),
        ("[!-a]", "-"),
        ("[--0]", "1"),
        ("[a-c-e]", "d"),
        ("[c-a]", "b"),
        ("[c-a]", ""),
        ("[c-a]", "c"),
        ("[c-ax]", "a"),
        ("[c-ax]", "c"),
        ("[z-bz-a5]", "b"),
        ("[z-ab-d]", "z"),
        ("[b-a!x]", "x"),
        ("[b-a-z]", "b"),
        ("[b-a!-z]", "-"),
        ("[\\d]", "5"),
        ("[a--b]", "-"),
        ("[a--b]", "a"),
        ("[0-9][0-9]", "4a"),
        ("model-0000[!1]*.safetensors", "model-00001-of-00005.safetensors"),
        ("[a-z]*[!/]", "x/y/"),
        ("[я-а]*", "б"),
        ("a*", "b"),
        ("*?", ""),
        ("?*?", "a"),
    ];

    #[test]
    fn the_answers_are_python_s() {
        for (pattern, path) in MATCHING {
            assert!(matches(pattern, path), "{pattern:?} matches {path:?}");
        }
        for (pattern, path) in OTHER {
            assert!(!matches(pattern, path), "{pattern:?} does not match {path:?}");
        }
    }

    #[test]
    fn no_pattern_keeps_everything() {
        for filter in [Filter::default(), filter("", " "), filter("[]", ","), Filter::parse(None, None).unwrap()] {
            assert!(filter.keeps_everything());
            assert!(filter.keeps("anything"));
        }
    }

    #[test]
    fn a_file_is_kept_that_is_allowed_and_not_ignored() {
        let both = filter("*.safetensors,*.json", "original/*");
        assert!(both.keeps("model.safetensors"));
        assert!(both.keeps("sub/config.json"));
        assert!(!both.keeps("model.bin"));
        assert!(!both.keeps("original/params.json"));
        assert!(filter("", "*.bin").keeps("model.safetensors"));
        assert!(!filter("", "*.bin").keeps("model.bin"));
    }

    #[test]
    fn a_list_is_a_json_array_or_has_commas() {
        assert_eq!(allowed(r#" ["*.json", " *.bin ", ""] "#), ["*.json", "*.bin"]);
        assert_eq!(allowed(" *.json , *.bin ,,"), ["*.json", "*.bin"]);
        assert_eq!(allowed(r#""a,b""#), ["a,b"]);
        assert_eq!(allowed(r#"["a,b", 7]"#), ["a,b", "7"]);
        assert_eq!(allowed("[abc]*.bin,*.[jt]son"), ["[abc]*.bin", "*.[jt]son"]);
        assert_eq!(allowed("true"), ["true"]);
        assert_eq!(allowed("[0-9],[a-z]"), ["[0-9]", "[a-z]"]);
        assert_eq!(allowed("a\nb"), ["a\nb"]);
    }

    #[test]
    fn a_list_that_nobody_meant_is_refused() {
        let error = |list| Filter::parse(None, Some(list)).unwrap_err().to_string();
        insta::assert_snapshot!(
            [
                "['*.bin']", r#"["*.bin",]"#, r#"[ "*.bin""#, r#"["a", null]"#, r#"["a", ["b"]]"#, r#"[true]"#, r#"{"allow": "*"}"#,
            ]
            .map(error)
            .join("\n"),
            @r#"
            "['*.bin']" looks like a JSON array but is none (expected value at line 1 column 2); write ["*.json", "*.bin"] or *.json,*.bin
            "[\"*.bin\",]" looks like a JSON array but is none (trailing comma at line 1 column 10); write ["*.json", "*.bin"] or *.json,*.bin
            "[ \"*.bin\"" looks like a JSON array but is none (EOF while parsing a list at line 1 column 9); write ["*.json", "*.bin"] or *.json,*.bin
            null is not a pattern; write ["*.json", "*.bin"] or *.json,*.bin
            ["b"] is not a pattern; write ["*.json", "*.bin"] or *.json,*.bin
            true is not a pattern; write ["*.json", "*.bin"] or *.json,*.bin
            {"allow":"*"} is not a pattern; write ["*.json", "*.bin"] or *.json,*.bin
            "#
        );
    }

    #[test]
    fn a_pattern_of_many_stars_stays_fast() {
        let (pattern, path) = ("*a".repeat(50) + "b", "a".repeat(1024));
        assert!(!matches(&pattern, &path));
        assert!(matches(&pattern, &(path + "b")));
    }

    /// `fnmatch` without sets, as its documentation defines it.
    fn model(pattern: &[char], path: &[char]) -> bool {
        match (pattern, path) {
            ([], []) => true,
            ([], [_, ..]) => false,
            (['*', rest @ ..], _) => (0..=path.len()).any(|taken| model(rest, &path[taken..])),
            ([_, ..], []) => false,
            ([first, pattern @ ..], [c, path @ ..]) => (*first == '?' || first == c) && model(pattern, path),
        }
    }

    proptest! {
        #[test]
        fn stars_and_question_marks_match_as_the_simple_model(pattern in "[ab/*?]{0,8}", path in "[ab/]{0,10}") {
            let (p, n): (Vec<_>, Vec<_>) = (pattern.chars().collect(), path.chars().collect());
            prop_assert_eq!(matches(&pattern, &path), model(&p, &n));
        }

        #[test]
        fn a_set_of_letters_takes_each_of_them_and_no_other(letters in "[a-m/.ä&^~]{1,6}", c in "[a-z/.ä]") {
            prop_assert_eq!(matches(&format!("[{letters}]"), &c), letters.contains(&c));
            prop_assert_eq!(matches(&format!("[!{letters}]"), &c), !letters.contains(&c));
        }

        #[test]
        fn no_pattern_panics(pattern in "[]\\[!^a-c*?-]{0,12}|.{0,20}", path in ".{0,10}") {
            let _ = matches(&pattern, &path);
        }

        #[test]
        fn no_list_panics(list in ".{0,30}|[\\[\\]\"', *a-c]{0,20}") {
            let _ = Filter::parse(Some(&list), Some(&list));
        }
    }
}
