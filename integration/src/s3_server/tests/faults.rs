//! Every fault as a client meets it.

use std::sync::Arc;
use std::time::Duration;

use super::{elements, public};
use crate::pki::{Authority, LeafSpec};
use crate::s3_server::faults::{Action, ErrorReply, Fault, FaultHandle, Gate, Hold};
use crate::s3_server::test_client::Ask;
use crate::s3_server::{Checksum, Object, RecordedRequest, S3Server, Store};

/// Far more than any wait here takes.
const LIMIT: Duration = Duration::from_secs(10);

/// A server with an object of 1 MB that has one fault in its way.
fn faulty(action: Action) -> (S3Server, FaultHandle) {
    let server = public();
    server.put("models", "big", Object::pattern(1, 1_000_000).checksum(Checksum::Crc32));
    let handle = server.fault(Fault::on_get("big", action));
    (server, handle)
}

fn good(server: &S3Server) -> Vec<u8> {
    let answer = Ask::get("/models/big").send(server);
    assert_eq!((answer.status.as_u16(), answer.cut), (200, None));
    answer.body
}

#[test]
fn error_replies_carry_code_headers_and_elements_once() {
    let reply = ErrorReply::new(503, "SlowDown").header("Retry-After", "7").element("Endpoint", "a<b");
    let (server, handle) = faulty(Action::Reply(reply));
    let answer = Ask::get("/models/big").send(&server);
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "7"));
    assert_eq!(elements(&answer.text(), "Code"), ["SlowDown"]);
    assert_eq!(elements(&answer.text(), "Endpoint"), ["a&lt;b"]);
    assert_eq!(good(&server).len(), 1_000_000);
    assert_eq!(handle.struck(), 1);
}

#[test]
fn truncated_bodies_end_at_the_byte() {
    for tls in [false, true] {
        let root = Authority::new("Fresh Root");
        let builder = S3Server::builder().public_bucket("models");
        let server = match tls {
            true => builder.identity(root.issue(LeafSpec::new()).identity()).start(),
            false => builder.plain().start(),
        };
        server.put("models", "big", Object::pattern(1, 1_000_000));
        let ask = Ask::get("/models/big");
        let ask = if tls { ask.trusting(root.der()) } else { ask };
        let whole = ask.send(&server).body;
        for after in [0, 1, 300_001, 999_999] {
            server.fault(Fault::on_get("big", Action::TruncateAfter { body_bytes: after }));
            let answer = ask.send(&server);
            assert_eq!(answer.header("content-length"), "1000000");
            assert!(answer.body == whole[..after as usize], "{} of {after}", answer.body.len());
            let cut = answer.cut.unwrap();
            // A connection that lost its close_notify would say so here.
            assert!(cut.contains("before message completed") || cut.contains("end of file"), "{cut}");
            assert!(!cut.contains("close_notify"), "{cut}");
        }
    }
}

#[test]
fn a_reset_is_a_reset() {
    for tls in [false, true] {
        let root = Authority::new("Fresh Root");
        let builder = S3Server::builder().public_bucket("models");
        let server = match tls {
            true => builder.identity(root.issue(LeafSpec::new()).identity()).start(),
            false => builder.plain().start(),
        };
        server.put("models", "big", Object::pattern(1, 1_000_000));
        server.fault(Fault::on_get("big", Action::ResetAfter { body_bytes: 10_000 }));
        let ask = Ask::get("/models/big");
        let ask = if tls { ask.trusting(root.der()) } else { ask };
        // A reset may overtake what was sent before it, the reply's head included.
        let reason = match ask.try_send(&server) {
            Ok(answer) => {
                assert!(answer.body.len() <= 10_000);
                answer.cut.unwrap()
            }
            Err(reason) => reason,
        };
        assert!(reason.contains("reset by peer"), "{reason}");
        assert_eq!(server.requests()[0].bytes_sent, 10_000);
    }
}

#[test]
fn a_connection_may_close_before_its_reply() {
    let (server, _) = faulty(Action::CloseBeforeResponse);
    let reason = Ask::get("/models/big").try_send(&server).unwrap_err();
    assert!(reason.contains("before message completed"), "{reason}");
    assert_eq!(server.requests()[0].status, 0);
    good(&server);
}

#[test]
fn a_stalled_body_waits_for_the_gate_and_is_then_whole() {
    let gate = Gate::new();
    let (server, _) = faulty(Action::Stall { after_bytes: 200_000, hold: Hold::Until(gate.clone()) });
    std::thread::scope(|scope| {
        let client = scope.spawn(|| Ask::get("/models/big").send(&server));
        gate.wait_reached(LIMIT);
        assert_eq!(server.bytes_sent(), 200_000);
        gate.open();
        let answer = client.join().unwrap();
        assert_eq!(answer.cut, None);
        assert!(answer.body == good(&server));
    });
}

#[test]
fn a_delayed_reply_comes_after_the_gate_opens() {
    let gate = Gate::new();
    let (server, _) = faulty(Action::Delay(Hold::Until(gate.clone())));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| Ask::get("/models/big").send(&server));
        gate.wait_reached(LIMIT);
        assert_eq!(server.requests()[0].status, 0);
        gate.open();
        assert_eq!(client.join().unwrap().body.len(), 1_000_000);
    });
}

#[test]
fn a_throttled_body_takes_its_time_and_is_whole() {
    let (server, _) = faulty(Action::Throttle { bytes_per_second: 10_000_000 });
    let began = std::time::Instant::now();
    let throttled = good(&server);
    assert!(began.elapsed() >= Duration::from_millis(80), "{:?}", began.elapsed());
    assert!(throttled == good(&server));
}

#[test]
fn one_bit_is_wrong_where_the_script_says() {
    let (server, handle) = faulty(Action::FlipBit { object_offset: 700_000 });
    let before = Ask::get("/models/big").header("range", "bytes=0-699999").send(&server);
    assert_eq!(handle.struck(), 0);
    let mut flipped = Ask::get("/models/big").header("range", "bytes=600000-999999").send(&server).body;
    let whole = good(&server);
    assert!(before.body == whole[..700_000]);
    assert_eq!(flipped[100_000], whole[700_000] ^ 1);
    flipped[100_000] ^= 1;
    assert!(flipped == whole[600_000..]);
}

#[test]
fn headers_lie_as_told() {
    let range = |server: &S3Server| Ask::get("/models/big").header("range", "bytes=10-19").send(server);
    let (server, _) = faulty(Action::IgnoreRange);
    let ignored = range(&server);
    assert_eq!((ignored.status.as_u16(), ignored.body.len()), (200, 1_000_000));
    assert_eq!(range(&server).status, 206);

    let (server, _) = faulty(Action::WrongContentRange);
    assert_eq!(range(&server).header("content-range"), "bytes 11-20/1000000");

    let (server, _) = faulty(Action::WrongChecksum);
    let ask = Ask::get("/models/big").header("x-amz-checksum-mode", "ENABLED");
    let (wrong, right) = (ask.send(&server), ask.send(&server));
    let name = "x-amz-checksum-crc32";
    assert_ne!(wrong.header(name), right.header(name));
    assert_eq!(wrong.header(name).len(), right.header(name).len());
    assert!(wrong.body == right.body);
}

#[test]
fn an_object_may_be_replaced_between_two_requests() {
    let (server, _) = faulty(Action::Call(Arc::new(|store: &Store, request: &RecordedRequest| {
        assert_eq!(request.key.as_deref(), Some("big"));
        store.put("models", "big", Object::text("replaced"));
    })));
    let etag = server.store().etag("models", "big").unwrap();
    let answer = Ask::get("/models/big").header("if-match", &etag).send(&server);
    assert_eq!(answer.status, 412);
}
