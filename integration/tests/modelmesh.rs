//! ModelMesh's rules for a storage spec, as its puller has them, in one table: which entry of the Secret, which bucket, and
//! what parameters change. A rule that is ModelMesh's holds here; where ModelMesh gives up and this program need not, the
//! row says so.
//!
//! The rules are those of `model-serving-puller/puller/{puller,config,dotpath}.go` and
//! `pullman/storageproviders/s3/provider.go` in kserve/modelmesh-runtime-adapter. A storage spec's `key`, `path` and
//! `parameters` come as `STORAGE_KEY`, `STORAGE_PATH` and `STORAGE_OVERRIDE_CONFIG`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::{Value, json};
use storage_initializer_integration::pod::{Pod, assert_nothing_visible};
use storage_initializer_integration::s3_server::Object;
use storage_initializer_integration::tree::Tree;

/// What a row comes to.
enum Comes {
    /// The model of this bucket, as in ModelMesh.
    To(&'static str),
    /// The model of this bucket, where ModelMesh fails.
    ToInsteadOfAnError(&'static str),
    /// An error, as in ModelMesh, with these words in it.
    ToAnError(i32, &'static str),
}

struct Row {
    rule: &'static str,
    /// The entries of the Secret, as changes to one that is complete but for its bucket.
    secret: Secret,
    key: Option<&'static str>,
    parameters: Option<fn() -> Value>,
    comes: Comes,
}

type Secret = &'static [(&'static str, fn() -> Value)];

const NO_SECRET: Secret = &[];

fn table() -> Vec<Row> {
    use Comes::{To, ToAnError, ToInsteadOfAnError};
    let row = |rule, secret, key, parameters, comes| Row { rule, secret, key, parameters, comes };
    vec![
        row(
            "a key names its entry",
            &[("a", || json!({"bucket": "one"})), ("b", || json!({"bucket": "two"}))],
            Some("b"),
            None,
            To("two"),
        ),
        row(
            "a key that is not there is an error",
            &[("a", || json!({"bucket": "one"}))],
            Some("b"),
            None,
            ToAnError(78, "\"b\""),
        ),
        row(
            "without a key the entry `default` counts",
            &[("default", || json!({"bucket": "one"})), ("z", || json!({"bucket": "two"}))],
            None,
            None,
            To("one"),
        ),
        row(
            "without a key and with the type s3, `default_s3` counts first",
            &[("default", || json!({"bucket": "one"})), ("default_s3", || json!({"bucket": "two"}))],
            None,
            Some(|| json!({"type": "s3"})),
            To("two"),
        ),
        row(
            "without any entry the parameters are enough",
            NO_SECRET,
            None,
            Some(|| json!({"bucket": "one"})),
            To("one"),
        ),
        row(
            "`bucket` wins over `default_bucket`",
            &[("default", || json!({"bucket": "one", "default_bucket": "two"}))],
            None,
            None,
            To("one"),
        ),
        row(
            "`default_bucket` is taken where there is no `bucket`",
            &[("default", || json!({"default_bucket": "two"}))],
            None,
            None,
            To("two"),
        ),
        row(
            "without any bucket there is nothing to load",
            &[("default", || json!({}))],
            None,
            None,
            ToAnError(78, "no bucket is set"),
        ),
        row(
            "a parameter replaces a field",
            &[("default", || json!({"bucket": "one"}))],
            None,
            Some(|| json!({"bucket": "two"})),
            To("two"),
        ),
        row(
            "a parameter replaces nothing but its field",
            &[("default", || json!({"bucket": "one", "region": "nowhere"}))],
            None,
            Some(|| json!({"region": "us-east-1"})),
            To("one"),
        ),
        row(
            "a parameter `bucket` wins over the entry's `default_bucket`",
            &[("default", || json!({"default_bucket": "one"}))],
            None,
            Some(|| json!({"bucket": "two"})),
            To("two"),
        ),
        row(
            "a wrong key among the parameters is wrong",
            &[("default", || json!({"bucket": "one"}))],
            None,
            Some(|| json!({"secret_access_key": "wrong"})),
            ToAnError(77, "SignatureDoesNotMatch"),
        ),
        row(
            "a dotted parameter sets a field of a nested object, of which S3 has none",
            &[("default", || json!({"bucket": "one"}))],
            None,
            Some(|| json!({"nested.bucket": "two"})),
            To("one"),
        ),
        row(
            "a dotted parameter does not reach into a text",
            &[("default", || json!({"bucket": "one"}))],
            None,
            Some(|| json!({"bucket.name": "two"})),
            ToInsteadOfAnError("one"),
        ),
        row(
            "a parameter in the place of a value that is no text",
            &[("default", || json!({"bucket": "one", "region": 1}))],
            None,
            Some(|| json!({"region": "us-east-1"})),
            ToInsteadOfAnError("one"),
        ),
        row(
            "a type that is not S3's is for another program",
            &[("default", || json!({"bucket": "one", "type": "gcs"}))],
            None,
            None,
            ToAnError(78, "\"gcs\""),
        ),
        row(
            "an entry without a type",
            &[("default", || json!({"bucket": "one", "type": null}))],
            None,
            None,
            ToInsteadOfAnError("one"),
        ),
        row(
            "an empty `bucket` beside a `default_bucket`",
            &[("default", || json!({"bucket": "", "default_bucket": "two"}))],
            None,
            None,
            ToInsteadOfAnError("two"),
        ),
        row(
            "an entry without a region",
            &[("default", || json!({"bucket": "one", "region": null}))],
            None,
            None,
            ToInsteadOfAnError("one"),
        ),
        row(
            "fields that are KServe's alone are nothing to ModelMesh",
            &[(
                "default",
                || json!({"bucket": "one", "cabundle_configmap": "x", "verify_ssl": "true", "anonymous": "false"}),
            )],
            None,
            None,
            To("one"),
        ),
    ]
}

#[test]
fn every_rule_of_the_puller_holds() {
    let pod = Pod::with(|server| server.bucket("one").bucket("two"));
    for bucket in ["one", "two"] {
        pod.server.put(bucket, "team/bert/model.onnx", Object::text(bucket));
        // Its listing stops where a name ends, as this program's does.
        pod.server.put(bucket, "team/bert2/model.onnx", Object::text("another model"));
    }
    for (number, row) in table().into_iter().enumerate() {
        let rule = row.rule;
        let entries: Vec<(&str, String)> =
            row.secret.iter().map(|(name, changes)| (*name, pod.entry_with(changes()).to_string())).collect();
        let mut run = pod.bare().env("STORAGE_PATH", "team/bert");
        let models = pod.path(&format!("models-{number}"));
        run = run.env("MODEL_DIR", &models).env("STORAGE_CONFIG_DIR", pod.mount(&format!("secret-{number}"), entries));
        if let Some(key) = row.key {
            run = run.env("STORAGE_KEY", key);
        }
        if let Some(parameters) = row.parameters {
            // Without an entry the parameters have to say everything.
            let parameters = if row.secret.is_empty() { pod.entry_with(parameters()) } else { parameters() };
            run = run.env("STORAGE_OVERRIDE_CONFIG", parameters.to_string());
        }
        let outcome = run.run();
        match row.comes {
            Comes::To(bucket) | Comes::ToInsteadOfAnError(bucket) => {
                assert_eq!(outcome.code(), Some(0), "{rule}: {}", outcome.stderr);
                let diff = Tree::read(&models).diff(&Tree::new().bytes("model.onnx", bucket));
                assert!(diff.is_empty(), "{rule}: {diff}");
            }
            Comes::ToAnError(code, words) => {
                assert_eq!(outcome.code(), Some(code), "{rule}: {}", outcome.stderr);
                assert!(outcome.last_line().contains(words), "{rule}: {}", outcome.last_line());
                assert_nothing_visible(&models);
            }
        }
    }
}
