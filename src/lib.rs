//! Downloads a model from S3-compatible storage onto the volume that a model server reads, as the
//! init container of its pod.
//!
//! Data flows one way, and [`run`] is its table of contents:
//!
//! 1. [`settings`] reads the environment, the mounted Secret (`storage_config`) and the arguments.
//! 2. [`trust_store`] unites the CA certificates of every source that is present.
//! 3. [`http`] makes clients that trust that store; [`s3`] speaks S3 through them.
//! 4. [`plan`] asks what there is, and refuses what cannot become files.
//! 5. [`transfer`] moves the bytes; [`volume`] gives a file its name when it is whole.
//! 6. [`report`] says what was done, [`error`] why it was not, and with which exit code.
//!
//! [`mod@check`] takes the same way without the transfer, and says what it finds on it. [`mod@migrate`] works on the
//! manifests ([`manifest`]) that the Secret and the ConfigMap come from.
//!
//! Modules stand on floors, and import only from lower ones; `integration/tests/house.rs` holds the
//! table and checks it. What differs from the usual is small: what several stages need (`ranges`,
//! `checksum`, `destination`, `filter`, `mount`) stands on the ground floor instead of inside the
//! stage that needs it most.

pub mod archive;
pub mod cause;
pub mod cgroup;
pub mod check;
pub mod checksum;
pub mod cli;
pub mod destination;
pub mod env;
pub mod error;
pub mod filter;
pub mod http;
pub mod logging;
pub mod manifest;
pub mod manifest_commands;
pub mod migrate;
pub mod model_check;
pub mod mount;
pub mod plan;
pub mod ranges;
pub mod report;
pub mod retry;
pub mod s3;
pub mod secret;
pub mod settings;
pub mod storage_config;
pub mod termination;
pub mod transfer;
pub mod trust_store;
pub mod units;
pub mod uri;
pub mod volume;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use error::Error;
use http::Http;
use logging::Terminal;
use plan::{Plan, PlannedFile};
use report::{FileReport, Report};
use s3::S3;
use settings::{ModelCheck, Settings};
use transfer::{Transfer, progress::Progress};
use trust_store::TrustStore;
use units::ByteSize;
use volume::{FreeSpace, ModelVolume, VolumeError};

/// How often it is looked whether another process has ended.
const LOCK_INTERVAL: Duration = Duration::from_millis(200);

/// Downloads everything that `settings` ask for.
///
/// # Errors
///
/// [`Error`] of the first stage that failed. Whatever has its final name by then is whole.
pub async fn run(settings: &Settings, terminal: &Terminal, progress: Arc<Progress>) -> Result<Report, Error> {
    let started = Instant::now();
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let volumes = open_volumes(settings).await?;
    // Boxed, or the type of all stages in one future is too deep for the compiler.
    let files = match Box::pin(download(settings, terminal, &volumes, Arc::clone(&progress))).await {
        Ok(files) => files,
        Err(error) => {
            for volume in &volumes {
                if error.is_about_the_model() {
                    // The next run can do no better with what is half done; the bucket has to change first.
                    let _ = volume.remove_hidden_directory();
                } else {
                    volume.leave();
                }
            }
            return Err(error);
        }
    };
    for volume in &volumes {
        volume.remove_hidden_directory()?;
    }
    let findings = check_model(settings, &files)?;
    Ok(Report { files, findings, elapsed: started.elapsed(), retries: progress.snapshot().retries })
}

/// From the settings to files in their places.
async fn download(
    settings: &Settings,
    terminal: &Terminal,
    volumes: &[Arc<ModelVolume>],
    progress: Arc<Progress>,
) -> Result<Vec<FileReport>, Error> {
    let trust_store = read_trust(settings)?;
    log_trust(&trust_store);
    let store = connect(settings, trust_store).await?;
    let transfer = Transfer::start(&store, volumes.to_vec(), &settings.limits, Arc::clone(&progress))?;
    let _shown = terminal.show(progress);
    let files = plan_and_transfer(settings, &store, transfer).await?;
    confirm(volumes, &files)?;
    Ok(files)
}

/// Whether what is on the volume looks like a model.
fn check_model(settings: &Settings, files: &[FileReport]) -> Result<Vec<String>, Error> {
    let model_check = settings.limits.model_check.value;
    if model_check == ModelCheck::Off {
        return Ok(Vec::new());
    }
    let mut findings = Vec::new();
    for destination in files.iter().map(|file| &file.destination).collect::<BTreeSet<_>>() {
        let paths = files.iter().filter(|file| file.destination == *destination && file.unpacked_files.is_none());
        findings.extend(model_check::look(destination, paths.map(|file| &file.path)));
    }
    if model_check == ModelCheck::Strict && !findings.is_empty() {
        return Err(Error::Model { findings });
    }
    for finding in &findings {
        tracing::warn!("{finding}");
    }
    Ok(findings)
}

/// Downloads begin while the listing still runs; files get their names when it is known that all of them can.
async fn plan_and_transfer(settings: &Settings, store: &S3, transfer: Transfer) -> Result<Vec<FileReport>, Error> {
    let announce = |files| transfer.add(files).map_err(Error::from);
    let plan = tokio::select! {
        biased;
        plan = make_plan(settings, store, announce) => plan?,
        Err(error) = transfer.run() => return Err(error.into()),
    };
    transfer.accept(&plan).await?;
    transfer.add(plan.files.get(plan.announced..).unwrap_or_default().to_vec())?;
    Ok(transfer.finish(&plan).await?)
}

/// Success means that every file is in its place, whatever somebody else has done there meanwhile.
fn confirm(volumes: &[Arc<ModelVolume>], files: &[FileReport]) -> Result<(), VolumeError> {
    for volume in volumes {
        // Of an archive the name has gone, and what was in it is there.
        let here = files.iter().filter(|file| file.destination == volume.root() && file.unpacked_files.is_none());
        here.into_iter().try_for_each(|file| volume.confirm(&file.path, file.bytes))?;
    }
    Ok(())
}

/// The volume comes first: it is the cheapest thing to find wrong.
async fn open_volumes(settings: &Settings) -> Result<Vec<Arc<ModelVolume>>, Error> {
    let mut volumes: Vec<Arc<ModelVolume>> = Vec::new();
    for download in &settings.downloads {
        let known = volumes.iter().any(|volume| volume.root() == download.destination);
        if known {
            continue;
        }
        match open_volume(&download.destination, &volumes).await {
            Ok(volume) => volumes.push(volume),
            Err(error) => {
                volumes.iter().for_each(|volume| volume.leave());
                return Err(error);
            }
        }
    }
    Ok(volumes)
}

/// Waits for another process that is at work in the same destination: what it completes need not be fetched again.
async fn open_volume(destination: &Path, others: &[Arc<ModelVolume>]) -> Result<Arc<ModelVolume>, Error> {
    let mut has_said = false;
    loop {
        if let Some(volume) = ModelVolume::open(destination)? {
            if !volume.is_locked() {
                tracing::warn!(
                    destination = %destination.display(),
                    "this file system has no locks: large files begin anew after a restart"
                );
            }
            return Ok(Arc::new(volume));
        }
        // Another spelling of a destination that is ours already.
        if let Some(same) = others.iter().find(|other| other.is_at(destination)) {
            return Ok(Arc::clone(same));
        }
        if !std::mem::replace(&mut has_said, true) {
            tracing::info!(destination = %destination.display(), "another storage-initializer is at work here; waiting for it");
        }
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
}

fn read_trust(settings: &Settings) -> Result<TrustStore, Error> {
    if !settings.connection.is_tls() {
        return Ok(TrustStore::of_plain_http(&settings.trust));
    }
    Ok(TrustStore::read(&settings.trust)?)
}

fn log_trust(store: &TrustStore) {
    for warning in store.warnings() {
        tracing::warn!("{warning}");
    }
    if store.sources().is_empty() {
        return;
    }
    let sources: Vec<String> = store.sources().iter().map(ToString::to_string).collect();
    tracing::info!(certificates = sources.join(", "), "trust store");
    for held in store.bundle() {
        let certificate = &held.certificate;
        tracing::debug!(
            sha256 = certificate.sha256,
            subject = certificate.subject,
            not_after = certificate.not_after_date(),
            source = held.source,
            "certificate"
        );
    }
    if store.is_certificate_redundant() {
        tracing::info!("{}", trust_store::REDUNDANT_CERTIFICATE);
    }
}

/// The clients are set up here, and the credentials found; the store has not been asked yet.
async fn connect(settings: &Settings, trust_store: TrustStore) -> Result<S3, Error> {
    let (trust, limits) = (&settings.trust, &settings.limits);
    let public = trust_store.clone();
    let http = Http::new(trust_store, limits)?;
    let http_for_credentials = || Http::new(public.with_system_roots(trust), limits);
    Ok(S3::connect(&settings.connection, limits, http, http_for_credentials).await?)
}

async fn make_plan(
    settings: &Settings,
    store: &S3,
    announce: impl FnMut(Vec<Arc<PlannedFile>>) -> Result<(), Error>,
) -> Result<Plan, Error> {
    for download in &settings.downloads {
        tracing::info!(
            source = %download.source,
            destination = %download.destination.display(),
            endpoint = store.endpoint(),
            credentials = store.identity(),
            "looking up the model"
        );
    }
    let plan = plan::plan(store, &settings.downloads, &settings.filter, announce).await?;
    tracing::info!(objects = plan.files.len(), size = %ByteSize(plan.total_bytes()), "planned download");
    Ok(plan)
}

/// What `check` can know of the volumes: nothing is in the way of a file, and what each destination needs fits.
fn check_volumes(plan: &Plan, spaces: Vec<FreeSpace>) -> Result<(), VolumeError> {
    let mut needs = Vec::new();
    for (destination, space) in spaces.into_iter().enumerate() {
        let files = plan.files.iter().filter(|file| file.destination == destination);
        volume::check_ways(&space.path, files.clone().map(|file| &file.path))?;
        needs.push((space, files.map(|file| file.object.size_bytes).sum()));
    }
    FreeSpace::check(&needs)
}
