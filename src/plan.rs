//! From what is asked for to a list of files: which objects, and where each of them goes.
//!
//! `s3://b/model` is the object `model` if there is one, else everything below `model/`, and never
//! `model2/`. An exact object needs `s3:GetObject` alone; a prefix needs `s3:ListBucket`. Everything
//! that can be refused is refused here, before a file has its name: keys that would leave the
//! destination, keys that want the same file, nothing found.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use crate::{
    archive::ArchiveKind,
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
    pub files: Vec<Arc<PlannedFile>>,
    /// How many of them have been announced while the listing went on.
    pub announced: usize,
    /// The files that are the whole of a download, and archives: they are unpacked.
    pub archives: Vec<Arc<PlannedFile>>,
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

/// Asks the store what there is and decides which file each object becomes. While a listing goes on, `announce` gets
/// what it has brought so far, page by page; whatever it begins with that must come to nothing if the plan does.
///
/// # Errors
///
/// [`PlanError`], and what `announce` refuses.
pub async fn plan<E: From<PlanError>>(
    store: &S3,
    downloads: &[Download],
    filter: &Filter,
    announce: impl FnMut(Vec<Arc<PlannedFile>>) -> Result<(), E>,
) -> Result<Plan, E> {
    let mut planner = Planner { store, filter, announce, plan: Plan::default() };
    for download in downloads {
        let destinations = &mut planner.plan.destinations;
        let known = destinations.iter().position(|known| *known == download.destination);
        let destination = known.unwrap_or_else(|| {
            destinations.push(download.destination.clone());
            destinations.len() - 1
        });
        let planned_before = planner.plan.files.len();
        planner.find(&download.source, destination).await?;
        if let [only] = planner.plan.files.get(planned_before..).unwrap_or_default()
            && ArchiveKind::of_file_name(only.path.file_name()).is_some()
        {
            let only = Arc::clone(only);
            planner.plan.archives.push(only);
        }
    }
    let plan = planner.plan;
    for destination in 0..plan.destinations.len() {
        let files = plan.files.iter().filter(|file| file.destination == destination);
        check_collisions(files.map(|file| (file.object.key.as_str(), &file.path))).map_err(PlanError::Collision)?;
    }
    Ok(plan)
}

struct Planner<'a, A> {
    store: &'a S3,
    filter: &'a Filter,
    announce: A,
    plan: Plan,
}

impl<A> Planner<'_, A> {
    async fn find<E>(&mut self, source: &S3Uri, destination: usize) -> Result<(), E>
    where
        E: From<PlanError>,
        A: FnMut(Vec<Arc<PlannedFile>>) -> Result<(), E>,
    {
        let key = match source.target() {
            Target::Bucket => return self.below(source, "", destination).await?.map_err(E::from),
            Target::Prefix(prefix) => return self.below(source, prefix, destination).await?.map_err(E::from),
            Target::KeyOrPrefix(key) => key,
        };
        let refused = match exact(self.store, source, key).await? {
            Exact::Found(head) => {
                self.plan.files.push(Arc::new(exact_file(source, *head, destination)?));
                return Ok(());
            }
            Exact::Missing => return self.below(source, &format!("{key}/"), destination).await?.map_err(E::from),
            Exact::Refused(error) => *error,
        };
        let planned_before = self.plan.files.len();
        let listed = self.below(source, &format!("{key}/"), destination).await?;
        let Err(listing_error) = listed else { return Ok(()) };
        // Only the listing's answer has a body, and the body may have taught the bucket's
        // region: the object is then asked for once more.
        if refused.kind() != Kind::Denied
            && self.plan.files.len() == planned_before
            && let Exact::Found(head) = exact(self.store, source, key).await?
        {
            self.plan.files.push(Arc::new(exact_file(source, *head, destination)?));
            return Ok(());
        }
        Err(E::from(match listing_error {
            // Without s3:ListBucket a missing key is "denied" as well; but the listing worked,
            // so the head's refusal is about the object.
            PlanError::NotFound { .. } => refused.into(),
            other => other,
        }))
    }

    /// Everything below `prefix` that the filter keeps. The outer result is what `announce` refuses.
    async fn below<E>(&mut self, source: &S3Uri, prefix: &str, destination: usize) -> Result<Result<(), PlanError>, E>
    where
        A: FnMut(Vec<Arc<PlannedFile>>) -> Result<(), E>,
    {
        let mut listing = Listing::new(source, prefix, self.filter, destination);
        let planned_before = self.plan.files.len();
        let mut is_anything = false;
        loop {
            let page = match listing.next(self.store).await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(error) => return Ok(Err(error)),
            };
            is_anything |= !page.is_empty();
            self.plan.files.extend(page.into_iter().map(Arc::new));
            // One file may be all, and then it may be an archive.
            if listing.goes_on() && self.plan.files.len() > planned_before + 1 {
                let fresh = self.plan.files.get(self.plan.announced..).unwrap_or_default().to_vec();
                self.plan.announced = self.plan.files.len();
                (self.announce)(fresh)?;
            }
        }
        Ok(if is_anything { Ok(()) } else { Err(listing.nothing(self.store).await) })
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

/// The pages of one listing.
struct Listing<'a> {
    source: &'a S3Uri,
    bucket: Arc<str>,
    root: Root,
    prefix: &'a str,
    filter: &'a Filter,
    destination: usize,
    /// What to ask for next; `None` before the first page and after the last.
    continuation: Option<String>,
    is_over: bool,
    filtered_out: u64,
    example: Option<String>,
    has_markers: bool,
}

impl<'a> Listing<'a> {
    fn new(source: &'a S3Uri, prefix: &'a str, filter: &'a Filter, destination: usize) -> Self {
        Self {
            source,
            bucket: source.bucket().into(),
            root: Root::Prefix(prefix.to_owned()),
            prefix,
            filter,
            destination,
            continuation: None,
            is_over: false,
            filtered_out: 0,
            example: None,
            has_markers: false,
        }
    }

    fn goes_on(&self) -> bool {
        !self.is_over
    }

    /// The files of the next page; `None` after the last.
    async fn next(&mut self, store: &S3) -> Result<Option<Vec<PlannedFile>>, PlanError> {
        if self.is_over {
            return Ok(None);
        }
        let page = store.list(&self.bucket, self.prefix, None, self.continuation.as_deref()).await?;
        let mut files = Vec::new();
        for object in page.objects {
            files.extend(self.file(object)?);
        }
        if page.next.is_some() && self.continuation == page.next {
            return Err(PlanError::EndlessListing { uri: self.source.clone() });
        }
        self.is_over = page.next.is_none();
        self.continuation = page.next;
        Ok(Some(files))
    }

    /// The file that an object becomes, if it does.
    fn file(&mut self, object: Object) -> Result<Option<PlannedFile>, PlanError> {
        if object.key.ends_with('/') {
            self.has_markers = true;
            return Ok(None);
        }
        // KServe filters on the path below the prefix; what is filtered out need not be a
        // file name.
        if let Some(path) = self.root.below(&object.key)
            && !self.filter.keeps(path)
        {
            self.filtered_out += 1;
            self.example.get_or_insert_with(|| path.to_owned());
            return Ok(None);
        }
        let Mapped::File(path) = relative_path(&object.key, &self.root)? else { return Ok(None) };
        let (bucket, destination) = (Arc::clone(&self.bucket), self.destination);
        Ok(Some(PlannedFile { bucket, object, head: None, destination, path }))
    }

    /// Why a listing without files has none.
    async fn nothing(self, store: &S3) -> PlanError {
        let uri = self.source.clone();
        if let Some(example) = self.example {
            return PlanError::AllFilteredOut { uri, objects: self.filtered_out, example };
        }
        let near = if self.has_markers { Near::Markers } else { look_around(store, self.source).await };
        PlanError::NotFound { uri, near }
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
