//! What the store knows of an object's bytes is compared with what has arrived, whatever form it has.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use storage_initializer_integration::{
    initializer::Outcome,
    pod::Pod,
    s3_server::{
        Checksum, Object, Operation,
        faults::{Action, ErrorReply, Fault},
    },
    tree::Tree,
};

const MIB: u64 = 1 << 20;

/// Fetched with one request.
const SMALL_BYTES: u64 = 12 * MIB;

/// Fetched in ranges.
const LARGE_BYTES: u64 = 44 * MIB;

const PART_BYTES: u64 = 5 * MIB;

fn pod_of(object: Object) -> (Pod, Tree) {
    let pod = Pod::with(|server| server.plain());
    let expected = Tree::new().file("weights.bin", object.data());
    pod.put("m/weights.bin", object);
    (pod, expected)
}

fn run(pod: &Pod) -> Outcome {
    pod.download("s3://models/m").run()
}

fn moved(pod: &Pod) -> u64 {
    pod.server.requests_of(Operation::GetObject).iter().map(|get| get.bytes_sent).sum()
}

#[track_caller]
fn assert_verified(outcome: &Outcome, by: &str) {
    outcome.assert_exit(0);
    assert!(outcome.last_line().contains(&format!("verified: 1 {by}")), "{}", outcome.last_line());
}

fn flip(object_offset: u64) -> Fault {
    Fault::on_get("*", Action::FlipBit { object_offset })
}

mod part_by_part {
    use super::*;

    fn composite(size_bytes: u64, checksum: Checksum) -> Object {
        Object::pattern(1, size_bytes).checksum(checksum).multipart(PART_BYTES).composite()
    }

    const CHECKSUMS: [(Checksum, &str); 3] =
        [(Checksum::Crc32, "crc32"), (Checksum::Crc32c, "crc32c"), (Checksum::Sha256, "sha256")];

    #[test]
    fn a_checksum_of_checksums_is_compared() {
        for (checksum, name) in CHECKSUMS {
            for size_bytes in [SMALL_BYTES, LARGE_BYTES] {
                let (pod, expected) = pod_of(composite(size_bytes, checksum));
                assert_verified(&run(&pod), name);
                pod.tree().assert_equals(&expected);
                assert_eq!(moved(&pod), size_bytes);
            }
        }
    }

    #[test]
    fn a_flipped_bit_costs_the_part_that_it_is_in() {
        for (checksum, name) in CHECKSUMS {
            let (pod, expected) = pod_of(composite(LARGE_BYTES, checksum));
            pod.server.fault(flip(PART_BYTES * 3 + 100));
            let outcome = run(&pod);
            assert_verified(&outcome, name);
            pod.tree().assert_equals(&expected);
            assert_eq!(moved(&pod), LARGE_BYTES + PART_BYTES, "{}", outcome.stderr);
        }
    }

    #[test]
    fn two_flipped_bits_cost_two_parts_the_short_last_one_among_them() {
        let (pod, expected) = pod_of(composite(LARGE_BYTES, Checksum::Crc32));
        pod.server.fault(flip(0));
        pod.server.fault(flip(LARGE_BYTES - 1));
        assert_verified(&run(&pod), "crc32");
        pod.tree().assert_equals(&expected);
        assert_eq!(moved(&pod), LARGE_BYTES + PART_BYTES + LARGE_BYTES % PART_BYTES);
    }

    #[test]
    fn a_bit_that_is_always_flipped_ends_the_run_and_the_next_one_gets_that_part_alone() {
        let (pod, expected) = pod_of(composite(LARGE_BYTES, Checksum::Crc32));
        pod.server.fault(flip(7).always());
        insta::assert_snapshot!(pod.refused(&run(&pod), 76), @r#"object "m/weights.bin" arrived damaged 3 times: the bytes received have the checksum crc32 d91adb12, the store keeps crc32 96b1fb25"#);
        pod.server.disarm_faults();
        pod.server.forget_requests();
        assert_verified(&run(&pod), "crc32");
        pod.tree().assert_equals(&expected);
        assert_eq!(moved(&pod), PART_BYTES);
    }

    #[test]
    fn more_parts_than_an_answer_has_are_asked_for_page_by_page() {
        let size_bytes = 2_500 * 20_000;
        let object = Object::pattern(1, size_bytes).checksum(Checksum::Crc32c).multipart(20_000).composite();
        let (pod, expected) = pod_of(object);
        pod.server.fault(flip(20_000 * 2_000));
        assert_verified(&run(&pod), "crc32c");
        pod.tree().assert_equals(&expected);
        assert_eq!(moved(&pod), size_bytes + 20_000);
    }

    #[test]
    fn parts_that_may_not_be_asked_for_leave_length_and_etag() {
        for (status, code) in [(403, "AccessDenied"), (405, "MethodNotAllowed"), (501, "NotImplemented")] {
            let (pod, expected) = pod_of(composite(LARGE_BYTES, Checksum::Crc32));
            let reply = Action::Reply(ErrorReply::new(status, code));
            let fault = pod.server.fault(Fault::on(Operation::GetObjectAttributes, reply).always());
            assert_verified(&run(&pod), "etag-only");
            pod.tree().assert_equals(&expected);
            assert_eq!(fault.struck(), 1, "{code} does not pass");
        }
    }
}

mod of_the_whole {
    use super::*;

    fn sha256(size_bytes: u64) -> Object {
        Object::pattern(1, size_bytes).checksum(Checksum::Sha256)
    }

    #[test]
    fn a_sha256_is_compared_with_what_is_on_the_volume() {
        for size_bytes in [SMALL_BYTES, LARGE_BYTES] {
            let (pod, expected) = pod_of(sha256(size_bytes));
            pod.server.fault(flip(size_bytes - 1));
            assert_verified(&run(&pod), "sha256");
            pod.tree().assert_equals(&expected);
            assert_eq!(moved(&pod), size_bytes * 2);
        }
    }

    #[test]
    fn one_that_never_comes_out_ends_the_run() {
        let (pod, _) = pod_of(sha256(LARGE_BYTES));
        pod.server.fault(flip(1).always());
        insta::assert_snapshot!(pod.refused(&run(&pod), 76), @r#"object "m/weights.bin" arrived damaged 3 times: the bytes received have sha256 7069c8b01531750f530bea12fecf5bdcc578fc245551ebdb31c6ea7da6d7b735, expected is sha256 23eeeef91d4666c8ea0a8b2e7cafdae3cd0053af9f86333f81f35e9cdeaf94b2"#);
    }

    #[test]
    fn a_crc_of_the_whole_of_an_object_in_parts_is_compared() {
        for (checksum, name) in [(Checksum::Crc64Nvme, "crc64nvme"), (Checksum::Crc32c, "crc32c")] {
            let (pod, expected) = pod_of(Object::pattern(1, LARGE_BYTES).checksum(checksum).multipart(PART_BYTES));
            pod.server.fault(flip(9));
            assert_verified(&run(&pod), name);
            pod.tree().assert_equals(&expected);
        }
    }
}

mod by_the_etag {
    use super::*;

    /// An object without a checksum, whose ETag is its MD5.
    fn plain(size_bytes: u64) -> Object {
        let bytes: Vec<u8> = (0..size_bytes).map(|at| (at % 251) as u8).collect();
        Object::bytes(bytes)
    }

    fn run_with_md5(pod: &Pod) -> Outcome {
        pod.download("s3://models/m").env("S3_VERIFY_ETAG_MD5", "true").run()
    }

    #[test]
    fn an_md5_is_compared_where_that_is_asked_for() {
        for size_bytes in [SMALL_BYTES, LARGE_BYTES] {
            let (pod, expected) = pod_of(plain(size_bytes));
            pod.server.fault(flip(3));
            assert_verified(&run_with_md5(&pod), "etag-md5");
            pod.tree().assert_equals(&expected);
            assert_eq!(moved(&pod), size_bytes * 2);
        }
    }

    #[test]
    fn one_that_never_comes_out_ends_the_run() {
        let (pod, _) = pod_of(plain(SMALL_BYTES));
        pod.server.fault(flip(3).always());
        insta::assert_snapshot!(pod.refused(&run_with_md5(&pod), 76), @r#"object "m/weights.bin" arrived damaged 3 times: the bytes received have etag-md5 05ff5fad85166233ed26eb101e13f130, expected is etag-md5 0678042110afa53b12c87ef1e06d2654"#);
    }

    #[test]
    fn an_etag_that_is_no_md5_is_not_taken_for_one() {
        for object in [plain(LARGE_BYTES).multipart(PART_BYTES), plain(SMALL_BYTES).etag("opaque")] {
            let (pod, expected) = pod_of(object);
            assert_verified(&run_with_md5(&pod), "etag-only");
            pod.tree().assert_equals(&expected);
        }
    }

    #[test]
    fn without_asking_for_it_length_and_etag_are_all() {
        let (pod, _) = pod_of(plain(SMALL_BYTES));
        assert_verified(&run(&pod), "etag-only");
    }
}
