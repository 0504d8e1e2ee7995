//! Which objects a source names, and which files they become.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use std::collections::BTreeSet;

use serde_json::json;
use storage_initializer_integration::{
    connect_proxy::ConnectProxy,
    initializer::Outcome,
    pki::LeafSpec,
    pod::{ACCESS_KEY_ID, Pod, SECRET_ACCESS_KEY},
    s3_server::{
        AccessKey, Checksum, Object, Operation,
        faults::{Action, ErrorReply, Fault},
    },
    tree::{ODD_NAMES, Tree},
};

fn pod_with<'a>(keys: impl IntoIterator<Item = &'a str>) -> Pod {
    let pod = Pod::new();
    put(&pod, keys);
    pod
}

/// Puts objects whose content is their key.
fn put<'a>(pod: &Pod, keys: impl IntoIterator<Item = &'a str>) {
    for key in keys {
        pod.put(key, Object::text(key));
    }
}

/// Files whose content is the key that they were.
fn files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Tree {
    files.into_iter().fold(Tree::new(), |tree, (path, key)| tree.bytes(path, key))
}

#[track_caller]
fn assert_downloaded(pod: &Pod, outcome: &Outcome, expected: &Tree) {
    outcome.assert_exit(0);
    pod.tree().assert_equals(expected);
}

mod a_tree {
    use super::*;

    #[test]
    fn three_thousand_keys_arrive_byte_for_byte_and_a_sibling_does_not() {
        let pod = Pod::new();
        let mut expected = Tree::new();
        let mut add = |name: &str, object: Object| {
            expected = std::mem::take(&mut expected).file(&name.replace("//", "/"), object.data());
            pod.put(&format!("model/{name}"), object);
        };
        for number in 0..3000 {
            let checksum = [Checksum::Crc64Nvme, Checksum::Crc32c, Checksum::Crc32][number % 3];
            let object = Object::bytes(vec![number as u8; number % 700]);
            let object = if number % 4 == 0 { object } else { object.checksum(checksum) };
            add(&format!("shard-{:02}/{number:04}.bin", number % 40), object);
        }
        for (number, name) in (0..).zip(ODD_NAMES.into_iter().chain(["quote\"and'back\\slash.txt", "a//b.txt"])) {
            add(name, Object::pattern(number, 1000 + number));
        }
        add("weights.safetensors", Object::pattern(300, 300 << 20).checksum(Checksum::Crc64Nvme));
        pod.put("model/", Object::text(""));
        pod.put("model/shard-00/", Object::text("a marker with content"));
        put(&pod, ["model2/other.bin", "model-v2.bin", "modelling/x"]);

        let outcome = pod.download("s3://models/model").run();
        assert_downloaded(&pod, &outcome, &expected);
        let info_lines = outcome.stderr.lines().filter(|line| line.contains("INFO")).count();
        assert!(info_lines < 10 + outcome.elapsed.as_secs() as usize, "{}", outcome.stderr);
        for way in ["etag-only", "crc64nvme", "crc32c", "crc32", "empty"] {
            assert!(outcome.last_line().contains(way), "{way}: {}", outcome.last_line());
        }
    }

    #[test]
    fn every_request_for_bytes_is_for_the_version_that_was_listed() {
        let pod = pod_with(["model/small", "model/empty/x"]);
        pod.put("model/large", Object::pattern(1, 40 << 20).checksum(Checksum::Crc32c));
        pod.download("s3://models/model").run().assert_exit(0);
        let gets = pod.server.requests_of(Operation::GetObject);
        for get in &gets {
            let etag = pod.server.store().etag("models", get.key.as_deref().unwrap());
            let if_match = get.headers.get("if-match").map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(if_match, etag, "{:?} {:?}", get.key, get.range);
        }
        let ranges: BTreeSet<_> = gets.iter().filter_map(|get| get.range_bytes()).collect();
        assert!(ranges.len() > 2, "{ranges:?}");
        let large = gets.iter().filter(|get| get.key.as_deref() == Some("model/large"));
        assert_eq!(large.map(|get| get.bytes_sent).sum::<u64>(), 40 << 20);
    }

    #[test]
    fn in_a_versioned_bucket_what_follows_the_head_names_the_version() {
        let pod = Pod::with(|server| server.versioned_bucket("models"));
        pod.put("model/large", Object::pattern(1, 40 << 20));
        pod.server.fault(Fault::on_get("*", Action::TruncateAfter { body_bytes: 5 << 20 }).times(2));
        pod.download("s3://models/model").run().assert_exit(0);
        let gets = pod.server.requests_of(Operation::GetObject);
        let (named, early): (Vec<_>, Vec<_>) = gets.iter().partition(|get| get.query.contains("versionId="));
        assert!(named.len() >= 2, "two went on where they broke: {named:?}");
        // What is asked for beside the head does not know the version, but the ETag.
        assert!(early.iter().all(|get| get.headers.contains_key("if-match")), "{early:?}");
    }

    #[test]
    fn versions_that_may_not_be_named_are_left_out() {
        let key = AccessKey::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY).allow_get_version(false);
        let pod = Pod::with(|server| server.versioned_bucket("models").credentials(key));
        let object = Object::pattern(1, 40 << 20);
        let expected = Tree::new().file("large", object.data());
        pod.put("model/large", object);
        assert_downloaded(&pod, &pod.download("s3://models/model").run(), &expected);
    }
}

mod what_a_source_names {
    use super::*;

    #[test]
    fn an_exact_key_is_one_file_by_its_last_name() {
        let pod = pod_with(["models/bert/model.onnx", "models/bert/model.onnx.bak"]);
        let outcome = pod.download("s3://models/models/bert/model.onnx").run();
        assert_downloaded(&pod, &outcome, &files([("model.onnx", "models/bert/model.onnx")]));
    }

    #[test]
    fn an_exact_key_needs_permission_for_the_object_alone() {
        let pod =
            Pod::with(|server| server.credentials(AccessKey::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY).allow_list(false)));
        put(&pod, ["model.onnx"]);
        assert_downloaded(&pod, &pod.download("s3://models/model.onnx").run(), &files([("model.onnx", "model.onnx")]));
    }

    #[test]
    fn a_prefix_needs_permission_to_list_and_that_is_said() {
        let pod =
            Pod::with(|server| server.credentials(AccessKey::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY).allow_list(false)));
        put(&pod, ["bert/model.onnx"]);
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/bert").run(), 77), @r#"ListObjectsV2 s3://models/bert/ at https://localhost:9000 failed: 403 AccessDenied "Access Denied" (request id [id]); asked as: keys from storage-config entry "default" (/pod/storage-config/default), field "access_key_id"; it needs s3:GetObject on the objects, and s3:ListBucket on the bucket for a prefix"#);
    }

    #[test]
    fn an_object_wins_over_the_prefix_of_its_name_and_a_slash_asks_for_the_prefix() {
        let pod = pod_with(["model", "model/config.json", "model/sub/x"]);
        assert_downloaded(&pod, &pod.download("s3://models/model").run(), &files([("model", "model")]));
        std::fs::remove_dir_all(pod.models()).unwrap();
        let below = files([("config.json", "model/config.json"), ("sub/x", "model/sub/x")]);
        assert_downloaded(&pod, &pod.download("s3://models/model/").run(), &below);
    }

    #[test]
    fn a_bucket_is_everything_in_it() {
        let pod = pod_with(["config.json", "sub/x"]);
        let all = files([("config.json", "config.json"), ("sub/x", "sub/x")]);
        assert_downloaded(&pod, &pod.download("s3://models").run(), &all);
    }

    #[test]
    fn pages_of_a_listing_are_all_read() {
        let pod = Pod::with(|server| server.page_size(7));
        let keys: Vec<String> = (0..50).map(|number| format!("m/{number}")).collect();
        put(&pod, keys.iter().map(String::as_str));
        pod.download("s3://models/m").run().assert_exit(0);
        assert_eq!(pod.tree().files().len(), 50);
        assert_eq!(pod.server.requests_of(Operation::ListObjectsV2).len(), 8);
    }

    #[test]
    fn several_pairs_land_in_their_own_destinations() {
        let pod = pod_with(["a/x", "b/x"]);
        let run = pod.download("s3://models/a").args(["s3://models/b".as_ref(), pod.path("second").as_os_str()]);
        assert_downloaded(&pod, &run.run(), &files([("x", "a/x")]));
        Tree::read(&pod.path("second")).assert_equals(&files([("x", "b/x")]));
    }

    #[test]
    fn two_pairs_into_one_destination_are_one_tree_unless_they_collide() {
        let pod = pod_with(["a/x", "b/y", "c/x"]);
        let models = pod.models();
        let run = |second: &str| pod.download("s3://models/a").args([second.as_ref(), models.as_os_str()]).run();
        insta::assert_snapshot!(pod.refused(&run("s3://models/c"), 65), @r#"keys "a/x" and "c/x" would both be the file "x"; remove one of the objects, or exclude it with STORAGE_IGNORE_PATTERNS"#);
        assert_downloaded(&pod, &run("s3://models/b"), &files([("x", "a/x"), ("y", "b/y")]));
    }

    #[test]
    fn patterns_choose_among_what_is_below_a_prefix() {
        let pod = pod_with(["m/config.json", "m/weights.bin", "m/sub/more.bin", "m/sub/notes.md"]);
        let run = pod.download("s3://models/m").env("STORAGE_ALLOW_PATTERNS", r#"["*.bin", "*.json"]"#);
        let outcome = run.env("STORAGE_IGNORE_PATTERNS", "sub/*").run();
        let kept = files([("config.json", "m/config.json"), ("weights.bin", "m/weights.bin")]);
        assert_downloaded(&pod, &outcome, &kept);
    }

    #[test]
    fn patterns_that_keep_nothing_name_an_example_and_an_exact_object_is_never_filtered() {
        let pod = pod_with(["m/weights.bin"]);
        let run = |source| pod.download(source).env("STORAGE_ALLOW_PATTERNS", "m/*.safetensors").run();
        insta::assert_snapshot!(pod.refused(&run("s3://models/m"), 66), @r#"STORAGE_ALLOW_PATTERNS and STORAGE_IGNORE_PATTERNS leave nothing of what is at s3://models/m (objects: 1); patterns are matched against the path below the prefix, for example "weights.bin""#);
        assert_downloaded(&pod, &run("s3://models/m/weights.bin"), &files([("weights.bin", "m/weights.bin")]));
    }
}

mod not_found {
    use super::*;

    #[test]
    fn a_key_that_is_not_there_is_answered_with_what_is_near() {
        let pod = pod_with(["models/x", "model-v2/x", "Model/x", "zebra"]);
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/model").run(), 66), @"nothing found at s3://models/model; there are: models/, model-v2/, Model/");
    }

    #[test]
    fn a_name_is_near_in_its_own_directory_too() {
        let pod = pod_with(["team/bert-base/x", "team/gpt/x"]);
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/team/bert-bse").run(), 66), @"nothing found at s3://models/team/bert-bse; there are: team/bert-base/, team/gpt/");
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/taem/bert-base/x").run(), 66), @"nothing found at s3://models/taem/bert-base/x; there are: team/");
    }

    #[test]
    fn an_empty_bucket_says_so() {
        let pod = Pod::new();
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models").run(), 66), @"nothing found at s3://models; the bucket is empty");
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/bert").run(), 66), @"nothing found at s3://models/bert; the bucket is empty");
    }

    #[test]
    fn a_bucket_that_is_not_there_is_named() {
        let pod = Pod::new();
        insta::assert_snapshot!(pod.refused(&pod.download("s3://no-such-bucket/bert").run(), 66), @r#"ListObjectsV2 s3://no-such-bucket/bert/ at https://localhost:9000 failed: 404 NoSuchBucket "The specified bucket does not exist" (request id [id]); check the bucket's name and the endpoint"#);
    }

    #[test]
    fn a_marker_alone_is_nothing() {
        let pod = Pod::new();
        pod.put("bert/", Object::text(""));
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/bert").run(), 66), @r#"nothing found at s3://models/bert but directory markers (keys that end in "/"); was the model uploaded?"#);
    }
}

mod refused_before_a_byte_is_written {
    use super::*;

    #[track_caller]
    fn refused(keys: &[&str]) -> String {
        let pod = pod_with(keys.iter().copied());
        let message = pod.refused(&pod.download("s3://models/m").run(), 65);
        assert_eq!(pod.server.requests_of(Operation::GetObject).len(), 0);
        message
    }

    #[test]
    fn a_key_that_leaves_the_destination() {
        insta::assert_snapshot!(refused(&["m/config.json", "m/../../etc/passwd"]), @r#"key "m/../../etc/passwd" cannot be a file below the destination: its segment ".." would lead elsewhere; rename the object, or exclude it with STORAGE_IGNORE_PATTERNS"#);
        insta::assert_snapshot!(refused(&["m/config.json", "m/sub/./x"]), @r#"key "m/sub/./x" cannot be a file below the destination: its segment "." would lead elsewhere; rename the object, or exclude it with STORAGE_IGNORE_PATTERNS"#);
    }

    #[test]
    fn keys_that_want_the_same_name() {
        insta::assert_snapshot!(refused(&["m/a", "m/a/b"]), @r#"key "m/a" would be a file where key "m/a/b" needs a directory; remove one of the objects, or exclude it with STORAGE_IGNORE_PATTERNS"#);
        insta::assert_snapshot!(refused(&["m/a/b", "m/a//b"]), @r#"keys "m/a//b" and "m/a/b" would both be the file "a/b"; remove one of the objects, or exclude it with STORAGE_IGNORE_PATTERNS"#);
    }

    #[test]
    fn a_name_that_no_file_can_have() {
        let long = format!("m/{}", "x".repeat(300));
        insta::assert_snapshot!(refused(&["m/config.json", &long]), @r#"key "m/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" cannot be a file below the destination: its segment "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" has 300 bytes; a file name has 255 at most; rename the object, or exclude it with STORAGE_IGNORE_PATTERNS"#);
        insta::assert_snapshot!(refused(&["m/.storage-initializer/0.partial"]), @r#"key "m/.storage-initializer/0.partial" cannot be a file below the destination: its first segment ".storage-initializer" is the storage initializer's own directory; rename the object, or exclude it with STORAGE_IGNORE_PATTERNS"#);
    }

    #[test]
    fn what_is_refused_can_be_ignored() {
        let pod = pod_with(["m/a", "m/a/b", "m/../x"]);
        let run = pod.download("s3://models/m").env("STORAGE_IGNORE_PATTERNS", "a/*,../*");
        assert_downloaded(&pod, &run.run(), &files([("a", "m/a")]));
    }
}

mod addressing {
    use super::*;

    #[test]
    fn the_region_is_learned_from_the_first_reply_and_said_once() {
        let pod = Pod::with(|server| server.region("eu-west-3"));
        put(&pod, ["m/a", "m/b"]);
        let outcome = pod.download("s3://models/m").run();
        assert_downloaded(&pod, &outcome, &files([("a", "m/a"), ("b", "m/b")]));
        let said = outcome.stderr.matches("the bucket is in another region than us-east-1").count();
        assert_eq!(said, 1, "{}", outcome.stderr);
        let refused = pod.server.requests().iter().filter(|request| request.status == 400).count();
        assert_eq!(refused, 1);
    }

    #[test]
    fn a_region_that_only_the_listing_names_is_learned_for_an_exact_object_too() {
        let pod = pod_with(["m/a"]);
        pod.server.fault(Fault::on(Operation::HeadObject, Action::Reply(ErrorReply::new(400, "BadRequest"))));
        let malformed = ErrorReply::new(400, "AuthorizationHeaderMalformed").element("Region", "eu-west-3");
        pod.server.fault(Fault::on(Operation::ListObjectsV2, Action::Reply(malformed)));
        assert_downloaded(&pod, &pod.download("s3://models/m/a").run(), &files([("a", "m/a")]));
    }

    #[test]
    fn a_region_that_is_wrong_twice_is_an_error() {
        let pod = pod_with(["m/a"]);
        for region in ["eu-west-3", "eu-west-4"] {
            let malformed = ErrorReply::new(400, "AuthorizationHeaderMalformed").element("Region", region);
            pod.server.fault(Fault::on(Operation::ListObjectsV2, Action::Reply(malformed)));
        }
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/m").run(), 78), @r#"ListObjectsV2 s3://models/m/ at https://localhost:9000 failed: 400 AuthorizationHeaderMalformed "AuthorizationHeaderMalformed by the fault script" (request id [id]); set "region" (or env AWS_REGION) to the bucket's region, or "endpoint_url" to the endpoint that serves it"#);
    }

    #[test]
    fn an_endpoint_of_another_region_of_amazons_is_left_for_the_right_one() {
        let pod = Pod::with(|server| server.region("eu-west-3").base_domain("s3.eu-west-3.amazonaws.com"));
        put(&pod, ["m/a"]);
        let names = ["*.s3.eu-west-3.amazonaws.com", "*.s3.us-east-1.amazonaws.com"];
        pod.server.replace_identity(pod.authority.issue(LeafSpec::new().names(names)).identity());
        let moved = ErrorReply::new(301, "PermanentRedirect").header("x-amz-bucket-region", "eu-west-3");
        pod.server.fault(Fault::any(Action::Reply(moved)));
        let proxy = ConnectProxy::start(pod.server.address());
        let entry = pod.entry_with(json!({"endpoint_url": "https://s3.us-east-1.amazonaws.com"}));
        let run = pod.with_entry(&entry).env("HTTPS_PROXY", proxy.url()).env("STORAGE_URI", "s3://models/m");
        assert_downloaded(&pod, &run.run(), &files([("a", "m/a")]));
        let targets: BTreeSet<String> = proxy.targets().into_iter().collect();
        let regions = ["eu-west-3", "us-east-1"].map(|region| format!("models.s3.{region}.amazonaws.com:443"));
        assert_eq!(targets, BTreeSet::from(regions));
    }

    #[test]
    fn a_bucket_can_stand_in_the_host_name() {
        let pod = Pod::with(|server| server.base_domain("s3.example.org"));
        put(&pod, ["m/a"]);
        let leaf = pod.authority.issue(LeafSpec::new().names(["*.s3.example.org"]));
        pod.server.replace_identity(leaf.identity());
        let proxy = ConnectProxy::start(pod.server.address());
        let entry = pod.entry_with(json!({"endpoint_url": "https://s3.example.org", "addressing_style": "virtual"}));
        let run = pod.with_entry(&entry).env("HTTPS_PROXY", proxy.url()).env("STORAGE_URI", "s3://models/m");
        assert_downloaded(&pod, &run.run(), &files([("a", "m/a")]));
        assert!(proxy.targets().iter().all(|target| target == "models.s3.example.org:443"), "{:?}", proxy.targets());
    }

    #[test]
    fn kserves_own_switch_for_it_is_heeded_and_an_address_has_no_subdomains() {
        let pod = pod_with(["m/a"]);
        let leaf = pod.authority.issue(LeafSpec::new().names(["127.0.0.1"]));
        pod.server.replace_identity(leaf.identity());
        let entry = pod.entry_with(json!({"endpoint_url": pod.server.endpoint_ip()}));
        let run = pod.with_entry(&entry).env("S3_USER_VIRTUAL_BUCKET", "true").env("STORAGE_URI", "s3://models/m");
        let outcome = run.run();
        assert_downloaded(&pod, &outcome, &files([("a", "m/a")]));
        assert!(outcome.stderr.contains("impossible on an IP address"), "{}", outcome.stderr);
    }
}
