use std::sync::{Arc, Mutex};

use aws_credential_types::{
    Credentials as Keys,
    provider::{ProvideCredentials, SharedCredentialsProvider, future::ProvideCredentials as Provided},
};

use super::*;
use crate::{
    env::Environment,
    http::{Http, peer::Peer},
    ranges::ByteRange,
    s3::{credentials::Renewing, signature::Keyring},
    settings::Settings,
    trust_store::TrustStore,
};

/// A store, and one thread's way to it.
struct Scene {
    peer: Peer,
    reader: Reader,
    _runtime: tokio::runtime::Runtime,
}

impl Scene {
    /// A store that answers by rote, on connections that it closes after their last answer.
    fn of(connections: Vec<Vec<Vec<u8>>>) -> Self {
        Self::with(connections, |_| {})
    }

    fn with(connections: Vec<Vec<Vec<u8>>>, change: impl FnOnce(&mut super::super::Shared)) -> Self {
        let peer = Peer::plain(connections);
        let endpoint = format!("http://127.0.0.1:{}", peer.port);
        let variables = [
            ("STORAGE_URI", "s3://models/m"),
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_ACCESS_KEY_ID", "first"),
            ("AWS_SECRET_ACCESS_KEY", "hush"),
            ("S3_READ_TIMEOUT", "1"),
        ];
        let settings = Settings::read(&Environment::from_iter(variables), &[]).unwrap();
        let http = Http::new(TrustStore::of_plain_http(&settings.trust), &settings.limits).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let connected = S3::connect(&settings.connection, &settings.limits, http, || unreachable!());
        let mut s3 = runtime.block_on(connected).unwrap();
        change(Arc::get_mut(&mut s3.shared).unwrap());
        Self { peer, reader: s3.reader(runtime.handle().clone()), _runtime: runtime }
    }

    fn get(&mut self) -> Result<Vec<u8>, Attempt> {
        self.get_as(GET)
    }

    fn get_as(&mut self, get: Get<'_>) -> Result<Vec<u8>, Attempt> {
        let mut body = self.reader.get(get)?;
        let mut bytes = Vec::new();
        let mut buffer = [0; 7];
        loop {
            match body.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

const GET: Get<'_> = Get { bucket: "models", key: "m/a b", etag: None, version: None, size_bytes: 10, range: None };

fn answer(status: &str, lines: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{lines}\r\n{body}", body.len()).into_bytes()
}

fn alpha() -> Vec<u8> {
    answer("200 OK", "", "alpha-beta")
}

fn refusal(status: &str, code: &str, inner: &str) -> Vec<u8> {
    answer(status, "", &format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code>{inner}</Error>"))
}

#[test]
fn bytes_come_on_one_connection_with_signed_requests() {
    let mut scene = Scene::of(vec![vec![alpha(), alpha()]]);
    for _ in 0..2 {
        assert_eq!(scene.get().unwrap(), b"alpha-beta");
    }
    for request in scene.peer.requests() {
        assert!(request.starts_with("GET /models/m/a%20b HTTP/1.1\r\nhost: 127.0.0.1:"), "{request}");
        for line in ["x-amz-checksum-mode: ENABLED\r\n", "Credential=first/", "user-agent: storage-initializer/"] {
            assert!(request.contains(line), "{request}");
        }
    }
}

#[test]
fn a_range_of_a_state_is_asked_for_and_nothing_else_is_taken() {
    let etag = "\"1\"";
    let get = Get { etag: Some(etag), version: Some("v+1"), range: ByteRange::new(2, 3), ..GET };
    let good = "ETag: \"1\"\r\nContent-Range: bytes 2-4/10\r\n";
    let mut scene = Scene::of(vec![vec![answer("206 Partial Content", good, "pha")]]);
    assert_eq!(scene.get_as(get).unwrap(), b"pha");
    let request = &scene.peer.requests()[0];
    for part in ["GET /models/m/a%20b?versionId=v%2B1 HTTP", "range: bytes=2-4\r\n", "if-match: \"1\"\r\n"] {
        assert!(request.contains(part), "{request}");
    }
    assert!(!request.contains("x-amz-checksum-mode"), "{request}");
    // A cache may ask for other ranges, but for no other state.
    assert!(request.contains("SignedHeaders=host;if-match;x-amz-content-sha256;x-amz-date,"), "{request}");

    for (lines, body, finding) in [
        ("ETag: \"2\"\r\nContent-Range: bytes 2-4/10\r\n", "pha", "the object has ETag \"2\" now, and had \"1\""),
        ("ETag: \"1\"\r\n", "pha", "the server ignored the Range header (2-4) and sent the whole object"),
        ("Content-Range: bytes 3-5/10\r\n", "hab", "the server sent bytes 3-5/10 where bytes 2-4/10 were asked for"),
        ("Content-Range: bytes 2-4/11\r\n", "pha", "the server sent bytes 2-4/11 where bytes 2-4/10 were asked for"),
        ("Content-Range: bytes 2-4/10\r\n", "phab", "more bytes arrived than were asked for"),
        ("Content-Range: bytes 2-4/10\r\n", "ph", "the body ended 1 bytes early"),
    ] {
        let mut scene = Scene::of(vec![vec![answer("206 Partial Content", lines, body)]]);
        assert_eq!(scene.get_as(get).unwrap_err().to_string(), finding);
    }
}

#[test]
fn an_object_of_another_size_has_changed() {
    let mut scene = Scene::of(vec![vec![answer("200 OK", "", "alpha")]]);
    let attempt = scene.get().unwrap_err();
    assert!(attempt.is_changed());
    assert_eq!(attempt.to_string(), "the object has 5 bytes now, and had 10");
}

#[test]
fn a_body_in_chunks_is_measured_as_it_comes() {
    for (chunks, result) in [
        ("a\r\nalpha-beta\r\n0\r\n\r\n", Ok(b"alpha-beta".to_vec())),
        ("5\r\nalpha\r\n0\r\n\r\n", Err("the body ended 5 bytes early")),
        ("b\r\nalpha-beta!\r\n0\r\n\r\n", Err("more bytes arrived than were asked for")),
        ("a\r\nalpha-beta\r\n1\r\n!\r\n0\r\n\r\n", Err("more bytes arrived than were asked for")),
    ] {
        let reply = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}").into_bytes();
        let mut scene = Scene::of(vec![vec![reply]]);
        let got = scene.get().map_err(|attempt| attempt.to_string());
        assert_eq!(got, result.map_err(str::to_owned), "{chunks:?}");
    }
}

#[test]
fn what_arrived_before_a_break_is_delivered_first() {
    let broken = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nalpha".to_vec();
    let mut scene = Scene::of(vec![vec![broken], vec![alpha()]]);
    let mut body = scene.reader.get(GET).unwrap();
    let mut buffer = [0; 100];
    assert_eq!(body.read(&mut buffer).unwrap(), 5);
    let attempt = body.read(&mut buffer).unwrap_err();
    assert_eq!(attempt.to_string(), "the body broke off: end of file before message length reached");
    assert_eq!(scene.get().unwrap(), b"alpha-beta", "the next request has a fresh connection");
}

#[test]
fn the_checksum_of_a_whole_object_is_told_and_none_of_a_range() {
    let lines = "x-amz-checksum-crc64nvme: AAAAAAAAAAA=\r\nx-amz-checksum-type: FULL_OBJECT\r\n";
    let range = format!("{lines}Content-Range: bytes 0-9/10\r\n");
    let mut scene = Scene::of(vec![vec![
        answer("200 OK", lines, "alpha-beta"),
        answer("206 Partial Content", &range, "alpha-beta"),
    ]]);
    assert!(matches!(scene.reader.get(GET).unwrap().checksum, Verifiability::FullObject(_)));
    scene.get().unwrap_err();
    let mut scene = Scene::of(vec![vec![answer("206 Partial Content", &range, "alpha-beta")]]);
    let get = Get { range: ByteRange::new(0, 10), ..GET };
    assert!(matches!(scene.reader.get(get).unwrap().checksum, Verifiability::Absent));
}

#[test]
fn a_refusal_is_told_in_the_stores_words() {
    let inner = "<Message>a &lt;b&gt; &amp;&#x26;&#38; &quot;c&apos; &nbsp;&amp</Message><Resource>/m</Resource>";
    let body = format!("<Error><Code>AccessDenied</Code>{inner}</Error>");
    let head = "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\nx-amz-request-id: 42\r\n\r\n";
    let denied = format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes();
    let mut scene = Scene::of(vec![vec![denied, alpha()]]);
    let attempt = scene.get().unwrap_err();
    assert_eq!(attempt.to_string(), r#"403 AccessDenied "a <b> &&& \"c' &nbsp;&amp" (request id 42)"#);
    assert_eq!(scene.get().unwrap(), b"alpha-beta", "on the same connection");
    assert_eq!(scene.peer.requests().len(), 2);
}

#[test]
fn a_store_that_throttles_is_told_from_one_that_fails() {
    for (status, code, is_throttled) in [
        ("503 Service Unavailable", "SlowDown", true),
        ("429 Too Many Requests", "", true),
        ("503 Service Unavailable", "ServiceUnavailable", false),
        ("404 Not Found", "NoSuchKey", false),
    ] {
        let mut scene = Scene::of(vec![vec![refusal(status, code, "")]]);
        assert_eq!(scene.get().unwrap_err().is_throttled(), is_throttled, "{status} {code}");
    }
}

#[test]
fn a_refusal_that_breaks_off_is_an_answer_that_broke_off() {
    let broken = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n<Error>".to_vec();
    let mut scene = Scene::of(vec![vec![broken]]);
    let finding = "403 the answer broke off: end of file before message length reached";
    assert_eq!(scene.get().unwrap_err().to_string(), finding);
}

#[test]
fn a_page_that_does_not_end_is_read_so_far_and_no_further() {
    let mut page = b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>".to_vec();
    page.resize(page.len() + 2 * MAX_ERROR_BYTES, b'x');
    let mut scene = Scene::of(vec![vec![page]]);
    assert_eq!(scene.get().unwrap_err().to_string(), "502");
}

#[test]
fn versions_that_are_denied_are_left_out_from_there_on() {
    let mut scene = Scene::of(vec![vec![refusal("403 Forbidden", "AccessDenied", ""), alpha(), alpha()]]);
    let get = Get { version: Some("v1"), ..GET };
    for _ in 0..2 {
        assert_eq!(scene.get_as(get).unwrap(), b"alpha-beta");
    }
    let asked: Vec<bool> = scene.peer.requests().iter().map(|request| request.contains("versionId")).collect();
    assert_eq!(asked, [true, false, false]);
}

#[test]
fn a_region_is_learned_once_and_the_request_repeated() {
    let wrong = |region: &str| {
        refusal("400 Bad Request", "AuthorizationHeaderMalformed", &format!("<Region>{region}</Region>"))
    };
    let mut scene = Scene::of(vec![vec![wrong("eu-west-3"), alpha(), wrong("eu-west-1")]]);
    assert_eq!(scene.get().unwrap(), b"alpha-beta");
    assert!(scene.get().unwrap_err().to_string().contains("AuthorizationHeaderMalformed"));
    let requests = scene.peer.requests();
    assert!(requests[0].contains("/us-east-1/s3/aws4_request"), "{}", requests[0]);
    assert!(requests[1].contains("/eu-west-3/s3/aws4_request"), "{}", requests[1]);
}

/// New keys at every question.
#[derive(Debug, Default)]
struct New(Mutex<u32>);

impl ProvideCredentials for New {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        let mut asked = self.0.lock().unwrap();
        *asked += 1;
        Provided::ready(Ok(Keys::new(format!("id{asked}"), "hush", Some("token".to_owned()), None, "test")))
    }
}

#[test]
fn expired_keys_are_replaced_and_the_request_repeated_once() {
    for code in ["ExpiredToken", "ExpiredTokenException"] {
        let expired = || refusal("400 Bad Request", code, "");
        let renewing = Arc::new(Renewing::new(SharedCredentialsProvider::new(New::default())));
        let provider: Arc<dyn ProvideCredentials> = Arc::<Renewing>::clone(&renewing);
        let keyring = Keyring::new(SharedCredentialsProvider::new(provider), Some(renewing));
        let connections = vec![vec![expired(), alpha(), expired(), expired()]];
        let mut scene = Scene::with(connections, |shared| shared.keyring = Some(keyring));
        assert_eq!(scene.get().unwrap(), b"alpha-beta");
        assert_eq!(scene.get().unwrap_err().to_string(), format!("400 {code}"));
        let requests = scene.peer.requests();
        for (request, id) in requests.iter().zip(["id1", "id2", "id2", "id3"]) {
            assert!(request.contains(&format!("Credential={id}/")), "{request}");
            assert!(request.contains("x-amz-security-token: token\r\n"), "{request}");
        }
        assert_eq!(requests.len(), 4);
    }
}

#[test]
fn expired_keys_without_others_are_refused() {
    let mut scene = Scene::of(vec![vec![refusal("400 Bad Request", "ExpiredToken", "")]]);
    assert_eq!(scene.get().unwrap_err().to_string(), "400 ExpiredToken");
    assert_eq!(scene.peer.requests().len(), 1);
}

#[test]
fn a_body_is_given_up_after_a_window_without_enough_bytes() {
    let (window, now) = (Duration::from_secs(10), Instant::now());
    let at = |seconds| now + Duration::from_secs(seconds);
    let mut watch = Watch::new(window, now);
    assert!(watch.check(1 << 20, at(9)).is_ok());
    watch.arrived(10 * 1024);
    assert!(watch.check(1 << 20, at(10)).is_ok());
    watch.arrived(10 * 1024 - 1);
    assert!(watch.check(1 << 20, at(19)).is_ok(), "the second window is not over");
    let stalled = watch.check(1 << 20, at(20)).unwrap_err();
    assert_eq!(stalled.to_string(), "only 10239 bytes arrived within 10 s");
}

#[test]
fn the_end_of_a_body_may_be_small() {
    let (window, now) = (Duration::from_secs(10), Instant::now());
    let mut watch = Watch::new(window, now);
    watch.arrived(100);
    assert!(watch.check(100, now + window).is_ok());
    assert!(watch.check(100, now + 2 * window).is_err());
}

#[test]
fn the_callers_own_time_is_not_the_stores() {
    let (window, now) = (Duration::from_secs(10), Instant::now());
    let at = |seconds| now + Duration::from_secs(seconds);
    let mut watch = Watch::new(window, now);
    watch.pause(at(1));
    watch.resume(at(60));
    assert!(watch.check(1 << 20, at(68)).is_ok());
    assert!(watch.check(1 << 20, at(69)).is_err());
}
