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
