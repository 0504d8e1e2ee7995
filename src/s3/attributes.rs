//! The parts of an object that was uploaded in several, with the checksum of each.

use aws_sdk_s3::types::{ObjectAttributes, ObjectPart};

use super::S3;
use crate::{
    checksum::{Expected, StoredChecksums, Verifiability},
    ranges::ByteRange,
};

/// How many parts an answer has. S3 allows 10,000 parts, so this bounds the answers.
const PARTS_PER_ANSWER: i32 = 1_000;

impl S3 {
    /// Which bytes are which part, and what each adds up to. Empty where the store does not tell, does not let itself be
    /// asked (`s3:GetObjectAttributes`), or tells of other bytes than the object has: then the object cannot be checked
    /// this way, and that is no error.
    pub async fn parts(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
        size_bytes: u64,
    ) -> Vec<(ByteRange, Expected)> {
        let target = format!("s3://{bucket}/{key}");
        let mut parts = Vec::new();
        let mut end_bytes = 0;
        let mut marker: Option<String> = None;
        loop {
            let after = marker.as_deref();
            let answer = self.retrying("GetObjectAttributes", &target, |client| async move {
                client
                    .get_object_attributes()
                    .bucket(bucket)
                    .key(key)
                    .set_version_id(version.map(str::to_owned))
                    .object_attributes(ObjectAttributes::ObjectParts)
                    .max_parts(PARTS_PER_ANSWER)
                    .set_part_number_marker(after.map(str::to_owned))
                    .send()
                    .await
            });
            let page = match answer.await {
                Ok(answer) => answer.object_parts,
                Err(error) => {
                    tracing::debug!(key, "the checksums of the object's parts cannot be had: {error}");
                    return Vec::new();
                }
            };
            let Some(page) = page else { return Vec::new() };
            for part in page.parts() {
                let Some((range, expected)) = read(part, end_bytes) else { return Vec::new() };
                end_bytes = range.end_bytes();
                parts.push((range, expected));
            }
            let next = page.next_part_number_marker().filter(|_| page.is_truncated() == Some(true));
            match next {
                Some(next) if marker.as_deref() != Some(next) && end_bytes < size_bytes => {
                    marker = Some(next.to_owned())
                }
                _ => break,
            }
        }
        if end_bytes == size_bytes { parts } else { Vec::new() }
    }
}

fn read(part: &ObjectPart, begin_bytes: u64) -> Option<(ByteRange, Expected)> {
    let range = ByteRange::new(begin_bytes, u64::try_from(part.size()?).ok()?)?;
    let stored = StoredChecksums {
        crc64nvme: part.checksum_crc64_nvme(),
        crc32c: part.checksum_crc32_c(),
        crc32: part.checksum_crc32(),
        sha256: part.checksum_sha256(),
        sha1: part.checksum_sha1(),
        checksum_type: None,
    };
    match stored.verifiability() {
        Verifiability::FullObject(expected) => Some((range, expected)),
        Verifiability::Composite | Verifiability::Malformed(_) | Verifiability::Absent => None,
    }
}
