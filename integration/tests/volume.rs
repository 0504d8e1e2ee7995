//! What happens on the volume while a run is in the middle of it, and what its file system may not be able to do.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use storage_initializer_integration::{
    initializer::{Initializer, Running, Signal},
    mount::Mount,
    pod::{Pod, assert_nothing_visible},
    s3_server::{
        Checksum, Object, Operation,
        faults::{Action, Fault, Gate, Hold},
    },
    sockets,
    tree::Tree,
};

/// How long a test waits for what should take milliseconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Fetched in ranges.
const LARGE_BYTES: u64 = 40 << 20;

/// A large file and a small one in a directory; the small one comes last.
fn pod() -> Pod {
    let pod = Pod::with(|server| server.plain());
    pod.put("m/sub/large.bin", large());
    pod.put("m/sub/small.bin", small());
    pod
}

/// One large file.
fn pod_of_one() -> Pod {
    let pod = Pod::with(|server| server.plain());
    pod.put("m/large.bin", large());
    pod
}

fn large() -> Object {
    Object::pattern(1, LARGE_BYTES).checksum(Checksum::Crc64Nvme)
}

fn small() -> Object {
    Object::pattern(2, 1000).checksum(Checksum::Crc64Nvme)
}

fn model() -> Tree {
    Tree::new().file("sub/large.bin", large().data()).file("sub/small.bin", small().data())
}

fn download(pod: &Pod) -> Initializer {
    pod.download("s3://models/m").env("S3_READ_TIMEOUT", "600")
}

/// The next run, which nobody disturbs, completes the model.
#[track_caller]
fn assert_completed_by_the_next(pod: &Pod) {
    download(pod).run().assert_exit(0);
    pod.tree().assert_equals(&model());
}

#[track_caller]
fn assert_one_completed_by_the_next(pod: &Pod) {
    download(pod).run().assert_exit(0);
    pod.tree().assert_equals(&Tree::new().file("large.bin", large().data()));
}

/// A run that waits for the bytes of one object, after it has brought everything else that it can.
fn waiting_for(pod: &Pod, key: &str) -> (Running, Gate) {
    let gate = Gate::new();
    pod.server.fault(Fault::on(Operation::GetObject, Action::Delay(Hold::Until(gate.clone()))).exact_key(key).always());
    let running = download(pod).env("LOG_LEVEL", "debug").spawn();
    gate.wait_reached(LIMIT);
    (running, gate)
}

/// The message of a run that failed because of the volume.
#[track_caller]
fn refused(pod: &Pod, running: Running) -> String {
    let outcome = running.wait();
    outcome.assert_exit(74);
    pod.message(&outcome)
}

fn hidden(pod: &Pod) -> PathBuf {
    pod.models().join(".storage-initializer")
}

mod in_the_middle {
    use super::*;

    /// A run that has the large file in its place and waits for the small one.
    fn large_is_there(pod: &Pod) -> (Running, Gate) {
        let (running, gate) = waiting_for(pod, "m/sub/small.bin");
        running.wait_for_stderr("file in place");
        (running, gate)
    }

    #[test]
    fn a_link_that_takes_a_directorys_place_is_not_followed() {
        let pod = pod();
        fs::create_dir(pod.path("outside")).unwrap();
        let (running, gate) = large_is_there(&pod);
        fs::rename(pod.models().join("sub"), pod.models().join("moved")).unwrap();
        symlink(pod.path("outside"), pod.models().join("sub")).unwrap();
        gate.open();
        insta::assert_snapshot!(refused(&pod, running), @"/pod/models/sub is a symbolic link, where the model needs a directory; remove it");
        assert_nothing_visible(&pod.path("outside"));
    }

    #[test]
    fn a_link_that_takes_a_files_place_is_replaced() {
        let pod = pod();
        fs::write(pod.path("outside"), "theirs").unwrap();
        let (running, gate) = large_is_there(&pod);
        symlink(pod.path("outside"), pod.models().join("sub/small.bin")).unwrap();
        gate.open();
        running.wait().assert_exit(0);
        pod.tree().assert_equals(&model());
        assert_eq!(fs::read(pod.path("outside")).unwrap(), b"theirs");
    }

    #[test]
    fn a_directory_that_takes_a_files_place_is_named() {
        let pod = pod();
        let (running, gate) = large_is_there(&pod);
        fs::create_dir(pod.models().join("sub/small.bin")).unwrap();
        gate.open();
        insta::assert_snapshot!(refused(&pod, running), @"/pod/models/sub/small.bin is a directory, where the model needs a file; remove it");
        fs::remove_dir(pod.models().join("sub/small.bin")).unwrap();
        assert_completed_by_the_next(&pod);
    }

    #[test]
    fn a_file_that_takes_a_directorys_place_is_named() {
        let pod = pod();
        let (running, gate) = large_is_there(&pod);
        fs::remove_dir_all(pod.models().join("sub")).unwrap();
        fs::write(pod.models().join("sub"), "in the way").unwrap();
        gate.open();
        insta::assert_snapshot!(refused(&pod, running), @"/pod/models/sub is a file, where the model needs a directory; remove it");
        fs::remove_file(pod.models().join("sub")).unwrap();
        assert_completed_by_the_next(&pod);
    }

    #[test]
    fn a_file_that_vanishes_is_missed() {
        let pod = pod();
        let (running, gate) = large_is_there(&pod);
        fs::remove_dir_all(pod.models().join("sub")).unwrap();
        gate.open();
        insta::assert_snapshot!(refused(&pod, running), @"/pod/models/sub/large.bin was in its place, and is not any more; nobody else may write there while the model is downloaded");
        assert_completed_by_the_next(&pod);
    }

    #[test]
    fn a_partial_that_vanishes_ends_the_run() {
        let pod = pod();
        let gate = pod.server.hold_after(LARGE_BYTES / 2);
        let running = download(&pod).spawn();
        gate.wait_reached(LIMIT);
        sockets::wait_until_read(pod.server.address().port(), LIMIT);
        for entry in fs::read_dir(hidden(&pod)).unwrap().map(Result::unwrap) {
            fs::remove_file(entry.path()).unwrap();
        }
        gate.open();
        insta::assert_snapshot!(without_name(&refused(&pod, running)), @"/pod/models/sub/large.bin cannot be written: No such file or directory (os error 2); it has vanished: nobody else may write there while the model is downloaded");
        assert_completed_by_the_next(&pod);
    }

    #[test]
    fn the_hidden_directory_that_vanishes_does_too() {
        let pod = pod_of_one();
        let (running, gate) = waiting_for(&pod, "m/large.bin");
        wait_for_journal(&pod);
        fs::remove_dir_all(hidden(&pod)).unwrap();
        gate.open();
        insta::assert_snapshot!(without_name(&refused(&pod, running)), @"/pod/models/large.bin cannot be written: No such file or directory (os error 2); it has vanished: nobody else may write there while the model is downloaded");
        assert_one_completed_by_the_next(&pod);
    }

    /// The head, which comes beside the first bytes, has been heard.
    fn wait_for_journal(pod: &Pod) {
        let deadline = Instant::now() + LIMIT;
        let is_there = || {
            fs::read_dir(hidden(pod))
                .unwrap()
                .any(|entry| entry.unwrap().path().extension().is_some_and(|extension| extension == "journal"))
        };
        while !is_there() {
            assert!(Instant::now() < deadline, "no journal appeared");
            std::thread::yield_now();
        }
    }

    fn without_name(message: &str) -> String {
        let word =
            |word: &str| if word.contains("/.storage-initializer/") { "[partial]".to_owned() } else { word.to_owned() };
        message.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }
}

mod a_volume_that_is_nearly_full {
    use super::*;

    /// A run that was killed with a partial of an object that is not there any more.
    fn with_half_of_another_model(pod: &Pod) {
        pod.put("m/old.bin", Object::pattern(3, LARGE_BYTES));
        let gate = pod.server.hold_after(LARGE_BYTES / 2);
        let running = download(pod).spawn();
        gate.wait_reached(LIMIT);
        running.signal(Signal::KILL);
        running.wait();
        gate.open();
        pod.server.remove("models", "m/old.bin");
    }

    #[test]
    fn has_room_for_the_next_model_where_the_last_ones_partials_are() {
        let pod = Pod::with(|server| server.plain().page_size(2));
        let Some(_mount) = Mount::tmpfs(&pod.models(), "size=60m") else { return };
        with_half_of_another_model(&pod);
        let mut expected = Tree::new();
        // Of several pages: bytes arrive before it is known what the model is not.
        for (seed, path) in (10..).zip(["a.bin", "b.bin", "c.bin", "d.bin"]) {
            let object = Object::pattern(seed, if path == "a.bin" { LARGE_BYTES } else { 1000 });
            expected = expected.file(path, object.data());
            pod.put(&format!("m/{path}"), object);
        }
        let late = Action::Delay(Hold::For(Duration::from_secs(1)));
        pod.server.fault(Fault::on(Operation::ListObjectsV2, late).nth(2));
        download(&pod).run().assert_exit(0);
        pod.tree().assert_equals(&expected);
    }

    #[test]
    fn has_none_for_a_model_that_is_larger_than_it() {
        let pod = Pod::with(|server| server.plain().page_size(2));
        let Some(_mount) = Mount::tmpfs(&pod.models(), "size=60m") else { return };
        with_half_of_another_model(&pod);
        for (seed, path) in (10..).zip(["a.bin", "b.bin", "c.bin", "d.bin"]) {
            pod.put(&format!("m/{path}"), Object::pattern(seed, LARGE_BYTES));
        }
        insta::assert_snapshot!(pod.refused(&download(&pod).run(), 74), @"the model needs 80 MiB, but the volume at /pod/models has 60 MiB free; enlarge the volume or its sizeLimit");
    }
}

/// What the kernel answers is changed by `strace`, where there is one: no machine has all these file systems.
mod a_file_system {
    use super::*;

    /// A run whose system calls are answered as `inject` says.
    fn with_answers(run: Initializer, inject: &[&str]) -> Option<Initializer> {
        let is_there = Command::new("strace").args(["-f", "-qq", "-e", "trace=none", "true"]).output();
        if !is_there.is_ok_and(|output| output.status.success()) {
            println!("skipped: there is no strace, or it may not trace");
            return None;
        }
        // As a grandchild, so that signals and exit codes are the product's.
        let fixed = ["-D", "-f", "-qq", "-o", "/dev/null"].map(OsString::from);
        let injected = inject.iter().flat_map(|inject| ["-e".into(), OsString::from(format!("inject={inject}"))]);
        Some(run.under(Path::new("strace"), fixed.into_iter().chain(injected)))
    }

    #[track_caller]
    fn refused_midway(errno: &str) -> Option<String> {
        let pod = pod_of_one();
        // The third write and all after it: some of the file is there.
        let run = with_answers(download(&pod), &[&format!("pwrite64:error={errno}:when=3+")])?;
        let outcome = run.run();
        let message = pod.refused(&outcome, 74);
        assert_one_completed_by_the_next(&pod);
        Some(message)
    }

    #[test]
    fn whose_quota_is_used_up_midway_ends_the_run_at_once() {
        let Some(message) = refused_midway("EDQUOT") else { return };
        insta::assert_snapshot!(message, @"/pod/models/.storage-initializer/40e4511a2f9a3059996176b2452a7a0e.partial cannot be written: Disk quota exceeded (os error 122); raise the volume's quota");
    }

    #[test]
    fn that_is_full_midway_ends_the_run_at_once() {
        let Some(message) = refused_midway("ENOSPC") else { return };
        insta::assert_snapshot!(message, @"/pod/models/.storage-initializer/40e4511a2f9a3059996176b2452a7a0e.partial cannot be written: No space left on device (os error 28); enlarge the volume or its sizeLimit");
    }

    #[test]
    fn that_fails_midway_ends_the_run_at_once() {
        let Some(message) = refused_midway("EIO") else { return };
        insta::assert_snapshot!(message, @"/pod/models/.storage-initializer/40e4511a2f9a3059996176b2452a7a0e.partial cannot be written: Input/output error (os error 5)");
    }

    #[test]
    fn that_cannot_reserve_is_written_without() {
        let pod = pod();
        let Some(run) = with_answers(download(&pod), &["fallocate:error=EOPNOTSUPP"]) else { return };
        run.run().assert_exit(0);
        pod.tree().assert_equals(&model());
    }

    #[test]
    fn without_room_to_reserve_is_refused_before_the_first_byte() {
        let pod = pod_of_one();
        let Some(run) = with_answers(download(&pod), &["fallocate:error=EDQUOT"]) else { return };
        insta::assert_snapshot!(pod.refused(&run.run(), 74), @"/pod/models/.storage-initializer/40e4511a2f9a3059996176b2452a7a0e.partial cannot be written: Disk quota exceeded (os error 122); raise the volume's quota");
        assert_eq!(pod.server.requests_of(Operation::GetObject).len(), 0);
    }

    #[test]
    fn that_keeps_no_times_is_said_and_its_files_are_compared_by_the_next_run() {
        let pod = pod();
        let Some(run) = with_answers(download(&pod), &["utimensat:error=EPERM"]) else { return };
        let outcome = run.run();
        outcome.assert_exit(0);
        pod.tree().assert_equals(&model());
        let said = outcome.stderr.matches("this file system does not keep modification times").count();
        assert_eq!(said, 1, "{}", outcome.stderr);
        pod.server.forget_requests();
        let next = download(&pod).run();
        next.assert_exit(0);
        assert!(next.last_line().contains("2 crc64nvme"), "{}", next.last_line());
        assert_eq!(pod.server.requests_of(Operation::GetObject).len(), 0);
    }

    #[test]
    fn without_locks_is_said_and_leaves_nothing_behind() {
        let pod = pod();
        let Some(run) = with_answers(download(&pod), &["flock:error=EOPNOTSUPP"]) else { return };
        let outcome = run.run();
        outcome.assert_exit(0);
        assert!(outcome.stderr.contains("this file system has no locks"), "{}", outcome.stderr);
        pod.tree().assert_equals(&model());
    }

    #[test]
    fn without_locks_never_shows_a_torn_file_whatever_two_runs_do() {
        let pod = pod();
        let run = || with_answers(download(&pod), &["flock:error=EOPNOTSUPP"]);
        let gate = pod.server.hold_after(LARGE_BYTES / 2);
        let Some(first) = run().map(Initializer::spawn) else { return };
        gate.wait_reached(LIMIT);
        let Some(second) = run().map(Initializer::spawn) else { return };
        gate.open();
        first.wait().assert_exit(0);
        second.wait().assert_exit(0);
        pod.tree().assert_equals(&model());
    }

    #[test]
    fn without_locks_is_begun_anew_after_a_kill() {
        let pod = pod();
        let gate = pod.server.hold_after(LARGE_BYTES / 2);
        let Some(run) = with_answers(download(&pod), &["flock:error=EOPNOTSUPP"]) else { return };
        let running = run.spawn();
        gate.wait_reached(LIMIT);
        running.signal(Signal::KILL);
        running.wait();
        gate.open();
        assert_completed_by_the_next(&pod);
    }
}
