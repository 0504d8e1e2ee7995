//! What a restarted container does on the volume that the last one has left: it moves no byte that is there and good,
//! and trusts none that it cannot know to be.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use std::{
    fs::{self, File, FileTimes},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use storage_initializer_integration::{
    initializer::{Initializer, Running, Signal},
    mount::{self, Mount},
    pod::Pod,
    s3_server::{Checksum, Object, Operation, faults::Gate},
    sockets,
    tree::Tree,
};

/// How long a test waits for what should take milliseconds.
const LIMIT: Duration = Duration::from_secs(60);

/// One request each.
const SMALL_BYTES: u64 = 3 << 20;

/// Fetched in ranges.
const LARGE_BYTES: u64 = 70 << 20;

/// All three files.
const MODEL_BYTES: u64 = LARGE_BYTES + SMALL_BYTES + 2;

/// What a killed process loses of each connection's work at most; written in docs/SEMANTICS.md.
const EXTENT_BYTES: u64 = 4 << 20;

/// All of them are as old as each other: of two uploads in one second, nothing but the ETag tells which it is.
fn object(seed: u64, size_bytes: u64) -> Object {
    Object::pattern(seed, size_bytes).checksum(Checksum::Crc64Nvme).modified(1_700_000_000)
}

/// A store without TLS: what is shown here does not depend on it, and a test run has better uses for the time.
fn empty_pod() -> Pod {
    Pod::with(|server| server.plain())
}

/// A model of three files, one of them large.
fn pod() -> Pod {
    let pod = empty_pod();
    pod.put("m/config.json", Object::text("{}"));
    pod.put("m/sub/small.bin", object(1, SMALL_BYTES));
    pod.put("m/large.bin", object(2, LARGE_BYTES));
    pod
}

fn model() -> Tree {
    model_with(&object(2, LARGE_BYTES))
}

fn model_with(large: &Object) -> Tree {
    let small = object(1, SMALL_BYTES);
    Tree::new().bytes("config.json", "{}").file("sub/small.bin", small.data()).file("large.bin", large.data())
}

/// A run that waits for the test as long as it has to.
fn download(pod: &Pod) -> Initializer {
    pod.download("s3://models/m").env("S3_READ_TIMEOUT", "600")
}

#[track_caller]
fn assert_complete(pod: &Pod, expected: &Tree) {
    assert_run(pod, download(pod), expected);
}

#[track_caller]
fn assert_run(pod: &Pod, run: Initializer, expected: &Tree) {
    run.run().assert_exit(0);
    // All entries, hidden ones too: nothing of ours is left.
    pod.tree().assert_equals(expected);
}

/// A run that has read so many bytes and waits for more.
fn held_at(pod: &Pod, bytes: u64) -> (Running, Gate) {
    let gate = pod.server.hold_after(bytes);
    let running = download(pod).spawn();
    gate.wait_reached(LIMIT);
    sockets::wait_until_read(pod.server.address().port(), LIMIT);
    (running, gate)
}

/// Kills a run when three quarters have arrived, and begins to count anew.
fn kill_in_the_middle(pod: &Pod) {
    let (running, gate) = held_at(pod, MODEL_BYTES / 4 * 3);
    running.signal(Signal::KILL);
    assert_eq!(running.wait().signal(), Some(9));
    gate.open();
    pod.server.forget_requests();
}

/// The bytes of objects that were sent.
fn moved(pod: &Pod) -> u64 {
    pod.server.requests_of(Operation::GetObject).iter().map(|get| get.bytes_sent).sum()
}

/// Nothing but the missing quarter was moved, and what so many connections had under way.
#[track_caller]
fn assert_little_lost(pod: &Pod, connections: u64) {
    let missing = MODEL_BYTES - MODEL_BYTES / 4 * 3;
    assert!(moved(pod) <= missing + connections * EXTENT_BYTES, "{} of {missing}", moved(pod));
}

fn keys(pod: &Pod, operation: Operation) -> Vec<String> {
    let mut keys: Vec<_> = pod.server.requests_of(operation).into_iter().filter_map(|request| request.key).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// The files of the hidden directory with this ending.
fn hidden(pod: &Pod, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(pod.models().join(".storage-initializer")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == ending)).collect()
}

/// Changes a byte and nothing else: neither the length nor when the file was last modified.
fn damage(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

/// Takes the stamp away, as another program that copies the files would.
fn touch(path: &Path) {
    File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
}

mod a_killed_run {
    use super::*;

    #[test]
    fn at_90_percent_of_a_gibibyte_costs_less_than_5_percent_of_it() {
        let size_bytes = 1 << 30;
        let pod = empty_pod();
        let large = object(3, size_bytes);
        let expected = Tree::new().file("large.bin", large.data());
        pod.put("m/large.bin", large);
        let (running, gate) = held_at(&pod, size_bytes / 10 * 9);
        running.signal(Signal::KILL);
        assert_eq!(running.wait().signal(), Some(9));
        gate.open();
        pod.server.forget_requests();
        assert_complete(&pod, &expected);
        let again = moved(&pod);
        println!("moved after the kill: {again} of {size_bytes} bytes");
        assert!(again >= size_bytes / 10 - (1 << 20), "{again}");
        assert!(again <= size_bytes / 100 * 15, "{again} bytes were moved by the second run");
    }

    #[test]
    fn loses_an_extent_of_each_connection_at_most() {
        let pod = pod();
        kill_in_the_middle(&pod);
        let connections = pod.server.connections();
        assert_complete(&pod, &model());
        assert_little_lost(&pod, connections);
    }

    #[test]
    fn leaves_no_file_of_the_model_that_is_not_whole() {
        let pod = pod();
        kill_in_the_middle(&pod);
        let whole = model();
        for (path, content) in pod.tree().files() {
            assert!(path.starts_with(".storage-initializer/") || whole.files()[path] == content, "{path}");
        }
    }

    #[test]
    fn whose_object_was_replaced_is_not_continued() {
        let pod = pod();
        kill_in_the_middle(&pod);
        let other = object(20, LARGE_BYTES);
        pod.put("m/large.bin", other.clone());
        assert_complete(&pod, &model_with(&other));
        assert!(moved(&pod) >= LARGE_BYTES, "{}", moved(&pod));
    }

    #[test]
    fn whose_object_was_removed_leaves_nothing_behind() {
        let pod = pod();
        kill_in_the_middle(&pod);
        pod.server.remove("models", "m/large.bin");
        let small = object(1, SMALL_BYTES);
        assert_complete(&pod, &Tree::new().bytes("config.json", "{}").file("sub/small.bin", small.data()));
    }

    #[test]
    fn whose_partial_has_gone_is_not_believed_by_its_journal() {
        let pod = pod();
        kill_in_the_middle(&pod);
        assert!(!hidden(&pod, "journal").is_empty());
        for partial in hidden(&pod, "partial") {
            fs::remove_file(partial).unwrap();
        }
        assert_complete(&pod, &model());
        assert!(moved(&pod) >= LARGE_BYTES, "{}", moved(&pod));
    }
}

mod a_complete_volume {
    use super::*;

    fn complete() -> Pod {
        let pod = pod();
        assert_complete(&pod, &model());
        pod.server.forget_requests();
        pod
    }

    #[test]
    fn costs_one_listing_and_no_byte() {
        let pod = complete();
        let outcome = download(&pod).run();
        outcome.assert_exit(0);
        assert!(outcome.last_line().contains("verified: 3 unchanged"), "{}", outcome.last_line());
        // The model's name may be an object's: that is asked first.
        let asked: Vec<_> = pod.server.requests().iter().map(|request| request.operation).collect();
        assert_eq!(asked, [Operation::HeadObject, Operation::ListObjectsV2]);
        pod.server.forget_requests();
        assert_run(&pod, pod.download("s3://models/m/"), &model());
        let asked: Vec<_> = pod.server.requests().iter().map(|request| request.operation).collect();
        assert_eq!(asked, [Operation::ListObjectsV2]);
    }

    #[test]
    fn gets_the_object_that_has_changed_at_the_same_size_and_no_other() {
        for (key, size_bytes) in [("m/sub/small.bin", SMALL_BYTES), ("m/large.bin", LARGE_BYTES)] {
            let pod = complete();
            let other = object(30, size_bytes);
            pod.put(key, other.clone());
            let path = key.trim_start_matches("m/");
            assert_complete(&pod, &model().file(path, other.data()));
            assert_eq!(keys(&pod, Operation::GetObject), [key]);
            assert_eq!(moved(&pod), size_bytes);
        }
    }

    #[test]
    fn gets_an_object_that_is_new_and_keeps_the_file_of_one_that_has_gone() {
        let pod = complete();
        pod.put("m/new.bin", object(31, SMALL_BYTES));
        pod.server.remove("models", "m/sub/small.bin");
        // Whose the old file is, nobody knows; a model's files are removed by nobody but the user.
        assert_complete(&pod, &model().file("new.bin", object(31, SMALL_BYTES).data()));
        assert_eq!(moved(&pod), SMALL_BYTES);
    }

    #[test]
    fn gets_a_file_again_that_somebody_has_changed() {
        for path in ["config.json", "sub/small.bin", "large.bin"] {
            let pod = complete();
            let file = pod.models().join(path);
            let mut bytes = fs::read(&file).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(&file, bytes).unwrap();
            assert_complete(&pod, &model());
            assert_eq!(keys(&pod, Operation::GetObject), [format!("m/{path}")]);
        }
    }

    #[test]
    fn gets_a_file_again_that_somebody_has_cut_off_or_removed() {
        let pod = complete();
        File::options().write(true).open(pod.models().join("large.bin")).unwrap().set_len(100).unwrap();
        fs::remove_file(pod.models().join("config.json")).unwrap();
        assert_complete(&pod, &model());
        assert_eq!(keys(&pod, Operation::GetObject), ["m/config.json", "m/large.bin"]);
    }

    #[test]
    fn keeps_right_files_without_a_stamp_by_their_checksums() {
        let pod = complete();
        for path in ["config.json", "sub/small.bin", "large.bin"] {
            touch(&pod.models().join(path));
        }
        let outcome = download(&pod).run();
        outcome.assert_exit(0);
        pod.tree().assert_equals(&model());
        assert_eq!(moved(&pod), 0);
        // The object without a checksum is compared by the MD5 that its ETag is.
        assert!(outcome.last_line().contains("2 crc64nvme, 1 etag-md5"), "{}", outcome.last_line());
        pod.server.forget_requests();
        // They have their stamps again.
        assert!(download(&pod).run().last_line().contains("3 unchanged"));
        assert_eq!(keys(&pod, Operation::HeadObject), ["m"]);
    }

    #[test]
    fn gets_a_file_without_a_stamp_again_where_one_byte_is_wrong() {
        let pod = complete();
        for path in ["config.json", "sub/small.bin", "large.bin"] {
            let file = pod.models().join(path);
            damage(&file, 1);
            touch(&file);
        }
        assert_complete(&pod, &model());
        assert_eq!(moved(&pod), MODEL_BYTES);
    }

    #[test]
    fn gets_a_file_without_a_stamp_again_where_nothing_tells_its_bytes() {
        let pod = empty_pod();
        pod.put("m/opaque.bin", Object::pattern(4, SMALL_BYTES).etag("not-a-digest"));
        let expected = Tree::new().file("opaque.bin", Object::pattern(4, SMALL_BYTES).data());
        assert_complete(&pod, &expected);
        touch(&pod.models().join("opaque.bin"));
        pod.server.forget_requests();
        assert_complete(&pod, &expected);
        assert_eq!(moved(&pod), SMALL_BYTES);
        pod.server.forget_requests();
        assert_complete(&pod, &expected);
        assert_eq!(moved(&pod), 0);
    }
}

mod after_the_machine_was_started_anew {
    use super::*;

    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

    /// A run that sees another boot than the runs before it.
    fn on_another_boot(pod: &Pod) -> Option<Initializer> {
        let boot_id = pod.path("boot-id");
        fs::write(&boot_id, "11111111-2222-3333-4444-555555555555\n").unwrap();
        mount::with_files(download(pod), &[(Path::new(BOOT_ID), &boot_id)])
    }

    #[test]
    fn what_reached_the_disk_is_continued() {
        let pod = pod();
        kill_in_the_middle(&pod);
        let connections = pod.server.connections();
        let Some(run) = on_another_boot(&pod) else { return };
        let outcome = run.run();
        outcome.assert_exit(0);
        pod.tree().assert_equals(&model());
        assert!(outcome.stderr.contains("comparing what an earlier run has left"), "{}", outcome.stderr);
        assert_little_lost(&pod, connections);
    }

    #[test]
    fn what_did_not_reach_it_is_fetched_again() {
        let pod = pod();
        kill_in_the_middle(&pod);
        let partials = hidden(&pod, "partial");
        let large = partials.iter().find(|path| fs::metadata(path).unwrap().len() == LARGE_BYTES).unwrap();
        // A crash leaves zeros where the journal says that something is.
        let first = File::options().write(true).open(large).unwrap();
        first.write_all_at(&vec![0; 100_000], 0).unwrap();
        let Some(run) = on_another_boot(&pod) else { return };
        assert_run(&pod, run, &model());
        let gets = pod.server.requests_of(Operation::GetObject);
        let begins_at_zero = gets.iter().filter(|get| get.range_bytes().is_some_and(|(first, _)| first == 0));
        assert_eq!(begins_at_zero.count(), 1, "the zeros were found before they were a part of anything");
    }

    #[test]
    fn whole_files_are_compared_and_kept_and_damaged_ones_are_not() {
        let pod = pod();
        assert_complete(&pod, &model());
        damage(&pod.models().join("sub/small.bin"), 7);
        pod.server.forget_requests();
        let Some(run) = on_another_boot(&pod) else { return };
        assert_run(&pod, run, &model());
        assert_eq!(keys(&pod, Operation::GetObject), ["m/sub/small.bin"]);
    }
}

mod two_at_once {
    use super::*;

    const WAITING: &str = "another storage-initializer is at work here; waiting for it";

    #[test]
    fn the_second_waits_and_then_moves_nothing() {
        let pod = pod();
        let (first, gate) = held_at(&pod, LARGE_BYTES / 2);
        let second = download(&pod).spawn();
        second.wait_for_stderr(WAITING);
        gate.open();
        first.wait().assert_exit(0);
        let outcome = second.wait();
        outcome.assert_exit(0);
        assert!(outcome.last_line().contains("verified: 3 unchanged"), "{}", outcome.last_line());
        assert_eq!(moved(&pod), MODEL_BYTES);
        pod.tree().assert_equals(&model());
    }

    #[test]
    fn the_second_goes_on_where_the_first_was_killed() {
        let pod = pod();
        let (first, gate) = held_at(&pod, LARGE_BYTES / 2);
        let second = download(&pod).spawn();
        second.wait_for_stderr(WAITING);
        first.signal(Signal::KILL);
        gate.open();
        second.wait().assert_exit(0);
        assert_eq!(first.wait().signal(), Some(9));
        pod.tree().assert_equals(&model());
    }

    #[test]
    fn a_signal_ends_the_one_that_waits() {
        let pod = pod();
        let (first, gate) = held_at(&pod, LARGE_BYTES / 2);
        let second = download(&pod).spawn();
        second.wait_for_stderr(WAITING);
        second.signal(Signal::TERM);
        second.wait().assert_exit(143);
        gate.open();
        first.wait().assert_exit(0);
        pod.tree().assert_equals(&model());
    }
}

mod a_terminated_run {
    use super::*;

    #[test]
    fn leaves_a_journal_from_which_the_next_one_goes_on() {
        let pod = pod();
        let (running, gate) = held_at(&pod, MODEL_BYTES / 4 * 3);
        running.signal(Signal::TERM);
        // Nothing but the signal can end it: the gate stays closed, and no timeout is shorter than the test.
        running.wait().assert_exit(143);
        gate.open();
        let connections = pod.server.connections();
        pod.server.forget_requests();
        assert_complete(&pod, &model());
        assert_little_lost(&pod, connections);
    }

    #[test]
    fn ends_within_a_second() {
        let pod = pod();
        // The best of a few: the machine may be busy with something else, and the promise is not about that.
        let ended = (0..5).any(|_| {
            let gate = pod.server.hold_after(LARGE_BYTES / 10);
            let running = download(&pod).spawn();
            gate.wait_reached(LIMIT);
            let signalled = SystemTime::now();
            running.signal(Signal::TERM);
            running.wait().assert_exit(143);
            signalled.elapsed().unwrap() < Duration::from_secs(1)
        });
        assert!(ended);
    }
}

mod on_other_file_systems {
    use super::*;

    #[track_caller]
    fn killed_continued_and_kept(pod: &Pod) {
        kill_in_the_middle(pod);
        let connections = pod.server.connections();
        let outcome = download(pod).run();
        outcome.assert_exit(0);
        assert!(!outcome.stderr.contains("this file system"), "{}", outcome.stderr);
        pod.tree().assert_equals(&model());
        assert_little_lost(pod, connections);
        pod.server.forget_requests();
        assert_complete(pod, &model());
        assert_eq!(moved(pod), 0);
    }

    #[test]
    fn in_memory() {
        let pod = pod();
        let Some(_mount) = Mount::tmpfs(&pod.models(), "size=100m") else { return };
        killed_continued_and_kept(&pod);
    }

    #[test]
    fn on_an_overlay() {
        let pod = pod();
        let Some(_mount) = Mount::overlay(&pod.models(), &pod.path("layers")) else { return };
        killed_continued_and_kept(&pod);
    }
}
