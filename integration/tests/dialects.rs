//! The same Secret, unchanged, works under KServe and under ModelMesh: what this program exists for.
//!
//! ModelMesh reads the CA as PEM text from `certificate`; KServe reads the name of a ConfigMap from
//! `cabundle_configmap`, and the ConfigMap is mounted. One entry may hold both, equal or different.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use std::path::PathBuf;

use serde_json::{Value, json};
use storage_initializer_integration::{
    initializer::{Initializer, Outcome},
    pki::Authority,
    pod::Pod,
    s3_server::Object,
    tree::Tree,
};

fn pod() -> Pod {
    let pod = Pod::new();
    pod.put("bert/config.json", Object::text("{}"));
    pod
}

/// An entry in both dialects at once.
fn entry(pod: &Pod, certificate: &Authority) -> Value {
    pod.entry_with(json!({
        "bucket": "models",
        "certificate": certificate.pem(),
        "cabundle_configmap": "model-ca",
    }))
}

/// ModelMesh mounts the whole Secret, and names the entry and the path in it.
fn modelmesh(pod: &Pod, entry: &str) -> Initializer {
    let secret = pod.mount("modelmesh-storage-config", [("localMinIO", entry.to_owned())]);
    pod.bare().env("STORAGE_CONFIG_DIR", secret).env("STORAGE_KEY", "localMinIO").env("STORAGE_PATH", "bert")
}

/// KServe's webhook puts the entry into a variable, mounts the ConfigMap, and gives the URI as argument.
fn kserve(pod: &Pod, entry: &str, configmap: &Authority) -> Initializer {
    let configmap: PathBuf = pod.mount("model-ca", [("cabundle.crt", configmap.pem())]);
    pod.bare()
        .env("STORAGE_CONFIG", entry)
        .env("CA_BUNDLE_CONFIGMAP_NAME", "model-ca")
        .env("CA_BUNDLE_VOLUME_MOUNT_POINT", configmap)
        .args(["s3://models/bert".as_ref(), pod.models().as_os_str()])
}

#[track_caller]
fn assert_downloaded(pod: &Pod, outcome: &Outcome) {
    outcome.assert_exit(0);
    pod.tree().assert_equals(&Tree::new().bytes("config.json", "{}"));
    std::fs::remove_dir_all(pod.models()).unwrap();
}

#[test]
fn one_entry_unchanged_works_under_both_systems() {
    let pod = pod();
    let entry = entry(&pod, &pod.authority).to_string();
    assert_downloaded(&pod, &modelmesh(&pod, &entry).run());
    assert_downloaded(&pod, &kserve(&pod, &entry, &pod.authority).run());
}

#[test]
fn an_entry_of_modelmesh_alone_works_under_both_systems() {
    let pod = pod();
    let entry = pod.entry_with(json!({"bucket": "models"})).to_string();
    assert_downloaded(&pod, &modelmesh(&pod, &entry).run());
    let outcome = pod.bare().env("STORAGE_CONFIG", entry).env("STORAGE_URI", "s3://models/bert").run();
    assert_downloaded(&pod, &outcome);
}

#[test]
fn an_entry_of_kserve_alone_works_under_kserve() {
    let pod = pod();
    let entry = pod.entry_with(json!({"certificate": null, "cabundle_configmap": "model-ca"})).to_string();
    assert_downloaded(&pod, &kserve(&pod, &entry, &pod.authority).run());
}

#[test]
fn a_wrong_certificate_beside_the_right_configmap_does_no_harm() {
    let pod = pod();
    let entry = entry(&pod, &Authority::new("Last Year's CA")).to_string();
    assert_downloaded(&pod, &kserve(&pod, &entry, &pod.authority).run());
}

#[test]
fn a_wrong_configmap_beside_the_right_certificate_does_no_harm() {
    let pod = pod();
    let entry = entry(&pod, &pod.authority).to_string();
    assert_downloaded(&pod, &kserve(&pod, &entry, &Authority::new("Last Year's CA")).run());
}

#[test]
fn both_wrong_is_refused_with_what_each_of_them_holds() {
    let pod = pod();
    let entry = entry(&pod, &Authority::new("Last Year's CA")).to_string();
    let outcome = kserve(&pod, &entry, &Authority::new("Another Team's CA")).run();
    let message = pod.refused(&outcome, 76);
    for part in ["Harness Root CA", "Last Year's CA", "Another Team's CA", "cabundle.crt"] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert_eq!(pod.server.requests().len(), 0);
}

#[test]
fn without_any_ca_the_missing_issuer_and_the_places_are_named() {
    let pod = pod();
    let outcome = modelmesh(&pod, &pod.entry_with(json!({"bucket": "models", "certificate": null})).to_string()).run();
    insta::assert_snapshot!(pod.refused(&outcome, 76), @r#"HeadObject s3://models/bert at https://localhost:9000 failed: TLS with localhost:9000 refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Harness Root CA", valid until [date], SHA-256 [fingerprint]); its issuer "O=Harness, CN=Harness Root CA" is not in the trust store; certificates in the trust store: CA ConfigMap at /pod/no-ca-configmap (not mounted): 0, system roots (SSL_CERT_FILE /pod/no-system-roots.pem, SSL_CERT_DIR /pod/no-system-roots): 0; put the CA certificate "O=Harness, CN=Harness Root CA" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate""#);
    assert_eq!(pod.server.requests().len(), 0);
}
