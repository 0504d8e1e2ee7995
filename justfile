# Everything that CI runs, one recipe each. `just check` is what must pass before a commit.

# Formatting, lints, tests, documentation, dependencies.
check: fmt lint test doc deny

fmt:
    cargo fmt --all -- --check

lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# The README's second command.
test:
    cargo test --workspace --locked

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Advisories, licences, bans, sources; and no second TLS stack, crypto provider or HTTP implementation.
deny:
    cargo deny --locked check
    integration/one-tls-stack.sh

# The README's first command.
quickstart:
    cargo quickstart

# The release binary beside s5cmd, KServe's initializer, aws-cli, curl and the floor: docs/PERFORMANCE.md. `just bench --case
# tls-4x512 --clients ours,s5cmd,floor` is the short way. Downloads below the current directory: run it on a disk.
bench *options:
    cargo run --quiet --release --package storage-initializer-integration --bin bench -- {{options}}

# How many instructions the release binary executes for a case (also plain-2x64, tls-500x16k), and in which functions: times
# differ from run to run, these hardly do. Needs valgrind.
profile case="tls-2x64":
    cargo build --quiet --profile profiling --package storage-initializer
    mkdir -p target/profile
    STORAGE_INITIALIZER_BIN=target/profiling/storage-initializer cargo run --quiet --release --package storage-initializer-integration --bin bench -- --case {{case}} --callgrind target/profile/{{case}}.out
    callgrind_annotate target/profile/{{case}}.out | head -n 60

# The image, by whichever engine is here; it pulls the Rust image. docker/README.md has the other ways.
image:
    $(command -v docker || command -v podman) build --file docker/Dockerfile --tag storage-initializer:0.1.0 .

# The image from a binary built here, and the manifests as pods; needs root, podman, runc and busybox-static.
pods *arguments:
    integration/pods.sh {{arguments}}

# The conformance suite against moto and Garage, or one of them; needs python3 with venv, and nginx-light for Garage.
servers *names:
    integration/servers.sh {{names}}

# A software bill of materials (CycloneDX, JSON) of what the release binary is built from, in target/; needs cargo-cyclonedx.
sbom:
    cargo cyclonedx --format json --override-filename sbom
    mkdir -p target && sed 's#{{justfile_directory()}}##' sbom.json > target/storage-initializer.cdx.json
    rm sbom.json integration/sbom.json

# The manifests against Kubernetes' and KServe's published schemas; fetches them from PyPI.
schemas:
    python3 -m venv target/schemas && target/schemas/bin/pip install --quiet kubernetes-validate==1.37.0
    target/schemas/bin/python integration/schemas.py

# Runs with random faults and kills, from a seed that it prints: `just soak 500 SEED` is the same again.
soak runs="500" seed="" episode="":
    cargo run --quiet --package storage-initializer-integration --bin soak -- {{runs}} {{seed}} {{episode}}

# What changed in the snapshots of messages, one by one.
review:
    cargo insta review

# Mutates CA bundles (or `just fuzz journal`, `just fuzz keys`) for ten minutes; needs cargo-fuzz and a nightly toolchain.
fuzz target="ca_bundle" seconds="600":
    mkdir -p fuzz/target/corpus/{{target}}
    cargo +nightly fuzz run {{target}} fuzz/target/corpus/{{target}} fuzz/corpus/{{target}} -- -dict=fuzz/{{target}}.dict -max_len=8192 -max_total_time={{seconds}}
