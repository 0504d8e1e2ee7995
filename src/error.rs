//! Why a run ended without a model: one variant per stage, and the exit code of each.

use crate::{
    cause::one_line,
    cli::UsageError,
    http::HttpSetupError,
    manifest::SourceError,
    migrate::{MigrateError, OutputError},
    plan::PlanError,
    report::ReportError,
    s3::{ConnectError, Kind, S3Error},
    settings::{Problem, SettingsError},
    transfer::TransferError,
    trust_store::TrustError,
    volume::VolumeError,
};

/// Why a run ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The CA certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The HTTP client.
    #[error(transparent)]
    Http(#[from] HttpSetupError),
    /// The way to the store.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What the store has.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The volume, before the transfer.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The transfer.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The manifests, or what became of them.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// What is on the volume is what is in the bucket, and no model.
    #[error("MODEL_CHECK=strict: {}", .findings.join("; "))]
    Model {
        /// What looks wrong.
        findings: Vec<String>,
    },
    /// The report has no place.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// SIGTERM or SIGINT.
    #[error("ended by {signal} after {done} of {total}; what was done so far is kept for the restart")]
    Interrupted {
        /// The signal's name.
        signal: &'static str,
        /// The signal's number.
        number: u8,
        /// What had arrived.
        done: crate::units::ByteSize,
        /// What was planned.
        total: crate::units::ByteSize,
    },
    /// The runtime did not start.
    #[error("the async runtime cannot be started")]
    Runtime(#[source] std::io::Error),
}

impl Error {
    /// The process' exit code. The numbers are those of BSD's `sysexits.h`, and 128 + n for a
    /// signal, as shells have it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Settings(SettingsError::NoSource | SettingsError::Unpaired(_)) => 64,
            Self::Settings(SettingsError::Problems(problems)) if problems.iter().all(Problem::is_of_arguments) => 64,
            Self::Settings(SettingsError::Problems(_)) | Self::Trust(_) | Self::Http(_) => 78,
            Self::Connect(ConnectError::NoCredentials(_)) => 77,
            Self::Connect(ConnectError::Http(_)) => 78,
            Self::Plan(PlanError::Key(_) | PlanError::Collision(_)) => 65,
            Self::Plan(PlanError::NotFound { .. } | PlanError::AllFilteredOut { .. }) => 66,
            Self::Plan(PlanError::EndlessListing { .. }) => 69,
            Self::Plan(PlanError::S3(error)) | Self::Transfer(TransferError::S3(error)) => s3_exit_code(error),
            Self::Migrate(MigrateError::Source(SourceError::Unreadable { .. } | SourceError::NoManifest(_))) => 66,
            Self::Migrate(MigrateError::Source(SourceError::Syntax(_)) | MigrateError::Problems(_)) => 78,
            Self::Migrate(MigrateError::Output(OutputError::Io { .. })) => 74,
            Self::Migrate(MigrateError::Output(OutputError::Collision(_) | OutputError::Exists(_))) => 78,
            Self::Volume(_) | Self::Transfer(TransferError::Volume(_)) => 74,
            Self::Transfer(
                TransferError::Damaged { .. } | TransferError::Changed { .. } | TransferError::Pinned { .. },
            ) => 76,
            Self::Transfer(TransferError::Archive { source, .. }) => {
                if source.is_of_volume() {
                    74
                } else {
                    65
                }
            }
            Self::Transfer(TransferError::Unreadable { .. }) | Self::Report(_) => 74,
            Self::Model { .. } => 65,
            Self::Transfer(TransferError::Thread(_) | TransferError::Stopped | TransferError::Lost { .. })
            | Self::Runtime(_) => 70,
            Self::Interrupted { number, .. } => 128 + number,
        }
    }

    /// Whether it is the model, or the volume's size, that makes this run impossible, and every later one too.
    pub fn is_about_the_model(&self) -> bool {
        use VolumeError::{TooLittleMemory, TooSmall};
        let too_large = |error: &VolumeError| matches!(error, TooSmall { .. } | TooLittleMemory { .. });
        match self {
            Self::Plan(error) => !matches!(error, PlanError::S3(_) | PlanError::EndlessListing { .. }),
            Self::Volume(error) | Self::Transfer(TransferError::Volume(error)) => too_large(error),
            Self::Transfer(TransferError::Archive { source, .. }) => !source.is_of_volume(),
            _ => false,
        }
    }

    /// The whole chain of causes on one line.
    pub fn one_line(&self) -> String {
        one_line(self)
    }
}

fn s3_exit_code(error: &S3Error) -> u8 {
    match error.kind() {
        Kind::NoSuchBucket | Kind::NoSuchKey => 66,
        Kind::Denied | Kind::NoCredentials => 77,
        Kind::TlsRefused | Kind::Changed | Kind::WrongBytes => 76,
        Kind::Unreachable | Kind::Unavailable => 69,
        Kind::Misaddressed | Kind::NotS3 => 78,
    }
}
