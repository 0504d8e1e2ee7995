//! One connection: a blocking loop that reads a request, and writes its answer in large pieces.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    ops::Range,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use rustls::{ServerConnection, StreamOwned};

use super::{
    Shared,
    answer::{Body, answer},
    request::Request,
};
use crate::bench::cases::Pace;

/// How much goes through TLS at once: sixteen records, one system call.
const WRITE_BYTES: usize = 256 * 1024;

/// How much a paced connection sends before it looks at the clock: 1.5 ms at 90 MB/s.
const PACED_BYTES: usize = 128 * 1024;

/// Up to here a body goes with its head in one write.
const SMALL_BYTES: usize = 64 * 1024;

/// No client here sends more.
const HEAD_LIMIT_BYTES: usize = 64 * 1024;

/// Serves a connection until the client ends it.
pub(super) fn serve(tcp: TcpStream, shared: &Shared) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut stream = match &shared.tls {
        None => Stream::Plain(tcp),
        Some(config) => {
            let mut connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            connection.set_buffer_limit(None);
            Stream::Tls(Box::new(StreamOwned::new(connection, tcp)))
        }
    };
    let mut received = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut received)? {
        shared.request_was_read();
        if let Some(pace) = shared.pace {
            sleep(pace.first_byte);
        }
        let (head, body) = answer(&request, shared);
        match body {
            Body::None => stream.send(head.as_bytes(), &[])?,
            Body::Document(text) => stream.send(head.as_bytes(), text.as_bytes())?,
            Body::Content(range) => {
                shared.body_begins();
                let sent = send_content(&mut stream, head.as_bytes(), range, shared);
                shared.body_ends();
                sent?;
            }
        }
        if request.close {
            return stream.end();
        }
    }
    Ok(())
}

/// The next request; `None` where the client has ended the connection. What came after it stays in `received`.
fn read_request(stream: &mut Stream, received: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = received.drain(..end + 4).collect();
            let request = Request::parse(&String::from_utf8_lossy(&head));
            return request.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
        if received.len() > HEAD_LIMIT_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(None);
        }
        received.extend_from_slice(&piece[..count]);
    }
}

fn send_content(stream: &mut Stream, head: &[u8], range: Range<usize>, shared: &Shared) -> io::Result<()> {
    if range.len() <= SMALL_BYTES {
        return stream.send(head, &shared.content[range]);
    }
    stream.send(head, &[])?;
    let begun = Instant::now();
    let piece = if shared.pace.is_some() { PACED_BYTES } else { WRITE_BYTES };
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + piece);
        match stream {
            // The kernel sends from the page cache itself, in as many pieces as it likes.
            Stream::Plain(tcp) => {
                let end = if shared.pace.is_some() { end } else { range.end };
                let mut from = at as u64;
                let sent = rustix::fs::sendfile(tcp, &shared.file, Some(&mut from), end - at)?;
                if sent == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                at += sent;
            }
            Stream::Tls(tls) => {
                tls.write_all(&shared.content[at..end])?;
                at = end;
            }
        }
        if let Some(pace) = shared.pace {
            sleep(too_early(pace, at - range.start, begun.elapsed()));
        }
    }
    Ok(())
}

/// How long to wait after so many bytes of an answer in so much time. Time that was lost is caught up, as the bytes on a
/// long way would have arrived meanwhile; an answer never has credit from the one before.
fn too_early(pace: Pace, sent: usize, elapsed: Duration) -> Duration {
    Duration::from_secs_f64(sent as f64 / pace.bytes_per_second as f64).saturating_sub(elapsed)
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(into),
            Self::Tls(tls) => tls.read(into),
        }
    }

    /// Writes both in one go.
    fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.write_all(&[head, body].concat()),
            Self::Tls(tls) => {
                tls.conn.writer().write_all(head)?;
                tls.conn.writer().write_all(body)?;
                tls.flush()
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => {
                tls.conn.send_close_notify();
                tls.flush()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paced_answer_waits_for_its_time_and_not_longer() {
        let pace = Pace { first_byte: Duration::ZERO, bytes_per_second: 1_000_000 };
        assert_eq!(too_early(pace, 500_000, Duration::from_millis(100)), Duration::from_millis(400));
        assert_eq!(too_early(pace, 500_000, Duration::from_millis(600)), Duration::ZERO);
    }
}
