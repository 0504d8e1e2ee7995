//! Feeds the CA bundle scanner anything: it must end, hold its bounds and show nothing of what it
//! was given. The seeds are each shape that people paste, small and without any key in them. From the
//! repository's root, new finds beside them and not among them:
//!
//! ```sh
//! mkdir -p fuzz/target/corpus/ca_bundle
//! cargo +nightly fuzz run ca_bundle fuzz/target/corpus/ca_bundle fuzz/corpus/ca_bundle -- \
//!     -dict=fuzz/ca_bundle.dict -max_len=8192 -max_total_time=600
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_initializer::trust_store::ca_bundle::{MAX_SKIPPED, scan};

/// Each kind of repair has one remark, and so have keys, surroundings and the count of the rest.
const MAX_OTHERS: usize = 16;

fuzz_target!(|bytes: &[u8]| {
    let bundle = scan(bytes);
    assert!(!bundle.certificates.is_empty() || !bundle.remarks.is_empty(), "silent about nothing");
    assert!(bundle.remarks.len() <= MAX_SKIPPED + MAX_OTHERS, "more remarks than anybody reads");

    // What is found is whole: alone, it is found again as it is.
    for found in &bundle.certificates {
        let again = scan(&found.der);
        assert_eq!(again.certificates.len(), 1);
        assert_eq!(again.certificates[0].der, found.der);
    }

    // Each remark is one line of fixed words and numbers.
    for remark in &bundle.remarks {
        let line = remark.to_string();
        assert!(line.is_ascii() && line.len() < 400 && !line.contains(['\n', '\r']), "{line:?}");
    }
});
