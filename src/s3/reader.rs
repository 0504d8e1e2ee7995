//! Objects' bytes, on one connection per thread.
//!
//! Every other request is the SDK's. A GET of bytes is not, because two copies and two wake-ups for
//! each 16 KiB cost as much as all the rest of a download: here the bytes go from the socket
//! through TLS into the caller's buffer, on the caller's thread.

use std::time::{Duration, Instant, SystemTime};

use super::{
    Address, Attempt, Get, S3, check_answer,
    error::{Failure, Kind, Reply},
    place::Place,
    signature::{Signatory, signed_headers},
    trusted, version_id,
};
use crate::{
    cause::innermost,
    checksum::{StoredChecksums, Verifiability},
    http::{Head, Link, Received, Request},
    retry,
};

/// A body slower than this is stalled. A kilobyte a second is no transfer, on any network.
const LEAST_BYTES_PER_SECOND: u64 = 1024;

/// What of an error's body is read: S3's have a few hundred bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;

const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// One thread's way to objects' bytes: keeps its connection from one request to the next.
#[derive(Debug)]
pub struct Reader {
    s3: S3,
    runtime: tokio::runtime::Handle,
    link: Link,
}

/// Bytes as they arrive.
#[derive(Debug)]
pub struct Body<'a> {
    link: &'a mut Link,
    /// What is to come of the bytes that were asked for.
    left_bytes: u64,
    watch: Watch,
    failed: Option<Attempt>,
    /// What the store says of the whole object, where the whole object was asked for.
    pub checksum: Verifiability,
    /// The version that the bytes are of, where the store tells.
    pub version: Option<String>,
}

/// What the head of an answer tells.
struct Told {
    checksum: Verifiability,
    version: Option<String>,
}

impl S3 {
    /// One thread's way to objects' bytes. It blocks the thread, which may not be one of a runtime.
    /// `runtime` is used to ask the credential provider, and has to be driven by somebody else.
    pub fn reader(&self, runtime: tokio::runtime::Handle) -> Reader {
        Reader { s3: self.clone(), runtime, link: self.shared.http.link() }
    }
}

impl Reader {
    /// Asks once for bytes of an object, and checks that the answer is for exactly those. Blocks for
    /// the connect timeout and the first-byte timeout at most.
    ///
    /// # Errors
    ///
    /// [`Attempt`]; whether to try again, and from where, is for the caller to decide.
    pub fn get(&mut self, get: Get<'_>) -> Result<Body<'_>, Attempt> {
        let Told { checksum, version } = self.answered(get)?;
        let left_bytes = get.range.map_or(get.size_bytes, |range| range.len_bytes());
        if self.link.announced_bytes().is_some_and(|bytes| bytes > left_bytes) {
            return Err(too_much());
        }
        Ok(Body {
            watch: Watch::new(self.s3.shared.stall_timeout, Instant::now()),
            link: &mut self.link,
            left_bytes,
            failed: None,
            checksum,
            version,
        })
    }

    /// Asks until the answer is final: what an answer teaches is applied once.
    fn answered(&mut self, mut get: Get<'_>) -> Result<Told, Attempt> {
        let mut renewed = false;
        loop {
            let address = self.s3.address();
            let signatory = self.signatory()?;
            let attempt = match self.ask(get, &address, signatory.as_ref()) {
                Ok(told) => return Ok(told),
                Err(attempt) => attempt,
            };
            if self.s3.denies_versions(&attempt, get) {
                get.version = None;
            } else if !renewed && attempt.failure.is_of_expired_keys() && self.rejects(signatory.as_ref()) {
                renewed = true;
            } else if !self.s3.learn_region(&attempt.failure, &address) {
                return Err(attempt);
            }
        }
    }

    fn signatory(&self) -> Result<Option<Signatory>, Attempt> {
        let Some(keyring) = &self.s3.shared.keyring else { return Ok(None) };
        let signatory = keyring.signatory(&self.runtime);
        signatory.map(Some).map_err(|error| Attempt { failure: Failure::of_credentials(&error) })
    }

    /// Whether other keys than `refused`'s may be had.
    fn rejects(&self, refused: Option<&Signatory>) -> bool {
        match (&self.s3.shared.keyring, refused) {
            (Some(keyring), Some(refused)) => keyring.reject(refused),
            _ => false,
        }
    }

    /// One request and the head of its answer.
    fn ask(&mut self, get: Get<'_>, address: &Address, signatory: Option<&Signatory>) -> Result<Told, Attempt> {
        let version = get.version.filter(|_| !self.s3.denies_all_versions());
        let place = address.place(get.bucket, &self.runtime).map_err(|failure| Attempt { failure })?;
        let request = request(get, version, &place, signatory).map_err(|failure| Attempt { failure })?;
        let head =
            self.link.ask(&place.origin, &request).map_err(|error| Attempt { failure: Failure::of_http(error) })?;
        if head.status >= 300 {
            return Err(Attempt { failure: self.refusal(&head) });
        }
        let etag = head.header("etag");
        let length = self.link.announced_bytes();
        check_answer(get, etag, length, head.header("content-range"))?;
        let checksum = match get.range {
            // What a range's answer may carry is the range's, or the object's: nothing says which.
            Some(_) => Verifiability::Absent,
            None => trusted(stored(&head), etag),
        };
        Ok(Told { checksum, version: head.header("x-amz-version-id").and_then(version_id) })
    }

    /// Reads why the store refused.
    fn refusal(&mut self, head: &Head) -> Box<Failure> {
        let header = |name: &str| head.header(name);
        let limit = self.s3.shared.answer_timeout;
        let deadline = Instant::now() + limit;
        let mut body = vec![0; MAX_ERROR_BYTES];
        let mut filled = 0;
        while filled < body.len() {
            match self.link.read(&mut body[filled..]) {
                Ok(Received::Bytes(count)) => filled += count,
                Ok(Received::End) => break,
                Ok(Received::Nothing) if Instant::now() < deadline => {}
                Ok(Received::Nothing) => {
                    let finding = format!("the answer did not arrive whole within {} s", limit.as_secs_f32());
                    return Failure::of_answer(Kind::Unreachable, Some(retry::Kind::Transient), finding);
                }
                Err(error) => {
                    let reply = Reply { status: head.status, header: &header, body: "" };
                    return Failure::of_broken_reply(&reply, &innermost(&error));
                }
            }
        }
        let body = String::from_utf8_lossy(&body[..filled]);
        Failure::of_reply(&Reply { status: head.status, header: &header, body: &body })
    }
}

fn request(
    get: Get<'_>,
    version: Option<&str>,
    place: &Place,
    signatory: Option<&Signatory>,
) -> Result<Request, Box<Failure>> {
    let path = place.path_of(get.key, version);
    let mut headers = vec![("host", place.origin.authority())];
    headers.extend(get.etag.map(|etag| ("if-match", etag.to_owned())));
    if get.range.is_none() {
        headers.push(("x-amz-checksum-mode", "ENABLED".to_owned()));
    }
    if let (Some(signatory), Some(scope)) = (signatory, &place.scope) {
        let signed = signed_headers(signatory, scope, &path, &headers, SystemTime::now());
        headers.extend(signed.map_err(Failure::of_request)?);
    }
    // Not signed: proxies change these. A cache in front of the store asks for ranges of its own, and what came is compared
    // with what was asked for.
    headers.extend(get.range.map(|range| ("range", range.header())));
    headers.extend([("accept", "*/*".to_owned()), ("user-agent", USER_AGENT.to_owned())]);
    Ok(Request { path, headers })
}

fn stored(head: &Head) -> StoredChecksums<'_> {
    StoredChecksums {
        crc64nvme: head.header("x-amz-checksum-crc64nvme"),
        crc32c: head.header("x-amz-checksum-crc32c"),
        crc32: head.header("x-amz-checksum-crc32"),
        sha256: head.header("x-amz-checksum-sha256"),
        sha1: head.header("x-amz-checksum-sha1"),
        checksum_type: head.header("x-amz-checksum-type"),
    }
}

fn too_much() -> Attempt {
    Attempt::wrong_bytes("more bytes arrived than were asked for".to_owned())
}

impl Body<'_> {
    /// Fills `buffer`. Returns less than its length only at the end of the body, and before an
    /// error, which the next call returns; 0 is the end.
    ///
    /// # Errors
    ///
    /// [`Attempt`] where the connection broke, the body ended early, brought too much, or stalled;
    /// what was returned before stays good.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Attempt> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        self.watch.resume(Instant::now());
        let mut filled = 0;
        let result = self.fill(buffer, &mut filled);
        self.watch.pause(Instant::now());
        match result {
            Ok(()) => Ok(filled),
            Err(attempt) if filled == 0 => Err(attempt),
            Err(attempt) => {
                self.failed = Some(attempt);
                Ok(filled)
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8], filled: &mut usize) -> Result<(), Attempt> {
        while *filled < buffer.len() && self.left_bytes > 0 {
            let room = &mut buffer[*filled..];
            let most = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(room.len());
            match self.link.read(&mut room[..most]) {
                Ok(Received::Bytes(count)) => {
                    *filled += count;
                    self.left_bytes -= count as u64;
                    self.watch.arrived(count as u64);
                    if self.left_bytes == 0 && !self.link.ends_here() {
                        return Err(too_much());
                    }
                }
                Ok(Received::Nothing) => {}
                Ok(Received::End) => {
                    return Err(Attempt::broken(format!("the body ended {} bytes early", self.left_bytes)));
                }
                Err(error) => return Err(Attempt::broken(format!("the body broke off: {}", innermost(&error)))),
            }
            self.watch.check(self.left_bytes, Instant::now())?;
        }
        Ok(())
    }
}

/// Watches a body's rate, one window after the other. Time that the caller takes between two reads
/// does not count.
#[derive(Debug)]
struct Watch {
    window: Duration,
    window_ends: Instant,
    window_bytes: u64,
    paused_at: Instant,
}

impl Watch {
    fn new(window: Duration, now: Instant) -> Self {
        Self { window, window_ends: now + window, window_bytes: 0, paused_at: now }
    }

    fn pause(&mut self, now: Instant) {
        self.paused_at = now;
    }

    fn resume(&mut self, now: Instant) {
        self.window_ends += now.saturating_duration_since(self.paused_at);
    }

    fn arrived(&mut self, bytes: u64) {
        self.window_bytes += bytes;
    }

    fn check(&mut self, left_bytes: u64, now: Instant) -> Result<(), Attempt> {
        if now < self.window_ends {
            return Ok(());
        }
        let least = (self.window.as_secs_f64() * LEAST_BYTES_PER_SECOND as f64) as u64;
        if self.window_bytes < least.min(left_bytes) {
            let cause = format!("only {} bytes arrived within {} s", self.window_bytes, self.window.as_secs_f32());
            return Err(Attempt::broken(cause));
        }
        self.window_ends = now + self.window;
        self.window_bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
