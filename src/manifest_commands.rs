//! The commands that read manifests and ask nobody: `migrate`, and `check --config`.
//!
//! Manifests and reports go to standard output, whatever else there is to say to the log.

use std::path::PathBuf;

use crate::{
    check::check_manifests,
    cli::{Migrate, Output},
    error::Error,
    manifest::Manifests,
    migrate::{self, MigrateError, print},
};

/// Writes the manifests of the next stage, or what would change in them. Answers the exit code.
///
/// # Errors
///
/// [`Error::Migrate`], and then nothing is written, unless it is the writing that fails.
pub fn migrate(arguments: &Migrate) -> Result<u8, Error> {
    let manifests = Manifests::read(&arguments.paths).map_err(MigrateError::Source)?;
    let migration = migrate::migrate(manifests, &arguments.options())?;
    for note in &migration.notes {
        tracing::warn!("{note}");
    }
    match &arguments.output {
        _ if arguments.dry_run || arguments.check => print(&migration.diff()).map_err(MigrateError::Output)?,
        Some(directory) => {
            for path in migration.write(directory).map_err(MigrateError::Output)? {
                tracing::info!(path = %path.display(), "written");
            }
        }
        None => print(&migration.stream()).map_err(MigrateError::Output)?,
    }
    Ok(u8::from(arguments.check && migration.is_needed()))
}

/// Tells what is wrong with manifests. Answers the exit code.
///
/// # Errors
///
/// [`Error::Migrate`] where they cannot be read at all, or the report cannot be written.
pub fn check(paths: &[PathBuf], is_strict: bool, output: Output) -> Result<u8, Error> {
    let manifests = Manifests::read(paths).map_err(MigrateError::Source)?;
    let check = check_manifests(&manifests, is_strict);
    let told = match output {
        Output::Text => format!("{check}\n"),
        Output::Json => format!("{}\n", check.to_json()),
    };
    print(&told).map_err(MigrateError::Output)?;
    Ok(check.exit_code())
}
