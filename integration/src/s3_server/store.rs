//! The buckets and what is in them, shared between a test and its server.
//!
//! A [`Store`] is a handle: clones see the same buckets, and a test may replace or remove objects while the product
//! reads them. Each reply works on one version that it holds on to, as S3's strong read-after-write consistency gives.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use time::OffsetDateTime;

use super::object::{Digested, Object};

/// The buckets of a server.
#[derive(Debug, Clone, Default)]
pub struct Store {
    buckets: Arc<Mutex<BTreeMap<String, Bucket>>>,
    versions_made: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Bucket {
    versioned: bool,
    anonymous: bool,
    /// The versions of each key, the newest last. Ordered by UTF-8 bytes, as S3 lists.
    keys: BTreeMap<String, Vec<Arc<Version>>>,
}

/// One version of one key.
#[derive(Debug)]
pub(crate) struct Version {
    /// Only in a versioned bucket.
    pub(crate) id: Option<String>,
    pub(crate) last_modified: OffsetDateTime,
    /// `None` is a delete marker.
    pub(crate) object: Option<Digested>,
}

/// Why there is no object to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    Bucket,
    Key,
    DeleteMarker,
    Version,
}

impl Store {
    /// Makes an empty bucket; one that exists stays as it is.
    pub fn create_bucket(&self, bucket: &str) {
        self.lock().entry(bucket.to_owned()).or_default();
    }

    /// Makes the bucket keep every version from now on.
    pub fn enable_versioning(&self, bucket: &str) {
        self.lock().entry(bucket.to_owned()).or_default().versioned = true;
    }

    /// Lets requests without a signature read and list the bucket.
    pub fn allow_anonymous(&self, bucket: &str) {
        self.lock().entry(bucket.to_owned()).or_default().anonymous = true;
    }

    /// Puts an object and answers its version id in a versioned bucket. Panics where the bucket does not exist.
    pub fn put(&self, bucket: &str, key: &str, object: Object) -> Option<String> {
        // The digests take a while for a large object: no lock is held meanwhile.
        self.push(bucket, key, Some(object.digested()))
            .unwrap_or_else(|_| panic!("the server has no bucket {bucket:?}"))
    }

    /// Removes a key; in a versioned bucket this leaves a delete marker.
    pub fn remove(&self, bucket: &str, key: &str) {
        let mut buckets = self.lock();
        let Some(entry) = buckets.get_mut(bucket) else {
            return;
        };
        if entry.versioned {
            drop(buckets);
            let _ = self.push(bucket, key, None);
        } else {
            entry.keys.remove(key);
        }
    }

    /// The ETag of the newest version, with its quotes.
    pub fn etag(&self, bucket: &str, key: &str) -> Option<String> {
        let version = self.find(bucket, key, None).ok()?;
        Some(format!("\"{}\"", version.object.as_ref()?.etag))
    }

    pub(crate) fn push(&self, bucket: &str, key: &str, object: Option<Digested>) -> Result<Option<String>, Absent> {
        let mut buckets = self.lock();
        let entry = buckets.get_mut(bucket).ok_or(Absent::Bucket)?;
        let id = entry.versioned.then(|| {
            let number = self.versions_made.fetch_add(1, Ordering::Relaxed);
            format!("v{number:031}")
        });
        let versions = entry.keys.entry(key.to_owned()).or_default();
        if id.is_none() {
            versions.clear();
        }
        let modified = object.as_ref().and_then(|object| object.modified_seconds);
        let last_modified = modified.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        let last_modified = last_modified.unwrap_or_else(OffsetDateTime::now_utc);
        versions.push(Arc::new(Version { id: id.clone(), last_modified, object }));
        Ok(id)
    }

    /// The wanted version, or the newest one. What is found holds an object.
    pub(crate) fn find(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<Arc<Version>, Absent> {
        let buckets = self.lock();
        let versions = buckets.get(bucket).ok_or(Absent::Bucket)?.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        let version = match version_id {
            None => versions.last().ok_or(Absent::Key)?,
            Some(wanted) => versions
                .iter()
                // "null" names the version that was put while there was no versioning.
                .find(|version| version.id.as_deref().unwrap_or("null") == wanted)
                .ok_or(Absent::Version)?,
        };
        if version.object.is_none() {
            return Err(Absent::DeleteMarker);
        }
        Ok(version.clone())
    }

    /// The newest versions of all keys that have one, in S3's order.
    pub(crate) fn newest(&self, bucket: &str) -> Result<Vec<(String, Arc<Version>)>, Absent> {
        let buckets = self.lock();
        let entry = buckets.get(bucket).ok_or(Absent::Bucket)?;
        Ok(entry
            .keys
            .iter()
            .filter_map(|(key, versions)| {
                let version = versions.last()?;
                version.object.as_ref()?;
                Some((key.clone(), version.clone()))
            })
            .collect())
    }

    pub(crate) fn has_bucket(&self, bucket: &str) -> bool {
        self.lock().contains_key(bucket)
    }

    pub(crate) fn is_anonymous(&self, bucket: &str) -> bool {
        self.lock().get(bucket).is_some_and(|entry| entry.anonymous)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bucket>> {
        // A panic elsewhere already fails the test; its poison would only hide the reason.
        self.buckets.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unversioned_bucket_has_one_version_and_a_versioned_one_keeps_all() {
        let store = Store::default();
        store.create_bucket("models");
        assert_eq!(store.put("models", "a", Object::text("one")), None);
        store.put("models", "a", Object::text("two"));
        assert_eq!(store.find("models", "a", Some("x")).unwrap_err(), Absent::Version);

        store.enable_versioning("models");
        let first = store.put("models", "b", Object::text("one")).unwrap();
        store.put("models", "b", Object::text("two"));
        store.remove("models", "b");
        assert_eq!(store.find("models", "b", None).unwrap_err(), Absent::DeleteMarker);
        assert!(store.find("models", "b", Some(&first)).is_ok());
        assert_eq!(store.newest("models").unwrap().len(), 1);
    }
}
