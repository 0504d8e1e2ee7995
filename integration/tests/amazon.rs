//! Amazon's own host names, led to a store of the harness by a proxy: which host is asked, and for which region is signed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use storage_initializer_integration::connect_proxy::ConnectProxy;
use storage_initializer_integration::initializer::Initializer;
use storage_initializer_integration::pki::LeafSpec;
use storage_initializer_integration::pod::Pod;
use storage_initializer_integration::s3_server::Object;
use storage_initializer_integration::tree::Tree;

/// A bucket in eu-west-3 behind a host name of Amazon's.
fn bucket_at(base_domain: &str) -> (Pod, ConnectProxy) {
    let pod = Pod::with(|server| server.region("eu-west-3").base_domain(base_domain));
    pod.put("bert/config.json", Object::text("{}"));
    let leaf = pod.authority.issue(LeafSpec::new().names([base_domain, &format!("*.{base_domain}")]));
    pod.server.replace_identity(leaf.identity());
    let proxy = ConnectProxy::start(pod.server.address());
    (pod, proxy)
}

fn run(pod: &Pod, proxy: &ConnectProxy, changes: Value) -> Initializer {
    pod.with_entry(&pod.entry_with(changes)).env("HTTPS_PROXY", proxy.url()).env("STORAGE_URI", "s3://models/bert")
}

#[track_caller]
fn assert_asked(pod: &Pod, proxy: &ConnectProxy, run: Initializer, hosts: &[&str]) {
    run.run().assert_exit(0);
    pod.tree().assert_equals(&Tree::new().bytes("config.json", "{}"));
    let asked: BTreeSet<String> = proxy.targets().into_iter().collect();
    let expected: BTreeSet<String> = hosts.iter().map(|host| format!("{host}:443")).collect();
    assert_eq!(asked, expected);
}

#[test]
fn the_global_endpoint_with_a_region_is_asked_with_the_bucket_in_the_host() {
    // KServe's rule for https://s3.amazonaws.com: that host serves other regions only so.
    let (pod, proxy) = bucket_at("s3.amazonaws.com");
    let entry = json!({"endpoint_url": "https://s3.amazonaws.com", "region": "eu-west-3"});
    assert_asked(&pod, &proxy, run(&pod, &proxy, entry), &["models.s3.amazonaws.com"]);
}

#[test]
fn a_wrong_region_at_the_global_endpoint_is_learned_and_the_regions_own_endpoint_asked() {
    let (pod, proxy) = bucket_at("s3.eu-west-3.amazonaws.com");
    let names = ["*.s3.eu-west-3.amazonaws.com", "*.s3.amazonaws.com"];
    pod.server.replace_identity(pod.authority.issue(LeafSpec::new().names(names)).identity());
    let entry = json!({"endpoint_url": "https://s3.amazonaws.com", "region": "us-east-1"});
    let hosts = ["models.s3.amazonaws.com", "models.s3.eu-west-3.amazonaws.com"];
    // The store knows its buckets by the regional name; by the other one it answers with where they are.
    assert_asked(&pod, &proxy, run(&pod, &proxy, entry), &hosts);
}

#[test]
fn transfer_acceleration_has_a_host_of_its_own() {
    let (pod, proxy) = bucket_at("s3-accelerate.amazonaws.com");
    let accelerated = |endpoint| {
        let entry = json!({"endpoint_url": endpoint, "region": "eu-west-3"});
        run(&pod, &proxy, entry).env("S3_USE_ACCELERATE", "true")
    };
    assert_asked(&pod, &proxy, accelerated(Value::Null), &["models.s3-accelerate.amazonaws.com"]);
    let regional = accelerated("https://s3.eu-west-3.amazonaws.com".into());
    assert_asked(&pod, &proxy, regional, &["models.s3-accelerate.amazonaws.com"]);
}

#[test]
fn transfer_acceleration_is_impossible_at_another_endpoint() {
    let pod = Pod::new();
    pod.put("bert/config.json", Object::text("{}"));
    let outcome = pod.download("s3://models/bert").env("S3_USE_ACCELERATE", "true").run();
    insta::assert_snapshot!(pod.refused(&outcome, 78), @r#"env S3_USE_ACCELERATE: transfer acceleration is Amazon's alone, and storage-config entry "default" (/pod/storage-config/default), field "endpoint_url" names another endpoint; remove one of the two"#);
}

#[test]
fn without_an_endpoint_the_region_makes_the_host() {
    let (pod, proxy) = bucket_at("s3.eu-west-3.amazonaws.com");
    let entry = json!({"endpoint_url": null, "region": "eu-west-3"});
    assert_asked(&pod, &proxy, run(&pod, &proxy, entry), &["models.s3.eu-west-3.amazonaws.com"]);
}
