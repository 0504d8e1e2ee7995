//! What the kernel holds of a connection: bytes that were sent and that nobody has read.
//!
//! A server's byte counter runs ahead of its client by as much as the sockets between them hold, which may be megabytes.
//! A test that counts what a client has lost has to know how much that is.

use std::fs;
use std::time::{Duration, Instant};

/// How many bytes are under way on this machine from a server on `port` to its clients.
pub fn unread_bytes(port: u16) -> u64 {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(|line| of_connection(line, port)).sum()
}

/// Waits until the clients of a server on `port`, which sends nothing more, have read everything. The kernel has no event
/// for that, so this asks again and again; panics after `limit`.
pub fn wait_until_read(port: u16, limit: Duration) {
    let deadline = Instant::now() + limit;
    while unread_bytes(port) > 0 {
        assert!(Instant::now() < deadline, "{} bytes are unread after {limit:?}", unread_bytes(port));
        std::thread::yield_now();
    }
}

/// A line of the table: number, local and remote address, state, `tx_queue:rx_queue`. The server's end counts with what
/// it has not sent yet, the client's with what nobody has read.
fn of_connection(line: &str, port: u16) -> Option<u64> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote, _state, queues) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let port_of = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let (sent, received) = queues.split_once(':')?;
    let bytes = |queue| u64::from_str_radix(queue, 16).ok();
    // A listening socket counts its connections there.
    match (port_of(local)? == port, port_of(remote)? == port, port_of(remote)?) {
        (_, _, 0) => None,
        (true, _, _) => bytes(sent),
        (_, true, _) => bytes(received),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_was_written_is_unread_until_it_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(unread_bytes(port), 0);
        server.write_all(&[0; 1000]).unwrap();
        let mut buffer = [0; 400];
        client.read_exact(&mut buffer).unwrap();
        assert_eq!(unread_bytes(port), 600);
        client.read_exact(&mut [0; 600]).unwrap();
        wait_until_read(port, Duration::from_secs(10));
    }
}
