//! A stream of bytes to a server: TCP, or TLS over one of either kind.
//!
//! All calls block, and none for longer than [`TICK`]: a read that brings nothing by then ends with
//! `WouldBlock`, so that whoever reads can look at the clock without a timer of its own.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::tls::Tls;

/// How long a read may bring nothing before it returns. Long against the cost of a wake-up, short
/// against every timeout that is looked at in between.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// How long a request may wait to be taken by the system, whose buffers are far larger.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream in either direction.
#[derive(Debug)]
pub(super) enum Stream {
    /// TCP itself.
    Plain(TcpStream),
    /// TLS, over TCP or within the TLS of a proxy.
    Tls(Box<Tls>),
}

impl Stream {
    /// A TCP connection to `address`, if there is one within `timeout`.
    pub(super) fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        // A request is one small write, and the answer waits for it.
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Self::Plain(stream))
    }

    /// The next bytes; 0 is the end, `WouldBlock` says that nothing came for a while.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => loop {
                match stream.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => return result,
                }
            },
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    /// As [`Stream::read`], and waits until `deadline`.
    pub(super) fn read_by(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            match self.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                result => return result,
            }
        }
    }

    /// Sends all of `bytes`.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Tls(tls) => tls.write_all(bytes),
        }
    }
}
