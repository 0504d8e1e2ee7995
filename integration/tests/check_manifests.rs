//! `storage-initializer check --config`: manifests judged in a pipeline, without a cluster and without a network.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use serde_json::{Value, json};
use storage_initializer_integration::{
    initializer::{Initializer, Outcome},
    pki::{Authority, AuthoritySpec, Validity},
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

const SECRET: &str = "hunter2-hunter2";

fn entry(changes: Value) -> Value {
    let mut entry = json!({
        "type": "s3", "access_key_id": "someone", "secret_access_key": SECRET,
        "endpoint_url": "https://minio.models.svc:9000", "region": "us-east-1", "bucket": "models",
        "certificate": "", "cabundle_configmap": "store-ca",
    });
    for (field, value) in changes.as_object().unwrap() {
        entry[field] = value.clone();
    }
    entry
}

fn secret(entry: &Value) -> Value {
    json!({"kind": "Secret", "metadata": {"name": "storage-config"}, "stringData": {"minio": entry.to_string()}})
}

fn configmap(data: Value) -> Value {
    json!({"kind": "ConfigMap", "metadata": {"name": "store-ca"}, "data": data})
}

/// Judges these objects, each in a file of its own.
fn check(objects: &[Value], options: &[&str]) -> Outcome {
    let directory = TempDir::new().unwrap();
    for (index, object) in objects.iter().enumerate() {
        std::fs::write(directory.path().join(format!("{index}.json")), object.to_string()).unwrap();
    }
    Initializer::new().args(["check", "--config"]).arg(directory.path()).args(options).run()
}

/// What is said of an entry beside a ConfigMap with this bundle, without the places.
fn said(entry: &Value, bundle: &str) -> (i32, Vec<String>) {
    let outcome = check(&[secret(entry), configmap(json!({"cabundle.crt": bundle}))], &["--output", "json"]);
    assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains(SECRET));
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(told["exit_code"], outcome.code().unwrap());
    let finding = |finding: &Value| {
        format!("{}: {}", finding["severity"].as_str().unwrap(), finding["message"].as_str().unwrap())
    };
    (outcome.code().unwrap(), told["findings"].as_array().unwrap().iter().map(finding).collect())
}

#[test]
fn manifests_that_both_systems_can_use_pass_in_silence() {
    let ca = Authority::new("Store CA").pem();
    let both = entry(json!({"certificate": ca}));
    assert_eq!(said(&both, &ca), (0, vec![]));
    let outcome = check(&[secret(&both), configmap(json!({"cabundle.crt": ca}))], &["--strict"]);
    outcome.assert_exit(0);
    assert_eq!(outcome.stdout, "result: 1 entry, 0 errors, 0 warnings\n");
}

#[test]
fn each_mistake_is_an_error_with_what_to_change() {
    let ca = Authority::new("Store CA").pem();
    let expired = Authority::from_spec(AuthoritySpec::new("Old CA").validity(Validity::Expired)).pem();
    let cases = [
        (entry(json!({"type": "s4"})), ca.as_str(), "\"s4\" is not supported"),
        (
            entry(json!({"endpoint_url": "ftp://minio"})),
            &ca,
            "field \"endpoint_url\": scheme \"ftp\" is not http or https",
        ),
        (entry(json!({"secret_access_key": ""})), &ca, "field \"access_key_id\" is set, but"),
        (entry(json!({"region": ["x"]})), &ca, "field \"region\" is a JSON array instead of a string"),
        (entry(json!({"certificate": "see the wiki"})), &ca, "no certificate in it: 12 bytes"),
        (entry(json!({"cabundle_configmap": "store-cA"})), &ca, "ConfigMap \"store-cA\" is not among the manifests"),
        (entry(json!({"cabundle_configmap": ""})), &ca, "no public CA vouches for such a name"),
        (entry(json!({})), "see the wiki", "no certificate in it: 12 bytes"),
        (entry(json!({})), &expired, "none of the certificates that it trusts is in date"),
    ];
    for (entry, bundle, expected) in cases {
        let (code, findings) = said(&entry, bundle);
        assert_eq!(code, 78, "{findings:?}");
        let is_there = |finding: &String| finding.starts_with("error: ") && finding.contains(expected);
        assert!(findings.iter().any(is_there), "no {expected:?} in {findings:?}");
    }
}

#[test]
fn what_works_in_one_system_only_or_not_for_long_is_a_warning_and_an_error_if_strict() {
    let ca = Authority::new("Store CA").pem();
    let now = OffsetDateTime::now_utc();
    let soon = Validity::Between(now - Duration::days(9), now + Duration::days(9));
    let soon = Authority::from_spec(AuthoritySpec::new("Almost Over").validity(soon)).pem();
    let expired = Authority::from_spec(AuthoritySpec::new("Old CA").validity(Validity::Expired)).pem();
    let cases = [
        (entry(json!({"verify_ssl": true})), ca.clone(), "KServe's webhook accepts only strings"),
        (entry(json!({"type": "gcs"})), ca.clone(), "is for another initializer"),
        (entry(json!({"verify_ssl": "0"})), ca.clone(), "\"verify_ssl\" turns verification off"),
        (entry(json!({"endpointUrl": "x"})), ca.clone(), "did you mean \"endpoint_url\""),
        (entry(json!({"endpoint_url": "http://minio:9000"})), ca.clone(), "the CA that is configured is not used"),
        (entry(json!({"endpoint_url": "minio:9000"})), ca.clone(), "https"),
        (entry(json!({})), ca.clone(), "ModelMesh reads neither"),
        (entry(json!({"certificate": ca, "cabundle_configmap": ""})), ca.clone(), "KServe ignores \"certificate\""),
        (entry(json!({"certificate": soon})), ca.clone(), "ModelMesh believes servers that KServe does not"),
        (entry(json!({"certificate": "/mnt/ca.crt"})), ca.clone(), "a path, as KServe until 0.12.0 had it"),
        (entry(json!({})), ca.replace('\n', "\\n"), "line breaks are written as the characters"),
        (entry(json!({})), format!("{ca}{soon}"), "Almost Over\" expires within 30 days"),
        (entry(json!({})), format!("{ca}{expired}"), "Old CA\" expired at"),
        (
            entry(json!({"endpoint_url": "https://s3.example.com", "cabundle_configmap": ""})),
            ca.clone(),
            "trusted only if a public CA vouches for it",
        ),
    ];
    for (entry, bundle, expected) in cases {
        let (code, findings) = said(&entry, &bundle);
        assert_eq!(code, 0, "{findings:?}");
        let is_there = |finding: &String| finding.starts_with("warning: ") && finding.contains(expected);
        assert!(findings.iter().any(is_there), "no {expected:?} in {findings:?}");
        check(&[secret(&entry), configmap(json!({"cabundle.crt": bundle}))], &["--strict"]).assert_exit(78);
    }
}

#[test]
fn an_endpoint_of_amazon_needs_no_ca() {
    let ca = Authority::new("Store CA").pem();
    let amazon =
        entry(json!({"endpoint_url": "https://models.s3.eu-central-1.amazonaws.com", "cabundle_configmap": ""}));
    assert_eq!(said(&amazon, &ca), (0, vec![]));
}

#[test]
fn several_problems_of_several_entries_come_together_each_with_its_place() {
    let ca = Authority::new("Store CA").pem();
    let (one, two) = (entry(json!({"type": "s4", "certificate": "see the wiki"})), entry(json!({"endpoint_url": ""})));
    let secret = json!({"kind": "List", "items": [
        {"kind": "Secret", "metadata": {"name": "storage-config", "namespace": "a"}, "stringData": {
            "one": one.to_string(), "two": two.to_string(), "three": "{\"type\": \"s3\" \"region\": \"x\"}",
        }},
    ]});
    let outcome = check(&[secret, configmap(json!({"ca.crt": ca}))], &[]);
    outcome.assert_exit(78);
    for expected in [
        "0.json, document 1, item 1, Secret \"storage-config\" (namespace \"a\"), entry \"three\": not valid JSON: expected `,` or `}` at line 1 column 15; a comma is missing",
        "entry \"one\": field \"type\": \"s4\" is not supported",
        "entry \"one\", field \"certificate\": no certificate in it",
        "1.json, document 1, ConfigMap \"store-ca\": it has no key \"cabundle.crt\", the only one that KServe reads; it has: ca.crt",
        "result: 2 entries, 4 errors,",
    ] {
        assert!(outcome.stdout.contains(expected), "no {expected:?} in:\n{}", outcome.stdout);
    }
}

#[test]
fn a_configmap_of_another_namespace_is_none_and_one_in_base64_is_one() {
    let ca = Authority::new("Store CA").pem();
    let mut there = configmap(json!({"cabundle.crt": ca}));
    there["metadata"]["namespace"] = "b".into();
    let mut here = secret(&entry(json!({"certificate": ca})));
    here["metadata"]["namespace"] = "a".into();
    let outcome = check(&[here.clone(), there.clone()], &[]);
    outcome.assert_exit(78);
    assert!(outcome.stdout.contains("there is one in namespace \"b\""), "{}", outcome.stdout);
    there["metadata"]["namespace"] = "a".into();
    check(&[here.clone(), there], &["--strict"]).assert_exit(0);
    let binary = json!({
        "kind": "ConfigMap", "metadata": {"name": "store-ca"},
        "binaryData": {"cabundle.crt": base64_simd::STANDARD.encode_to_string(&ca)},
    });
    check(&[here, binary], &["--strict"]).assert_exit(0);
}

#[test]
fn manifests_without_an_entry_are_an_error_and_so_are_files_that_are_none() {
    let outcome =
        check(&[json!({"kind": "Secret", "metadata": {"name": "tls"}, "data": {"tls.key": "aHVudGVyMg=="}})], &[]);
    outcome.assert_exit(78);
    assert!(
        outcome.stdout.contains("no Secret with a storage-config entry is among these manifests"),
        "{}",
        outcome.stdout
    );
    Initializer::new().args(["check", "--config", "/no/such/file"]).run().assert_exit(66);
    Initializer::new().args(["check", "s3://b/k", "/mnt/models", "--config", "x.yaml"]).run().assert_exit(64);
    Initializer::new().args(["check", "--strict", "s3://b/k", "/mnt/models"]).run().assert_exit(64);
}
