//! How objects, their checksums and their parts are described in replies.

use s3s::dto::{
    Checksum, ChecksumAlgorithm, ChecksumType, ETag, GetObjectAttributesParts, Object, ObjectPart, ObjectStorageClass,
};

use super::object::{self, Digested, StoredChecksum};
use super::store::Version;

/// An object in a listing.
pub(crate) fn listed(key: String, version: &Version) -> Option<Object> {
    let stored = version.object.as_ref()?;
    let checksum = stored.checksum.as_ref();
    Some(Object {
        key: Some(key),
        e_tag: Some(ETag::Strong(stored.etag.clone())),
        size: Some(stored.data.len() as i64),
        last_modified: Some(version.last_modified.into()),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        checksum_algorithm: checksum.map(|checksum| {
            vec![ChecksumAlgorithm::from_static(match checksum.algorithm {
                object::Checksum::Crc64Nvme => ChecksumAlgorithm::CRC64NVME,
                object::Checksum::Crc32 => ChecksumAlgorithm::CRC32,
                object::Checksum::Crc32c => ChecksumAlgorithm::CRC32C,
                object::Checksum::Sha256 => ChecksumAlgorithm::SHA256,
            })]
        }),
        checksum_type: checksum.map(|checksum| checksum_type(checksum.kind)),
        ..Default::default()
    })
}

fn checksum_type(kind: object::ChecksumType) -> ChecksumType {
    ChecksumType::from_static(match kind {
        object::ChecksumType::FullObject => ChecksumType::FULL_OBJECT,
        object::ChecksumType::Composite => ChecksumType::COMPOSITE,
    })
}

/// One checksum, in the field of its algorithm.
#[derive(Default)]
pub(crate) struct ChecksumFields {
    pub(crate) crc32: Option<String>,
    pub(crate) crc32c: Option<String>,
    pub(crate) crc64nvme: Option<String>,
    pub(crate) sha256: Option<String>,
    pub(crate) kind: Option<ChecksumType>,
}

impl ChecksumFields {
    pub(crate) fn of(checksum: Option<&StoredChecksum>) -> Self {
        let Some(checksum) = checksum else {
            return Self::default();
        };
        let value = match (checksum.kind, checksum.parts.len()) {
            (object::ChecksumType::Composite, count) if count > 0 => {
                format!("{}-{count}", checksum.value)
            }
            (object::ChecksumType::Composite | object::ChecksumType::FullObject, _) => checksum.value.clone(),
        };
        let mut fields = Self::single(checksum.algorithm, value);
        fields.kind = Some(checksum_type(checksum.kind));
        fields
    }

    fn single(algorithm: object::Checksum, value: String) -> Self {
        let mut fields = Self::default();
        match algorithm {
            object::Checksum::Crc64Nvme => fields.crc64nvme = Some(value),
            object::Checksum::Crc32 => fields.crc32 = Some(value),
            object::Checksum::Crc32c => fields.crc32c = Some(value),
            object::Checksum::Sha256 => fields.sha256 = Some(value),
        }
        fields
    }
}

/// GetObjectAttributes gives the number of parts in a field of its own, not behind the checksum.
pub(crate) fn without_part_count(checksum: &mut Checksum) {
    for value in [
        &mut checksum.checksum_crc32,
        &mut checksum.checksum_crc32c,
        &mut checksum.checksum_crc64nvme,
        &mut checksum.checksum_sha256,
    ]
    .into_iter()
    .flatten()
    {
        // A dash is not in the base64 alphabet.
        value.truncate(value.find('-').unwrap_or(value.len()));
    }
}

/// The parts of a multipart object after number `marker`.
pub(crate) fn parts_page(stored: &Digested, marker: i32, max_parts: i32) -> GetObjectAttributesParts {
    let skip = usize::try_from(marker).unwrap_or(0);
    let take = usize::try_from(max_parts).unwrap_or(0).min(1000);
    let total = stored.parts.len();
    let end = total.min(skip.saturating_add(take));
    // S3 lists the parts themselves only where the object has a checksum.
    let parts = stored.checksum.as_ref().map(|checksum| {
        (skip..end)
            .map(|index| {
                let sums = match checksum.parts.get(index) {
                    Some(value) => ChecksumFields::single(checksum.algorithm, value.clone()),
                    None => ChecksumFields::default(),
                };
                ObjectPart {
                    part_number: Some(index as i32 + 1),
                    size: stored.parts.get(index).map(|part| (part.end - part.start) as i64),
                    checksum_crc32: sums.crc32,
                    checksum_crc32c: sums.crc32c,
                    checksum_crc64nvme: sums.crc64nvme,
                    checksum_sha256: sums.sha256,
                    ..Default::default()
                }
            })
            .collect()
    });
    GetObjectAttributesParts {
        is_truncated: Some(parts.is_some() && end < total),
        max_parts: Some(take as i32),
        next_part_number_marker: Some(end as i32),
        part_number_marker: Some(marker),
        parts,
        total_parts_count: Some(total as i32),
    }
}
