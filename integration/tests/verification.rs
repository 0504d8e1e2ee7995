//! What is said of a model beyond its bytes' arrival: a pinned digest, the report, archives, and whether it looks whole.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use storage_initializer_integration::{
    pod::{Pod, assert_nothing_visible},
    s3_server::{Checksum, Object, Operation},
    tree::Tree,
};

fn small(text: &str) -> Object {
    Object::bytes(text.as_bytes().to_vec()).checksum(Checksum::Crc64Nvme)
}

fn pod() -> Pod {
    let pod = Pod::new();
    pod.put("m/config.json", small("{}"));
    pod.put("m/sub/weights.bin", small("weights"));
    pod
}

fn tree() -> Tree {
    Tree::new().bytes("config.json", "{}").bytes("sub/weights.bin", "weights")
}

/// What a person would compute, by the command that the documentation gives.
fn digest_of(directory: &Path) -> String {
    let command = r"find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum";
    let output = Command::new("sh").args(["-c", command]).current_dir(directory).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

mod digests {
    use super::*;

    fn expected() -> String {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        fs::write(directory.path().join("config.json"), "{}").unwrap();
        fs::write(directory.path().join("sub/weights.bin"), "weights").unwrap();
        digest_of(directory.path())
    }

    #[test]
    fn a_tree_with_the_pinned_digest_passes() {
        let pod = pod();
        let outcome = pod.download("s3://models/m").env("VERIFICATION_DIGEST", expected()).run();
        outcome.assert_exit(0);
        pod.tree().assert_equals(&tree());
    }

    #[test]
    fn a_tree_with_another_digest_gets_no_name() {
        let pod = pod();
        pod.put("m/sub/weights.bin", small("weightz"));
        let outcome = pod.download("s3://models/m").env("VERIFICATION_DIGEST", format!("sha256:{}", expected())).run();
        insta::assert_snapshot!(pod.refused(&outcome, 76), @"VERIFICATION_DIGEST: the model's manifest is sha256 0bfa59cc37508111e8b7c5fc79752b959f3228f59939d603315561b3da8c7b68, and sha256 1611d9ec605b8c4871e617d6ba49be598f8ec292e75a807a77b714493839b98b is pinned; no file of this run got its final name");
    }

    #[test]
    fn a_tree_with_a_file_too_many_gets_no_name() {
        let pod = pod();
        pod.put("m/more.json", small("{}"));
        let outcome = pod.download("s3://models/m").env("VERIFICATION_DIGEST", expected()).run();
        outcome.assert_exit(76);
        assert_nothing_visible(&pod.models());
    }

    #[test]
    fn the_digest_of_an_exact_object_is_that_of_its_bytes() {
        let pod = pod();
        let digest = small("weights").data().sha256_hex();
        let download = || pod.download("s3://models/m/sub/weights.bin");
        insta::assert_snapshot!(pod.refused(&download().env("VERIFICATION_DIGEST", expected()).run(), 76), @"VERIFICATION_DIGEST: the model's object is sha256 9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c, and sha256 1611d9ec605b8c4871e617d6ba49be598f8ec292e75a807a77b714493839b98b is pinned; no file of this run got its final name");
        download().env("VERIFICATION_DIGEST", digest).run().assert_exit(0);
        pod.tree().assert_equals(&Tree::new().bytes("weights.bin", "weights"));
    }

    #[test]
    fn a_restart_compares_what_is_there_and_moves_no_byte() {
        let pod = pod();
        pod.download("s3://models/m").env("VERIFICATION_DIGEST", expected()).run().assert_exit(0);
        let gets = pod.server.requests_of(Operation::GetObject).len();
        pod.download("s3://models/m").env("VERIFICATION_DIGEST", expected()).run().assert_exit(0);
        assert_eq!(pod.server.requests_of(Operation::GetObject).len(), gets);
        let wrong = pod.download("s3://models/m").env("VERIFICATION_DIGEST", "0".repeat(64)).run();
        wrong.assert_exit(76);
    }

    #[test]
    fn what_is_no_digest_is_named() {
        let pod = pod();
        let outcome = pod.download("s3://models/m").env("VERIFICATION_DIGEST", "sha256:abc").run();
        insta::assert_snapshot!(pod.refused(&outcome, 78), @r#"env VERIFICATION_DIGEST: "sha256:abc" is not a SHA-256: 64 hexadecimal digits, with or without sha256: before them"#);
    }

    #[test]
    fn one_digest_for_two_downloads_is_refused() {
        let pod = pod();
        let (first, second) = (pod.models().join("a"), pod.models().join("b"));
        let pairs = ["s3://models/m".as_ref(), first.as_os_str(), "s3://models/m/sub".as_ref(), second.as_os_str()];
        let outcome = pod.with_entry(&pod.entry()).args(pairs).env("VERIFICATION_DIGEST", expected()).run();
        insta::assert_snapshot!(pod.refused(&outcome, 78), @"env VERIFICATION_DIGEST: a digest is of one source and one destination, and there are several; run one container for each");
    }
}

mod reports {
    use super::*;

    #[test]
    fn the_report_says_of_each_file_what_was_verified_and_where_it_came_from() {
        let pod = pod();
        let path = pod.path("report.json");
        // Once: a second time in another second would be another state of the object.
        pod.put("m/plain.txt", Object::bytes(b"plain".to_vec()));
        for _ in 0..2 {
            let outcome = pod
                .with_entry(&pod.entry())
                .args(["--report".as_ref(), path.as_os_str(), "s3://models/m".as_ref(), pod.models().as_os_str()])
                .run();
            outcome.assert_exit(0);
        }
        let report: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let files = report["files"].as_array().unwrap().iter();
        let lines =
            files.map(|file| format!("{} {} {} {}", file["path"], file["bytes"], file["verified"], file["arrival"]));
        insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r#"
        "config.json" 2 "unchanged" "kept"
        "plain.txt" 5 "unchanged" "kept"
        "sub/weights.bin" 7 "unchanged" "kept"
        "#);
    }

    #[test]
    fn a_report_without_a_place_fails_the_run_and_the_model_stays() {
        let pod = pod();
        let path = pod.path("no/such/directory/report.json");
        let outcome = pod
            .with_entry(&pod.entry())
            .args(["--report".as_ref(), path.as_os_str(), "s3://models/m".as_ref(), pod.models().as_os_str()])
            .run();
        outcome.assert_exit(74);
        pod.tree().assert_equals(&tree());
        insta::assert_snapshot!(pod.message(&outcome), @"the report /pod/no/such/directory/report.json cannot be written: No such file or directory (os error 2)");
    }

    #[test]
    fn the_termination_message_lists_the_files() {
        let pod = pod();
        let log = pod.path("termination-log");
        fs::write(&log, "").unwrap();
        pod.download("s3://models/m").env("TERMINATION_LOG", &log).run().assert_exit(0);
        let message = fs::read_to_string(&log).unwrap();
        let files: Vec<&str> = message.lines().skip(1).collect();
        assert_eq!(files, ["\"config.json\": 2 B, crc64nvme", "\"sub/weights.bin\": 7 B, crc64nvme"]);
    }
}

mod archives {
    use super::*;

    fn tar_gz() -> Object {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        fs::write(directory.path().join("config.json"), "{}").unwrap();
        fs::write(directory.path().join("sub/weights.bin"), "weights").unwrap();
        let archive = directory.path().join("model.tar.gz");
        let status =
            Command::new("tar").args(["-czf", "model.tar.gz", "config.json", "sub"]).current_dir(&directory).status();
        assert!(status.unwrap().success());
        Object::bytes(fs::read(archive).unwrap()).checksum(Checksum::Crc64Nvme)
    }

    #[test]
    fn an_archive_that_is_all_is_unpacked_and_removed() {
        for source in ["s3://models/a/model.tar.gz", "s3://models/a"] {
            let pod = Pod::new();
            pod.put("a/model.tar.gz", tar_gz());
            pod.download(source).run().assert_exit(0);
            pod.tree().assert_equals(&tree());
        }
    }

    #[test]
    fn the_digest_of_an_archive_is_that_of_the_archive() {
        let (pod, archive) = (Pod::new(), tar_gz());
        let digest = archive.data().sha256_hex();
        pod.put("a/model.tar.gz", archive);
        let download = || pod.download("s3://models/a/model.tar.gz");
        pod.refused(&download().env("VERIFICATION_DIGEST", "0".repeat(64)).run(), 76);
        download().env("VERIFICATION_DIGEST", digest).run().assert_exit(0);
        pod.tree().assert_equals(&tree());
    }

    #[test]
    fn an_archive_beside_other_files_stays_one() {
        let pod = Pod::new();
        pod.put("a/model.tar.gz", tar_gz());
        pod.put("a/readme", small("x"));
        pod.download("s3://models/a").run().assert_exit(0);
        assert!(pod.models().join("model.tar.gz").is_file() && !pod.models().join("config.json").exists());
    }

    #[test]
    fn a_broken_archive_leaves_nothing_and_says_so() {
        let pod = Pod::new();
        pod.put("a/model.tar.gz", small("no archive"));
        let outcome = pod.download("s3://models/a").run();
        insta::assert_snapshot!(pod.refused(&outcome, 65), @r#"archive "a/model.tar.gz": the archive is damaged: it is cut off: it has no mark of its end; pack and upload it again"#);
        assert_eq!(fs::read_dir(pod.models()).unwrap().count(), 0);
    }
}

mod models {
    use super::*;

    fn pointer() -> Pod {
        let pod = pod();
        pod.put("m/sub/weights.bin", small("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"));
        pod
    }

    #[test]
    fn what_looks_wrong_is_a_warning() {
        let outcome = pointer().download("s3://models/m").run();
        outcome.assert_exit(0);
        assert!(outcome.stderr.contains("WARN \"sub/weights.bin\" is a Git LFS pointer"), "{}", outcome.stderr);
    }

    #[test]
    fn strictly_it_is_an_error() {
        let pod = pointer();
        let outcome = pod.download("s3://models/m").env("MODEL_CHECK", "strict").run();
        outcome.assert_exit(65);
        insta::assert_snapshot!(pod.message(&outcome), @r#"MODEL_CHECK=strict: "sub/weights.bin" is a Git LFS pointer, and not the file itself; run git lfs pull before the upload, and upload again"#);
    }

    #[test]
    fn a_model_that_looks_whole_passes_strictly_and_off_says_nothing() {
        pod().download("s3://models/m").env("MODEL_CHECK", "strict").run().assert_exit(0);
        let outcome = pointer().download("s3://models/m").env("MODEL_CHECK", "off").run();
        outcome.assert_exit(0);
        assert!(!outcome.stderr.contains("pointer"), "{}", outcome.stderr);
    }
}
