//! The command line: KServe's container arguments, and help that says the rest.

use clap::Parser;

/// The exit code of a command line that cannot be read: `EX_USAGE` of BSD's `sysexits.h`.
pub const USAGE_EXIT_CODE: u8 = 64;

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

/// Downloads a model from S3-compatible storage onto a volume.
#[derive(Debug, Parser)]
#[command(name = "storage-initializer", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// Sources and destinations, in pairs.
    #[arg(value_name = "SRC_URI DEST")]
    pub sources_and_destinations: Vec<String>,
}
