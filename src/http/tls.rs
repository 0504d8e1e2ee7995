//! TLS over a [`Stream`], by rustls' unbuffered API.
//!
//! rustls' own buffers ask the socket for 4 KiB at a time. Here the socket fills one buffer of
//! [`INCOMING_BYTES`], records are decrypted where they lie, and their content goes to the caller's
//! buffer.

use std::{fmt, io, sync::Arc, time::Instant};

use rustls::{
    ClientConfig,
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus},
};

use super::stream::Stream;

/// What one read asks the socket for. Below 64 KiB system calls cost, above 256 KiB the caches do.
const INCOMING_BYTES: usize = 128 * 1024;

/// A TLS session and the stream that carries it.
pub(super) struct Tls {
    below: Stream,
    session: UnbufferedClientConnection,
    /// Records as they came, from `start` to `end`.
    incoming: Box<[u8]>,
    start: usize,
    end: usize,
    /// Records to send.
    outgoing: Vec<u8>,
    /// What a record held beyond the caller's buffer, from `taken` on.
    left_over: Vec<u8>,
    taken: usize,
    is_ended: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("below", &self.below).finish_non_exhaustive()
    }
}

/// What the session wants next.
enum Step {
    /// Bytes from below.
    Read,
    /// Another look at what is there.
    Again,
    /// Some plaintext was delivered.
    Delivered(usize),
    /// Nothing any more.
    End,
}

impl Tls {
    /// Agrees on TLS with `name` by `deadline`.
    pub(super) fn handshake(
        below: Stream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        deadline: Instant,
    ) -> io::Result<Self> {
        let session = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut tls = Self {
            below,
            session,
            incoming: vec![0; INCOMING_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            outgoing: Vec::new(),
            left_over: Vec::new(),
            taken: 0,
            is_ended: false,
        };
        loop {
            match tls.step(&mut [])? {
                Step::Again => {}
                Step::Read if !tls.session.is_handshaking() => return Ok(tls),
                Step::Read => {
                    if tls.receive(|below, buffer| below.read_by(buffer, deadline))? == 0 {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof"));
                    }
                }
                // A server's first words belong to the answer, which has not been asked for yet.
                Step::Delivered(_) => return Ok(tls),
                Step::End => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")),
            }
        }
    }

    /// As [`Stream::read`]. An end without `close_notify` is an error: somebody may have cut it.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.taken < self.left_over.len() {
            let count = buffer.len().min(self.left_over.len() - self.taken);
            buffer[..count].copy_from_slice(&self.left_over[self.taken..self.taken + count]);
            self.taken += count;
            return Ok(count);
        }
        let mut filled = 0;
        loop {
            // Records that have arrived are delivered together; only the first is waited for.
            match self.step(&mut buffer[filled..])? {
                Step::Again => {}
                Step::Delivered(count) => {
                    filled += count;
                    if filled == buffer.len() {
                        return Ok(filled);
                    }
                }
                Step::Read if filled > 0 => return Ok(filled),
                Step::Read => {
                    if self.receive(Stream::read)? == 0 {
                        let cause = "end of file without TLS close_notify";
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cause));
                    }
                }
                Step::End => return Ok(filled),
            }
        }
    }

    /// As [`Stream::write_all`].
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        // What has arrived comes first: a request to update the keys, or the end.
        while !matches!(self.step(&mut [])?, Step::Read) {
            if self.is_ended {
                let cause = "the server has closed the connection";
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, cause));
            }
        }
        let UnbufferedStatus { discard, state } =
            self.session.process_tls_records(&mut self.incoming[self.start..self.end]);
        let ConnectionState::WriteTraffic(mut traffic) = state.map_err(io::Error::other)? else {
            return Err(io::Error::other("TLS is not ready to send"));
        };
        let count = grown(&mut self.outgoing, |outgoing| traffic.encrypt(bytes, outgoing))?;
        self.start += discard;
        self.below.write_all(&self.outgoing[..count])
    }

    /// One step of the session, which delivers into `buffer` at most one record.
    fn step(&mut self, buffer: &mut [u8]) -> io::Result<Step> {
        if self.is_ended {
            return Ok(Step::End);
        }
        let UnbufferedStatus { discard, state } =
            self.session.process_tls_records(&mut self.incoming[self.start..self.end]);
        let step = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut filled = 0;
                if self.taken == self.left_over.len() {
                    self.left_over.clear();
                    self.taken = 0;
                }
                while let Some(record) = traffic.next_record() {
                    let payload = record.map_err(io::Error::other)?.payload;
                    let (now, later) = payload.split_at(payload.len().min(buffer.len() - filled));
                    buffer[filled..filled + now.len()].copy_from_slice(now);
                    filled += now.len();
                    self.left_over.extend_from_slice(later);
                }
                Step::Delivered(filled)
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let count = grown(&mut self.outgoing, |outgoing| data.encode(outgoing))?;
                self.below.write_all(&self.outgoing[..count])?;
                Step::Again
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Step::Again
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Step::Read,
            // Early data is for servers; a state that does not exist yet ends the connection.
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed | _) => {
                self.is_ended = true;
                Step::End
            }
            Err(error) => {
                self.send_alert();
                return Err(io::Error::other(error));
            }
        };
        self.start += discard;
        Ok(step)
    }

    /// Tells the server why; the reason is reported to the user in any case.
    fn send_alert(&mut self) {
        self.is_ended = true;
        if let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } =
            self.session.process_tls_records(&mut [])
            && let Ok(count) = grown(&mut self.outgoing, |outgoing| data.encode(outgoing))
        {
            // The server may be gone already.
            let _ = self.below.write_all(&self.outgoing[..count]);
        }
    }

    /// Receives what the buffer has room for behind the record that has come in part.
    fn receive(&mut self, read: impl FnOnce(&mut Stream, &mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.incoming.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        // Never empty: a record has 16 KiB, and a flight of handshake messages 64 KiB at most.
        let count = read(&mut self.below, &mut self.incoming[self.end..])?;
        self.end += count;
        Ok(count)
    }
}

/// Writes to `outgoing`, which is made as large as it has to be.
fn grown<E: Outgoing>(
    outgoing: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> io::Result<usize> {
    match write(outgoing).map_err(Outgoing::required_bytes) {
        Ok(count) => Ok(count),
        Err(Err(error)) => Err(error),
        Err(Ok(required_bytes)) => {
            outgoing.resize(required_bytes, 0);
            write(outgoing).map_err(|_| io::Error::other("rustls asks for more room than it said"))
        }
    }
}

/// The two errors of writing records have one good outcome: more room.
trait Outgoing {
    fn required_bytes(self) -> Result<usize, io::Error>;
}

impl Outgoing for EncodeError {
    fn required_bytes(self) -> Result<usize, io::Error> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Ok(required_size),
            Self::AlreadyEncoded => Err(io::Error::other(self)),
        }
    }
}

impl Outgoing for EncryptError {
    fn required_bytes(self) -> Result<usize, io::Error> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Ok(required_size),
            Self::EncryptExhausted => Err(io::Error::other(self)),
        }
    }
}
