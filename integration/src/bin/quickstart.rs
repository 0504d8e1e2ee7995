//! The README's first command: the whole way once, for real, on this machine.
//!
//! A private CA is made, an S3 server is started behind TLS with a certificate of that CA, a small
//! model is uploaded, a Secret and a CA ConfigMap are laid out as the kubelet mounts them, and the
//! release binary downloads the model as it would in a pod.

use std::path::Path;

use storage_initializer_integration::{
    initializer::{Initializer, Outcome, Profile, binary},
    mounted_volume::MountedVolume,
    pki::{Authority, LeafSpec},
    s3_server::{AccessKey, Checksum, Object, S3Server},
    tree::Tree,
};

/// The objects of the model: key below the prefix, size, checksum.
const MODEL: [(&str, u64, Option<Checksum>); 5] = [
    ("config.json", 571, Some(Checksum::Crc64Nvme)),
    ("tokenizer/vocab.txt", 231_508, Some(Checksum::Crc32c)),
    ("tokenizer/added_tokens.json", 0, None),
    ("weights/model-00001.bin", 96 << 20, Some(Checksum::Crc64Nvme)),
    ("weights/model-00002.bin", 5 << 20, None),
];

fn main() {
    println!("building the release binary (a few minutes the first time) ...");
    let program = binary(Profile::Release);
    let scratch = match tempfile::tempdir() {
        Ok(scratch) => scratch,
        Err(error) => fail(&format!("no temporary directory: {error}")),
    };
    let authority = Authority::new("Quickstart Root CA");
    let server = start_store(&authority);
    let expected = upload_model(&server);
    let secret = scratch.path().join("storage-config");
    let configmap = scratch.path().join("ca");
    let models = scratch.path().join("models");
    lay_out_mounts(&server, &authority, &secret, &configmap);

    println!("\nS3 over TLS at {}, signed by a private CA; Secret and CA ConfigMap mounted.", server.endpoint());
    println!("\n$ STORAGE_CONFIG_DIR={} \\", secret.display());
    println!("  CA_BUNDLE_VOLUME_MOUNT_POINT={} \\", configmap.display());
    println!("  storage-initializer s3://models/bert {}\n", models.display());
    let outcome = Initializer::of_program(&program)
        .env("STORAGE_CONFIG_DIR", &secret)
        .env("CA_BUNDLE_VOLUME_MOUNT_POINT", &configmap)
        .env("LOG_LEVEL", "debug")
        .args(["s3://models/bert".as_ref(), models.as_os_str()])
        .run();
    show(&outcome, &models);
    Tree::read(&models).assert_equals(&expected);
    println!(
        "\nEvery file is identical to its object, and nothing else is there. This is what an init container does."
    );
}

fn start_store(authority: &Authority) -> S3Server {
    let leaf = authority.issue(LeafSpec::new());
    S3Server::builder()
        .identity(leaf.identity())
        .credentials(AccessKey::new("quickstart", "quickstart-secret"))
        .bucket("models")
        .start()
}

fn upload_model(server: &S3Server) -> Tree {
    let mut expected = Tree::new();
    for (seed, (name, size, checksum)) in (1..).zip(MODEL) {
        let mut object = Object::pattern(seed, size);
        if let Some(checksum) = checksum {
            object = object.checksum(checksum);
        }
        expected = expected.file(name, object.data());
        server.put("models", &format!("bert/{name}"), object);
    }
    // A sibling that KServe's initializer would fetch as well.
    server.put("models", "bert-large/config.json", Object::text("not this one"));
    expected
}

/// One Secret in both dialects, and the ConfigMap that it names.
fn lay_out_mounts(server: &S3Server, authority: &Authority, secret: &Path, configmap: &Path) {
    let entry = serde_json::json!({
        "type": "s3",
        "endpoint_url": server.endpoint(),
        "region": "us-east-1",
        "access_key_id": "quickstart",
        "secret_access_key": "quickstart-secret",
        "cabundle_configmap": "quickstart-ca",
        "certificate": authority.pem(),
    });
    MountedVolume::new().file("localMinIO", entry.to_string()).create(secret);
    MountedVolume::new().file("cabundle.crt", authority.pem()).create(configmap);
}

fn show(outcome: &Outcome, models: &Path) {
    for line in outcome.stderr.lines() {
        println!("  {line}");
    }
    if outcome.code() != Some(0) {
        fail("the initializer failed; the log above says why");
    }
    println!("\n$ find {} -type f", models.display());
    for (path, (size, sha256)) in Tree::read(models).files() {
        println!("  {size:>11}  sha256:{}  {path}", &sha256[..16]);
    }
}

fn fail(why: &str) -> ! {
    eprintln!("quickstart: {why}");
    std::process::exit(1);
}
