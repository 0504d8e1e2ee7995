//! The benchmark of the release binary against its peers: see [`storage_initializer_integration::bench`].

use std::process::ExitCode;

fn main() -> ExitCode {
    storage_initializer_integration::bench::main()
}
