//! How a run ends: exit code, last line, termination message, and what is on the volume then.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown, symlink},
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};
use storage_initializer_integration::{
    initializer::{Initializer, Profile, Signal, binary},
    mount::Mount,
    pod::{Pod, assert_nothing_visible},
    s3_server::{
        Object, Operation,
        faults::{Action, Fault, Gate, Hold},
    },
    tree::Tree,
};

/// How long a test waits for what should take milliseconds.
const LIMIT: Duration = Duration::from_secs(30);

fn pod() -> Pod {
    let pod = Pod::new();
    pod.put("m/config.json", Object::text("{}"));
    pod.put("m/sub/weights.bin", Object::pattern(1, 3 << 20));
    pod
}

fn model() -> Tree {
    Tree::new().bytes("config.json", "{}").file("sub/weights.bin", Object::pattern(1, 3 << 20).data())
}

mod words {
    use super::*;

    #[test]
    fn success_ends_with_a_summary_in_the_log_and_in_the_termination_message() {
        let pod = pod();
        let outcome = pod.download("s3://models/m").run();
        outcome.assert_exit(0);
        let message = outcome.termination_message.as_deref().unwrap();
        assert!(message.starts_with("2 files, 3.0 MiB in "), "{message}");
        let summary = message.lines().next().unwrap();
        assert!(summary.ends_with("verified: 2 etag-only"), "{message}");
        assert!(outcome.last_line().ends_with(summary), "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    }

    #[test]
    fn arguments_that_cannot_be_read_are_the_last_line_too() {
        let pod = pod();
        let message = |arguments: &[&str]| pod.refused(&pod.with_entry(&pod.entry()).args(arguments).run(), 64);
        insta::assert_snapshot!(message(&["s3://models/m"]), @r#"argument "s3://models/m" has no destination: sources and destinations come in pairs, SRC_URI DEST [SRC_URI DEST ...]"#);
        insta::assert_snapshot!(message(&["--verbose", "s3://models/m"]), @"unexpected argument '--verbose' found; usage: storage-initializer SRC_URI DEST [SRC_URI DEST ...], or --help");
        insta::assert_snapshot!(message(&["models/m", "/mnt/models"]), @r#"argument: source "models/m" has no scheme; write s3://bucket[/key-or-prefix]"#);
    }

    #[test]
    fn help_and_version_are_answers() {
        let help = Initializer::new().arg("--help").run();
        help.assert_exit(0);
        assert!(help.stdout.contains("76  TLS refused") && help.stderr.is_empty(), "{}", help.stdout);
        let version = Initializer::new().arg("--version").run();
        version.assert_exit(0);
        assert!(version.stdout.starts_with("storage-initializer "), "{}", version.stdout);
    }

    #[test]
    fn a_message_that_is_too_long_for_kubernetes_keeps_its_ends() {
        let pod = pod();
        let names: Vec<String> = (0..300).map(|number| format!("a-storage-with-a-long-name-{number:03}")).collect();
        let files = names.iter().map(|name| (name.as_str(), pod.entry().to_string()));
        let run = pod.bare().env("STORAGE_CONFIG_DIR", pod.mount("storage-config", files));
        let outcome = run.env("STORAGE_URI", "s3://models/m").run();
        outcome.assert_exit(78);
        let message = outcome.termination_message.as_deref().unwrap();
        assert!(message.len() <= 4096 && message.contains("has several entries"), "{message}");
        assert!(message.ends_with("a-storage-with-a-long-name-299"), "{message}");
    }

    #[test]
    fn where_there_is_no_termination_log_none_is_made() {
        let pod = pod();
        let nowhere = pod.path("termination-log");
        pod.download("s3://models/m").env("TERMINATION_LOG", &nowhere).run().assert_exit(0);
        assert!(!nowhere.exists());
    }
}

mod log {
    use super::*;

    #[test]
    fn json_lines_all_parse_and_have_their_fields() {
        let pod = pod();
        let runs = [
            (pod.download("s3://models/m"), 0),
            (pod.download("s3://models/nothing"), 66),
            (pod.download("only-one"), 64),
            (Initializer::new().arg("--unknown"), 64),
        ];
        for (run, code) in runs {
            let outcome = run.env("LOG_FORMAT", "json").env("LOG_LEVEL", "debug").run();
            outcome.assert_exit(code);
            let lines: Vec<Value> = outcome.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            for line in &lines {
                for field in ["timestamp", "level", "message"] {
                    assert!(line[field].is_string(), "{field} is not in {line}");
                }
            }
            let last = lines.last().unwrap();
            let summary = outcome.termination_message.as_deref().unwrap().lines().next().unwrap();
            assert!(last["message"].as_str().unwrap().ends_with(summary));
            assert_eq!(last["exit_code"].as_i64(), (code != 0).then_some(i64::from(code)));
        }
    }

    #[test]
    fn stages_are_fixed_phrases_with_fields() {
        let pod = pod();
        let outcome = pod.download("s3://models/m").env("LOG_FORMAT", "json").run();
        let planned = outcome.stderr.lines().find(|line| line.contains("planned download")).unwrap();
        let planned: Value = serde_json::from_str(planned).unwrap();
        assert_eq!((&planned["message"], &planned["objects"]), (&json!("planned download"), &json!(2)));
    }

    #[test]
    fn a_level_is_heeded_and_one_that_is_none_is_said() {
        let pod = pod();
        let stderr = |name: &str, level: &str| {
            let outcome = pod.download("s3://models/m").env(name, level).run();
            outcome.assert_exit(0);
            outcome.stderr
        };
        assert_eq!(stderr("LOG_LEVEL", "error"), "");
        assert!(stderr("RUST_LOG", "debug").contains("file is there and unchanged"));
        assert!(!stderr("LOG_LEVEL", "info").contains("file is there"));
        let complaint = stderr("LOG_LEVEL", "loudly");
        assert!(complaint.contains(r#"env LOG_LEVEL: "loudly" is not error"#), "{complaint}");
        assert!(complaint.contains("model in place"), "{complaint}");
    }

    #[test]
    fn no_filter_hides_the_error() {
        let pod = pod();
        for filter in ["off", "hyper=debug"] {
            let outcome = pod.download("s3://models/nothing").env("RUST_LOG", filter).run();
            pod.refused(&outcome, 66);
            assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        }
    }

    #[test]
    fn a_run_says_less_than_ten_lines() {
        let outcome = pod().download("s3://models/m").run();
        assert!(outcome.stderr.lines().count() < 10, "{}", outcome.stderr);
    }
}

mod signals {
    use super::*;

    #[test]
    fn sigterm_during_a_stalled_body_ends_the_run_and_leaves_no_half_file() {
        let pod = pod();
        let gate = Gate::new();
        let stall = Action::Stall { after_bytes: 2 << 20, hold: Hold::Until(gate.clone()) };
        pod.server.fault(Fault::on_get("*weights.bin", stall));
        let running = pod.download("s3://models/m").env("S3_MAX_FILE_CONCURRENCY", "1").spawn();
        gate.wait_reached(LIMIT);
        running.signal(Signal::TERM);
        // Nothing but the signal can end it: the gate stays closed, and no timeout is shorter than the limit.
        let outcome = running.wait();
        insta::assert_snapshot!(without_amounts(&pod.refused(&outcome, 143)), @"ended by SIGTERM after [amount] of 3.0 MiB; what was done so far is kept for the restart");
    }

    #[test]
    fn sigterm_while_the_store_is_silent_ends_the_run_too() {
        for operation in [Operation::HeadObject, Operation::ListObjectsV2] {
            let pod = pod();
            let gate = Gate::new();
            pod.server.fault(Fault::on(operation, Action::Delay(Hold::Until(gate.clone()))));
            let running = pod.download("s3://models/m").spawn();
            gate.wait_reached(LIMIT);
            running.signal(Signal::TERM);
            pod.refused(&running.wait(), 143);
        }
    }

    #[test]
    fn what_was_whole_before_the_signal_stays_and_a_new_run_completes_it() {
        let pod = pod();
        let gate = Gate::new();
        pod.server.fault(Fault::on_get("*config.json", Action::Delay(Hold::Until(gate.clone()))));
        let run = || pod.download("s3://models/m").env("S3_MAX_FILE_CONCURRENCY", "1");
        let running = run().spawn();
        gate.wait_reached(LIMIT);
        running.signal(Signal::INT);
        running.wait().assert_exit(130);
        let whole = Tree::new().file("sub/weights.bin", Object::pattern(1, 3 << 20).data());
        assert_eq!(visible(&pod.models()), visible_of(&whole));
        gate.open();
        run().run().assert_exit(0);
        pod.tree().assert_equals(&model());
    }

    fn visible(models: &Path) -> Vec<String> {
        visible_of(&Tree::read(models))
    }

    fn visible_of(tree: &Tree) -> Vec<String> {
        let visible = tree.files().into_iter().filter(|(path, _)| !path.starts_with('.'));
        visible.map(|(path, content)| format!("{path} {content:?}")).collect()
    }

    fn without_amounts(message: &str) -> String {
        let (before, rest) = message.split_once("after ").unwrap();
        let (_, after) = rest.split_once(" of ").unwrap();
        format!("{before}after [amount] of {after}")
    }
}

mod volume {
    use super::*;

    #[test]
    fn a_user_without_name_or_home_gets_files_that_everyone_can_read() {
        let pod = pod();
        fs::create_dir(pod.models()).unwrap();
        chown(pod.models(), Some(65_532), Some(65_532)).unwrap();
        pod.download("s3://models/m").uid(65_532).run().assert_exit(0);
        pod.tree().assert_equals(&model());
        let weights = fs::metadata(pod.models().join("sub/weights.bin")).unwrap();
        assert_eq!((weights.uid(), weights.mode() & 0o777), (65_532, 0o644));
    }

    #[test]
    fn a_strict_umask_hides_neither_files_nor_directories() {
        let pod = pod();
        let umask = Initializer::of_program(Path::new("/bin/sh"))
            .args(["-c".as_ref(), r#"umask 077; exec "$0" "$@""#.as_ref(), binary(Profile::Dev).as_os_str()])
            .args(["s3://models/m".as_ref(), pod.path("new/models").as_os_str()])
            .env("STORAGE_CONFIG", pod.entry().to_string());
        umask.run().assert_exit(0);
        for (path, mode) in [("new", 0o755), ("new/models/sub", 0o755), ("new/models/sub/weights.bin", 0o644)] {
            let found = fs::metadata(pod.path(path)).unwrap().mode() & 0o777;
            assert_eq!(found, mode, "{path} has {found:o}");
        }
    }

    #[test]
    fn a_volume_of_another_user_is_refused_before_a_request_is_made() {
        let pod = pod();
        fs::create_dir(pod.models()).unwrap();
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/m").uid(1000).run(), 74), @"/pod/models/.storage-initializer cannot be written: Permission denied (os error 13); set fsGroup in the pod's security context, or let the container run as the volume's owner");
        assert_eq!(pod.server.requests().len(), 0);
    }

    #[test]
    fn a_read_only_volume_is_refused_before_a_request_is_made() {
        let pod = pod();
        let Some(_mount) = Mount::tmpfs(&pod.models(), "size=1m,ro") else { return };
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/m").run(), 74), @"/pod/models/.storage-initializer cannot be written: Read-only file system (os error 30); mount the volume without readOnly");
        assert_eq!(pod.server.requests().len(), 0);
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused_before_its_first_byte() {
        let pod = pod();
        let Some(_mount) = Mount::tmpfs(&pod.models(), "size=1m") else { return };
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/m").run(), 74), @"the model needs 3.0 MiB, but the volume at /pod/models has 1 MiB free; enlarge the volume or its sizeLimit");
        assert_eq!(pod.server.requests_of(Operation::GetObject).len(), 0);
    }

    #[test]
    fn space_that_somebody_else_takes_meanwhile_ends_the_run_at_once() {
        let pod = pod();
        let Some(_mount) = Mount::tmpfs(&pod.models(), "size=4m") else { return };
        let gate = Gate::new();
        pod.server.fault(Fault::on(Operation::HeadObject, Action::Delay(Hold::Until(gate.clone()))));
        let running = pod.download("s3://models/m/sub/weights.bin").spawn();
        gate.wait_reached(LIMIT);
        fs::write(pod.models().join(".somebody-else"), vec![0; 2 << 20]).unwrap();
        gate.open();
        let message = pod.refused(&running.wait(), 74);
        insta::assert_snapshot!(message, @"/pod/models/.storage-initializer/b64c86e91722ca2eb4306ad80a45c25c.partial cannot be written: No space left on device (os error 28); enlarge the volume or its sizeLimit");
        assert_eq!(pod.server.requests_of(Operation::GetObject).len(), 0);
    }

    #[test]
    fn a_destination_that_is_a_file_is_named() {
        let pod = pod();
        fs::write(pod.models(), "in the way").unwrap();
        let outcome = pod.download("s3://models/m").run();
        outcome.assert_exit(74);
        insta::assert_snapshot!(pod.message(&outcome), @"/pod/models is a file, where the model needs a directory; remove it");
    }

    #[test]
    fn a_destination_that_is_a_link_is_followed() {
        let pod = pod();
        fs::create_dir(pod.path("volume")).unwrap();
        symlink(pod.path("volume"), pod.models()).unwrap();
        pod.download("s3://models/m").run().assert_exit(0);
        Tree::read(&pod.path("volume")).assert_equals(&model());
    }

    #[test]
    fn a_link_inside_the_destination_is_not() {
        let pod = pod();
        fs::create_dir_all(pod.models()).unwrap();
        fs::create_dir(pod.path("outside")).unwrap();
        symlink(pod.path("outside"), pod.models().join("sub")).unwrap();
        let outcome = pod.download("s3://models/m").run();
        outcome.assert_exit(74);
        insta::assert_snapshot!(pod.message(&outcome), @"/pod/models/sub is a symbolic link, where the model needs a directory; remove it");
        assert_nothing_visible(&pod.path("outside"));
        assert_eq!(pod.server.requests_of(Operation::GetObject).len(), 0);
    }

    #[test]
    fn a_directory_where_a_file_belongs_is_named() {
        let pod = pod();
        fs::create_dir_all(pod.models().join("sub/weights.bin")).unwrap();
        let outcome = pod.download("s3://models/m/sub").env("MODEL_DIR", "/nowhere");
        let outcome = outcome.args(["s3://models/m".as_ref(), pod.models().as_os_str()]).run();
        outcome.assert_exit(74);
        insta::assert_snapshot!(pod.message(&outcome), @"/pod/models/sub/weights.bin is a directory, where the model needs a file; remove it");
        assert_eq!(pod.server.requests_of(Operation::GetObject).len(), 0);
    }

    #[test]
    fn what_is_there_already_is_replaced_and_what_is_not_ours_stays() {
        let pod = pod();
        fs::create_dir(pod.models()).unwrap();
        fs::write(pod.models().join("config.json"), "old and longer").unwrap();
        fs::write(pod.models().join("notes.txt"), "somebody's").unwrap();
        pod.download("s3://models/m").run().assert_exit(0);
        pod.tree().assert_equals(&model().bytes("notes.txt", "somebody's"));
    }
}
