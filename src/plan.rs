//! From what is asked for to a list of files: which objects, and where each of them goes.
//!
//! `s3://b/model` is the object `model` if there is one, else everything below `model/`, and never
//! `model2/`. An exact object needs `s3:GetObject` alone; a prefix needs `s3:ListBucket`. Everything
//! that can be refused is refused here, before a byte is written: keys that would leave the
//! destination, keys that want the same file, nothing found.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use crate::{
    destination::{Collision, KeyError, Mapped, RelativePath, Root, check_collisions, relative_path},
    filter::Filter,
    s3::{Kind, Object, ObjectHead, S3, S3Error},
    settings::Download,
    uri::{S3Uri, Target},
};

/// How many names are offered where nothing was found.
const MAX_NEAR: usize = 3;

/// What is going to be downloaded.
#[derive(Debug, Default)]
pub struct Plan {
    /// The files, in the order of the sources and of their keys.
    pub files: Vec<PlannedFile>,
    /// The destinations, each once.
    pub destinations: Vec<PathBuf>,
}

/// One object and the file that it becomes.
#[derive(Clone, Debug)]
pub struct PlannedFile {
    /// The bucket.
    pub bucket: Arc<str>,
    /// The object as it was when the plan was made.
    pub object: Object,
    /// What a head told of it, where there was one.
    pub head: Option<ObjectHead>,
    /// The index of its destination in [`Plan::destinations`].
    pub destination: usize,
    /// Where it goes below the destination.
    pub path: RelativePath,
}

impl Plan {
    /// The size of all files together.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.object.size_bytes).sum()
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The store refused.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// There is no such object and nothing below it.
    #[error("nothing found at {uri}{near}")]
    NotFound {
        /// What was asked for.
        uri: S3Uri,
        /// What there is instead.
        near: Near,
    },
    /// There are objects, but the patterns keep none.
    #[error(
        "STORAGE_ALLOW_PATTERNS and STORAGE_IGNORE_PATTERNS leave nothing of what is at {uri} (objects: {objects}); patterns are matched against the path below the prefix, for example {example:?}"
    )]
    AllFilteredOut {
        /// What was asked for.
        uri: S3Uri,
        /// How many objects there are.
        objects: u64,
        /// The path of one of them.
        example: String,
    },
    /// A key that cannot be a file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Two keys that want the same file.
    #[error(transparent)]
    Collision(#[from] Collision),
    /// A listing that does not end.
    #[error("the listing of {uri} does not end: the store sent the same continuation token twice")]
    EndlessListing {
        /// What was listed.
        uri: S3Uri,
    },
}

/// What there is where something was not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Near {
    /// Names beside it, or beside the nearest directory that exists, the most similar first.
    Names(Vec<String>),
    /// Keys that end in `/` and nothing below them.
    Markers,
    /// Nothing in the whole bucket.
    EmptyBucket,
    /// It could not be found out.
    Unknown,
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) => write!(f, "; there are: {}", names.join(", ")),
            Self::Markers => f.write_str(" but directory markers (keys that end in \"/\"); was the model uploaded?"),
            Self::EmptyBucket => f.write_str("; the bucket is empty"),
            Self::Unknown => Ok(()),
        }
    }
}

/// Asks the store what there is and decides which file each object becomes.
///
/// # Errors
///
/// [`PlanError`]; nothing has been written then.
pub async fn plan(store: &S3, downloads: &[Download], filter: &Filter) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    for download in downloads {
        let known = plan.destinations.iter().position(|known| *known == download.destination);
        let destination = known.unwrap_or_else(|| {
            plan.destinations.push(download.destination.clone());
            plan.destinations.len() - 1
        });
        let found = find(store, &download.source, filter, destination).await?;
        plan.files.extend(found);
    }
    for destination in 0..plan.destinations.len() {
        let files = plan.files.iter().filter(|file| file.destination == destination);
        check_collisions(files.map(|file| (file.object.key.as_str(), &file.path)))?;
    }
    Ok(plan)
}

async fn find(store: &S3, source: &S3Uri, filter: &Filter, destination: usize) -> Result<Vec<PlannedFile>, PlanError> {
    match source.target() {
        Target::Bucket => below(store, source, "", filter, destination).await,
        Target::Prefix(prefix) => below(store, source, prefix, filter, destination).await,
        Target::KeyOrPrefix(key) => {
            let refused = match exact(store, source, key).await? {
                Exact::Found(head) => return Ok(vec![exact_file(source, *head, destination)?]),
                Exact::Missing => return below(store, source, &format!("{key}/"), filter, destination).await,
                Exact::Refused(error) => *error,
            };
            let listed = below(store, source, &format!("{key}/"), filter, destination).await;
            let Err(listing_error) = listed else { return listed };
            // Only the listing's answer has a body, and the body may have taught the bucket's
            // region: the object is then asked for once more.
            if refused.kind() != Kind::Denied
                && let Exact::Found(head) = exact(store, source, key).await?
            {
                return Ok(vec![exact_file(source, *head, destination)?]);
            }
            match listing_error {
                // Without s3:ListBucket a missing key is "denied" as well; but the listing worked,
                // so the head's refusal is about the object.
                PlanError::NotFound { .. } => Err(refused.into()),
                other => Err(other),
            }
        }
    }
}

enum Exact {
    Found(Box<ObjectHead>),
    Missing,
    /// Refused without saying why: the answer to a HEAD has no body. The listing's may.
    Refused(Box<S3Error>),
}

async fn exact(store: &S3, source: &S3Uri, key: &str) -> Result<Exact, PlanError> {
    // HTTP clients normalise these segments away, so the request would be for another key.
    if key.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Ok(Exact::Missing);
    }
    match store.head(source.bucket(), key).await {
        Ok(head) => Ok(Exact::Found(Box::new(head))),
        Err(error) if error.kind() == Kind::NoSuchKey => Ok(Exact::Missing),
        Err(error) if matches!(error.kind(), Kind::Denied | Kind::NotS3 | Kind::Misaddressed) => {
            Ok(Exact::Refused(Box::new(error)))
        }
        Err(error) => Err(error.into()),
    }
}

fn exact_file(source: &S3Uri, head: ObjectHead, destination: usize) -> Result<PlannedFile, PlanError> {
    match relative_path(&head.object.key, &Root::Object)? {
        Mapped::File(path) => Ok(PlannedFile {
            bucket: source.bucket().into(),
            object: head.object.clone(),
            head: Some(head),
            destination,
            path,
        }),
        // A key that ends in `/` is a prefix to the URI, so it never gets here.
        Mapped::Marker => {
            let key = head.object.key;
            Err(KeyError::Outside { prefix: key.clone(), key }.into())
        }
    }
}

/// Everything below `prefix` that the filter keeps.
async fn below(
    store: &S3,
    source: &S3Uri,
    prefix: &str,
    filter: &Filter,
    destination: usize,
) -> Result<Vec<PlannedFile>, PlanError> {
    let bucket: Arc<str> = source.bucket().into();
    let root = Root::Prefix(prefix.to_owned());
    let mut files = Vec::new();
    let mut filtered_out = (0, None);
    let mut has_markers = false;
    let mut continuation: Option<String> = None;
    loop {
        let page = store.list(&bucket, prefix, None, continuation.as_deref()).await?;
        for object in page.objects {
            if object.key.ends_with('/') {
                has_markers = true;
                continue;
            }
            // KServe filters on the path below the prefix; what is filtered out need not be a
            // file name.
            if let Some(path) = root.below(&object.key)
                && !filter.keeps(path)
            {
                filtered_out.0 += 1;
                filtered_out.1.get_or_insert_with(|| path.to_owned());
                continue;
            }
            if let Mapped::File(path) = relative_path(&object.key, &root)? {
                files.push(PlannedFile { bucket: Arc::clone(&bucket), object, head: None, destination, path });
            }
        }
        match page.next {
            Some(next) if continuation.as_ref() == Some(&next) => {
                return Err(PlanError::EndlessListing { uri: source.clone() });
            }
            Some(next) => continuation = Some(next),
            None => break,
        }
    }
    match (files.is_empty(), filtered_out) {
        (false, _) => Ok(files),
        (true, (objects, Some(example))) => Err(PlanError::AllFilteredOut { uri: source.clone(), objects, example }),
        (true, (_, None)) => {
            let near = if has_markers { Near::Markers } else { look_around(store, source).await };
            Err(PlanError::NotFound { uri: source.clone(), near })
        }
    }
}

/// The names beside the one that was not found; where its directory does not exist either, those
/// beside that one, and so on up to the bucket.
async fn look_around(store: &S3, source: &S3Uri) -> Near {
    let mut wanted = match source.target() {
        Target::Bucket => return Near::EmptyBucket,
        Target::Prefix(key) | Target::KeyOrPrefix(key) => key.trim_end_matches('/'),
    };
    loop {
        let parent = wanted.rsplit_once('/').map(|(parent, _)| parent);
        let prefix = parent.map_or(String::new(), |parent| format!("{parent}/"));
        // This is only help: where it cannot be had, the error does without.
        let Ok(page) = store.list(source.bucket(), &prefix, Some("/"), None).await else {
            return Near::Unknown;
        };
        let names = page.common_prefixes.into_iter().chain(page.objects.into_iter().map(|object| object.key));
        let names: Vec<String> = names.filter(|name| *name != prefix).collect();
        match parent {
            _ if !names.is_empty() => return Near::Names(most_similar(names, wanted)),
            Some(parent) => wanted = parent,
            None => return Near::EmptyBucket,
        }
    }
}

fn most_similar(names: Vec<String>, wanted: &str) -> Vec<String> {
    // Similarity is in 0..=1; the names with the highest come first.
    let distance = |name: &str| ((1.0 - strsim::jaro_winkler(wanted, name.trim_end_matches('/'))) * 1e6) as u64;
    let by_distance: BTreeMap<_, _> = names.into_iter().map(|name| ((distance(&name), name.clone()), name)).collect();
    by_distance.into_values().take(MAX_NEAR).collect()
}
