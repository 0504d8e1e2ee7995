//! The command line: KServe's container arguments, and help that says the rest.

use clap::{Args, Parser, Subcommand, ValueEnum};

const AFTER_HELP: &str = "\
Sources are s3://bucket[/key-or-prefix]. Without arguments the source is STORAGE_URI, or STORAGE_PATH in the bucket of the
storage-config entry, and the destination is MODEL_DIR (default /mnt/models).

Settings come from the environment, from the storage-config Secret mounted at STORAGE_CONFIG_DIR (default /storage-config) or
held by STORAGE_CONFIG, and from STORAGE_OVERRIDE_CONFIG; later wins, field by field. docs/CONFIGURATION.md lists all of them.

Exit codes:
   0  every file is in place and verified
  64  bad arguments
  65  a key cannot be a file below the destination, or two collide
  66  bucket, key or prefix not found
  69  endpoint unreachable, or still failing after the retries
  70  a bug
  74  the volume: no space, read-only, I/O error
  76  TLS refused, an integrity failure, or an object that changed while it was read
  77  access denied
  78  the configuration: a setting, an entry, a CA bundle
 143  SIGTERM";

/// A command line that cannot be read. What clap prints is several lines, and the last of them is
/// not the cause; Kubernetes shows the end.
#[derive(Debug, thiserror::Error)]
#[error("{reason}; usage: storage-initializer SRC_URI DEST [SRC_URI DEST ...], or --help")]
pub struct UsageError {
    reason: String,
}

impl From<clap::Error> for UsageError {
    fn from(error: clap::Error) -> Self {
        let text = error.to_string();
        let reason = text.lines().next().unwrap_or_default();
        Self { reason: reason.trim_start_matches("error: ").to_owned() }
    }
}

/// Downloads a model from S3-compatible storage onto a volume.
#[derive(Debug, Parser)]
#[command(name = "storage-initializer", version, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    /// What else the program can do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The download, where there is no command.
    #[command(flatten)]
    pub pairs: Pairs,
}

/// What the program can do beside downloading.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Resolve and probe everything that the download would need, explain it, and download nothing.
    Check {
        /// How the result is printed.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
        /// What to check.
        #[command(flatten)]
        pairs: Pairs,
    },
}

/// How a result is printed on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object, for machines.
    Json,
}

/// Sources and destinations.
#[derive(Debug, Args)]
pub struct Pairs {
    /// Sources and destinations, in pairs.
    #[arg(value_name = "SRC_URI DEST")]
    pub sources_and_destinations: Vec<String>,
}
