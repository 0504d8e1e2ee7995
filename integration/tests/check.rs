//! `storage-initializer check`: the verdict of a download, step by step, without the download.

use serde_json::{Value, json};
use storage_initializer_integration::{
    initializer::Outcome,
    pki::{Authority, LeafSpec},
    pod::{Pod, SECRET_ACCESS_KEY},
    s3_server::{AccessKey, Object, Operation},
};

fn check(pod: &Pod, entry: &Value, source: &str) -> Outcome {
    let models = pod.models();
    pod.with_entry(entry).args(["check".as_ref(), source.as_ref(), models.as_os_str()]).run()
}

fn download(pod: &Pod, entry: &Value, source: &str) -> Outcome {
    let models = pod.models();
    pod.with_entry(entry).env("S3_MAX_ATTEMPTS", "1").args([source.as_ref(), models.as_os_str()]).run()
}

fn with_model() -> Pod {
    let pod = Pod::new();
    pod.put("bert/config.json", Object::text("{}"));
    pod.put("bert/weights.bin", Object::pattern(1, 3 << 20));
    pod
}

#[test]
fn a_good_configuration_passes_every_step_and_downloads_nothing() {
    let pod = with_model();
    let outcome = check(&pod, &pod.entry(), "s3://models/bert");
    outcome.assert_exit(0);
    for expected in [
        "  endpoint_url                 https://localhost:9000  (storage-config entry \"default\" (/pod/storage-config/default), field \"endpoint_url\")",
        "  download                     s3://models/bert to /pod/models  (argument)",
        "  secret_access_key            ***  (storage-config entry \"default\" (/pod/storage-config/default), field \"secret_access_key\")",
        "  S3_CONNECT_TIMEOUT           5 s  (default)",
        "  anchor \"",
        "  ok     volume      /pod/models can be written",
        "  ok     dns         localhost is ",
        "  ok     tcp         ",
        "  ok     tls         the server presented ",
        "  ok     credentials keys from storage-config entry \"default\"",
        "  ok     objects     2 objects, 3.0 MiB, at https://localhost:9000",
        "  ok     space       the model fits",
        "result: the download would start",
    ] {
        let stdout = pod.normalised(&outcome.stdout);
        assert!(stdout.contains(expected), "no {expected:?} in:\n{stdout}");
    }
    assert!(pod.server.requests_of(Operation::GetObject).is_empty(), "a check fetches nothing");
    assert!(!pod.models().exists(), "a check creates nothing");
}

#[test]
fn the_json_has_what_the_text_has() {
    let pod = with_model();
    let models = pod.models();
    let run = pod.with_entry(&pod.entry()).args(["check", "--output", "json", "s3://models/bert"]);
    let outcome = run.arg(models).run();
    outcome.assert_exit(0);
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(told["exit_code"], 0);
    assert_eq!(told["error"], Value::Null);
    assert_eq!(told["trust_store"]["certificates"][0]["used_as"], "anchor");
    let steps: Vec<&str> =
        told["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(steps, ["volume", "trust", "dns", "tcp", "tls", "credentials", "objects", "space"]);
    assert!(told["steps"].as_array().unwrap().iter().all(|step| step["ok"] == true), "{told}");
}

#[test]
fn each_failing_case_ends_with_the_words_and_the_code_of_the_download() {
    let pod = with_model();
    let stranger = Authority::new("Another Root CA");
    let cases = [
        ("another CA", pod.entry_with(json!({"certificate": stranger.pem()})), "s3://models/bert", 76),
        ("nothing usable", pod.entry_with(json!({"certificate": "no certificate"})), "s3://models/bert", 78),
        ("plain HTTP", pod.entry_with(json!({"endpoint_url": "https://127.0.0.1:1"})), "s3://models/bert", 69),
        ("wrong secret", pod.entry_with(json!({"secret_access_key": "another"})), "s3://models/bert", 77),
        ("no such prefix", pod.entry(), "s3://models/bart", 66),
        ("no such bucket", pod.entry(), "s3://modles/bert", 66),
        ("unknown type", pod.entry_with(json!({"type": "gcs"})), "s3://models/bert", 78),
        ("not a URI", pod.entry(), "gs://models/bert", 64),
    ];
    for (case, entry, source, code) in cases {
        let checked = check(&pod, &entry, source);
        let downloaded = download(&pod, &entry, source);
        checked.assert_exit(code);
        downloaded.assert_exit(code);
        let message = timeless(downloaded.termination_message.as_deref().unwrap());
        let verdict = timeless(checked.stdout.lines().last().unwrap());
        assert_eq!(verdict, format!("result: the download would end with exit code {code}: {message}"), "{case}");
        assert!(checked.stdout.contains("  FAILED "), "{case}: {}", checked.stdout);
    }
}

/// Without the store's name for one request, which is new each time.
fn timeless(message: &str) -> String {
    message.split(' ').map(|word| if word.contains("HARNESS") { "[id]" } else { word }).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_steps_before_the_failure_show_how_far_it_came() {
    let pod = with_model();
    let entry = pod.entry_with(json!({"certificate": Authority::new("Another Root CA").pem()}));
    let stdout = check(&pod, &entry, "s3://models/bert").stdout;
    let steps: Vec<&str> = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("  ok     ").or(line.strip_prefix("  FAILED ")))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(steps, ["volume", "trust", "dns", "tcp", "tls", "credentials", "objects"], "{stdout}");
}

#[test]
fn it_warns_of_what_another_reader_of_the_secret_would_stumble_over() {
    let pod = with_model();
    let soon = Authority::new("Harness Root CA");
    let cases = [
        (json!({"verify_ssl": true}), "write it in double quotes"),
        (json!({}), "KServe ignores \"certificate\""),
        (json!({"certificate": null, "ca_bundle": pod.path("ca.crt")}), "ModelMesh reads neither \"ca_bundle\""),
        (json!({"verify_ssl": "true"}), "ModelMesh ignores verify_ssl"),
        (json!({"addressing_style": "path"}), "neither KServe nor ModelMesh reads addressing_style"),
        (
            json!({"certificate": format!("{}{}", pod.authority.pem(), "\n".repeat(110_000))}),
            "past 131071 the container cannot start",
        ),
    ];
    std::fs::write(pod.path("ca.crt"), pod.authority.pem() + &soon.pem()).unwrap();
    for (change, expected) in cases {
        let outcome = check(&pod, &pod.entry_with(change), "s3://models/bert");
        outcome.assert_exit(0);
        assert!(outcome.stdout.contains(expected), "no {expected:?} in:\n{}", outcome.stdout);
    }
}

#[test]
fn both_dialects_together_need_no_advice_but_for_the_field_that_can_go() {
    let pod = with_model();
    let ca = pod.mount("ca", [("cabundle.crt", pod.authority.pem())]);
    let entry = pod.entry_with(json!({"cabundle_configmap": "models-ca"}));
    let models = pod.models();
    let run = pod.with_entry(&entry).env("CA_BUNDLE_VOLUME_MOUNT_POINT", ca);
    let outcome = run.args(["check".as_ref(), "s3://models/bert".as_ref(), models.as_os_str()]).run();
    outcome.assert_exit(0);
    assert!(!outcome.stdout.contains("KServe ignores"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("the field can go once no ModelMesh reads this Secret"), "{}", outcome.stdout);
}

#[test]
fn a_ca_that_ends_within_a_month_is_named() {
    use storage_initializer_integration::pki::{AuthoritySpec, Validity};
    use time::{Duration, OffsetDateTime};
    let pod = with_model();
    let now = OffsetDateTime::now_utc();
    let soon =
        AuthoritySpec::new("Almost Over").validity(Validity::Between(now - Duration::days(9), now + Duration::days(9)));
    let both = pod.authority.pem() + &Authority::from_spec(soon).pem();
    let stdout = check(&pod, &pod.entry_with(json!({"certificate": both})), "s3://models/bert").stdout;
    assert!(stdout.contains("Almost Over\" expires within 30 days"), "{stdout}");
    assert!(!stdout.contains("Harness Root CA\" expires"), "{stdout}");
}

#[test]
fn it_says_who_signs_and_never_with_what() {
    let pod = Pod::with(|server| {
        server.credentials(AccessKey::new("harness-key-id", SECRET_ACCESS_KEY).session_token("harness-token-9c"))
    });
    pod.put("bert/config.json", Object::text("{}"));
    let entry = pod.entry_with(json!({"session_token": "harness-token-9c"}));
    for output in ["text", "json"] {
        let run =
            pod.with_entry(&entry).env("RUST_LOG", "trace").args(["check", "--output", output, "s3://models/bert"]);
        let outcome = run.arg(pod.models()).run();
        outcome.assert_exit(0);
        for secret in [SECRET_ACCESS_KEY, "harness-token-9c", "harness-key-id", "BEGIN CERTIFICATE"] {
            let said = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(!said.contains(secret), "{secret} in {output}:\n{said}");
        }
    }
}

#[test]
fn a_server_that_is_trusted_as_it_is_is_said_to_be_a_pin() {
    use storage_initializer_integration::{
        pki::{SelfSigned, self_signed_server},
        s3_server::S3Server,
    };
    let leaf = self_signed_server(LeafSpec::new(), SelfSigned::CaTrue);
    let pod = with_model();
    let server = S3Server::builder()
        .identity(leaf.identity())
        .credentials(AccessKey::new("harness-key-id", SECRET_ACCESS_KEY))
        .bucket("models")
        .start();
    server.put("models", "bert/config.json", Object::text("{}"));
    let entry = pod.entry_with(json!({"endpoint_url": server.endpoint(), "certificate": leaf.pem()}));
    let outcome = check(&pod, &entry, "s3://models/bert");
    outcome.assert_exit(0);
    assert!(outcome.stdout.contains("trusted as it is, an exact pin"), "{}", outcome.stdout);
}
