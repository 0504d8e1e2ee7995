//! The fault script: which request goes wrong, when, and how.
//!
//! A test adds [`Fault`]s; each names the requests it is for, how many of them it lets pass first, and how often it
//! strikes. For a request the first fault in the script that is due strikes, and only that one. The faults are real: a
//! reset is a TCP RST, a truncated body is a connection that ends in order but early, a flipped bit is in the bytes.
//!
//! A [`Gate`] turns "in the middle of a download" into an event: the server stops there, the test learns of it without
//! sleeping, does what it wants to do, and opens the gate, or never does.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::record::{Operation, RecordedRequest};
use super::store::Store;

/// What goes wrong.
#[derive(Clone)]
pub enum Action {
    /// An error reply instead of the real one.
    Reply(ErrorReply),
    /// The connection ends in order before any reply.
    CloseBeforeResponse,
    /// The reply, headers included, comes later.
    Delay(Hold),
    /// A TCP reset after this many bytes of the body were written.
    ResetAfter {
        /// Bytes of this reply's body.
        body_bytes: u64,
    },
    /// The connection ends in order (close_notify, FIN) after this many bytes, short of the Content-Length.
    TruncateAfter {
        /// Bytes of this reply's body.
        body_bytes: u64,
    },
    /// The body stops after this many bytes were written, and goes on when the hold ends.
    Stall {
        /// Bytes of this reply's body.
        after_bytes: u64,
        /// How long.
        hold: Hold,
    },
    /// The body comes no faster than this, evenly.
    Throttle {
        /// The mean rate.
        bytes_per_second: u64,
    },
    /// The lowest bit of one byte is wrong; only strikes requests whose range covers that byte.
    FlipBit {
        /// The position in the object, not in the reply.
        object_offset: u64,
    },
    /// The server does not know ranges: 200 with the whole object.
    IgnoreRange,
    /// The right bytes, but a Content-Range that begins one byte later.
    WrongContentRange,
    /// The right bytes, but each checksum header, where there is one, names another value.
    WrongChecksum,
    /// The test does something, for example replaces the object, before the request is answered as usual.
    Call(Arc<Callback>),
    /// The same, and the server does not know `If-Match`, as some gateways and caches do not.
    IgnoreIfMatch(Arc<Callback>),
}

/// What [`Action::Call`] calls: with the buckets, and the request that is about to be answered.
pub type Callback = dyn Fn(&Store, &RecordedRequest) + Send + Sync;

impl fmt::Debug for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Action::Reply(reply) => {
                return write!(formatter, "Reply({} {})", reply.status, reply.code);
            }
            Action::CloseBeforeResponse => "CloseBeforeResponse",
            Action::Delay(_) => "Delay",
            Action::ResetAfter { .. } => "ResetAfter",
            Action::TruncateAfter { .. } => "TruncateAfter",
            Action::Stall { .. } => "Stall",
            Action::Throttle { .. } => "Throttle",
            Action::FlipBit { .. } => "FlipBit",
            Action::IgnoreRange => "IgnoreRange",
            Action::WrongContentRange => "WrongContentRange",
            Action::WrongChecksum => "WrongChecksum",
            Action::Call(_) => "Call",
            Action::IgnoreIfMatch(_) => "IgnoreIfMatch",
        };
        formatter.write_str(name)
    }
}

/// An error as S3 words it.
#[derive(Debug, Clone)]
pub struct ErrorReply {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) elements: Vec<(String, String)>,
}

impl ErrorReply {
    /// A status and an S3 error code, for example 503 and `SlowDown`.
    pub fn new(status: u16, code: &str) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: format!("{code} by the fault script"),
            headers: Vec::new(),
            elements: Vec::new(),
        }
    }

    /// Sets the message.
    pub fn message(mut self, message: &str) -> Self {
        self.message = message.to_owned();
        self
    }

    /// Adds a header, for example `Retry-After`.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an element to the XML, for example `Endpoint` to a `PermanentRedirect`.
    pub fn element(mut self, name: &str, value: &str) -> Self {
        self.elements.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// For how long something is held up.
#[derive(Debug, Clone)]
pub enum Hold {
    /// A time.
    For(Duration),
    /// Until the test opens the gate.
    Until(Gate),
}

/// A place where the server waits for the test, and the test for the server.
#[derive(Debug, Clone)]
pub struct Gate(Arc<GateState>);

#[derive(Debug)]
struct GateState {
    reached: Mutex<u64>,
    arrival: Condvar,
    open: watch::Sender<bool>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(Arc::new(GateState { reached: Mutex::new(0), arrival: Condvar::new(), open: watch::Sender::new(false) }))
    }

    /// Lets everything pass that waits here and that comes later.
    pub fn open(&self) {
        self.0.open.send_replace(true);
        // Whoever waits for an arrival learns that none is of interest any more.
        drop(self.0.reached.lock().unwrap_or_else(|poison| poison.into_inner()));
        self.0.arrival.notify_all();
    }

    /// Blocks until a request has arrived at the gate, or somebody opens it; whether a request has. Panics after
    /// `limit`.
    pub fn wait_reached_or_opened(&self, limit: Duration) -> bool {
        let reached = self.0.reached.lock().unwrap_or_else(|poison| poison.into_inner());
        let (reached, waited) = self
            .0
            .arrival
            .wait_timeout_while(reached, limit, |reached| *reached == 0 && !*self.0.open.borrow())
            .unwrap_or_else(|poison| poison.into_inner());
        assert!(!waited.timed_out(), "nothing reached the gate, and nobody opened it, within {limit:?}");
        *reached > 0
    }

    /// Blocks until a request has arrived at the gate; panics after `limit`.
    pub fn wait_reached(&self, limit: Duration) {
        self.wait_reached_by(1, limit);
    }

    /// Blocks until `count` requests have arrived at the gate; panics after `limit`.
    pub fn wait_reached_by(&self, count: u64, limit: Duration) {
        let reached = self.0.reached.lock().unwrap_or_else(|poison| poison.into_inner());
        let (reached, waited) = self
            .0
            .arrival
            .wait_timeout_while(reached, limit, |reached| *reached < count)
            .unwrap_or_else(|poison| poison.into_inner());
        assert!(!waited.timed_out(), "{} of {count} requests reached the gate within {limit:?}", *reached);
    }

    pub(crate) async fn pass(self) {
        let mut open = self.0.open.subscribe();
        *self.0.reached.lock().unwrap_or_else(|poison| poison.into_inner()) += 1;
        self.0.arrival.notify_all();
        // The sender lives as long as `self`, so this ends only when the gate is open.
        let _ = open.wait_for(|open| *open).await;
    }
}

impl Hold {
    pub(crate) async fn pass(self) {
        match self {
            Hold::For(duration) => tokio::time::sleep(duration).await,
            Hold::Until(gate) => gate.pass().await,
        }
    }
}

/// How many bytes of objects a server sends before it stops at a gate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowance(Arc<Mutex<Option<(u64, Gate)>>>);

impl Allowance {
    pub(crate) fn set(&self, bytes: u64, gate: Gate) {
        *self.lock() = Some((bytes, gate));
    }

    /// Takes what a chunk needs, and a little more where it is the last one; the gate where nothing is left.
    pub(crate) fn take(&self, bytes: usize) -> Option<Gate> {
        let mut allowance = self.lock();
        let (left, gate) = allowance.as_mut()?;
        if *left == 0 && !*gate.0.open.borrow() {
            return Some(gate.clone());
        }
        *left = left.saturating_sub(bytes as u64);
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(u64, Gate)>> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// One line of the script.
#[derive(Debug, Clone)]
pub struct Fault {
    operation: Option<Operation>,
    key: Option<KeyPattern>,
    skip: u64,
    times: Option<u64>,
    action: Action,
}

#[derive(Debug, Clone)]
enum KeyPattern {
    Exact(String),
    Glob(String),
}

impl Fault {
    /// A fault that strikes the first request there is, whatever it is, and only that one.
    pub fn any(action: Action) -> Self {
        Self { operation: None, key: None, skip: 0, times: Some(1), action }
    }

    /// A fault that strikes the first request of this operation.
    pub fn on(operation: Operation, action: Action) -> Self {
        Self { operation: Some(operation), ..Self::any(action) }
    }

    /// A fault that strikes the first GET of objects whose key matches the glob.
    pub fn on_get(glob: &str, action: Action) -> Self {
        Self::on(Operation::GetObject, action).key(glob)
    }

    /// Only for keys that match: `*` is any text, slashes included, `?` one character.
    pub fn key(mut self, glob: &str) -> Self {
        self.key = Some(KeyPattern::Glob(glob.to_owned()));
        self
    }

    /// Only for this key, whose `*` and `?` mean themselves.
    pub fn exact_key(mut self, key: &str) -> Self {
        self.key = Some(KeyPattern::Exact(key.to_owned()));
        self
    }

    /// Strikes from the `n`th matching request on, counted from 1.
    pub fn nth(mut self, n: u64) -> Self {
        self.skip = n.saturating_sub(1);
        self
    }

    /// Strikes this many times; the default is once.
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Never stops striking.
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    fn matches(&self, request: &RecordedRequest) -> bool {
        let operation = self.operation.is_none_or(|operation| operation == request.operation);
        let key = match &self.key {
            None => true,
            Some(KeyPattern::Exact(key)) => request.key.as_deref() == Some(key),
            Some(KeyPattern::Glob(glob)) => {
                request.key.as_deref().is_some_and(|key| matches_glob(glob.as_bytes(), key.as_bytes()))
            }
        };
        operation && key && self.covers(request)
    }

    fn covers(&self, request: &RecordedRequest) -> bool {
        let Action::FlipBit { object_offset } = self.action else {
            return true;
        };
        match request.range_bytes() {
            None => request.range.is_none(),
            Some((first, last)) => first <= object_offset && last.is_none_or(|last| object_offset <= last),
        }
    }
}

fn matches_glob(glob: &[u8], text: &[u8]) -> bool {
    match (glob.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches_glob(rest, text) || text.split_first().is_some_and(|(_, text)| matches_glob(glob, text))
        }
        (Some((b'?', rest)), Some((_, text))) => matches_glob(rest, text),
        (Some((wanted, rest)), Some((found, text))) => wanted == found && matches_glob(rest, text),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// A fault in the script, to ask whether it struck.
#[derive(Debug, Clone)]
pub struct FaultHandle {
    script: Script,
    index: usize,
}

impl FaultHandle {
    /// How often it struck.
    pub fn struck(&self) -> u64 {
        self.script.lock().get(self.index).map_or(0, |line| line.struck)
    }
}

/// All faults of a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script(Arc<Mutex<Vec<Line>>>);

#[derive(Debug)]
struct Line {
    fault: Fault,
    seen: u64,
    struck: u64,
}

impl Script {
    pub(crate) fn add(&self, fault: Fault) -> FaultHandle {
        let mut lines = self.lock();
        lines.push(Line { fault, seen: 0, struck: 0 });
        FaultHandle { script: self.clone(), index: lines.len() - 1 }
    }

    /// Disarms every fault; handles go on counting what already struck.
    pub(crate) fn disarm(&self) {
        for line in self.lock().iter_mut() {
            line.fault.times = Some(0);
        }
    }

    /// The action that strikes this request.
    pub(crate) fn strike(&self, request: &RecordedRequest) -> Option<Action> {
        let mut lines = self.lock();
        let due = lines.iter_mut().find_map(|line| {
            if !line.fault.matches(request) {
                return None;
            }
            line.seen += 1;
            let due = line.seen > line.fault.skip && line.fault.times.is_none_or(|times| line.struck < times);
            due.then_some(line)
        })?;
        due.struck += 1;
        Some(due.fault.action.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Line>> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::{HeaderMap, Method, Uri};

    fn request(uri: &'static str, range: Option<&str>) -> RecordedRequest {
        let mut headers = HeaderMap::new();
        if let Some(range) = range {
            headers.insert("range", range.parse().unwrap());
        }
        RecordedRequest::read(1, &Method::GET, &Uri::from_static(uri), &headers, None)
    }

    #[test]
    fn the_script_strikes_in_order_and_as_often_as_it_says() {
        let script = Script::default();
        let second = script.add(Fault::on_get("model/*", Action::IgnoreRange).nth(2).times(2));
        let first_of_all = script.add(Fault::any(Action::CloseBeforeResponse));
        let struck = |uri| script.strike(&request(uri, None)).map(|action| format!("{action:?}"));
        assert_eq!(struck("/b/model/x").as_deref(), Some("CloseBeforeResponse"));
        assert_eq!(struck("/b/other"), None);
        assert_eq!(struck("/b/model/y/z").as_deref(), Some("IgnoreRange"));
        assert_eq!(struck("/b/model/x").as_deref(), Some("IgnoreRange"));
        assert_eq!(struck("/b/model/x"), None);
        assert_eq!((second.struck(), first_of_all.struck()), (2, 1));
    }

    #[test]
    fn a_flipped_bit_waits_for_the_range_that_covers_it() {
        let script = Script::default();
        script.add(Fault::on_get("*", Action::FlipBit { object_offset: 10 }));
        assert!(script.strike(&request("/b/k", Some("bytes=0-9"))).is_none());
        assert!(script.strike(&request("/b/k", Some("bytes=10-19"))).is_some());
    }

    #[test]
    fn globs_cross_slashes() {
        assert!(matches_glob(b"a*c?", b"a/b/cd"));
        assert!(!matches_glob(b"a*c", b"a/b"));
        assert!(matches_glob(b"*", b""));
    }
}
