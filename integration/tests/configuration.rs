//! Where a setting comes from: entries, variables, overrides, and what is said of those that are wrong.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use std::path::{Path, PathBuf};

use serde_json::json;
use storage_initializer_integration::{
    connect_proxy::ConnectProxy,
    initializer::{Initializer, Outcome},
    pki::LeafSpec,
    pod::{ACCESS_KEY_ID, Pod, SECRET_ACCESS_KEY},
    s3_server::{
        AccessKey, Object, Operation,
        faults::{Action, ErrorReply, Fault},
    },
    tree::Tree,
};

fn pod() -> Pod {
    with_model(Pod::new())
}

fn with_model(pod: Pod) -> Pod {
    pod.put("bert/config.json", Object::text("{}"));
    pod
}

#[track_caller]
fn assert_downloaded(pod: &Pod, outcome: &Outcome) {
    outcome.assert_exit(0);
    pod.tree().assert_equals(&Tree::new().bytes("config.json", "{}"));
}

/// A run with this Secret mounted, and the model's URI.
fn with_secret<'a>(pod: &Pod, files: impl IntoIterator<Item = (&'a str, String)>) -> Initializer {
    let run = pod.bare().env("STORAGE_CONFIG_DIR", pod.mount("storage-config", files));
    run.env("STORAGE_URI", "s3://models/bert")
}

fn ca_file(pod: &Pod) -> PathBuf {
    let path = pod.path("ca.pem");
    std::fs::write(&path, pod.authority.pem()).unwrap();
    path
}

/// A run whose settings are all plain variables.
fn with_variables(pod: &Pod) -> Initializer {
    pod.bare()
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        .env("AWS_ENDPOINT_URL_S3", pod.server.endpoint())
        .env("AWS_CA_BUNDLE", ca_file(pod))
        .env("STORAGE_URI", "s3://models/bert")
}

mod which_entry {
    use super::*;

    #[test]
    fn storage_key_names_the_entry() {
        let pod = pod();
        let files = [("localMinIO", pod.entry().to_string()), ("default", "broken".to_owned())];
        assert_downloaded(&pod, &with_secret(&pod, files).env("STORAGE_KEY", "localMinIO").run());
    }

    #[test]
    fn a_storage_key_that_is_not_there_is_answered_with_those_that_are() {
        let pod = pod();
        let files = [("localMinIO", pod.entry().to_string()), ("default", pod.entry().to_string())];
        let outcome = with_secret(&pod, files).env("STORAGE_KEY", "localMinio").run();
        insta::assert_snapshot!(pod.refused(&outcome, 78), @r#"env STORAGE_KEY names entry "localMinio", which /pod/storage-config does not have; it has: default, localMinIO"#);
    }

    #[test]
    fn a_storage_key_without_any_entry_asks_whether_the_secret_is_mounted() {
        let pod = pod();
        let outcome = pod.bare().env("STORAGE_KEY", "localMinIO").env("STORAGE_URI", "s3://models/bert").run();
        insta::assert_snapshot!(pod.refused(&outcome, 78), @r#"env STORAGE_KEY names entry "localMinIO", which /pod/empty-storage-config does not have; it has no entries: is the Secret mounted there?"#);
    }

    #[test]
    fn default_s3_is_taken_before_default() {
        let pod = pod();
        let files = [("default", "broken".to_owned()), ("default_s3", pod.entry().to_string())];
        assert_downloaded(&pod, &with_secret(&pod, files).run());
    }

    #[test]
    fn default_is_taken_before_any_other() {
        let pod = pod();
        let files = [("another", "broken".to_owned()), ("default", pod.entry().to_string())];
        assert_downloaded(&pod, &with_secret(&pod, files).run());
    }

    #[test]
    fn the_only_entry_is_taken_and_that_is_said() {
        let pod = pod();
        let outcome = with_secret(&pod, [("localMinIO", pod.entry().to_string())]).run();
        assert_downloaded(&pod, &outcome);
        assert!(outcome.stderr.contains(r#"env STORAGE_KEY is not set: using "localMinIO", the only entry"#));
    }

    #[test]
    fn several_entries_without_a_key_are_listed() {
        let pod = pod();
        let files = [("localMinIO", pod.entry().to_string()), ("aws-production", pod.entry().to_string())];
        insta::assert_snapshot!(pod.refused(&with_secret(&pod, files).run(), 78), @"/pod/storage-config has several entries and none is called default_s3 or default; set env STORAGE_KEY to one of: aws-production, localMinIO");
    }

    #[test]
    fn an_entry_whose_name_begins_like_a_variable_is_an_entry() {
        let pod = pod();
        assert_downloaded(&pod, &with_secret(&pod, [("aws-production", pod.entry().to_string())]).run());
    }

    #[test]
    fn a_type_is_taken_from_the_uri_and_another_one_is_refused() {
        let pod = pod();
        let untyped = pod.entry_with(json!({"type": null})).to_string();
        assert_downloaded(&pod, &with_secret(&pod, [("default", untyped)]).run());
        std::fs::remove_dir_all(pod.models()).unwrap();
        let azure = pod.entry_with(json!({"type": "azure"})).to_string();
        insta::assert_snapshot!(pod.refused(&with_secret(&pod, [("default", azure)]).run(), 78), @r#"storage-config entry "default" (/pod/storage-config/default), field "type": "azure" is not supported; this initializer downloads from "s3" only"#);
    }
}

mod layouts {
    use super::*;

    #[test]
    fn an_openshift_data_connection_has_one_variable_per_file() {
        let pod = pod();
        let files = [
            ("AWS_ACCESS_KEY_ID", format!("{ACCESS_KEY_ID}\n")),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
            ("AWS_S3_ENDPOINT", pod.server.endpoint()),
            ("AWS_S3_BUCKET", "models".to_owned()),
            ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
        ];
        let secret = pod.mount("data-connection", files);
        let run = pod.bare().env("STORAGE_CONFIG_DIR", secret).env("AWS_CA_BUNDLE", ca_file(&pod));
        assert_downloaded(&pod, &run.env("STORAGE_PATH", "bert").run());
    }

    #[test]
    fn a_kserve_service_account_secret_has_its_own_names() {
        let pod = pod();
        let files =
            [("awsAccessKeyID", ACCESS_KEY_ID.to_owned()), ("awsSecretAccessKey", SECRET_ACCESS_KEY.to_owned())];
        let host = pod.server.endpoint().replace("https://", "");
        let run = with_secret(&pod, files).env("S3_ENDPOINT", host).env("S3_USE_HTTPS", "1");
        assert_downloaded(&pod, &run.env("AWS_CA_BUNDLE", ca_file(&pod)).run());
    }

    #[test]
    fn a_variable_of_the_mounted_secret_wins_over_the_environment() {
        let pod = pod();
        let files = [("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned())];
        let secret = pod.mount("data-connection", files);
        let run = with_variables(&pod).env("AWS_SECRET_ACCESS_KEY", "wrong").env("STORAGE_CONFIG_DIR", secret);
        assert_downloaded(&pod, &run.run());
    }

    #[test]
    fn plain_variables_are_enough() {
        let pod = pod();
        assert_downloaded(&pod, &with_variables(&pod).run());
    }

    #[test]
    fn s3_endpoint_without_https_is_plain_http() {
        let pod = with_model(Pod::with(|server| server.plain()));
        let host = pod.server.endpoint().replace("http://", "");
        let run = with_variables(&pod).env("AWS_ENDPOINT_URL_S3", "").env("S3_ENDPOINT", host).env("S3_USE_HTTPS", "0");
        let outcome = run.run();
        assert_downloaded(&pod, &outcome);
        assert!(outcome.stderr.contains("the endpoint is http://"), "{}", outcome.stderr);
    }
}

mod which_layer_wins {
    use super::*;

    #[test]
    fn storage_config_wins_over_the_mounted_secret_with_a_warning() {
        let pod = pod();
        let run = with_secret(&pod, [("default", "broken".to_owned())]).env("STORAGE_CONFIG", pod.entry().to_string());
        let outcome = run.run();
        assert_downloaded(&pod, &outcome);
        assert!(outcome.stderr.contains("is not read: env STORAGE_CONFIG is set and wins"), "{}", outcome.stderr);
    }

    #[test]
    fn an_entry_wins_over_the_environment_field_by_field() {
        let pod = pod();
        let entry = pod.entry_with(json!({"access_key_id": null, "secret_access_key": null})).to_string();
        let run = with_secret(&pod, [("default", entry)]).env("AWS_ENDPOINT_URL", "https://nowhere.invalid");
        let keys = run.env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
        assert_downloaded(&pod, &keys.run());
    }

    #[test]
    fn an_override_replaces_field_by_field() {
        let pod = pod();
        let entry = pod.entry_with(json!({"endpoint_url": "https://nowhere.invalid", "bucket": "another"}));
        let overrides = json!({"endpoint_url": pod.server.endpoint(), "bucket": "models"}).to_string();
        let run = pod.with_entry(&entry).env("STORAGE_OVERRIDE_CONFIG", overrides).env("STORAGE_PATH", "bert");
        assert_downloaded(&pod, &run.run());
    }

    #[test]
    fn an_override_of_nothing_removes_the_entrys_value() {
        let pod = pod();
        let entry = pod.entry_with(json!({"endpoint_url": "https://nowhere.invalid"}));
        let run = pod.with_entry(&entry).env("STORAGE_OVERRIDE_CONFIG", r#"{"endpoint_url": null}"#);
        let run = run.env("AWS_ENDPOINT_URL", pod.server.endpoint()).env("STORAGE_URI", "s3://models/bert");
        assert_downloaded(&pod, &run.run());
    }

    #[test]
    fn empty_values_are_unset_and_turn_nothing_off() {
        let pod = pod();
        let entry = pod.entry_with(json!({"ca_bundle": "", "verify_ssl": "", "anonymous": "", "session_token": ""}));
        let run = pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").env("AWS_SESSION_TOKEN", "");
        assert_downloaded(&pod, &run.run());
        std::fs::remove_dir_all(pod.models()).unwrap();
        let entry = pod.entry_with(json!({"ca_bundle": "", "verify_ssl": "", "certificate": ""}));
        pod.refused(&pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").run(), 76);
    }

    #[test]
    fn verify_ssl_false_alone_turns_verification_off_and_warns() {
        let pod = pod();
        let entry = pod.entry_with(json!({"certificate": null, "verify_ssl": "false"}));
        let outcome = pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").run();
        assert_downloaded(&pod, &outcome);
        assert!(outcome.stderr.contains("WARN"), "{}", outcome.stderr);
        std::fs::remove_dir_all(pod.models()).unwrap();
        let entry = pod.entry_with(json!({"certificate": null, "verify_ssl": "no"}));
        let outcome = pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").run();
        pod.refused(&outcome, 76);
        assert!(outcome.stderr.contains(r#""no" is neither true nor false"#), "{}", outcome.stderr);
    }

    #[test]
    fn a_boolean_is_accepted_with_a_warning_that_kserve_refuses_it() {
        let pod = pod();
        let entry = pod.entry_with(json!({"certificate": null, "verify_ssl": false}));
        let outcome = pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").run();
        assert_downloaded(&pod, &outcome);
        assert!(
            outcome.stderr.contains(r#"field "verify_ssl" is a JSON boolean; KServe's webhook accepts only strings"#)
        );
    }

    #[test]
    fn an_unknown_field_is_named_with_the_nearest_known_one() {
        let pod = pod();
        let outcome = pod.with_entry(&pod.entry_with(json!({"cabundle_config_map": "ca", "owner": "ml"})));
        let outcome = outcome.env("STORAGE_URI", "s3://models/bert").run();
        assert_downloaded(&pod, &outcome);
        assert!(
            outcome
                .stderr
                .contains(r#"unknown field "cabundle_config_map" is ignored; did you mean "cabundle_configmap"?"#)
        );
        assert!(outcome.stderr.contains(r#"unknown field "owner" is ignored"#));
    }
}

mod sources_and_destinations {
    use super::*;

    #[test]
    fn storage_path_is_in_the_bucket_else_in_the_default_bucket() {
        for entry in [json!({"bucket": "models", "default_bucket": "another"}), json!({"default_bucket": "models"})] {
            let pod = pod();
            assert_downloaded(&pod, &pod.with_entry(&pod.entry_with(entry)).env("STORAGE_PATH", "bert").run());
        }
    }

    #[test]
    fn storage_path_without_a_bucket_says_where_one_can_be_set() {
        let pod = pod();
        let outcome = pod.with_entry(&pod.entry()).env("STORAGE_PATH", "bert").run();
        insta::assert_snapshot!(pod.refused(&outcome, 78), @r#"env STORAGE_PATH names a path, but no bucket is set; add "bucket" or "default_bucket" to the storage-config entry, or set env AWS_S3_BUCKET or STORAGE_URI"#);
    }

    #[test]
    fn storage_uri_wins_over_storage_path_and_arguments_over_both() {
        let pod = pod();
        let run = || pod.with_entry(&pod.entry_with(json!({"bucket": "models"}))).env("STORAGE_PATH", "nothing");
        assert_downloaded(&pod, &run().env("STORAGE_URI", "s3://models/bert").run());
        std::fs::remove_dir_all(pod.models()).unwrap();
        let run = run().env("STORAGE_URI", "s3://models/nothing").env("MODEL_DIR", "/nowhere");
        assert_downloaded(&pod, &run.args(["s3://models/bert".as_ref(), pod.models().as_os_str()]).run());
    }

    #[test]
    fn a_source_that_is_not_ours_is_answered_with_the_form_that_is() {
        let pod = pod();
        let message = |source| pod.refused(&pod.download(source).run(), 64);
        insta::assert_snapshot!(message("file:///mnt/models/bert"), @r#"argument: scheme "file" is not supported; write s3://bucket[/key-or-prefix] (KServe's own storage initializer handles this scheme)"#);
        insta::assert_snapshot!(message("/mnt/models/bert"), @r#"argument: source "/mnt/models/bert" has no scheme; write s3://bucket[/key-or-prefix] (a path or a mounted volume is for KServe's own storage initializer)"#);
        insta::assert_snapshot!(message("gs://models/bert"), @r#"argument: scheme "gs" is not supported; write s3://bucket[/key-or-prefix] (KServe's own storage initializer handles this scheme)"#);
        insta::assert_snapshot!(message("https://models.s3.amazonaws.com/bert?X-Amz-Signature=hunter2"), @r#"argument: scheme "https" is not supported; write s3://bucket[/key-or-prefix] (KServe's own storage initializer handles this scheme; an S3 endpoint belongs into `endpoint_url`)"#);
        let outcome = pod.with_entry(&pod.entry()).env("STORAGE_URI", "pvc://models/bert").run();
        insta::assert_snapshot!(pod.refused(&outcome, 78), @r#"env STORAGE_URI: scheme "pvc" is not supported; write s3://bucket[/key-or-prefix] (KServe's own storage initializer handles this scheme)"#);
    }
}

mod endpoints {
    use super::*;

    #[test]
    fn an_endpoint_without_a_scheme_is_https_with_a_warning() {
        let pod = pod();
        let endpoint = pod.server.endpoint().replace("https://", "");
        let outcome = pod.with_entry(&pod.entry_with(json!({"endpoint_url": endpoint})));
        let outcome = outcome.env("STORAGE_URI", "s3://models/bert").run();
        assert_downloaded(&pod, &outcome);
        assert!(outcome.stderr.contains("no scheme in the endpoint; using https://"), "{}", outcome.stderr);
    }

    #[test]
    fn an_endpoint_that_is_not_one_is_named_and_its_password_is_not() {
        let pod = pod();
        let message = |endpoint: &str| {
            let entry = pod.entry_with(json!({"endpoint_url": endpoint}));
            pod.refused(&pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").run(), 78)
        };
        insta::assert_snapshot!(message("s3://minio:9000"), @r#"storage-config entry "default" (/pod/storage-config/default), field "endpoint_url": scheme "s3" is not http or https; write https://host[:port]"#);
        insta::assert_snapshot!(message("https://minio:hunter2@minio.example"), @r#"storage-config entry "default" (/pod/storage-config/default), field "endpoint_url": credentials do not belong in the URL; use access_key_id and secret_access_key"#);
    }

    #[test]
    fn a_bucket_in_amazons_host_name_is_recognised() {
        let (pod, proxy) = amazon("eu-central-1");
        let endpoint = "https://models.s3.eu-central-1.amazonaws.com";
        let entry = pod.entry_with(json!({"endpoint_url": endpoint, "region": null}));
        let run = pod.with_entry(&entry).env("HTTPS_PROXY", proxy.url());
        assert_downloaded(&pod, &run.env("STORAGE_PATH", "bert").run());
        assert!(proxy.targets().iter().all(|target| target == "models.s3.eu-central-1.amazonaws.com:443"));
    }

    #[test]
    fn another_bucket_than_the_one_in_the_host_name_is_refused() {
        let pod = pod();
        let entry = pod.entry_with(json!({"endpoint_url": "https://models.s3.eu-central-1.amazonaws.com"}));
        let outcome = pod.with_entry(&entry).env("STORAGE_URI", "s3://other/bert").run();
        insta::assert_snapshot!(pod.refused(&outcome, 78), @r#"storage-config entry "default" (/pod/storage-config/default), field "endpoint_url": the endpoint's host names bucket "models", the source names "other"; write the endpoint without the bucket"#);
    }

    /// A store that answers for Amazon's host names in a region.
    fn amazon(region: &str) -> (Pod, ConnectProxy) {
        let domain = format!("s3.{region}.amazonaws.com");
        let pod = with_model(Pod::with(|server| server.region(region).base_domain(&domain)));
        let names = [domain.as_str(), &format!("*.{domain}")].map(str::to_owned);
        let leaf = pod.authority.issue(LeafSpec::new().names(names.iter().map(String::as_str)));
        pod.server.replace_identity(leaf.identity());
        let proxy = ConnectProxy::start(pod.server.address());
        (pod, proxy)
    }
}

mod credentials {
    use super::*;

    fn temporary() -> Pod {
        let key = AccessKey::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY).session_token("session-token-41c0");
        with_model(Pod::with(|server| server.credentials(key)))
    }

    #[test]
    fn a_temporary_key_works_with_its_session_token() {
        let pod = temporary();
        let entry = pod.entry_with(json!({"session_token": "session-token-41c0"}));
        assert_downloaded(&pod, &pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").run());
    }

    #[test]
    fn a_temporary_key_without_its_token_or_with_another_is_denied() {
        let pod = temporary();
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/bert").run(), 77), @r#"ListObjectsV2 s3://models/bert/ at https://localhost:9000 failed: 403 InvalidAccessKeyId "The AWS Access Key Id you provided does not exist in our records." (request id [id]); the store does not know this access key id (keys from storage-config entry "default" (/pod/storage-config/default), field "access_key_id"); a temporary one needs its session_token as well"#);
        let entry = pod.entry_with(json!({"session_token": "another-token"}));
        let outcome = pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").run();
        insta::assert_snapshot!(pod.refused(&outcome, 77), @r#"ListObjectsV2 s3://models/bert/ at https://localhost:9000 failed: 400 InvalidToken "The provided token is malformed or otherwise invalid." (request id [id]); the session token is not valid (keys from storage-config entry "default" (/pod/storage-config/default), field "access_key_id")"#);
    }

    #[test]
    fn a_token_from_below_the_key_is_another_keys_and_left_out() {
        let pod = pod();
        let outcome = pod.download("s3://models/bert").env("AWS_SESSION_TOKEN", "of-another-key").run();
        assert_downloaded(&pod, &outcome);
        assert!(outcome.stderr.contains("the session token from env AWS_SESSION_TOKEN is not used"));
    }

    #[test]
    fn a_public_bucket_is_read_without_a_signature() {
        let pod = Pod::with(|server| server.public_bucket("public"));
        pod.server.put("public", "bert/config.json", Object::text("{}"));
        let anonymous = json!({"anonymous": "true", "access_key_id": "unknown"});
        let run = pod.with_entry(&pod.entry_with(anonymous)).env("STORAGE_URI", "s3://public/bert");
        assert_downloaded(&pod, &run.run());
        assert!(pod.server.requests().iter().all(|request| !request.headers.contains_key("authorization")));
    }

    #[test]
    fn a_private_bucket_is_not() {
        let pod = pod();
        let run = pod.with_entry(&pod.entry_with(json!({"anonymous": "true"})));
        insta::assert_snapshot!(pod.refused(&run.env("STORAGE_URI", "s3://models/bert").run(), 77), @r#"ListObjectsV2 s3://models/bert/ at https://localhost:9000 failed: 403 AccessDenied "Access Denied" (request id [id]); asked as: anonymous (storage-config entry "default" (/pod/storage-config/default), field "anonymous"); it needs s3:GetObject on the objects, and s3:ListBucket on the bucket for a prefix"#);
    }

    #[test]
    fn half_a_key_pair_names_the_other_half() {
        let pod = pod();
        let message = |missing: &str| {
            let entry = pod.entry_with(json!({missing: null}));
            pod.refused(&pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").run(), 78)
        };
        insta::assert_snapshot!(message("access_key_id"), @r#"storage-config entry "default" (/pod/storage-config/default), field "secret_access_key" is set, but access_key_id (AWS_ACCESS_KEY_ID) is not; set both, or neither to use the default AWS credential chain"#);
        insta::assert_snapshot!(message("secret_access_key"), @r#"storage-config entry "default" (/pod/storage-config/default), field "access_key_id" is set, but secret_access_key (AWS_SECRET_ACCESS_KEY) is not; set both, or neither to use the default AWS credential chain"#);
    }

    #[test]
    fn a_pair_from_two_places_is_warned_of() {
        let pod = pod();
        let entry = pod.entry_with(json!({"secret_access_key": null}));
        let run = pod.with_entry(&entry).env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
        let outcome = run.env("STORAGE_URI", "s3://models/bert").run();
        assert_downloaded(&pod, &outcome);
        assert!(outcome.stderr.contains("the two halves of the key pair come from different places"));
    }

    #[test]
    fn wrong_keys_are_told_apart() {
        let pod = pod();
        let message = |field: &str| {
            let entry = pod.entry_with(json!({field: "wrong"}));
            pod.refused(&pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").run(), 77)
        };
        insta::assert_snapshot!(message("access_key_id"), @r#"ListObjectsV2 s3://models/bert/ at https://localhost:9000 failed: 403 InvalidAccessKeyId "The AWS Access Key Id you provided does not exist in our records." (request id [id]); the store does not know this access key id (keys from storage-config entry "default" (/pod/storage-config/default), field "access_key_id"); a temporary one needs its session_token as well"#);
        insta::assert_snapshot!(message("secret_access_key"), @r#"ListObjectsV2 s3://models/bert/ at https://localhost:9000 failed: 403 SignatureDoesNotMatch (request id [id]); the secret access key is not the one of this access key id (keys from storage-config entry "default" (/pod/storage-config/default), field "access_key_id")"#);
    }

    #[test]
    fn wrong_keys_are_told_apart_where_the_store_has_one_code_for_both() {
        let pod = pod();
        // Garage's words.
        let message = |words: &str| {
            let reply = ErrorReply::new(403, "AccessDenied").message(words);
            pod.server.disarm_faults();
            pod.server.fault(Fault::any(Action::Reply(reply)).always());
            let run = pod.with_entry(&pod.entry()).env("STORAGE_URI", "s3://models/bert");
            let message = pod.refused(&run.run(), 77);
            message.split_once("; ").map(|(_, advice)| advice.to_owned()).unwrap()
        };
        let wrong_secret = message("Forbidden: Invalid signature");
        assert!(
            wrong_secret.starts_with("the secret access key is not the one of this access key id"),
            "{wrong_secret}"
        );
        let wrong_id = message("Forbidden: No such key: GK31c2f218a2e44f485b94239e");
        assert!(wrong_id.starts_with("the store does not know this access key id"), "{wrong_id}");
        let no_right = message("Forbidden: Operation is not allowed for this key.");
        assert!(no_right.starts_with("asked as: "), "{no_right}");
    }

    #[test]
    fn a_line_break_at_the_end_of_a_value_is_dropped_with_a_warning() {
        let pod = pod();
        let entry = pod.entry_with(json!({
            "access_key_id": format!("{ACCESS_KEY_ID}\n"),
            "secret_access_key": format!("{SECRET_ACCESS_KEY} \n"),
            "region": "us-east-1\n",
        }));
        let outcome = pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").run();
        assert_downloaded(&pod, &outcome);
        assert!(outcome.stderr.contains("blanks or line breaks around the value are ignored"), "{}", outcome.stderr);
    }

    #[test]
    fn without_any_credentials_the_chain_says_what_it_tried() {
        let pod = pod();
        let entry = pod.entry_with(json!({"access_key_id": null, "secret_access_key": null}));
        let run =
            pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").env("AWS_EC2_METADATA_DISABLED", "true");
        insta::assert_snapshot!(pod.refused(&run.run(), 77), @r#"no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none (none of them answers here; set here: AWS_EC2_METADATA_DISABLED=true); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set "anonymous": "true" for a public bucket"#);
        assert_eq!(pod.server.requests_of(Operation::GetObject).len(), 0);
    }
}

mod broken {
    use super::*;

    #[test]
    fn json_that_does_not_parse_is_named_with_line_column_and_the_usual_cause() {
        let pod = pod();
        let message = |text: &str| pod.refused(&with_secret(&pod, [("default", text.to_owned())]).run(), 78);
        insta::assert_snapshot!(message("{\n  \"type\": \"s3\"\n  \"region\": \"x\"\n}"), @r#"storage-config entry "default" (/pod/storage-config/default): not valid JSON: expected `,` or `}` at line 3 column 3; a comma is missing between two fields, or a quote inside a value is not written as \""#);
        insta::assert_snapshot!(message("{\"certificate\": \"-----BEGIN CERTIFICATE-----\nMIIB\"}"), @r#"storage-config entry "default" (/pod/storage-config/default): not valid JSON: control character (\u0000-\u001F) found while parsing a string at line 2 column 0; a line break inside a value must be written as \n, as in "-----BEGIN CERTIFICATE-----\nMII...""#);
        insta::assert_snapshot!(message("{\n  // the store\n  \"type\": \"s3\"\n}"), @r#"storage-config entry "default" (/pod/storage-config/default): not valid JSON: key must be a string at line 2 column 3; JSON has no comments: remove them"#);
        insta::assert_snapshot!(message("type: s3"), @r#"storage-config entry "default" (/pod/storage-config/default): not valid JSON: expected ident at line 1 column 2; an entry is a JSON object such as {"type": "s3", ...}"#);
        insta::assert_snapshot!(message("[]"), @r#"storage-config entry "default" (/pod/storage-config/default): a JSON array instead of an object such as {"type": "s3", ...}"#);
        insta::assert_snapshot!(message(""), @r#"storage-config entry "default" (/pod/storage-config/default): not valid JSON: EOF while parsing a value at line 1 column 0; the value is empty"#);
    }

    #[test]
    fn variables_that_do_not_parse_are_named_as_well() {
        let pod = pod();
        let run = pod.bare().env("STORAGE_URI", "s3://models/bert");
        let run = run.env("STORAGE_CONFIG", "{\"type\": ").env("STORAGE_OVERRIDE_CONFIG", "{,}");
        insta::assert_snapshot!(pod.refused(&run.run(), 78), @"2 problems in the configuration: (1) env STORAGE_CONFIG: not valid JSON: EOF while parsing a value at line 1 column 9; the end is missing: was the value cut off?; (2) env STORAGE_OVERRIDE_CONFIG: not valid JSON: key must be a string at line 1 column 2; field names stand in double quotes");
    }

    #[test]
    fn all_problems_are_reported_together() {
        let pod = pod();
        let entry = json!({
            "type": "gcs",
            "endpoint_url": "ftp://minio",
            "access_key_id": "only-half",
            "addressing_style": "sideways",
        });
        let run = pod.with_entry(&entry).env("STORAGE_PATH", "bert").env("S3_MAX_ATTEMPTS", "many");
        let run = run.env("STORAGE_ALLOW_PATTERNS", "[\"*.json\",]").env("TRUST_STORE", "everything");
        insta::assert_snapshot!(pod.refused(&run.run(), 78), @r#"8 problems in the configuration: (1) storage-config entry "default" (/pod/storage-config/default), field "type": "gcs" is not supported; this initializer downloads from "s3" only; (2) storage-config entry "default" (/pod/storage-config/default), field "endpoint_url": scheme "ftp" is not http or https; write https://host[:port]; (3) storage-config entry "default" (/pod/storage-config/default), field "addressing_style": "sideways" is not auto, path or virtual; (4) storage-config entry "default" (/pod/storage-config/default), field "access_key_id" is set, but secret_access_key (AWS_SECRET_ACCESS_KEY) is not; set both, or neither to use the default AWS credential chain; (5) env STORAGE_PATH names a path, but no bucket is set; add "bucket" or "default_bucket" to the storage-config entry, or set env AWS_S3_BUCKET or STORAGE_URI; (6) env TRUST_STORE: "everything" is not combined or bundle-only; (7) env S3_MAX_ATTEMPTS: "many" is not a whole number from 1 to 100; (8) env STORAGE_ALLOW_PATTERNS: "[\"*.json\",]" looks like a JSON array but is none (trailing comma at line 1 column 11); write ["*.json", "*.bin"] or *.json,*.bin"#);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named_with_its_variable() {
        let pod = pod();
        let run = pod.bare().env("STORAGE_CONFIG_DIR", pod.path("nowhere")).env("STORAGE_URI", "s3://models/bert");
        insta::assert_snapshot!(pod.refused(&run.run(), 78), @"storage-config Secret (env STORAGE_CONFIG_DIR): /pod/nowhere does not exist");
    }

    #[test]
    fn a_directory_that_may_not_be_read_is_named_with_what_to_change() {
        let pod = pod();
        let secret = pod.mount("storage-config", [("default", pod.entry().to_string())]);
        forbid(&secret);
        let run = pod.bare().env("STORAGE_CONFIG_DIR", &secret).env("STORAGE_URI", "s3://models/bert").uid(1000);
        insta::assert_snapshot!(pod.refused(&run.run(), 78), @"storage-config Secret (env STORAGE_CONFIG_DIR): /pod/storage-config may not be read by this user; set the volume's defaultMode (for example 0444) or the pod's fsGroup");
    }

    fn forbid(directory: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn nothing_to_download_says_how_to_name_something() {
        let pod = pod();
        insta::assert_snapshot!(pod.refused(&pod.with_entry(&pod.entry()).run(), 64), @"nothing to download: give SRC_URI DEST, or set env STORAGE_URI, or env STORAGE_PATH with a storage-config entry");
    }
}

mod secrets {
    use super::*;

    const SESSION_TOKEN: &str = "session-token-9a77e1";

    #[test]
    fn the_password_of_a_proxy_is_none_of_the_logs_business() {
        let pod = pod();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let run = pod.download("s3://models/bert").env("HTTPS_PROXY", format!("http://proxy:hunter2@localhost:{port}"));
        let outcome = run.env("S3_MAX_ATTEMPTS", "1").env("RUST_LOG", "trace").run();
        let message = pod.refused(&outcome, 69).replace(&port.to_string(), "[port]");
        insta::assert_snapshot!(message, @"HeadObject s3://models/bert at https://localhost:9000 failed: no connection to localhost:9000 through proxy http://localhost:[port]/: Connection refused (os error 111); is the proxy up, and should NO_PROXY name this host?");
        assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
    }

    /// Everything that must stay out of the output, in runs that log all they can.
    #[test]
    fn no_secret_is_ever_in_the_output() {
        let key = AccessKey::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY).session_token(SESSION_TOKEN);
        let pod = with_model(Pod::with(|server| server.credentials(key)));
        let private_key = pod.authority.key_pem();
        let pasted = format!("{}{private_key}", pod.authority.pem());
        let good = pod.entry_with(json!({"session_token": SESSION_TOKEN, "certificate": pasted}));
        let configmap = pod.mount("ca", [("cabundle.crt", pasted.clone()), ("tls.key", private_key.clone())]);
        let truncated = good.to_string().replace("\"type\"", "type");
        let entries = [
            (good.to_string(), Some(0)),
            // The same with something wrong in each stage.
            (truncated, Some(78)),
            (
                pod.entry_with(json!({"session_token": SESSION_TOKEN, "endpoint_url": "https://127.0.0.1:1"}))
                    .to_string(),
                Some(69),
            ),
            (pod.entry_with(json!({"session_token": SESSION_TOKEN, "certificate": null})).to_string(), None),
            (pod.entry_with(json!({"session_token": format!("{SESSION_TOKEN}x")})).to_string(), Some(77)),
            (pod.entry_with(json!({"session_token": SESSION_TOKEN, "certificate": private_key})).to_string(), None),
        ];
        let bodies: Vec<&str> = pasted.lines().filter(|line| !line.starts_with("-----") && line.len() > 8).collect();
        for (entry, code) in entries {
            let run = with_secret(&pod, [("default", entry)]).env("RUST_LOG", "trace").env("S3_MAX_ATTEMPTS", "1");
            let outcome = run.env("CA_BUNDLE_VOLUME_MOUNT_POINT", &configmap).run();
            if let Some(code) = code {
                outcome.assert_exit(code);
            }
            let message = outcome.termination_message.clone().unwrap_or_default();
            let output = format!("{}{}{message}", outcome.stderr, outcome.stdout);
            for secret in [SECRET_ACCESS_KEY, SESSION_TOKEN].iter().chain(&bodies) {
                assert!(!output.contains(secret), "{secret:?} is in the output:\n{output}");
            }
        }
    }
}
