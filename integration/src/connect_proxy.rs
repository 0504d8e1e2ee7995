//! An HTTP proxy that leads every host name to one server.
//!
//! It serves two ends: the product's proxy support is tested against it, and with it a test may use host names that
//! resolve nowhere, such as `models.localhost` or AWS's own, because the proxy never looks them up. It tunnels
//! `CONNECT` and forwards requests in absolute form, records what it was asked for, and may want a password.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::listening::{Listening, Streams};

/// No sane request head is longer; one that is ends the connection.
const HEAD_LIMIT_BYTES: usize = 64 * 1024;

/// A running proxy; dropping it ends it and every connection through it.
#[derive(Debug)]
pub struct ConnectProxy {
    state: Arc<State>,
    listening: Listening,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    /// The value of `Proxy-Authorization` without which nobody is led.
    authorization: Option<String>,
    heads: Mutex<Vec<String>>,
}

impl ConnectProxy {
    /// Starts a proxy on a free port of 127.0.0.1 that leads everything to `target`.
    pub fn start(target: SocketAddr) -> Self {
        Self::start_with(target, None)
    }

    /// The same for those who know this user's password; others are answered 407.
    pub fn demanding(target: SocketAddr, user: &str, password: &str) -> Self {
        let encoded = base64_simd::STANDARD.encode_to_string(format!("{user}:{password}"));
        Self::start_with(target, Some(format!("Basic {encoded}")))
    }

    fn start_with(target: SocketAddr, authorization: Option<String>) -> Self {
        let state = Arc::new(State { target, authorization, heads: Mutex::default() });
        let leading = state.clone();
        let listening = Listening::start(move |client, streams| leading.lead(client, streams));
        Self { state, listening }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    /// What belongs into `HTTPS_PROXY` or `HTTP_PROXY`: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The head of every request so far: one `CONNECT` per tunnel, or the first forwarded request of a connection.
    pub fn heads(&self) -> Vec<String> {
        lock(&self.state.heads).clone()
    }

    /// The targets of those requests: `HOST:PORT` of a tunnel, the whole URL of a forwarded request.
    pub fn targets(&self) -> Vec<String> {
        let target = |head: &String| head.split_whitespace().nth(1).map(str::to_owned);
        self.heads().iter().filter_map(target).collect()
    }
}

impl State {
    fn lead(&self, mut client: TcpStream, streams: &Streams) -> io::Result<()> {
        let Some((head, rest)) = read_head(&mut client)? else { return Ok(()) };
        let tunnel = head.starts_with("CONNECT ");
        lock(&self.heads).push(head.clone());
        if !self.admits(&head) {
            let challenge =
                "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"proxy\"\r\n";
            return client.write_all(format!("{challenge}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
        }
        let mut server = TcpStream::connect(self.target)?;
        streams.add(&server)?;
        if tunnel {
            client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n")?;
        } else {
            server.write_all(head.as_bytes())?;
        }
        server.write_all(&rest)?;
        let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
        let up = std::thread::spawn(move || {
            let _ = io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut server, &mut client);
        let _ = client.shutdown(Shutdown::Both);
        let _ = up.join();
        Ok(())
    }
}

impl State {
    fn admits(&self, head: &str) -> bool {
        let Some(wanted) = &self.authorization else { return true };
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization")).any(|(_, value)| value == wanted)
    }
}

/// The head of a request up to its blank line, and what came behind it already.
fn read_head(client: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), rest)));
        }
        let count = client.read(&mut buffer)?;
        if count == 0 || bytes.len() > HEAD_LIMIT_BYTES {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..count]);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3_server::{Object, S3Server};

    #[test]
    fn both_kinds_of_request_reach_the_server() {
        let server = S3Server::builder().plain().public_bucket("models").base_domain("s3.example.org").start();
        server.put("models", "a", Object::text("alpha"));
        let proxy = ConnectProxy::start(server.address());
        let address = proxy.url().trim_start_matches("http://").to_owned();
        let exchange = |requests: &[&str]| {
            let mut stream = TcpStream::connect(&address).unwrap();
            let mut answer = String::new();
            for request in requests {
                stream.write_all(request.as_bytes()).unwrap();
            }
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let request = "GET /a HTTP/1.1\r\nhost: models.s3.example.org\r\nconnection: close\r\n\r\n";
        let tunneled = exchange(&["CONNECT models.s3.example.org:443 HTTP/1.1\r\n\r\n", request]);
        assert!(tunneled.ends_with("\r\n\r\nalpha"), "{tunneled}");
        let forwarded = exchange(&[&request.replace("/a ", "http://models.s3.example.org/a ")]);
        assert!(forwarded.ends_with("\r\n\r\nalpha"), "{forwarded}");
        assert_eq!(proxy.targets(), ["models.s3.example.org:443", "http://models.s3.example.org/a"]);
    }
}
