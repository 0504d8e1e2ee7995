use std::{
    io::{Read, Write},
    net::TcpListener,
};

use hyper_util::client::proxy::matcher::Matcher;

use super::*;
use crate::{
    env::Environment,
    http::peer::{Peer, read_head},
    settings::Settings,
    trust_store::TrustStore,
};

/// A client that no variable of this machine leads through a proxy, and that asks no certificate.
fn http(variables: &[(&str, &str)]) -> Http {
    let own = [("STORAGE_URI", "s3://models/m"), ("S3_VERIFY_SSL", "0"), ("S3_CONNECT_TIMEOUT", "1")];
    let own = own.into_iter().chain([("S3_READ_TIMEOUT", "1"), ("AWS_ENDPOINT_URL", "https://localhost")]);
    let settings = Settings::read(&Environment::from_iter(own.chain(variables.iter().copied())), &[]).unwrap();
    let mut http = Http::new(TrustStore::read(&settings.trust).unwrap(), &settings.limits).unwrap();
    http.proxies = Matcher::builder().build().into();
    http
}

fn request(origin: &Origin) -> Request {
    Request { path: "/a%20b?versionId=1".to_owned(), headers: vec![("host", origin.authority())] }
}

/// Reads to the end of the body.
fn read_all(link: &mut Link) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut buffer = [0; 7];
    loop {
        match link.read(&mut buffer)? {
            Received::Bytes(count) => body.extend_from_slice(&buffer[..count]),
            Received::Nothing => {}
            Received::End => return Ok(body),
        }
    }
}

fn ask(link: &mut Link, origin: &Origin) -> (u16, io::Result<Vec<u8>>) {
    let head = link.ask(origin, &request(origin)).unwrap();
    (head.status, read_all(link))
}

fn answer(lines: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}").into_bytes()
}

fn alpha() -> Vec<u8> {
    answer("Content-Length: 10\r\n", "alpha-beta")
}

#[test]
fn every_kind_of_body_is_read_to_its_end_and_the_connection_kept_where_it_can_be() {
    let chunked = answer("Transfer-Encoding: chunked\r\n", "4\r\nalph\r\n6;x=y\r\na-beta\r\n0\r\ntrailer: 1\r\n\r\n");
    let early =
        [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n".to_vec(), alpha()].concat();
    let peer = Peer::plain(vec![vec![alpha(), chunked, early, answer("", "alpha-beta")]]);
    let origin = peer.origin();
    let mut link = http(&[]).link();
    for _ in 0..4 {
        let (status, body) = ask(&mut link, &origin);
        assert_eq!((status, body.unwrap().as_slice()), (200, b"alpha-beta".as_slice()));
    }
    let requests = peer.requests();
    assert_eq!(requests.len(), 4, "all of them on the one connection that the peer takes");
    assert_eq!(requests[0], format!("GET /a%20b?versionId=1 HTTP/1.1\r\nhost: {}\r\n\r\n", origin.authority()));
}

#[test]
fn a_connection_that_may_not_be_kept_is_not() {
    let closing = answer("Content-Length: 1\r\nConnection: close\r\n", "a");
    let old = b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na".to_vec();
    let beyond = answer("Content-Length: 1\r\n", "ab");
    // None of these peers waits for a second request on its connection.
    let peer = Peer::plain(vec![vec![closing], vec![old], vec![beyond], vec![alpha()]]);
    let (origin, mut link) = (peer.origin(), http(&[]).link());
    for expected in [&b"a"[..], b"a", b"a", b"alpha-beta"] {
        assert_eq!(ask(&mut link, &origin).1.unwrap(), expected);
    }
    assert_eq!(peer.requests().len(), 4);
}

#[test]
fn a_kept_connection_that_was_closed_is_replaced_without_a_word() {
    let peer = Peer::plain(vec![vec![alpha()], vec![alpha()]]);
    let (origin, mut link) = (peer.origin(), http(&[]).link());
    for _ in 0..2 {
        assert_eq!(ask(&mut link, &origin).1.unwrap(), b"alpha-beta");
    }
    assert_eq!(peer.requests().len(), 2);
}

#[test]
fn a_fresh_connection_that_is_closed_is_an_error() {
    let peer = Peer::plain(vec![vec![Vec::new()], vec![alpha()]]);
    let (origin, mut link) = (peer.origin(), http(&[]).link());
    let error = link.ask(&origin, &request(&origin)).unwrap_err().to_string();
    let port = peer.port;
    assert_eq!(error, format!("the connection to 127.0.0.1:{port} broke: connection closed before message completed"));
    assert_eq!(ask(&mut link, &origin).1.unwrap(), b"alpha-beta");
    peer.requests();
}

#[test]
fn a_body_that_was_not_read_costs_the_connection() {
    let peer = Peer::plain(vec![vec![alpha()], vec![alpha()]]);
    let (origin, mut link) = (peer.origin(), http(&[]).link());
    link.ask(&origin, &request(&origin)).unwrap();
    assert_eq!(ask(&mut link, &origin).1.unwrap(), b"alpha-beta");
    assert_eq!(peer.requests().len(), 2);
}

#[test]
fn a_body_that_ends_early_is_an_error_after_what_arrived() {
    for (lines, body) in [
        ("Content-Length: 20\r\n", "alpha-beta"),
        ("Transfer-Encoding: chunked\r\n", "14\r\nalpha-beta"),
        ("Transfer-Encoding: chunked\r\n", "a\r\nalpha-beta"),
        ("Transfer-Encoding: chunked\r\n", "a\r\nalpha-beta\r\n0\r\n"),
    ] {
        let peer = Peer::plain(vec![vec![answer(lines, body)]]);
        let (origin, mut link) = (peer.origin(), http(&[]).link());
        link.ask(&origin, &request(&origin)).unwrap();
        let mut buffer = [0; 10];
        let mut filled = 0;
        while filled < buffer.len() {
            if let Received::Bytes(count) = link.read(&mut buffer[filled..]).unwrap() {
                filled += count;
            }
        }
        assert_eq!(&buffer, b"alpha-beta");
        let error = read_all(&mut link).unwrap_err();
        assert_eq!(error.to_string(), "end of file before message length reached", "{body:?}");
        peer.requests();
    }
}

#[test]
fn chunks_that_are_none_are_an_error() {
    let peer = Peer::plain(vec![vec![answer("Transfer-Encoding: chunked\r\n", "zz\r\n")]]);
    let (origin, mut link) = (peer.origin(), http(&[]).link());
    let (_, body) = ask(&mut link, &origin);
    assert_eq!(innermost(&body.unwrap_err()), "the body's chunks are malformed: a chunk has no size");
    peer.requests();
}

#[test]
fn a_body_in_chunks_tells_at_last_whether_it_ends() {
    for (rest, ends) in [("0\r\n\r\n", true), ("1\r\n!\r\n0\r\n\r\n", false)] {
        let body = format!("a\r\nalpha-beta\r\n{rest}");
        let peer = Peer::plain(vec![vec![answer("Transfer-Encoding: chunked\r\n", &body)]]);
        let (origin, mut link) = (peer.origin(), http(&[]).link());
        link.ask(&origin, &request(&origin)).unwrap();
        let mut filled = 0;
        while filled < 10 {
            if let Received::Bytes(count) = link.read(&mut [0; 10][filled..]).unwrap() {
                filled += count;
            }
        }
        assert_eq!(link.ends_here(), ends, "{rest:?}");
        peer.requests();
    }
}

#[test]
fn what_is_not_an_answer_is_named() {
    let long = answer(&format!("x: {}\r\n", "y".repeat(MAX_HEAD_BYTES)), "");
    for (bytes, cause) in [
        (b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), "the answer is not HTTP: invalid HTTP version"),
        (long, "the head of the answer is longer than 32 KiB"),
        (answer("Content-Length: many\r\n", ""), "the answer's Content-Length is no length: \"many\""),
        (b"HTTP/1.1 200 OK\r\nContent-".to_vec(), "connection closed before message completed"),
    ] {
        let peer = Peer::plain(vec![vec![bytes]]);
        let (origin, mut link) = (peer.origin(), http(&[]).link());
        let error = link.ask(&origin, &request(&origin)).unwrap_err().to_string();
        assert_eq!(error, format!("the connection to {} broke: {cause}", origin.host_and_port()));
        peer.requests();
    }
}

#[test]
fn an_answer_that_does_not_begin_is_not_waited_for_longer_than_was_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let origin = Origin::of(&format!("http://127.0.0.1:{port}").parse().unwrap()).unwrap();
    let error = http(&[]).link().ask(&origin, &request(&origin)).unwrap_err().to_string();
    assert_eq!(error, format!("no answer from 127.0.0.1:{port} within 2 s"));
}

#[test]
fn a_port_without_a_listener_is_named_with_the_systems_words() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let origin = Origin::of(&format!("http://localhost:{port}").parse().unwrap()).unwrap();
    let error = http(&[]).link().ask(&origin, &request(&origin)).unwrap_err().to_string();
    let expected = format!("no connection to localhost:{port}: Connection refused (os error 111)");
    assert!(error.starts_with(&expected), "{error}");
}

mod tls {
    use std::sync::Arc;

    use rustls::{HandshakeKind, ServerConfig, SupportedProtocolVersion, pki_types::PrivateKeyDer, version};

    use super::*;

    pub(super) type OverTls<S> = rustls::StreamOwned<rustls::ServerConnection, S>;

    pub(super) fn over<S: Read + Write>(below: S, config: &Arc<ServerConfig>) -> OverTls<S> {
        rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::clone(config)).unwrap(), below)
    }

    pub(super) fn identity(versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap().into()
    }

    fn origin(port: u16) -> Origin {
        Origin::of(&format!("https://localhost:{port}").parse().unwrap()).unwrap()
    }

    #[test]
    fn brings_every_byte_whatever_the_size_of_the_buffer() {
        // Longer than the receive buffer, and no multiple of a record.
        let body: String = (0..300_001_u32).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        for version in [&version::TLS12, &version::TLS13] {
            let config = identity(&[version]);
            let answer = answer(&format!("Content-Length: {}\r\n", body.len()), &body);
            let peer = Peer::start(vec![vec![answer; 3]], move |stream| over(stream, &config));
            let (origin, mut link) = (origin(peer.port), http(&[]).link());
            for buffer_bytes in [1000, 16 * 1024, 1 << 20] {
                link.ask(&origin, &request(&origin)).unwrap();
                let mut buffer = vec![0; buffer_bytes];
                let mut received = Vec::new();
                loop {
                    match link.read(&mut buffer).unwrap() {
                        Received::Bytes(count) => received.extend_from_slice(&buffer[..count]),
                        Received::Nothing => {}
                        Received::End => break,
                    }
                }
                assert!(received == body.as_bytes(), "{version:?} {buffer_bytes}");
            }
            assert_eq!(peer.requests().len(), 3, "all on one connection");
        }
    }

    #[test]
    fn is_resumed_by_the_next_connection() {
        let config = identity(&[&version::TLS13]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = origin(listener.local_addr().unwrap().port());
        let serving = std::thread::spawn(move || {
            std::array::from_fn::<_, 2, _>(|_| {
                let mut stream = over(listener.accept().unwrap().0, &config);
                read_head(&mut stream);
                stream.write_all(&alpha()).unwrap();
                stream.conn.handshake_kind()
            })
        });
        let client = http(&[]);
        for _ in 0..2 {
            assert_eq!(ask(&mut client.link(), &origin).1.unwrap(), b"alpha-beta");
        }
        assert_eq!(serving.join().unwrap()[1], Some(HandshakeKind::Resumed));
    }

    #[test]
    fn with_a_stranger_is_refused_with_an_explanation() {
        let config = identity(&[&version::TLS13]);
        let peer = Peer::start(vec![vec![alpha()]], move |stream| over(stream, &config));
        let origin = origin(peer.port);
        let error = http(&[("S3_VERIFY_SSL", "1")]).link().ask(&origin, &request(&origin)).unwrap_err().to_string();
        let expected = format!("TLS with localhost:{} refused: the server presented ", peer.port);
        assert!(error.starts_with(&expected), "{error}");
        peer.requests();
    }

    #[test]
    fn that_cannot_be_agreed_on_is_explained() {
        let old = identity(&[&version::TLS12]);
        let mut unspeakable = ServerConfig::clone(&old);
        unspeakable.alpn_protocols = vec![b"h2".to_vec()];
        let unspeakable = Arc::new(unspeakable);
        let peer = Peer::start(vec![vec![alpha()]], move |stream| over(stream, &unspeakable));
        let origin = origin(peer.port);
        let error = http(&[]).link().ask(&origin, &request(&origin)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("TLS with localhost:{} failed: ", peer.port)), "{error}");
        peer.requests();
    }

    #[test]
    fn on_a_port_that_speaks_plain_http_or_hangs_up_is_explained() {
        let answers = [
            (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "the server speaks plain HTTP on this port"),
            (b"", "tls handshake eof"),
        ];
        for (bytes, words) in answers {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let origin = origin(listener.local_addr().unwrap().port());
            let serving = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                // What the client says first is read, or closing would reset the connection.
                let mut hello = [0; 5];
                stream.read_exact(&mut hello).unwrap();
                let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
                stream.read_exact(&mut vec![0; length]).unwrap();
                stream.write_all(bytes).unwrap();
            });
            let error = http(&[]).link().ask(&origin, &request(&origin)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            serving.join().unwrap();
        }
    }

    #[test]
    fn that_is_cut_off_is_no_end_of_a_body() {
        let config = identity(&[&version::TLS13]);
        // The stream is dropped without close_notify, as if somebody had cut it.
        let peer = Peer::start(vec![vec![answer("", "alpha-beta")]], move |stream| over(stream, &config));
        let (origin, mut link) = (origin(peer.port), http(&[]).link());
        let (_, body) = ask(&mut link, &origin);
        assert_eq!(body.unwrap_err().to_string(), "end of file without TLS close_notify");
        peer.requests();
    }
}

mod a_proxy {
    use std::sync::Arc;

    use super::{
        tls::{OverTls, identity, over},
        *,
    };

    fn http_by(proxy: &str) -> Http {
        let mut http = http(&[]);
        http.proxies = Matcher::builder().all(proxy.to_owned()).build().into();
        http
    }

    /// Leads one `CONNECT` to what follows on the same stream, which is TLS.
    fn led<S: Read + Write>(mut stream: S, config: &Arc<rustls::ServerConfig>) -> OverTls<S> {
        let head = read_head(&mut stream);
        assert!(head.starts_with("CONNECT store.example:443 HTTP/1.1\r\nhost: store.example:443\r\n"), "{head}");
        assert!(head.contains("proxy-authorization: Basic bWU6aHVudGVyMg==\r\n"), "{head}");
        stream.write_all(b"HTTP/1.1 200 Connection Established\r\nVia: a\r\n\r\n").unwrap();
        stream.flush().unwrap();
        over(stream, config)
    }

    fn store(scheme: &str) -> Origin {
        Origin::of(&format!("{scheme}://store.example").parse().unwrap()).unwrap()
    }

    #[test]
    fn for_plain_http_gets_whole_urls_and_the_password() {
        let peer = Peer::plain(vec![vec![alpha(), alpha()]]);
        let mut link = http_by(&format!("http://me:hunter2@127.0.0.1:{}", peer.port)).link();
        for _ in 0..2 {
            assert_eq!(ask(&mut link, &store("http")).1.unwrap(), b"alpha-beta");
        }
        for request in peer.requests() {
            let expected = "GET http://store.example/a%20b?versionId=1 HTTP/1.1\r\nhost: store.example\r\nproxy-authorization: Basic bWU6aHVudGVyMg==\r\n\r\n";
            assert_eq!(request, expected);
        }
    }

    #[test]
    fn leads_https_through_a_tunnel() {
        let config = identity(rustls::ALL_VERSIONS);
        let peer = Peer::start(vec![vec![alpha(), alpha()]], move |stream| led(stream, &config));
        let mut link = http_by(&format!("http://me:hunter2@127.0.0.1:{}", peer.port)).link();
        for _ in 0..2 {
            assert_eq!(ask(&mut link, &store("https")).1.unwrap(), b"alpha-beta");
        }
        let requests = peer.requests();
        assert_eq!(requests.len(), 2);
        assert!(!requests[0].contains("proxy-authorization"), "the store is not told: {}", requests[0]);
    }

    #[test]
    fn that_is_reached_by_tls_itself_leads_tls_within_tls() {
        let config = identity(rustls::ALL_VERSIONS);
        let peer = Peer::start(vec![vec![alpha(), alpha()]], move |stream| led(over(stream, &config), &config));
        let mut link = http_by(&format!("https://me:hunter2@localhost:{}", peer.port)).link();
        for _ in 0..2 {
            assert_eq!(ask(&mut link, &store("https")).1.unwrap(), b"alpha-beta");
        }
        peer.requests();
    }

    #[test]
    fn that_refuses_is_named_without_its_password() {
        for (status, cause) in [
            ("407 Proxy Authentication Required", "proxy authorization required"),
            ("403 Forbidden", "the proxy answered 403 to CONNECT"),
        ] {
            let peer = Peer::plain(vec![vec![format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()]]);
            let proxy = format!("http://me:hunter2@127.0.0.1:{}", peer.port);
            let store = store("https");
            let error = http_by(&proxy).link().ask(&store, &request(&store)).unwrap_err().to_string();
            let expected =
                format!("no connection to store.example:443 through proxy http://127.0.0.1:{}/: {cause}", peer.port);
            assert!(error.starts_with(&expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
            peer.requests();
        }
    }
}
