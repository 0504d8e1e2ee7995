//! Benchmarks of the release binary against the embedded server: what a start costs, and what memory a large object takes.
//!
//! `just bench` runs it. Every figure is the median of some runs with minimum and maximum.

#![allow(clippy::expect_used, reason = "a benchmark that cannot set up has nothing to measure")]

use std::path::Path;

use storage_initializer_integration::{
    initializer::{Profile, binary},
    measure::{Cost, Measured, Spread, measure_if_asked},
    mounted_volume::MountedVolume,
    pki::{Authority, LeafSpec},
    s3_server::{AccessKey, Checksum, Object, S3Server},
};

/// Runs of the start-up case: short, so many.
const STARTS: usize = 21;

/// Runs of the large object.
const LARGE_RUNS: usize = 5;

fn main() {
    measure_if_asked();
    let program = binary(Profile::Release);
    let scratch = tempfile::Builder::new().prefix("bench-").tempdir_in(".").expect("a directory on disk, not on tmpfs");
    let authority = Authority::new("Benchmark Root CA");
    let server = S3Server::builder()
        .identity(authority.issue(LeafSpec::new()).identity())
        .credentials(AccessKey::new("bench", "bench-secret"))
        .bucket("models")
        .start();
    server.put("models", "tiny/config.json", Object::pattern(1, 1024).checksum(Checksum::Crc64Nvme));
    // A file, mapped: the server should cost as little as it can.
    let large = scratch.path().join("large.bin");
    std::fs::File::create(&large).and_then(|file| file.set_len(2 << 30)).expect("a sparse file");
    server.put(
        "models",
        "large/weights.bin",
        Object::file(&large).expect("a mapped file").checksum(Checksum::Crc64Nvme),
    );
    let secret = scratch.path().join("storage-config");
    let entry = serde_json::json!({
        "type": "s3",
        "endpoint_url": server.endpoint(),
        "access_key_id": "bench",
        "secret_access_key": "bench-secret",
        "certificate": authority.pem(),
    });
    MountedVolume::new().file("default", entry.to_string()).create(&secret);
    let size = std::fs::metadata(&program).map(|metadata| metadata.len()).unwrap_or_default();
    println!("release binary: {:.1} MB", size as f64 / 1e6);
    start_up(&program, &server, &secret, scratch.path());
    large_object(&program, &server, &secret, scratch.path());
}

fn run(program: &Path, secret: &Path, source: &str, destination: &Path) -> (Cost, std::time::Instant) {
    let measured = Measured::new(program)
        .env("STORAGE_CONFIG_DIR", secret.display().to_string())
        .arg(source)
        .arg(destination.display().to_string());
    let result = measured.run();
    assert_eq!(result.0.exit_code, Some(0), "the initializer failed");
    std::fs::remove_dir_all(destination).expect("the output can be removed");
    result
}

fn start_up(program: &Path, server: &S3Server, secret: &Path, scratch: &Path) {
    let mut first_request = Vec::new();
    let mut wall = Vec::new();
    let mut rss = Vec::new();
    for _ in 0..STARTS {
        server.forget_requests();
        let (cost, started) = run(program, secret, "s3://models/tiny", &scratch.join("out"));
        let first = server.requests().first().map(|request| request.at).expect("a request was made");
        first_request.push((first - started).as_secs_f64() * 1e3);
        wall.push(cost.wall.as_secs_f64() * 1e3);
        rss.push(cost.peak_rss_bytes as f64 / f64::from(1 << 20));
    }
    println!("one object of 1 KiB over TLS, {STARTS} runs:");
    println!("  exec to first request, ms: {}", Spread::of(first_request));
    println!("  exec to exit, ms:          {}", Spread::of(wall));
    println!("  peak RSS, MiB:             {}", Spread::of(rss));
}

fn large_object(program: &Path, server: &S3Server, secret: &Path, scratch: &Path) {
    let mut cpu = Vec::new();
    let mut wall = Vec::new();
    let mut rss = Vec::new();
    for _ in 0..LARGE_RUNS {
        server.forget_requests();
        let (cost, _) = run(program, secret, "s3://models/large", &scratch.join("out"));
        cpu.push(cost.cpu.as_secs_f64() / 2.0);
        wall.push(cost.wall.as_secs_f64());
        rss.push(cost.peak_rss_bytes as f64 / f64::from(1 << 20));
    }
    println!("one object of 2 GiB over TLS, {LARGE_RUNS} runs:");
    println!("  CPU s per GiB:             {}", Spread::of(cpu));
    println!("  wall, s:                   {}", Spread::of(wall));
    println!("  peak RSS, MiB:             {}", Spread::of(rss));
}
