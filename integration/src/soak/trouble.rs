//! What strikes a run: faults of the server, changes of the bucket, the end of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::bucket::{Bucket, ONE_REQUEST_BYTES};
use super::chance::Chance;
use crate::s3_server::faults::{Action, Callback, ErrorReply, Fault, FaultHandle, Hold};
use crate::s3_server::{Operation, RecordedRequest, S3Server, Store};

/// How often a request is tried in a row.
pub(super) const ATTEMPTS: u64 = 6;

/// How often an object is started, and how often wrong answers are taken, before a run gives up.
const STARTS: u64 = 3;

/// How a run may end because of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The store does not answer, or not to the end: exit code 69.
    Unavailable,
    /// Other bytes than the object's, or another object: exit code 76.
    Wrong,
    /// The store refuses: exit code 77.
    Denied,
}

/// The faults of one run.
#[derive(Debug, Default)]
pub(super) struct Troubles(Vec<(Class, FaultHandle, String)>);

impl Troubles {
    /// Draws some faults, and puts them into the server's script.
    pub(super) fn draw(server: &S3Server, bucket: &Bucket, chance: &mut Chance) -> Self {
        let mut troubles = Self::default();
        for _ in 0..chance.below(4) + 1 {
            troubles.add(server, bucket, chance);
        }
        troubles
    }

    fn add(&mut self, server: &S3Server, bucket: &Bucket, chance: &mut Chance) {
        let objects = bucket.objects();
        let (path, size_bytes) = chance.one_of(&objects);
        let key = format!("m/{path}");
        let somewhere = chance.below(size_bytes.min(ONE_REQUEST_BYTES));
        let get = |action| Fault::on_get("*", action);
        let get_this = |action| Fault::on(Operation::GetObject, action).exact_key(&key);
        let (class, fault, times) = match chance.below(16) {
            0..=2 => (Class::Unavailable, self.any_operation(Action::Reply(unavailable(chance)), chance), 2),
            3 => (Class::Unavailable, self.any_operation(Action::CloseBeforeResponse, chance), 2),
            4 | 5 => (Class::Unavailable, get(Action::ResetAfter { body_bytes: somewhere }), 4),
            6 | 7 => (Class::Unavailable, get(Action::TruncateAfter { body_bytes: somewhere }), 4),
            8 => {
                let hold = Hold::For(Duration::from_secs(600));
                (Class::Unavailable, get_this(Action::Stall { after_bytes: somewhere, hold }), 1)
            }
            9 => (Class::Wrong, get(Action::WrongContentRange), 4),
            10 => (Class::Wrong, get(Action::IgnoreRange), 4),
            11 => {
                let operation = chance.one_of(&[Operation::GetObject, Operation::HeadObject]);
                (Class::Wrong, Fault::on(operation, Action::WrongChecksum).exact_key(&key), 4)
            }
            12 | 13 if bucket.is_verifiable(&path) => {
                (Class::Wrong, get_this(Action::FlipBit { object_offset: chance.below(size_bytes) }), 4)
            }
            12..=14 => {
                let replace = replacing(bucket, &path, size_bytes, chance.number());
                let action = match chance.hits(30) {
                    true => Action::IgnoreIfMatch(replace),
                    false => Action::Call(replace),
                };
                (Class::Wrong, get_this(action), 4)
            }
            _ => (Class::Denied, get_this(Action::Reply(ErrorReply::new(403, "AccessDenied"))), 1),
        };
        let nth = 1 + chance.below(4);
        // Some do not pass.
        let times = if chance.hits(15) { 40 } else { 1 + chance.below(times) };
        let words = format!("{fault:?}, from {nth} on, {times} times");
        self.0.push((class, server.fault(fault.nth(nth).times(times)), words));
    }

    fn any_operation(&self, action: Action, chance: &mut Chance) -> Fault {
        let operations = [Operation::GetObject, Operation::GetObject, Operation::HeadObject, Operation::ListObjectsV2];
        Fault::on(chance.one_of(&operations), action)
    }

    /// How often faults struck.
    pub(super) fn struck(&self) -> u64 {
        self.0.iter().map(|(_, handle, _)| handle.struck()).sum()
    }

    /// Whether what has struck explains that a run ended with this exit code.
    pub(super) fn explain(&self, code: i32) -> bool {
        let struck = |class: Class| -> u64 {
            self.0.iter().filter(|(of, _, _)| *of == class).map(|(_, handle, _)| handle.struck()).sum()
        };
        match code {
            69 => struck(Class::Unavailable) + struck(Class::Wrong) >= ATTEMPTS,
            76 => struck(Class::Wrong) >= STARTS,
            77 => struck(Class::Denied) > 0,
            _ => false,
        }
    }

    /// What has struck, for whoever looks for a mistake.
    pub(super) fn words(&self) -> String {
        let lines =
            self.0.iter().map(|(class, handle, words)| format!("  {class:?} struck {}: {words}\n", handle.struck()));
        lines.collect()
    }
}

fn unavailable(chance: &mut Chance) -> ErrorReply {
    match chance.below(5) {
        0 => ErrorReply::new(500, "InternalError"),
        1 => ErrorReply::new(503, "ServiceUnavailable"),
        2 => ErrorReply::new(503, "SlowDown"),
        3 => ErrorReply::new(503, "SlowDown").header("Retry-After", "0"),
        _ => ErrorReply::new(429, "TooManyRequests").header("Retry-After", "1"),
    }
}

/// Puts another version of the object before a request for it is answered.
fn replacing(bucket: &Bucket, path: &str, size_bytes: u64, seed: u64) -> Arc<Callback> {
    let (bucket, path, count) = (bucket.clone(), path.to_owned(), AtomicU64::new(0));
    Arc::new(move |store: &Store, _: &RecordedRequest| {
        bucket.put(store, &path, size_bytes, seed.wrapping_add(count.fetch_add(1, Ordering::Relaxed)));
    })
}
