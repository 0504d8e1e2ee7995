//! The operations of S3 that a download uses, on the [`Store`].
//!
//! `s3s` has parsed the request and checked its signature, and [`super::access`] has allowed it. Here each operation
//! answers as <https://docs.aws.amazon.com/AmazonS3/latest/API/> describes it, also where `s3s-fs` does not: conditional
//! reads, versions, part numbers, and checksums only with a whole object.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use s3s::dto::*;
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::describe::{ChecksumFields, listed, parts_page, without_part_count};
use super::listing;
use super::object::{self, Chunks, Object as NewObject};
use super::read::{Conditions, Read, absent, content};
use super::store::{Absent, Store};

/// Marks a request of which the server pretends not to know a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ignored {
    Range,
    IfMatch,
}

/// The implementation of the operations.
#[derive(Debug)]
pub(crate) struct Operations {
    pub(crate) store: Store,
    pub(crate) region: Option<String>,
    /// How many entries a listing answers at most, whatever the client asks for.
    pub(crate) page_size: usize,
}

#[async_trait::async_trait]
impl S3 for Operations {
    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        if !self.store.has_bucket(&request.input.bucket) {
            return Err(absent(Absent::Bucket));
        }
        Ok(S3Response::new(HeadBucketOutput { bucket_region: self.region.clone(), ..Default::default() }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let newest = self.store.newest(&input.bucket).map_err(absent)?;
        let keys: Vec<&str> = newest.iter().map(|(key, _)| key.as_str()).collect();
        let asked = input.max_keys.unwrap_or(1000);
        let asked = usize::try_from(asked)
            .map_err(|_| s3_error!(InvalidArgument, "Argument maxKeys must be an integer between 0 and 2147483647"))?;
        let continued = match &input.continuation_token {
            None => None,
            Some(token) => Some(read_token(token)?),
        };
        let page = listing::page(
            &keys,
            &listing::Query {
                prefix: input.prefix.as_deref().unwrap_or_default(),
                delimiter: input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()),
                after: continued.as_deref().or(input.start_after.as_deref()),
                max_entries: asked.min(self.page_size),
            },
        );
        let url = input.encoding_type.as_ref().is_some_and(|encoding| encoding.as_str() == EncodingType::URL);
        let name = |text: &str| {
            if url { listing::url_encoded(text) } else { text.to_owned() }
        };
        let mut contents = Vec::new();
        let mut common_prefixes = Vec::new();
        for entry in &page.entries {
            match entry {
                listing::Entry::CommonPrefix(prefix) => {
                    common_prefixes.push(CommonPrefix { prefix: Some(name(prefix)) })
                }
                listing::Entry::Key(index) => {
                    let (key, version) = &newest[*index];
                    contents.extend(listed(name(key), version));
                }
            }
        }
        let optional = |text: &Option<String>| text.as_deref().map(&name);
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: Some(page.entries.len() as i32),
            is_truncated: Some(page.next_after.is_some()),
            next_continuation_token: page.next_after.as_deref().map(write_token),
            max_keys: Some(asked.min(1000) as i32),
            prefix: Some(name(input.prefix.as_deref().unwrap_or_default())),
            delimiter: optional(&input.delimiter),
            start_after: optional(&input.start_after),
            encoding_type: input.encoding_type,
            continuation_token: input.continuation_token,
            name: Some(input.bucket),
            contents: (!contents.is_empty()).then_some(contents),
            common_prefixes: (!common_prefixes.is_empty()).then_some(common_prefixes),
            ..Default::default()
        }))
    }

    /// The listing before version 2, which the downloads of others still ask for: the marker is the last key of a page.
    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let page = self.list_objects_v2(request.map_input(Into::into)).await?.output;
        let last = page.contents.as_ref().and_then(|contents| contents.last()).and_then(|object| object.key.clone());
        let is_truncated = page.is_truncated;
        Ok(S3Response::new(ListObjectsOutput {
            next_marker: last.filter(|_| is_truncated == Some(true) && page.delimiter.is_some()),
            is_truncated,
            contents: page.contents,
            common_prefixes: page.common_prefixes,
            delimiter: page.delimiter,
            encoding_type: page.encoding_type,
            max_keys: page.max_keys,
            name: page.name,
            prefix: page.prefix,
            ..Default::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let read = Read {
            bucket: &input.bucket,
            key: &input.key,
            version_id: input.version_id.as_deref(),
            range: input.range.as_ref(),
            part_number: input.part_number,
            checksum_wanted: wants_checksum(input.checksum_mode.as_ref()),
            conditions: Conditions {
                if_match: input.if_match.as_ref(),
                if_none_match: input.if_none_match.as_ref(),
                if_modified_since: input.if_modified_since.as_ref(),
                if_unmodified_since: input.if_unmodified_since.as_ref(),
            },
        };
        let selected = read.select(&self.store)?;
        let content_range = selected.content_range();
        let sums = ChecksumFields::of(selected.checksum.as_ref());
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha256: sums.sha256,
            checksum_type: sums.kind,
            content_range,
            content_length: Some(selected.chunks.remaining() as i64),
            content_type: Some("binary/octet-stream".to_owned()),
            e_tag: Some(ETag::Strong(selected.etag)),
            last_modified: Some(selected.version.last_modified.into()),
            parts_count: selected.parts_count,
            version_id: selected.version.id.clone(),
            ..Default::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let ignored = request.extensions.get::<Ignored>().copied();
        let input = request.input;
        let read = Read {
            bucket: &input.bucket,
            key: &input.key,
            version_id: input.version_id.as_deref(),
            range: input.range.as_ref().filter(|_| ignored != Some(Ignored::Range)),
            part_number: input.part_number,
            checksum_wanted: wants_checksum(input.checksum_mode.as_ref()),
            conditions: Conditions {
                if_match: input.if_match.as_ref().filter(|_| ignored != Some(Ignored::IfMatch)),
                if_none_match: input.if_none_match.as_ref(),
                if_modified_since: input.if_modified_since.as_ref(),
                if_unmodified_since: input.if_unmodified_since.as_ref(),
            },
        };
        let selected = read.select(&self.store)?;
        let content_range = selected.content_range();
        let sums = ChecksumFields::of(selected.checksum.as_ref());
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha256: sums.sha256,
            checksum_type: sums.kind,
            content_range,
            content_length: Some(selected.chunks.remaining() as i64),
            content_type: Some("binary/octet-stream".to_owned()),
            e_tag: Some(ETag::Strong(selected.etag)),
            last_modified: Some(selected.version.last_modified.into()),
            parts_count: selected.parts_count,
            version_id: selected.version.id.clone(),
            body: Some(StreamingBlob::new(ChunkStream(selected.chunks))),
            ..Default::default()
        }))
    }

    async fn get_object_attributes(
        &self,
        request: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        let input = request.input;
        let version = self.store.find(&input.bucket, &input.key, input.version_id.as_deref()).map_err(absent)?;
        let stored = content(&version)?;
        let wanted = |name: &str| {
            input
                .object_attributes
                .iter()
                // `s3s` takes a header per attribute; clients send one header with commas.
                .flat_map(|attributes| attributes.as_str().split(','))
                .any(|attribute| attribute.trim() == name)
        };
        let sums = ChecksumFields::of(stored.checksum.as_ref());
        let checksum = (wanted("Checksum") && stored.checksum.is_some()).then_some(s3s::dto::Checksum {
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha256: sums.sha256,
            checksum_type: sums.kind,
            ..Default::default()
        });
        let object_parts = (wanted("ObjectParts") && !stored.parts.is_empty())
            .then(|| parts_page(stored, input.part_number_marker.unwrap_or(0), input.max_parts.unwrap_or(1000)));
        Ok(S3Response::new(GetObjectAttributesOutput {
            checksum: checksum.map(|mut checksum| {
                without_part_count(&mut checksum);
                checksum
            }),
            e_tag: wanted("ETag").then(|| ETag::Strong(stored.etag.clone())),
            last_modified: Some(version.last_modified.into()),
            object_parts,
            object_size: wanted("ObjectSize").then_some(stored.data.len() as i64),
            version_id: version.id.clone(),
            ..Default::default()
        }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let mut bytes = Vec::new();
        if let Some(mut body) = input.body {
            while let Some(chunk) = std::future::poll_fn(|context| Pin::new(&mut body).poll_next(context)).await {
                bytes.extend_from_slice(
                    &chunk.map_err(|cause| S3Error::with_source(S3ErrorCode::IncompleteBody, cause))?,
                );
            }
        }
        let object = NewObject::bytes(bytes).checksum(object::Checksum::Crc64Nvme).digested();
        let etag = ETag::Strong(object.etag.clone());
        let version_id = self.store.push(&input.bucket, &input.key, Some(object)).map_err(absent)?;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(etag), version_id, ..Default::default() }))
    }
}

fn wants_checksum(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

/// Tokens are opaque to clients, so they do not look like the keys that they are.
fn write_token(key: &str) -> String {
    object::hex(key.as_bytes())
}

fn read_token(token: &str) -> S3Result<String> {
    let bytes: Option<Vec<u8>> =
        (0..token.len()).step_by(2).map(|start| u8::from_str_radix(token.get(start..start + 2)?, 16).ok()).collect();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
}

/// The chunks of an object as the body of a reply.
struct ChunkStream(Chunks);

impl Stream for ChunkStream {
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

impl ByteStream for ChunkStream {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(self.0.remaining() as usize)
    }
}
