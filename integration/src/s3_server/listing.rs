//! One page of ListObjectsV2, as a pure function of the sorted keys.
//!
//! Follows <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>: keys in the order of their UTF-8
//! bytes, common prefixes counted as one entry each, a continuation token that wins over `start-after`.

/// What a client asked for.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) delimiter: Option<&'a str>,
    /// Entries at or before this one were already listed: the key or the common prefix that ended the last page, or
    /// the `start-after` of the first page.
    pub(crate) after: Option<&'a str>,
    pub(crate) max_entries: usize,
}

/// One entry of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The position of a key in the list that was given.
    Key(usize),
    CommonPrefix(String),
}

/// The entries of a page, and after which one the next page begins, if there is more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    pub(crate) next_after: Option<String>,
}

/// Cuts one page out of `keys`, which are sorted by their bytes.
pub(crate) fn page(keys: &[&str], query: &Query<'_>) -> Page {
    let mut entries = Vec::new();
    let mut last: Option<String> = None;
    for (index, key) in keys.iter().enumerate() {
        let Some(below) = key.strip_prefix(query.prefix) else {
            continue;
        };
        let common = query.delimiter.and_then(|delimiter| {
            let end = below.find(delimiter)? + delimiter.len();
            Some(&key[..query.prefix.len() + end])
        });
        let name = common.unwrap_or(key);
        let listed_before = query.after.is_some_and(|after| match common {
            // A start-after inside a common prefix still leaves that prefix to be listed.
            Some(prefix) => prefix <= after && !(after.starts_with(prefix) && *key > after),
            None => *key <= after,
        });
        // A common prefix that ended the last page must not come again for its other keys.
        let continues_prefix = common.is_some() && query.after == common;
        if listed_before || continues_prefix || last.as_deref() == Some(name) {
            continue;
        }
        if entries.len() == query.max_entries {
            return Page { entries, next_after: last };
        }
        entries.push(match common {
            Some(prefix) => Entry::CommonPrefix(prefix.to_owned()),
            None => Entry::Key(index),
        });
        last = Some(name.to_owned());
    }
    Page { entries, next_after: None }
}

/// What `encoding-type=url` makes of a key. As S3 does it: a space is `+`, slashes stay.
pub(crate) fn url_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => {
                encoded.push(byte as char);
            }
            b' ' => encoded.push('+'),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 6] = ["a", "a/1", "a/2", "b", "c/d/1", "c/e"];

    fn names(page: &Page) -> Vec<String> {
        page.entries
            .iter()
            .map(|entry| match entry {
                Entry::Key(index) => KEYS[*index].to_owned(),
                Entry::CommonPrefix(prefix) => format!("[{prefix}]"),
            })
            .collect()
    }

    fn all_pages(query: Query<'_>) -> Vec<String> {
        let mut all = Vec::new();
        let mut after = query.after.map(str::to_owned);
        loop {
            let page = page(&KEYS, &Query { after: after.as_deref(), ..query.clone() });
            assert!(page.entries.len() <= query.max_entries);
            all.extend(names(&page));
            after = match page.next_after {
                Some(next) => Some(next),
                None => return all,
            };
        }
    }

    #[test]
    fn every_page_size_lists_the_same() {
        for delimiter in [None, Some("/")] {
            let whole = all_pages(Query { delimiter, max_entries: 1000, ..Query::default() });
            for max_entries in 1..KEYS.len() + 1 {
                let query = Query { delimiter, max_entries, ..Query::default() };
                assert_eq!(all_pages(query), whole, "{delimiter:?} by {max_entries}");
            }
        }
        let query = Query { delimiter: Some("/"), max_entries: 9, ..Query::default() };
        assert_eq!(all_pages(query), ["a", "[a/]", "b", "[c/]"]);
    }

    #[test]
    fn prefix_and_start_after_select() {
        let query = Query { prefix: "c/", delimiter: Some("/"), max_entries: 9, ..Query::default() };
        assert_eq!(all_pages(query), ["[c/d/]", "c/e"]);
        let query = Query { after: Some("a/1"), max_entries: 9, ..Query::default() };
        assert_eq!(all_pages(query), ["a/2", "b", "c/d/1", "c/e"]);
    }

    #[test]
    fn url_encoding_keeps_slashes_and_tells_plus_from_space() {
        assert_eq!(url_encoded("a b/c+d%é"), "a+b/c%2Bd%25%C3%A9");
    }
}
