//! What goes wrong on the way, and that it costs no more than what was lost, or ends for good with the right code.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use storage_initializer_integration::{
    initializer::{Initializer, Outcome},
    pod::Pod,
    s3_server::{
        Checksum, Object, Operation, RecordedRequest, Store,
        faults::{Action, ErrorReply, Fault, Gate, Hold},
    },
    tree::Tree,
};

/// Fetched with one request.
const SMALL_BYTES: u64 = 3 << 20;

/// Fetched in ranges.
const LARGE_BYTES: u64 = 40 << 20;

/// What a broken connection may hold that has not been written: socket buffers on both sides, and one chunk.
const IN_FLIGHT_BYTES: u64 = 8 << 20;

fn pod(size_bytes: u64) -> (Pod, Tree) {
    let pod = Pod::new();
    let object = Object::pattern(7, size_bytes).checksum(Checksum::Crc64Nvme);
    let expected = Tree::new().file("weights.bin", object.data());
    pod.put("m/weights.bin", object);
    (pod, expected)
}

/// Waits are short, so that a test that fails does so soon.
fn download(pod: &Pod) -> Initializer {
    pod.download("s3://models/m/weights.bin").env("S3_READ_TIMEOUT", "1")
}

#[track_caller]
fn assert_downloaded(pod: &Pod, outcome: &Outcome, expected: &Tree) {
    outcome.assert_exit(0);
    pod.tree().assert_equals(expected);
    assert!(outcome.last_line().contains("1 crc64nvme"), "{}", outcome.last_line());
}

fn gets(pod: &Pod) -> Vec<RecordedRequest> {
    pod.server.requests_of(Operation::GetObject)
}

fn bytes_sent(pod: &Pod) -> u64 {
    gets(pod).iter().map(|get| get.bytes_sent).sum()
}

mod passing {
    use super::*;

    #[test]
    fn errors_of_the_store_are_tried_again() {
        for reply in [
            ErrorReply::new(500, "InternalError"),
            ErrorReply::new(503, "SlowDown").header("Retry-After", "0"),
            ErrorReply::new(429, "TooManyRequests").header("Retry-After", "0"),
            ErrorReply::new(400, "RequestTimeout"),
        ] {
            let (pod, expected) = pod(SMALL_BYTES);
            for operation in [Operation::HeadObject, Operation::GetObject] {
                pod.server.fault(Fault::on(operation, Action::Reply(reply.clone())));
            }
            assert_downloaded(&pod, &download(&pod).run(), &expected);
            assert_eq!(gets(&pod).len(), 2);
        }
    }

    #[test]
    fn the_first_wait_of_a_listing_is_said() {
        let (pod, _) = pod(SMALL_BYTES);
        let reply = ErrorReply::new(503, "ServiceUnavailable");
        pod.server.fault(Fault::on(Operation::ListObjectsV2, Action::Reply(reply)));
        let outcome = pod.download("s3://models/m").run();
        outcome.assert_exit(0);
        assert!(outcome.stderr.contains("503 ServiceUnavailable"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("trying again"), "{}", outcome.stderr);
    }

    #[test]
    fn a_listing_that_breaks_off_or_stalls_is_asked_for_again() {
        let gate = Gate::new();
        let stall = Action::Stall { after_bytes: 100, hold: Hold::Until(gate.clone()) };
        for action in [Action::TruncateAfter { body_bytes: 100 }, Action::ResetAfter { body_bytes: 100 }, stall] {
            let (pod, expected) = pod(SMALL_BYTES);
            pod.server.fault(Fault::on(Operation::ListObjectsV2, action));
            let run = pod.download("s3://models/m/").env("S3_READ_TIMEOUT", "1").env("S3_CONNECT_TIMEOUT", "1");
            assert_downloaded(&pod, &run.run(), &expected);
            assert_eq!(pod.server.requests_of(Operation::ListObjectsV2).len(), 2);
        }
        gate.open();
    }

    #[test]
    fn a_connection_that_ends_without_an_answer_is_replaced() {
        let (pod, expected) = pod(SMALL_BYTES);
        pod.server.fault(Fault::on_get("*", Action::CloseBeforeResponse));
        assert_downloaded(&pod, &download(&pod).run(), &expected);
    }

    #[test]
    fn a_body_that_breaks_off_goes_on_where_it_broke() {
        let after = 2 << 20;
        for action in [Action::ResetAfter { body_bytes: after }, Action::TruncateAfter { body_bytes: after }] {
            let (pod, expected) = pod(SMALL_BYTES);
            pod.server.fault(Fault::on_get("*", action.clone()));
            assert_downloaded(&pod, &download(&pod).run(), &expected);
            let gets = gets(&pod);
            let (first, last) = gets[1].range_bytes().unwrap();
            assert_eq!(last, Some(SMALL_BYTES - 1));
            if matches!(action, Action::TruncateAfter { .. }) {
                assert_eq!(first, after, "what was sent before an orderly end has arrived");
            }
            assert!(gets[1].headers.contains_key("if-match"));
            assert_eq!(bytes_sent(&pod), after + SMALL_BYTES - first);
        }
    }

    #[test]
    fn many_ranges_that_break_off_lose_only_their_tails() {
        let (pod, expected) = pod(LARGE_BYTES);
        pod.server.fault(Fault::on_get("*", Action::TruncateAfter { body_bytes: 1 << 20 }).times(6));
        let outcome = download(&pod).run();
        assert_downloaded(&pod, &outcome, &expected);
        assert_eq!(bytes_sent(&pod), LARGE_BYTES);
        assert!(outcome.last_line().contains("6 requests repeated"), "{}", outcome.last_line());
    }

    #[test]
    fn a_body_that_stalls_is_given_up_and_goes_on_where_it_stalled() {
        let (pod, expected) = pod(LARGE_BYTES);
        let gate = Gate::new();
        let stall = Action::Stall { after_bytes: 1 << 20, hold: Hold::Until(gate.clone()) };
        pod.server.fault(Fault::on_get("*", stall));
        assert_downloaded(&pod, &download(&pod).run(), &expected);
        assert!(bytes_sent(&pod) <= LARGE_BYTES + IN_FLIGHT_BYTES, "{}", bytes_sent(&pod));
        gate.open();
    }

    #[test]
    fn what_a_crawling_connection_has_to_do_is_shared_out() {
        let (pod, expected) = pod(64 << 20);
        pod.server.fault(Fault::on_get("*", Action::Throttle { bytes_per_second: 1 << 20 }));
        let outcome = pod.download("s3://models/m/").run();
        assert_downloaded(&pod, &outcome, &expected);
        let gets = gets(&pod);
        let ranges: Vec<_> = gets.iter().map(|get| (get.range_bytes().unwrap(), get.bytes_sent)).collect();
        let shared = ranges.iter().find_map(|((first, last), sent)| {
            let halves = ranges.iter().any(|((from, to), _)| from > first && to == last);
            halves.then(|| (last.unwrap() + 1 - first, *sent))
        });
        let (asked, sent) = shared.unwrap_or_else(|| panic!("nothing was shared: {ranges:?}"));
        assert!(sent <= asked / 2 + IN_FLIGHT_BYTES, "{sent} of {asked}");
    }

    #[test]
    fn the_first_ranges_of_a_large_object_do_not_wait_for_its_head() {
        let (pod, expected) = pod(LARGE_BYTES);
        // The head is answered when a range has been asked for, and else never.
        let gate = Gate::new();
        pod.server.fault(
            Fault::on(Operation::HeadObject, Action::Delay(Hold::Until(gate.clone()))).key("m/weights.bin").always(),
        );
        pod.server.fault(Fault::on_get("*", Action::Call(Arc::new(move |_, _| gate.open()))));
        let run = pod.download("s3://models/m/").env("S3_READ_TIMEOUT", "1").env("S3_MAX_ATTEMPTS", "1");
        assert_downloaded(&pod, &run.run(), &expected);
    }

    #[test]
    fn an_answer_that_does_not_begin_is_given_up_and_asked_for_again() {
        let (pod, expected) = pod(SMALL_BYTES);
        let gate = Gate::new();
        pod.server.fault(Fault::on_get("*", Action::Delay(Hold::Until(gate.clone()))));
        let run = download(&pod).env("S3_CONNECT_TIMEOUT", "1").run();
        assert_downloaded(&pod, &run, &expected);
        gate.open();
    }

    #[test]
    fn other_bytes_than_those_asked_for_are_asked_for_again() {
        for action in [Action::IgnoreRange, Action::WrongContentRange] {
            let (pod, expected) = pod(LARGE_BYTES);
            pod.server.fault(Fault::on_get("*", action));
            assert_downloaded(&pod, &download(&pod).run(), &expected);
        }
    }

    #[test]
    fn a_flipped_bit_is_found_and_the_object_fetched_again() {
        for size_bytes in [SMALL_BYTES, LARGE_BYTES] {
            let (pod, expected) = pod(size_bytes);
            pod.server.fault(Fault::on_get("*", Action::FlipBit { object_offset: size_bytes / 2 }));
            let outcome = download(&pod).run();
            assert_downloaded(&pod, &outcome, &expected);
            assert!(outcome.stderr.contains("arrived damaged"), "{}", outcome.stderr);
        }
    }
}

mod lasting {
    use super::*;

    #[track_caller]
    fn refused(size_bytes: u64, fault: Fault, code: i32) -> (Pod, String) {
        let (pod, _) = pod(size_bytes);
        pod.server.fault(fault);
        let outcome = download(&pod).env("S3_MAX_ATTEMPTS", "3").run();
        let message = pod.refused(&outcome, code);
        (pod, message)
    }

    #[test]
    fn a_store_that_keeps_failing_is_asked_as_often_as_was_said() {
        let reply = ErrorReply::new(503, "ServiceUnavailable");
        let (pod, message) = refused(SMALL_BYTES, Fault::on_get("*", Action::Reply(reply)).always(), 69);
        insta::assert_snapshot!(message, @r#"GetObject s3://models/m/weights.bin at https://localhost:9000 failed 3 times in [n] s: 503 ServiceUnavailable "ServiceUnavailable by the fault script" (request id [id])"#);
        assert_eq!(gets(&pod).len(), 3);
    }

    #[test]
    fn a_listing_that_keeps_failing_is_too() {
        let (pod, _) = pod(SMALL_BYTES);
        let slow_down = ErrorReply::new(503, "SlowDown").header("Retry-After", "0");
        pod.server.fault(Fault::on(Operation::ListObjectsV2, Action::Reply(slow_down)).always());
        let outcome = pod.download("s3://models/m/").env("S3_MAX_ATTEMPTS", "2").run();
        insta::assert_snapshot!(pod.refused(&outcome, 69), @r#"ListObjectsV2 s3://models/m/ at https://localhost:9000 failed 2 times in [n] s: 503 SlowDown "SlowDown by the fault script" (request id [id])"#);
        assert_eq!(pod.server.requests_of(Operation::ListObjectsV2).len(), 2);
    }

    #[test]
    fn a_listing_that_always_stalls_is_given_up() {
        let (pod, _) = pod(SMALL_BYTES);
        let gate = Gate::new();
        let stall = Action::Stall { after_bytes: 10, hold: Hold::Until(gate.clone()) };
        pod.server.fault(Fault::on(Operation::ListObjectsV2, stall).always());
        let run = pod.download("s3://models/m/").env("S3_READ_TIMEOUT", "1").env("S3_CONNECT_TIMEOUT", "1");
        insta::assert_snapshot!(pod.refused(&run.env("S3_MAX_ATTEMPTS", "1").run(), 69), @"ListObjectsV2 s3://models/m/ at https://localhost:9000 failed: the answer did not arrive whole within 3 s");
        gate.open();
    }

    #[test]
    fn a_body_that_always_breaks_off_at_once() {
        let fault = Fault::on_get("*", Action::TruncateAfter { body_bytes: 1000 }).always();
        let (pod, message) = refused(SMALL_BYTES, fault, 69);
        insta::assert_snapshot!(message, @"GetObject s3://models/m/weights.bin at https://localhost:9000 failed 3 times in [n] s: the body broke off: end of file before message length reached");
        let firsts: Vec<u64> = gets(&pod).iter().map(|get| get.range_bytes().map_or(0, |(first, _)| first)).collect();
        assert_eq!(firsts, [0, 1000, 2000]);
    }

    #[test]
    fn a_body_that_always_stalls() {
        let gate = Gate::new();
        let stall = Action::Stall { after_bytes: 1000, hold: Hold::Until(gate.clone()) };
        let (pod, _) = pod(SMALL_BYTES);
        pod.server.fault(Fault::on_get("*", stall).always());
        let outcome = download(&pod).env("S3_MAX_ATTEMPTS", "1").run();
        insta::assert_snapshot!(pod.refused(&outcome, 69), @"GetObject s3://models/m/weights.bin at https://localhost:9000 failed: only 1000 bytes arrived within 1 s");
        gate.open();
    }

    #[test]
    fn a_server_that_knows_no_ranges() {
        let (_, message) = refused(LARGE_BYTES, Fault::on_get("*", Action::IgnoreRange).always(), 76);
        insta::assert_snapshot!(without_range(&message), @"GetObject s3://models/m/weights.bin at https://localhost:9000 failed 3 times in [n] s: the server ignored the Range header ([range]) and sent the whole object; does a proxy or a cache between this pod and the store not pass on Range requests?");
    }

    #[test]
    fn a_server_that_answers_with_other_ranges() {
        let (_, message) = refused(LARGE_BYTES, Fault::on_get("*", Action::WrongContentRange).always(), 76);
        assert!(message.contains("were asked for"), "{message}");
    }

    #[test]
    fn a_bit_that_is_always_flipped() {
        for size_bytes in [SMALL_BYTES, LARGE_BYTES] {
            let fault = Fault::on_get("*", Action::FlipBit { object_offset: 5 }).always();
            let (_, message) = refused(size_bytes, fault, 76);
            let expected = "object \"m/weights.bin\" arrived damaged 3 times: ";
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn a_checksum_that_is_always_another() {
        for operation in [Operation::GetObject, Operation::HeadObject] {
            let size_bytes = if operation == Operation::GetObject { SMALL_BYTES } else { LARGE_BYTES };
            let (_, message) = refused(size_bytes, Fault::on(operation, Action::WrongChecksum).always(), 76);
            assert!(message.contains("arrived damaged 3 times"), "{message}");
        }
    }

    #[test]
    fn a_permission_that_is_taken_away_in_the_middle() {
        let denied = ErrorReply::new(403, "AccessDenied").message("Access Denied");
        let (pod, message) = refused(LARGE_BYTES, Fault::on_get("*", Action::Reply(denied)).nth(2).always(), 77);
        insta::assert_snapshot!(message, @r#"GetObject s3://models/m/weights.bin at https://localhost:9000 failed: 403 AccessDenied "Access Denied" (request id [id]); asked as: keys from storage-config entry "default" (/pod/storage-config/default), field "access_key_id"; it needs s3:GetObject on the objects, and s3:ListBucket on the bucket for a prefix"#);
        assert!(gets(&pod).len() < 10);
    }

    #[test]
    fn an_answer_that_is_not_s3s() {
        let (pod, _) = pod(SMALL_BYTES);
        let console = ErrorReply::new(200, "Welcome").message("to the console");
        pod.server.fault(Fault::on(Operation::ListObjectsV2, Action::Reply(console)).always());
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/m/").run(), 78), @r#"ListObjectsV2 s3://models/m/ at https://localhost:9000 failed: 200 Welcome "to the console" (request id [id]); is this the S3 API's address, and not a console's or a load balancer's default page?"#);
    }

    #[test]
    fn nobody_listens() {
        let (pod, _) = pod(SMALL_BYTES);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let entry = pod.entry_with(serde_json::json!({"endpoint_url": format!("https://localhost:{port}")}));
        let run = pod.with_entry(&entry).env("S3_MAX_ATTEMPTS", "1").env("STORAGE_URI", "s3://models/m");
        let message = pod.refused(&run.run(), 69).replace(&port.to_string(), "[port]");
        insta::assert_snapshot!(message, @"HeadObject s3://models/m at https://localhost:[port] failed: no connection to localhost:[port]: Connection refused (os error 111); is it the right host and port, may this pod reach it, and does a service mesh hold back the network until its sidecar runs?");
    }

    #[test]
    fn a_name_that_does_not_resolve() {
        let (pod, _) = pod(SMALL_BYTES);
        let entry = pod.entry_with(serde_json::json!({"endpoint_url": "https://minio.invalid"}));
        let run = pod.with_entry(&entry).env("S3_MAX_ATTEMPTS", "1").env("STORAGE_URI", "s3://models/m");
        let message = pod.refused(&run.run(), 69);
        assert!(message.contains("host name minio.invalid:443 cannot be resolved"), "{message}");
    }

    fn without_range(message: &str) -> String {
        let (before, rest) = message.split_once("header (").unwrap();
        let (_, after) = rest.split_once(')').unwrap();
        format!("{before}header ([range]){after}")
    }
}

mod changing {
    use super::*;

    /// An object of another version, the more the higher `seed`.
    fn version(seed: u64, size_bytes: u64) -> Object {
        Object::pattern(seed, size_bytes).checksum(Checksum::Crc64Nvme)
    }

    /// Replaces the object before each request that the fault strikes.
    fn replacing(size_bytes: u64) -> (Action, Arc<AtomicU64>) {
        let replaced = Arc::new(AtomicU64::new(0));
        let count = replaced.clone();
        let action = Action::Call(Arc::new(move |store: &Store, _: &RecordedRequest| {
            let seed = 100 + count.fetch_add(1, Ordering::SeqCst);
            store.put("models", "m/weights.bin", version(seed, size_bytes));
        }));
        (action, replaced)
    }

    #[test]
    fn an_object_replaced_between_the_listing_and_the_first_byte_is_fetched_as_it_is_now() {
        for (listed, replaced) in [(SMALL_BYTES, SMALL_BYTES), (SMALL_BYTES, 10), (10, LARGE_BYTES), (SMALL_BYTES, 0)] {
            let (pod, _) = pod(listed);
            pod.server.fault(Fault::on_get("*", replacing(replaced).0));
            let outcome = pod.download("s3://models/m").run();
            outcome.assert_exit(0);
            pod.tree().assert_equals(&Tree::new().file("weights.bin", version(100, replaced).data()));
            assert!(outcome.stderr.contains("was replaced while it was read"), "{}", outcome.stderr);
        }
    }

    #[test]
    fn an_object_replaced_between_two_ranges_is_one_version_in_the_end() {
        let (pod, _) = pod(LARGE_BYTES);
        pod.server.fault(Fault::on_get("*", replacing(LARGE_BYTES).0).nth(3));
        let outcome = download(&pod).run();
        assert_downloaded(&pod, &outcome, &Tree::new().file("weights.bin", version(100, LARGE_BYTES).data()));
    }

    #[test]
    fn an_object_replaced_while_a_body_is_broken_is_one_version_in_the_end() {
        let (pod, _) = pod(SMALL_BYTES);
        pod.server.fault(Fault::on_get("*", Action::TruncateAfter { body_bytes: 1 << 20 }));
        pod.server.fault(Fault::on_get("*", replacing(SMALL_BYTES).0));
        let outcome = download(&pod).run();
        assert_downloaded(&pod, &outcome, &Tree::new().file("weights.bin", version(100, SMALL_BYTES).data()));
    }

    #[test]
    fn a_server_that_does_not_know_if_match_cannot_mix_two_versions() {
        let pod = Pod::new();
        // Without a checksum, the answers' ETags are all there is to tell them apart.
        pod.put("m/weights.bin", Object::pattern(7, LARGE_BYTES));
        let asked = AtomicU64::new(0);
        let replace = move |store: &Store, _: &RecordedRequest| {
            if asked.fetch_add(1, Ordering::SeqCst) == 2 {
                store.put("models", "m/weights.bin", Object::pattern(8, LARGE_BYTES));
            }
        };
        pod.server.fault(Fault::on_get("*", Action::IgnoreIfMatch(Arc::new(replace))).always());
        download(&pod).run().assert_exit(0);
        pod.tree().assert_equals(&Tree::new().file("weights.bin", Object::pattern(8, LARGE_BYTES).data()));
    }

    #[test]
    fn an_object_that_never_stops_changing_is_given_up() {
        let (pod, _) = pod(SMALL_BYTES);
        let (action, replaced) = replacing(SMALL_BYTES);
        pod.server.fault(Fault::on_get("*", action).always());
        insta::assert_snapshot!(pod.refused(&download(&pod).run(), 76), @r#"object "m/weights.bin" was replaced 3 times while it was read; start again when nobody writes to it"#);
        assert_eq!(replaced.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn in_a_versioned_bucket_the_version_that_was_planned_is_fetched() {
        let pod = Pod::with(|server| server.versioned_bucket("models"));
        pod.put("m/weights.bin", version(7, LARGE_BYTES));
        pod.server.fault(Fault::on_get("*", replacing(LARGE_BYTES).0).nth(2));
        let outcome = download(&pod).run();
        assert_downloaded(&pod, &outcome, &Tree::new().file("weights.bin", version(7, LARGE_BYTES).data()));
    }

    #[test]
    fn an_object_that_is_removed_in_the_middle_is_not_found() {
        let (pod, _) = pod(SMALL_BYTES);
        let remove = |store: &Store, _: &RecordedRequest| store.remove("models", "m/weights.bin");
        pod.server.fault(Fault::on_get("*", Action::Call(Arc::new(remove))));
        insta::assert_snapshot!(pod.refused(&download(&pod).run(), 66), @r#"GetObject s3://models/m/weights.bin at https://localhost:9000 failed: 404 NoSuchKey "The specified key does not exist." (request id [id])"#);
    }
}
