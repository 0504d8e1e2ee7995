//! The way to a server: name, address, proxy, TCP, TLS.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use http::Uri;
use hyper_util::client::proxy::matcher::Intercept;
use rustls::pki_types::ServerName;

use super::{
    Http,
    error::{HttpError, PROXY_WANTS_PASSWORD, find_tls_error},
    head::{Head, MAX_HEAD_BYTES},
    is_metadata_service,
    stream::Stream,
    tls::Tls,
};
use crate::cause::innermost;

/// Scheme, host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    is_tls: bool,
    /// As a URL has it, with the brackets of an IPv6 address.
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of a URL; `None` where it is not one of http or https with a host.
    pub fn of(url: &Uri) -> Option<Self> {
        let is_tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return None,
        };
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Some(Self { is_tls, host: url.host()?.to_owned(), port })
    }

    /// The value of the `Host` header, without the scheme's own port.
    pub fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            _ => self.host_and_port(),
        }
    }

    /// Host and port, for messages and for `CONNECT`.
    pub(super) fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The URL without a path.
    pub fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }
}

/// A connection that was just made.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) stream: Stream,
    /// What a proxy wants with each request; `None` where it sees none.
    pub(super) forwarding: Option<Forwarding>,
}

/// A proxy that forwards plain HTTP wants whole URLs, and perhaps to know who asks.
#[derive(Clone, Debug)]
pub(super) struct Forwarding {
    /// In front of each path.
    pub(super) url: String,
    pub(super) authorization: Option<Box<[u8]>>,
}

impl Http {
    /// Connects to `origin` within the connect timeout.
    pub(super) fn dial(&self, origin: &Origin) -> Result<Dialed, HttpError> {
        let deadline = Instant::now() + self.connect_timeout;
        let Some(proxy) = self.proxy_to(origin) else {
            let stream = self.connect(origin, deadline).map_err(|error| self.unconnected(origin, None, error))?;
            let stream = if origin.is_tls { self.secure(stream, origin, None, deadline)? } else { stream };
            return Ok(Dialed { stream, forwarding: None });
        };
        let name = proxy.uri().to_string();
        let unconnected = |error| self.unconnected(origin, Some(&name), error);
        // A proxy by another scheme than https is spoken to in plain HTTP, as reqwest does.
        let proxy_origin = Origin {
            is_tls: proxy.uri().scheme_str() == Some("https"),
            host: proxy.uri().host().unwrap_or_default().to_owned(),
            port: proxy.uri().port_u16().unwrap_or(if proxy.uri().scheme_str() == Some("https") { 443 } else { 80 }),
        };
        let mut stream = self.connect(&proxy_origin, deadline).map_err(unconnected)?;
        if proxy_origin.is_tls {
            stream = self.secure(stream, &proxy_origin, Some(&name), deadline)?;
        }
        if !origin.is_tls {
            let authorization = proxy.basic_auth().map(|value| value.as_bytes().into());
            return Ok(Dialed { stream, forwarding: Some(Forwarding { url: origin.url(), authorization }) });
        }
        tunnel(&mut stream, origin, &proxy, deadline).map_err(Failed::Io).map_err(unconnected)?;
        let stream = self.secure(stream, origin, Some(&name), deadline)?;
        Ok(Dialed { stream, forwarding: None })
    }

    fn proxy_to(&self, origin: &Origin) -> Option<Intercept> {
        if is_metadata_service(Some(&origin.host)) {
            return None;
        }
        self.proxies.intercept(&origin.url().parse().ok()?)
    }

    /// TCP to the first address that answers. Each gets its share of what is left of the time.
    fn connect(&self, origin: &Origin, deadline: Instant) -> Result<Stream, Failed> {
        let addresses = resolve(&origin.host, origin.port, deadline)?;
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for (tried, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            if share.is_zero() {
                break;
            }
            match Stream::connect(*address, share) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(Failed::Io(last))
    }

    fn secure(
        &self,
        stream: Stream,
        origin: &Origin,
        proxy: Option<&str>,
        deadline: Instant,
    ) -> Result<Stream, HttpError> {
        let name = ServerName::try_from(origin.host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| HttpError::Unsendable { host: origin.host_and_port(), cause: error.to_string() })?;
        Tls::handshake(stream, Arc::clone(&self.tls), name, deadline)
            .map(|tls| Stream::Tls(Box::new(tls)))
            .map_err(|error| self.unconnected(origin, proxy, Failed::Io(error)))
    }

    fn unconnected(&self, origin: &Origin, proxy: Option<&str>, failed: Failed) -> HttpError {
        let host = origin.host_and_port();
        match failed {
            Failed::NoAddress(cause) => HttpError::of_resolving(host, proxy.map(str::to_owned), cause),
            Failed::Io(error) => match find_tls_error(&error) {
                Some(tls) => HttpError::of_tls(&self.trust_store, host, tls),
                None if is_timeout(&error) => HttpError::Timeout { host, after: self.connect_timeout },
                None => HttpError::of_connecting(host, proxy.map(str::to_owned), innermost(&error)),
            },
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
enum Failed {
    NoAddress(String),
    Io(io::Error),
}

/// A write that runs into its timeout calls it `WouldBlock`.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// What a name resolves to, in random order: many connections then reach many of the store's front
/// ends.
fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, Failed> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    // The system's resolver knows no deadline of ours, so a thread waits for it. One that comes too
    // late ends by itself, within the resolver's own bounds.
    let (sender, receiver) = mpsc::sync_channel(1);
    let name = host.to_owned();
    let lookup = move || {
        let addresses = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // Nobody may be waiting any more.
        let _ = sender.send(addresses);
    };
    thread::Builder::new().name("resolver".to_owned()).spawn(lookup).map_err(Failed::Io)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let mut addresses = match receiver.recv_timeout(left) {
        Ok(Ok(addresses)) if addresses.is_empty() => return Err(Failed::NoAddress("it has no address".to_owned())),
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(Failed::NoAddress(error.to_string())),
        Err(_) => return Err(Failed::Io(io::ErrorKind::TimedOut.into())),
    };
    fastrand::shuffle(&mut addresses);
    Ok(addresses)
}

/// Asks a proxy to lead the connection on to `origin` (RFC 9110, section 9.3.6).
fn tunnel(stream: &mut Stream, origin: &Origin, proxy: &Intercept, deadline: Instant) -> io::Result<()> {
    let target = origin.host_and_port();
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n").into_bytes();
    if let Some(authorization) = proxy.basic_auth() {
        request.extend_from_slice(b"proxy-authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read_by(&mut buffer, deadline)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected end of file"));
        }
        answer.extend_from_slice(&buffer[..count]);
        match Head::parse(&answer).map_err(io::Error::other)? {
            // The server behind the proxy speaks only when it is spoken to.
            Some((head, length)) if head.status / 100 == 2 && length == answer.len() => return Ok(()),
            Some((head, _)) if head.status / 100 == 2 => {
                return Err(io::Error::other("the proxy sent a body with its answer to CONNECT"));
            }
            Some((head, _)) if head.status == 407 => return Err(io::Error::other(PROXY_WANTS_PASSWORD)),
            Some((head, _)) => {
                return Err(io::Error::other(format!("the proxy answered {} to CONNECT", head.status)));
            }
            None if answer.len() > MAX_HEAD_BYTES => {
                return Err(io::Error::other("the head of the proxy's answer is longer than 32 KiB"));
            }
            None => {}
        }
    }
}
