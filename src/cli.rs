//! The command line: KServe's container arguments, and help that says the rest.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::migrate::{Bundle, Options, Stage, is_name};

const AFTER_HELP: &str = "\
Sources are s3://bucket[/key-or-prefix]. Without arguments the source is STORAGE_URI, or STORAGE_PATH in the bucket of the
storage-config entry, and the destination is MODEL_DIR (default /mnt/models).

Settings come from the environment, from the storage-config Secret mounted at STORAGE_CONFIG_DIR (default /storage-config) or
held by STORAGE_CONFIG, and from STORAGE_OVERRIDE_CONFIG; later wins, field by field. docs/CONFIGURATION.md lists all of them.

Exit codes:
   0  every file is in place and verified
  64  bad arguments
  65  what the bucket holds: a key cannot be a file below the destination, two collide, an archive is broken,
      MODEL_CHECK=strict
  66  bucket, key or prefix not found
  69  endpoint unreachable, or still failing after the retries
  70  a bug
  74  the volume: no space, read-only, I/O error
  76  TLS refused, an integrity failure, or an object that changed while it was read
  77  access denied
  78  the configuration: a setting, an entry, a CA bundle
 143  SIGTERM";

const MIGRATE_AFTER_HELP: &str = "\
The manifests go to standard output, ConfigMaps first, as `kubectl apply -f -` takes them; notes go to standard error. Each
stage can be taken back; docs/MIGRATION.md shows how.

Exit codes:
   0  done, or nothing to do
   1  --check: something is left to migrate
  64  bad arguments
  66  FILE or DIR is missing or cannot be read
  74  the output cannot be written
  78  the manifests: an entry, a certificate, a ConfigMap; nothing is written";

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
    /// Write what was done, file by file, to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
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
        /// Judge Secret and ConfigMap manifests instead, without a cluster: files, directories, or `-` for standard input.
        #[arg(long, value_name = "FILE|DIR", num_args = 1.., conflicts_with = "sources_and_destinations")]
        config: Vec<PathBuf>,
        /// With --config: warnings count as errors.
        #[arg(long, requires = "config", conflicts_with = "sources_and_destinations")]
        strict: bool,
        /// What to check.
        #[command(flatten)]
        pairs: Pairs,
    },
    /// Move the CA from the Secret's "certificate" into a ConfigMap: Secret manifests in, Secret and ConfigMap manifests out.
    #[command(after_help = MIGRATE_AFTER_HELP)]
    Migrate(Migrate),
}

/// What `migrate` reads, does and writes.
#[derive(Debug, Args)]
pub struct Migrate {
    /// Manifests, YAML or JSON; directories are searched. `-`, or nothing, is standard input.
    #[arg(value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
    /// How far to go.
    #[arg(long, value_enum, default_value_t = Stage::Both)]
    pub stage: Stage,
    /// How the certificates of several entries are spread.
    #[arg(long, value_enum, default_value_t = Bundle::One)]
    pub bundle: Bundle,
    /// The ConfigMap's name, or with `--bundle per-entry` the first part of it [default: the Secret's name and "-ca"].
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub configmap_name: Option<String>,
    /// The ConfigMap's namespace where the Secret's manifest names none.
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace)]
    pub namespace: Option<String>,
    /// The one Secret to migrate [default: every Secret that holds storage-config entries].
    #[arg(long, value_name = "NAME")]
    pub secret: Option<String>,
    /// Write files into this directory instead of to standard output.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Print what would change, without values, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// As --dry-run, and exit with 1 where something is left to migrate.
    #[arg(long)]
    pub check: bool,
}

impl Migrate {
    /// The options of the migration itself.
    pub fn options(&self) -> Options {
        Options {
            stage: self.stage,
            bundle: self.bundle,
            configmap_name: self.configmap_name.clone(),
            namespace: self.namespace.clone(),
            secret: self.secret.clone(),
        }
    }
}

fn namespace(text: &str) -> Result<String, String> {
    if is_name(text) && !text.contains('.') && text.len() <= 63 {
        Ok(text.to_owned())
    } else {
        Err("a namespace has 1 to 63 of the letters a-z, digits and '-'".to_owned())
    }
}

fn name(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a Kubernetes name has 1 to 253 of the letters a-z, digits, '-' and '.'".to_owned())
    }
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
