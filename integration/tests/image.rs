//! The Dockerfile and the compose file, as far as they can be checked without pulling an image.
//!
//! The compose file's scripts and settings are run for what they are: its certificates are made and shown by a server, and
//! the initializer downloads with the very environment that the compose file gives it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails it by a panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::Value;
use storage_initializer_integration::initializer::Initializer;
use storage_initializer_integration::pki::ServerIdentity;
use storage_initializer_integration::s3_server::{AccessKey, Object, S3Server};
use storage_initializer_integration::tree::Tree;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The Dockerfile's instructions, one line each.
fn dockerfile() -> Vec<String> {
    let joined = text("docker/Dockerfile").replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn every_base_image_is_an_argument_or_a_stage_of_the_file() {
    let lines = dockerfile();
    let mut stages = Vec::new();
    for line in lines.iter().filter_map(|line| line.strip_prefix("FROM ")) {
        let (image, stage) = line.split_once(" AS ").expect("every stage has a name");
        assert!(image.starts_with("${") || stages.contains(&image), "{image} is written into the file");
        stages.push(stage);
    }
    assert_eq!(stages, ["base", "prebuilt", "builder", "runtime"]);
}

#[test]
fn the_image_runs_as_a_number_and_says_what_it_is() {
    let lines = dockerfile();
    assert!(lines.contains(&"USER 1000:1000".to_owned()));
    assert!(lines.contains(&r#"ENTRYPOINT ["/usr/bin/storage-initializer"]"#.to_owned()));
    assert!(lines.contains(&concat!("ARG VERSION=", env!("CARGO_PKG_VERSION")).to_owned()));
    let labels = lines.iter().find(|line| line.starts_with("LABEL ")).unwrap();
    for label in ["title", "description", "licenses", "version", "revision"] {
        assert!(labels.contains(&format!("org.opencontainers.image.{label}=")), "no label {label}");
    }
}

#[test]
fn every_build_in_the_image_is_locked() {
    let builds: Vec<String> = dockerfile().into_iter().filter(|line| line.contains("cargo build")).collect();
    assert_eq!(builds.len(), 2, "the dependencies, and the product");
    assert!(builds.iter().all(|line| line.contains("--locked") && line.contains("--release")), "{builds:?}");
}

/// What the image's context must hold is what `COPY` names; the rest stays outside.
#[test]
fn whatever_the_image_copies_is_let_into_its_context() {
    let ignore = text(".dockerignore");
    let mut copied = 0;
    for line in dockerfile().iter().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
        let words: Vec<&str> = line.split(' ').collect();
        for source in &words[1..words.len() - 1] {
            let source = source.replace("${PREBUILT}/", "docker/prebuilt");
            assert!(ignore.lines().any(|line| line == format!("!{source}")), "{source} is not in .dockerignore");
            copied += 1;
        }
    }
    assert!(copied >= 6, "only {copied} sources");
    assert!(ignore.lines().any(|line| line == "*"));
}

/// A service of the compose file, with the fields that it uses; another one is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "what is read here is checked by reading it")]
struct Service {
    image: String,
    build: Option<Build>,
    entrypoint: Option<Vec<String>>,
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    depends_on: BTreeMap<String, Dependency>,
    #[serde(default)]
    read_only: bool,
    user: Option<String>,
    #[serde(default)]
    cap_drop: Vec<String>,
    #[serde(default)]
    security_opt: Vec<String>,
    mem_limit: Option<String>,
    cpus: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    context: String,
    dockerfile: String,
    args: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dependency {
    condition: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "what is read here is checked by reading it")]
struct Compose {
    name: String,
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, Value>,
}

fn compose() -> Compose {
    serde_yaml_ng::from_str(&text("docker/compose.yaml")).expect("the compose file")
}

#[test]
fn a_misspelt_field_of_the_compose_file_is_refused() {
    let misspelt = text("docker/compose.yaml").replace("depends_on:", "depend_on:");
    assert!(serde_yaml_ng::from_str::<Compose>(&misspelt).is_err());
}

#[test]
fn the_services_of_the_compose_file_start_one_after_the_other() {
    let services = compose().services;
    for (service, dependency, condition) in [
        ("minio", "certificates", "service_completed_successfully"),
        ("upload", "minio", "service_started"),
        ("storage-initializer", "upload", "service_completed_successfully"),
        ("model-server", "storage-initializer", "service_completed_successfully"),
    ] {
        assert_eq!(services[service].depends_on[dependency].condition, condition, "{service}");
    }
}

#[test]
fn every_mount_of_the_compose_file_is_one_of_its_volumes() {
    let compose = compose();
    for (name, service) in &compose.services {
        for mount in &service.volumes {
            let volume = mount.split(':').next().unwrap();
            assert!(compose.volumes.contains_key(volume), "{name}: {mount}");
        }
    }
}

#[test]
fn the_initializer_of_the_compose_file_is_built_here_and_hardened_as_in_a_pod() {
    let compose = compose();
    let initializer = &compose.services["storage-initializer"];
    assert_eq!(initializer.image, concat!("storage-initializer:", env!("CARGO_PKG_VERSION")));
    let build = initializer.build.as_ref().unwrap();
    let context = repository().join("docker").join(&build.context);
    assert!(context.join(&build.dockerfile).is_file());
    let arguments = dockerfile();
    for argument in build.args.keys() {
        assert!(arguments.iter().any(|line| line.starts_with(&format!("ARG {argument}="))), "no ARG {argument}");
    }
    assert!(initializer.read_only);
    assert_eq!(initializer.cap_drop, ["ALL"]);
    assert_eq!(initializer.security_opt, ["no-new-privileges:true"]);
    assert_eq!(initializer.mem_limit.as_deref(), Some("64m"));
    assert_eq!(initializer.user.as_deref(), Some("1000:1000"));
}

/// The script of a service with each of its mounts at a place of the test's own.
fn script(service: &Service, mounts: &BTreeMap<&str, PathBuf>) -> String {
    let [script] = &service.command[..] else { panic!("a script is one argument") };
    mounts.iter().fold(script.clone(), |script, (from, to)| script.replace(from, &to.display().to_string()))
}

#[test]
fn the_scripts_of_the_compose_file_are_scripts() {
    for (name, service) in compose().services {
        if service.entrypoint.as_deref() == Some(&["/bin/sh".to_owned(), "-euc".to_owned()][..]) {
            let status = Command::new("sh").args(["-n", "-c", &script(&service, &BTreeMap::new())]).status().unwrap();
            assert!(status.success(), "{name}");
        }
    }
}

/// The way of the compose file without its images: its certificates, its environment, another server.
#[test]
fn the_initializer_downloads_with_the_certificates_and_the_environment_of_the_compose_file() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("left out: there is no openssl here");
        return;
    }
    let compose = compose();
    let scratch = tempfile::tempdir().unwrap();
    let place = |name: &str| scratch.path().join(name);
    for name in ["certificates", "models"] {
        fs::create_dir(place(name)).unwrap();
    }
    let mounts = BTreeMap::from([
        ("/certificates", place("certificates")),
        // With its blank: the path is also the end of other words.
        (" /ca", PathBuf::from(format!(" {}", place("ca").display()))),
        // Only root may give a directory away.
        ("chown 1000:1000 /models", PathBuf::from("true")),
    ]);
    let certificates = script(&compose.services["certificates"], &mounts);
    let made = Command::new("sh").args(["-euc", &certificates]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let identity = ServerIdentity {
        chain: vec![CertificateDer::from_pem_file(place("certificates").join("public.crt")).unwrap()],
        key: PrivateKeyDer::from_pem_file(place("certificates").join("private.key")).unwrap(),
    };
    let minio = &compose.services["minio"].environment;
    let server = S3Server::builder()
        .identity(identity)
        .credentials(AccessKey::new(&minio["MINIO_ROOT_USER"], &minio["MINIO_ROOT_PASSWORD"]))
        .bucket("models")
        .start();
    server.put("models", "bert/config.json", Object::text("{}"));
    server.put("models", "bert-large/config.json", Object::text("not this one"));

    let service = &compose.services["storage-initializer"];
    let entry = service.environment["STORAGE_CONFIG"].replace("https://minio:9000", &server.endpoint());
    assert!(entry.contains(&server.endpoint()), "{entry}");
    let ca = service.volumes.iter().find(|volume| volume.starts_with("ca:")).unwrap();
    assert_eq!(ca, "ca:/etc/ssl/custom-certs:ro", "where the initializer looks by itself");
    let with_ca_at = |ca: &str| {
        Initializer::new()
            .env("STORAGE_CONFIG", &entry)
            .env("CA_BUNDLE_VOLUME_MOUNT_POINT", place(ca))
            .args([&service.command[0], &place("models").display().to_string()])
            .run()
    };
    // Its twin: without the CA's volume the same server is refused.
    with_ca_at("nothing-mounted").assert_exit(76);
    with_ca_at("ca").assert_exit(0);
    Tree::read(&place("models")).assert_equals(&Tree::new().file("config.json", Object::text("{}").data()));
}
