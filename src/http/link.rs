//! One thread's link to a server: a request, the head of its answer, its body, and the next request
//! on the same connection.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    Http,
    dial::{Dialed, Forwarding, Origin, is_timeout},
    error::{HttpError, find_tls_error},
    framing::{Framing, FramingError},
    head::{Head, MAX_HEAD_BYTES},
    stream::Stream,
};
use crate::cause::innermost;

/// A GET without a body.
#[derive(Clone, Debug)]
pub struct Request {
    /// Path and query, percent-encoded; sent exactly so.
    pub path: String,
    /// All headers, `Host` among them. Values are without line ends.
    pub headers: Vec<(&'static str, String)>,
}

/// What reading a body brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing, for a tenth of a second.
    Nothing,
    /// The body has ended.
    End,
}

/// Keeps its connection from one request to the next.
#[derive(Debug)]
pub struct Link {
    http: Http,
    connection: Option<Connection>,
}

/// A connection, and where on it we are.
#[derive(Debug)]
struct Connection {
    origin: Origin,
    stream: Stream,
    forwarding: Option<Forwarding>,
    /// What was received with a head, or with a line of a chunked body, from `start` to `end`.
    received: Box<[u8]>,
    start: usize,
    end: usize,
    /// What is to come of the last answer's body.
    body: Framing,
    keeps_alive: bool,
    answers: u64,
}

impl Http {
    /// A link that is not connected yet.
    pub fn link(&self) -> Link {
        Link { http: self.clone(), connection: None }
    }
}

impl Link {
    /// Sends a request and waits for the head of its answer. A body that was not read to its end
    /// costs the connection.
    ///
    /// # Errors
    ///
    /// [`HttpError`], with the same words as the asynchronous client's.
    pub fn ask(&mut self, origin: &Origin, request: &Request) -> Result<Head, HttpError> {
        let started = Instant::now();
        if let Some(kept) = self.connection.take().filter(|kept| kept.is_free() && kept.origin == *origin) {
            match self.ask_on(kept, request, started) {
                // The server closed it while nobody asked, and has not seen this request.
                Err(Unanswered { was_closed: true, .. }) => {}
                result => return result.map_err(|unanswered| unanswered.error),
            }
        }
        let connection = Connection::new(origin.clone(), self.http.dial(origin)?);
        self.ask_on(connection, request, started).map_err(|unanswered| unanswered.error)
    }

    /// Fills `buffer` with what comes next of the body, but waits only for its first byte.
    ///
    /// # Errors
    ///
    /// Where the connection broke, or ended before the body did.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let Some(connection) = &mut self.connection else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        connection.read(buffer)
    }

    /// Whether the body ends here, as far as can be told within a tick. A chunked body says so at
    /// last, and then the connection can be kept.
    pub fn ends_here(&mut self) -> bool {
        self.connection.as_mut().is_none_or(Connection::ends_here)
    }

    /// How many bytes the body has from here on, where the head told.
    pub fn announced_bytes(&self) -> Option<u64> {
        match self.connection.as_ref()?.body {
            Framing::Length(bytes) => Some(bytes),
            Framing::Chunked(_) | Framing::UntilClose => None,
        }
    }

    fn ask_on(&mut self, mut connection: Connection, request: &Request, started: Instant) -> Result<Head, Unanswered> {
        let timeout = self.http.connect_timeout + self.http.first_byte_timeout;
        match connection.ask(request, started + timeout) {
            Ok(head) => {
                self.connection = Some(connection);
                Ok(head)
            }
            Err(error) => {
                let was_closed = connection.answers > 0 && connection.start == connection.end && is_closed(&error);
                Err(Unanswered { error: self.broken(&connection.origin, &error, timeout), was_closed })
            }
        }
    }

    fn broken(&self, origin: &Origin, error: &io::Error, timeout: Duration) -> HttpError {
        let host = origin.host_and_port();
        match find_tls_error(error) {
            Some(tls) => HttpError::of_tls(&self.http.trust_store, host, tls),
            None if is_timeout(error) => HttpError::Timeout { host, after: timeout },
            None => HttpError::Broken { host, cause: innermost(error) },
        }
    }
}

struct Unanswered {
    error: HttpError,
    /// Closed before a byte of the answer came.
    was_closed: bool,
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    )
}

impl Connection {
    fn new(origin: Origin, dialed: Dialed) -> Self {
        Self {
            origin,
            stream: dialed.stream,
            forwarding: dialed.forwarding,
            received: vec![0; MAX_HEAD_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            body: Framing::Length(0),
            keeps_alive: true,
            answers: 0,
        }
    }

    /// Whether another request may be sent: the last answer is read, and nothing came after it.
    fn is_free(&self) -> bool {
        self.keeps_alive && self.body.is_done() && self.start == self.end
    }

    fn ask(&mut self, request: &Request, deadline: Instant) -> io::Result<Head> {
        self.stream.write_all(&self.written(request))?;
        let head = loop {
            let head = self.head(deadline)?;
            // 103 Early Hints and the like: the answer follows.
            if head.status >= 200 {
                break head;
            }
        };
        self.answers += 1;
        self.body = Framing::of(&head).map_err(malformed)?;
        self.keeps_alive =
            !head.lists("connection", "close") && (head.persists || head.lists("connection", "keep-alive"));
        Ok(head)
    }

    fn written(&self, request: &Request) -> Vec<u8> {
        let url = self.forwarding.as_ref().map_or("", |forwarding| &forwarding.url);
        let mut bytes = Vec::with_capacity(1024);
        for text in ["GET ", url, &request.path, " HTTP/1.1\r\n"] {
            bytes.extend_from_slice(text.as_bytes());
        }
        let mut header = |name: &str, value: &[u8]| {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        };
        for (name, value) in &request.headers {
            header(name, value.as_bytes());
        }
        if let Some(authorization) = self.forwarding.as_ref().and_then(|forwarding| forwarding.authorization.as_deref())
        {
            header("proxy-authorization", authorization);
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    fn head(&mut self, deadline: Instant) -> io::Result<Head> {
        loop {
            match Head::parse(&self.received[self.start..self.end]) {
                Ok(Some((head, length))) => {
                    self.start += length;
                    return Ok(head);
                }
                Ok(None) => {}
                Err(error) => return Err(io::Error::other(format!("the answer is not HTTP: {error}"))),
            }
            self.received.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.end == self.received.len() {
                return Err(io::Error::other("the head of the answer is longer than 32 KiB"));
            }
            let count = self.stream.read_by(&mut self.received[self.end..], deadline)?;
            if count == 0 {
                let cause = "connection closed before message completed";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cause));
            }
            self.end += count;
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            if self.body.is_done() {
                return Ok(Received::End);
            }
            let next = self.body.next_bytes();
            if next > 0 {
                let most = usize::try_from(next).unwrap_or(usize::MAX).min(buffer.len());
                return self.read_bytes(&mut buffer[..most]);
            }
            if let Some(nothing) = self.read_framing()? {
                return Ok(nothing);
            }
        }
    }

    fn ends_here(&mut self) -> bool {
        match self.body {
            Framing::Length(left) => left == 0,
            Framing::UntilClose => self.start == self.end,
            Framing::Chunked(_) => {
                while !self.body.is_done() && self.body.next_bytes() == 0 {
                    // A break after the last byte costs the connection and nothing else.
                    if !matches!(self.read_framing(), Ok(None)) {
                        return true;
                    }
                }
                self.body.is_done()
            }
        }
    }

    /// Bytes of the body: those that came with the head, else from the stream straight into `buffer`.
    fn read_bytes(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let there = &self.received[self.start..self.end];
        let count = if there.is_empty() {
            match self.stream.read(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(error) => return Err(error),
            }
        } else {
            let count = there.len().min(buffer.len());
            buffer[..count].copy_from_slice(&there[..count]);
            self.start += count;
            count
        };
        if count > 0 {
            self.body.take(count as u64);
            return Ok(Received::Bytes(count));
        }
        self.keeps_alive = false;
        match self.body {
            Framing::UntilClose => Ok(Received::End),
            Framing::Length(_) | Framing::Chunked(_) => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "end of file before message length reached"))
            }
        }
    }

    /// The lines between the chunks of a body; `Some` where nothing came.
    fn read_framing(&mut self) -> io::Result<Option<Received>> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            match self.stream.read(&mut self.received) {
                Ok(0) => {
                    let cause = "end of file before message length reached";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cause));
                }
                Ok(count) => self.end = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(Received::Nothing)),
                Err(error) => return Err(error),
            }
        }
        if let Framing::Chunked(chunks) = &mut self.body {
            self.start += chunks.feed(&self.received[self.start..self.end]).map_err(malformed)?;
        }
        Ok(None)
    }
}

fn malformed(error: FramingError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
