//! What GET and HEAD have in common: which version, under which conditions, and which of its bytes.

use std::ops::Range;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue};
use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::object::{self, Chunks, Digested, StoredChecksum};
use super::store::{Absent, Store, Version};

/// What GET and HEAD have in common.
pub(crate) struct Read<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    pub(crate) version_id: Option<&'a str>,
    pub(crate) range: Option<&'a s3s::dto::Range>,
    pub(crate) part_number: Option<i32>,
    pub(crate) checksum_wanted: bool,
    pub(crate) conditions: Conditions<'a>,
}

/// What a reply to GET or HEAD is made of.
pub(crate) struct Selected {
    pub(crate) version: Arc<Version>,
    pub(crate) etag: String,
    pub(crate) chunks: Chunks,
    /// The bytes and the total, where the reply is partial.
    partial: Option<(Range<u64>, u64)>,
    pub(crate) checksum: Option<StoredChecksum>,
    pub(crate) parts_count: Option<i32>,
}

impl Read<'_> {
    pub(crate) fn select(&self, store: &Store) -> S3Result<Selected> {
        let version = store.find(self.bucket, self.key, self.version_id).map_err(absent)?;
        let stored = content(&version)?;
        self.conditions.check(&stored.etag, &version)?;
        let total = stored.data.len();
        let mut checksum = stored.checksum.clone().filter(|_| self.checksum_wanted);
        let mut parts_count = None;
        let partial = match (self.range, self.part_number) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                return Err(s3_error!(
                    InvalidRequest,
                    "Cannot specify both Range header and partNumber query parameter"
                ));
            }
            (Some(range), None) => {
                // S3 keeps the checksum of the whole object to replies with the whole object.
                checksum = None;
                Some(range.check(total).map_err(|_| unsatisfiable(total))?)
            }
            (None, Some(number)) => {
                let (part, value) = select_part(stored, number)?;
                parts_count = (!stored.parts.is_empty()).then_some(stored.parts.len() as i32);
                checksum = checksum.filter(|checksum| checksum.kind == object::ChecksumType::Composite);
                if let (Some(checksum), Some(value)) = (&mut checksum, value) {
                    checksum.value = value;
                    checksum.parts.clear();
                }
                Some(part)
            }
        };
        let range = partial.clone().unwrap_or(0..total);
        Ok(Selected {
            etag: stored.etag.clone(),
            chunks: stored.data.chunks(range),
            // A part of nothing has no first and last byte to name.
            partial: partial.filter(|range| !range.is_empty()).map(|range| (range, total)),
            checksum,
            parts_count,
            version,
        })
    }
}

impl Selected {
    /// The `Content-Range` of a partial reply; `s3s` answers 206 where a GET has one.
    pub(crate) fn content_range(&self) -> Option<String> {
        let (range, total) = self.partial.as_ref()?;
        Some(format!("bytes {}-{}/{total}", range.start, range.end - 1))
    }
}

/// The bytes of a part, counted from 1, and its checksum. An object that was not uploaded in parts is its own part 1.
fn select_part(stored: &Digested, number: i32) -> S3Result<(Range<u64>, Option<String>)> {
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let found = match index {
        Some(0) if stored.parts.is_empty() => Some((0..stored.data.len(), None)),
        Some(index) => stored.parts.get(index).map(|part| {
            let sums = stored.checksum.as_ref();
            (part.clone(), sums.and_then(|sums| sums.parts.get(index).cloned()))
        }),
        None => None,
    };
    found.ok_or_else(|| {
        let mut error = S3Error::with_message(
            S3ErrorCode::Custom("InvalidPartNumber".into()),
            "The requested partnumber is not satisfiable",
        );
        error.set_status_code(StatusCode::RANGE_NOT_SATISFIABLE);
        error
    })
}

fn unsatisfiable(total: u64) -> S3Error {
    let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{total}")) {
        headers.insert(CONTENT_RANGE, range);
    }
    error.set_headers(headers);
    error
}

pub(crate) fn content(version: &Version) -> S3Result<&Digested> {
    version.object.as_ref().ok_or_else(|| absent(Absent::DeleteMarker))
}

/// What S3 answers where there is nothing.
pub(crate) fn absent(what: Absent) -> S3Error {
    match what {
        Absent::Bucket => s3_error!(NoSuchBucket, "The specified bucket does not exist"),
        Absent::Key => s3_error!(NoSuchKey, "The specified key does not exist."),
        Absent::Version => s3_error!(NoSuchVersion, "The specified version does not exist."),
        Absent::DeleteMarker => {
            let mut error = s3_error!(NoSuchKey, "The specified key does not exist.");
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
            headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
            error.set_headers(headers);
            error
        }
    }
}

/// The conditional headers of a read.
pub(crate) struct Conditions<'a> {
    pub(crate) if_match: Option<&'a ETagCondition>,
    pub(crate) if_none_match: Option<&'a ETagCondition>,
    pub(crate) if_modified_since: Option<&'a Timestamp>,
    pub(crate) if_unmodified_since: Option<&'a Timestamp>,
}

impl Conditions<'_> {
    /// In the order of RFC 9110, section 13.2.2: the ETag conditions win over the dates.
    fn check(&self, etag: &str, version: &Version) -> S3Result<()> {
        let names = |condition: &ETagCondition| {
            condition.is_any() || condition.as_etag().is_some_and(|named| named.value() == etag)
        };
        // Dates in HTTP have whole seconds.
        let modified_after = |timestamp: &Timestamp| {
            time::OffsetDateTime::from(timestamp.clone()).unix_timestamp() < version.last_modified.unix_timestamp()
        };
        let failed = match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) => !names(condition),
            (None, Some(date)) => modified_after(date),
            (None, None) => false,
        };
        if failed {
            return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"));
        }
        let unmodified = match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) => names(condition),
            (None, Some(date)) => !modified_after(date),
            (None, None) => false,
        };
        if unmodified {
            return Err(s3_error!(NotModified, "Not Modified"));
        }
        Ok(())
    }
}
