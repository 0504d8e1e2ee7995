//! What lies below an error: its chain of causes, in the words that a log line has room for.

use std::error::Error;

/// The error and everything that caused it, on one line. A layer that only repeats its cause is
/// said once.
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // `transparent` variants say their cause's words themselves.
        if !line.ends_with(&words) {
            line.push_str(": ");
            line.push_str(&words);
        }
        cause = error.source();
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The words of the innermost cause: the layers above it only say that something failed.
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("the volume\n  failed")]
        Volume(#[source] io::Error),
        #[error(transparent)]
        Same(#[from] io::Error),
    }

    #[test]
    fn the_chain_is_one_line_and_says_nothing_twice() {
        let cause = || io::Error::other("no space");
        assert_eq!(one_line(&Outer::Volume(cause())), "the volume failed: no space");
        assert_eq!(one_line(&Outer::Same(cause())), "no space");
        assert_eq!(innermost(&Outer::Volume(cause())), "no space");
    }
}
