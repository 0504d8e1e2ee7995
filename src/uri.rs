//! The model's address: `s3://bucket[/key-or-prefix]`.
//!
//! Owns the grammar of a source URI, and promises that an [`S3Uri`] names a bucket that a request can be made for. The
//! key is taken byte for byte: no percent-decoding, no normalisation, no query or fragment, because an S3 key may hold
//! `//`, `..`, `?`, `#`, `%` and spaces. Whether a key is one object or a prefix is left to the plan, which asks the
//! bucket; whether it can be a file name is left to `plan::destination`.
//!
//! Two differences from KServe, which goes through Python's `urlparse` (`_download_s3` in `kserve_storage.py`):
//! - `?` and `#` belong to the key here; `urlparse` cuts the key there.
//! - Control characters are refused; `urlparse` silently drops tabs and line breaks.
//!
//! And one thing kept: slashes in front of the key are dropped, so `s3://b//x` is `s3://b/x`. A key that really begins
//! with a slash cannot be named by a URI, only reached through its bucket.

use std::fmt;

use thiserror::Error;

/// What a source URI has to look like; every [`UriError`] ends with it or implies it.
pub const SUPPORTED: &str = "s3://bucket[/key-or-prefix]";

/// A bucket and what is wanted of it. Display prints the canonical URI, which parses to the same value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct S3Uri {
    bucket: String,
    target: Target,
}

/// What of the bucket is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Everything in the bucket: `s3://b` and `s3://b/`.
    Bucket,
    /// Everything below a prefix, which ends in `/`: `s3://b/model/`.
    Prefix(String),
    /// The object of this key where there is one, else everything below the key and a `/`: `s3://b/model`.
    KeyOrPrefix(String),
}

/// Why a source is not an S3 URI. No message repeats what may hold a secret: user information, a presigned query.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UriError {
    /// There is nothing to parse.
    #[error("the source URI is empty; write {SUPPORTED}")]
    Empty,
    /// A plain path, as KServe mounts a volume claim; or a bucket without a scheme.
    #[error("source {uri:?} has no scheme; write {SUPPORTED}{hint}", hint = path_hint(.uri))]
    SchemeMissing {
        /// The source as it was given.
        uri: String,
    },
    /// Another storage than S3.
    #[error("scheme {scheme:?} is not supported; write {SUPPORTED}{hint}", hint = scheme_hint(.scheme))]
    SchemeUnsupported {
        /// The scheme in lower case, without `://`. The rest is left out: a presigned URL is a secret.
        scheme: String,
    },
    /// Nothing between `s3://` and the next slash.
    #[error("the source URI names no bucket; write {SUPPORTED}")]
    BucketMissing,
    /// A bucket name that no S3 store accepts.
    #[error(
        "bucket name {bucket:?} is not valid: 1 to 255 of the letters a-z and A-Z, digits, '.', '_' and '-' are allowed"
    )]
    BucketInvalid {
        /// The bucket part of the URI.
        bucket: String,
    },
    /// `s3://user:password@bucket`, as some other tools accept it.
    #[error(
        "the source URI holds something in front of an '@' where the bucket name belongs; \
         a URI cannot carry credentials, put them into the Secret and write {SUPPORTED}"
    )]
    UserInformation,
    /// An ARN of something else than an access point.
    #[error(
        "{arn:?} is not an access point; write s3://arn:aws:s3:region:account:accesspoint/name[/key-or-prefix], \
         or {SUPPORTED}"
    )]
    ArnUnsupported {
        /// The URI without its scheme.
        arn: String,
    },
    /// A line break from a YAML block, most of the time.
    #[error("path {path:?} holds a control character; remove it (a YAML block `|` adds a line break, `|-` does not)")]
    ControlCharacter {
        /// What follows the bucket.
        path: String,
    },
}

impl S3Uri {
    /// Parses `s3://bucket[/key-or-prefix]`. The scheme may be in upper case, as RFC 3986 section 3.1 has it.
    pub fn parse(uri: &str) -> Result<S3Uri, UriError> {
        if uri.trim().is_empty() {
            return Err(UriError::Empty);
        }
        let (scheme, rest) = match uri.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
            Some(_) | None => (None, uri),
        };
        if let Some(scheme) = scheme.filter(|scheme| !scheme.eq_ignore_ascii_case("s3")) {
            return Err(UriError::SchemeUnsupported { scheme: scheme.to_ascii_lowercase() });
        }
        // User information comes first: no later message may print it.
        if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
            return Err(UriError::UserInformation);
        }
        if scheme.is_none() {
            return Err(UriError::SchemeMissing { uri: uri.to_owned() });
        }
        let (bucket, path) = split_bucket(rest)?;
        S3Uri::in_bucket(bucket, path)
    }

    /// A path inside a bucket that was given on its own, as a ModelMesh storage spec gives them. The path follows the
    /// rules of the URI's: empty is the whole bucket, slashes in front are dropped, one at the end makes it a prefix.
    pub fn in_bucket(bucket: &str, path: &str) -> Result<S3Uri, UriError> {
        if bucket.is_empty() {
            return Err(UriError::BucketMissing);
        }
        if bucket.starts_with("arn:") {
            let (arn, rest) = split_bucket(bucket)?;
            if !rest.is_empty() {
                return Err(UriError::ArnUnsupported { arn: arn.to_owned() });
            }
        } else if !is_bucket_name(bucket) {
            return Err(UriError::BucketInvalid { bucket: bucket.to_owned() });
        }
        if path.chars().any(|c| c.is_ascii_control()) {
            return Err(UriError::ControlCharacter { path: path.to_owned() });
        }
        let key = path.trim_start_matches('/');
        let target = if key.is_empty() {
            Target::Bucket
        } else if key.ends_with('/') {
            Target::Prefix(key.to_owned())
        } else {
            Target::KeyOrPrefix(key.to_owned())
        };
        Ok(S3Uri { bucket: bucket.to_owned(), target })
    }

    /// The bucket's name, or an access point's ARN.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What of the bucket is wanted.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

impl fmt::Display for S3Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Bucket => write!(f, "s3://{}", self.bucket),
            Target::Prefix(key) | Target::KeyOrPrefix(key) => write!(f, "s3://{}/{key}", self.bucket),
        }
    }
}

/// The bucket, and the path after it, which is empty or begins with `/`.
fn split_bucket(rest: &str) -> Result<(&str, &str), UriError> {
    if rest.starts_with("arn:") {
        let end = access_point_len(rest).ok_or_else(|| UriError::ArnUnsupported { arn: rest.to_owned() })?;
        return Ok(rest.split_at(end));
    }
    Ok(rest.split_at(rest.find('/').unwrap_or(rest.len())))
}

/// How many bytes of `rest` are an access point's ARN, as botocore's `_S3_ACCESSPOINT_TO_BUCKET_KEY_REGEX` splits one
/// off: `arn:<partition>:s3:<region>:<account>:accesspoint/<name>`, the last separator a `/` or a `:`. A multi-region
/// access point has no region. The ARN's own `/` is why an ARN cannot be split at the first one.
fn access_point_len(rest: &str) -> Option<usize> {
    let mut fields = rest.splitn(6, ':');
    let mut field = || fields.next();
    let (_arn, partition, service, region, account) = (field()?, field()?, field()?, field()?, field()?);
    let resource = field()?;
    let name = resource.strip_prefix("accesspoint").and_then(|name| name.strip_prefix(['/', ':']))?;
    let name_len = name.find('/').unwrap_or(name.len());
    let name = &name[..name_len];
    let known = partition.starts_with("aws")
        && partition.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        && matches!(service, "s3" | "s3-object-lambda")
        && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && (1..=63).contains(&name_len)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    known.then(|| rest.len() - resource.len() + "accesspoint/".len() + name_len)
}

/// What botocore lets through (`VALID_BUCKET`), for MinIO, Ceph and old us-east-1 buckets are laxer than today's AWS
/// rules (3 to 63 characters, lower case). `.` and `..` would be path segments of a path-style URL, so they are not
/// names.
fn is_bucket_name(bucket: &str) -> bool {
    (1..=255).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && bucket != "."
        && bucket != ".."
}

fn is_scheme(scheme: &str) -> bool {
    // RFC 3986 section 3.1.
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn path_hint(uri: &str) -> &'static str {
    if uri.starts_with('/') { " (a path or a mounted volume is for KServe's own storage initializer)" } else { "" }
}

/// The storages of KServe's `Storage.download`, and the spellings of S3 that other tools have.
fn scheme_hint(scheme: &str) -> &'static str {
    match scheme {
        "gs" | "hf" | "hdfs" | "webhdfs" | "modelscope" | "oci" | "pvc" | "file" => {
            " (KServe's own storage initializer handles this scheme)"
        }
        "http" | "https" => {
            " (KServe's own storage initializer handles this scheme; an S3 endpoint belongs into `endpoint_url`)"
        }
        "s3a" | "s3n" => " (the same address with s3:// in front)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(uri: &str) -> (String, Target) {
        let uri = S3Uri::parse(uri).unwrap();
        (uri.bucket, uri.target)
    }

    fn error(uri: &str) -> String {
        S3Uri::parse(uri).unwrap_err().to_string()
    }

    fn key(key: &str) -> Target {
        Target::KeyOrPrefix(key.to_owned())
    }

    #[test]
    fn a_slash_at_the_end_tells_a_prefix_from_a_key() {
        assert_eq!(parsed("s3://b"), ("b".into(), Target::Bucket));
        assert_eq!(parsed("s3://b/"), ("b".into(), Target::Bucket));
        assert_eq!(parsed("s3://b/model/"), ("b".into(), Target::Prefix("model/".into())));
        assert_eq!(parsed("s3://b/model"), ("b".into(), key("model")));
    }

    #[test]
    fn a_key_is_taken_byte_for_byte() {
        for name in ["a//b", "a/../b", "a?versionId=1", "a#b", "100%25", "a b", "ä/模型", "a\\b", "x@y"] {
            assert_eq!(parsed(&format!("s3://b/{name}")).1, key(name));
        }
    }

    #[test]
    fn slashes_in_front_of_the_key_are_dropped_as_kserve_does() {
        assert_eq!(parsed("s3://b//x"), ("b".into(), key("x")));
        assert_eq!(parsed("s3://b///"), ("b".into(), Target::Bucket));
    }

    #[test]
    fn the_scheme_may_be_in_upper_case_but_the_bucket_keeps_its_case() {
        assert_eq!(parsed("S3://Legacy_Bucket/k"), ("Legacy_Bucket".into(), key("k")));
    }

    #[test]
    fn an_access_point_keeps_its_own_slash() {
        let arn = "arn:aws:s3:eu-central-1:123456789012:accesspoint/models";
        assert_eq!(parsed(&format!("s3://{arn}")), (arn.into(), Target::Bucket));
        assert_eq!(parsed(&format!("s3://{arn}/bert/1")), (arn.into(), key("bert/1")));
        let with_colon = "arn:aws-cn:s3::123456789012:accesspoint:m.mrap";
        assert_eq!(parsed(&format!("s3://{with_colon}/bert/")), (with_colon.into(), Target::Prefix("bert/".into())));
    }

    #[test]
    fn an_arn_of_anything_else_is_refused() {
        for arn in [
            "arn:aws:s3:::bucket/key",
            "arn:aws:s3:eu-central-1:1234:accesspoint/models",
            "arn:aws:s3:eu-central-1:123456789012:accesspoint/",
            "arn:aws:iam::123456789012:role/x",
            "arn:",
        ] {
            assert_eq!(S3Uri::parse(&format!("s3://{arn}")), Err(UriError::ArnUnsupported { arn: arn.into() }));
        }
    }

    #[test]
    fn a_bucket_and_a_path_make_the_same_value_as_the_uri() {
        assert_eq!(S3Uri::in_bucket("b", "/model/"), S3Uri::parse("s3://b/model/"));
        assert_eq!(S3Uri::in_bucket("b", ""), S3Uri::parse("s3://b"));
        assert_eq!(S3Uri::in_bucket("", "model"), Err(UriError::BucketMissing));
        assert_eq!(S3Uri::in_bucket("b/c", ""), Err(UriError::BucketInvalid { bucket: "b/c".into() }));
        let arn = "arn:aws:s3:eu-central-1:123456789012:accesspoint/models";
        assert_eq!(S3Uri::in_bucket(arn, "x").unwrap().bucket(), arn);
        assert!(S3Uri::in_bucket(&format!("{arn}/y"), "x").is_err());
    }

    #[test]
    fn a_bucket_name_has_255_bytes_at_most() {
        assert!(S3Uri::parse(&format!("s3://{}", "b".repeat(255))).is_ok());
        assert!(S3Uri::parse(&format!("s3://{}", "b".repeat(256))).is_err());
    }

    #[test]
    fn every_error_says_what_to_write_instead() {
        insta::assert_snapshot!(
            [
                "", "  ", "/mnt/models", "model/bert", "gs://b/k", "HF://org/model", "file:///mnt/x", "pvc://claim/x",
                "https://host/b?X-Amz-Signature=secret", "s3a://b/k", "ftp://b/k", "s3://", "s3:///k", "s3://bück/k",
                "s3://../k", "s3://b:80/k", "s3://b/k\n",
            ]
            .map(|uri| format!("{uri:?}: {}", error(uri)))
            .join("\n"),
            @r#"
            "": the source URI is empty; write s3://bucket[/key-or-prefix]
            "  ": the source URI is empty; write s3://bucket[/key-or-prefix]
            "/mnt/models": source "/mnt/models" has no scheme; write s3://bucket[/key-or-prefix] (a path or a mounted volume is for KServe's own storage initializer)
            "model/bert": source "model/bert" has no scheme; write s3://bucket[/key-or-prefix]
            "gs://b/k": scheme "gs" is not supported; write s3://bucket[/key-or-prefix] (KServe's own storage initializer handles this scheme)
            "HF://org/model": scheme "hf" is not supported; write s3://bucket[/key-or-prefix] (KServe's own storage initializer handles this scheme)
            "file:///mnt/x": scheme "file" is not supported; write s3://bucket[/key-or-prefix] (KServe's own storage initializer handles this scheme)
            "pvc://claim/x": scheme "pvc" is not supported; write s3://bucket[/key-or-prefix] (KServe's own storage initializer handles this scheme)
            "https://host/b?X-Amz-Signature=secret": scheme "https" is not supported; write s3://bucket[/key-or-prefix] (KServe's own storage initializer handles this scheme; an S3 endpoint belongs into `endpoint_url`)
            "s3a://b/k": scheme "s3a" is not supported; write s3://bucket[/key-or-prefix] (the same address with s3:// in front)
            "ftp://b/k": scheme "ftp" is not supported; write s3://bucket[/key-or-prefix]
            "s3://": the source URI names no bucket; write s3://bucket[/key-or-prefix]
            "s3:///k": the source URI names no bucket; write s3://bucket[/key-or-prefix]
            "s3://bück/k": bucket name "bück" is not valid: 1 to 255 of the letters a-z and A-Z, digits, '.', '_' and '-' are allowed
            "s3://../k": bucket name ".." is not valid: 1 to 255 of the letters a-z and A-Z, digits, '.', '_' and '-' are allowed
            "s3://b:80/k": bucket name "b:80" is not valid: 1 to 255 of the letters a-z and A-Z, digits, '.', '_' and '-' are allowed
            "s3://b/k\n": path "/k\n" holds a control character; remove it (a YAML block `|` adds a line break, `|-` does not)
            "#
        );
    }

    #[test]
    fn no_message_repeats_what_may_be_a_secret() {
        for uri in
            ["s3://AKIA:hush@b/k", "s3://hush@b\n", "https://u:hush@h/b?sig=hush", "s3://hush@arn:aws", "u:hush@b/k"]
        {
            assert!(!error(uri).contains("hush"), "{}", error(uri));
        }
        assert_eq!(S3Uri::parse("s3://a:b@c"), Err(UriError::UserInformation));
        assert!(S3Uri::parse("s3://c/a:b@c").is_ok());
    }

    proptest! {
        #[test]
        fn the_canonical_uri_parses_to_the_same_value(bucket in "[a-zA-Z0-9_-]{1,63}", path in "(/[^\\p{Cc}]{0,40})?") {
            let uri = S3Uri::parse(&format!("s3://{bucket}{path}")).unwrap();
            prop_assert_eq!(S3Uri::parse(&uri.to_string()), Ok(uri));
        }

        #[test]
        fn no_input_panics(uri in ".{0,60}|s3://.{0,60}|s3://arn:.{0,60}") {
            let _ = S3Uri::parse(&uri);
        }
    }
}
