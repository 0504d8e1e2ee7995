//! The services that hand out temporary keys, in small: STS, a container's credentials endpoint (ECS, EKS Pod Identity),
//! and an EC2 instance's metadata.
//!
//! One server speaks all three, for their requests cannot be taken for each other. It hands out the keys that the test
//! gives it, one after the other and the last one again and again, checks what its clients have to prove, and remembers
//! every request. Plain HTTP on 127.0.0.1, which the SDKs allow for the metadata services, or TLS where a test leads
//! Amazon's own host names here.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::listening::Listening;
use crate::pki::ServerIdentity;
use crate::s3_server::AccessKey;

/// The path of the container credentials.
pub const CONTAINER_PATH: &str = "/v1/credentials";

/// Longest body of a request: a form with a token in it.
const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// The token of a metadata session.
const METADATA_TOKEN: &str = "metadata-session-token";

/// The role of the instance.
const INSTANCE_ROLE: &str = "node-role";

/// A temporary key pair.
#[derive(Clone, Debug)]
pub struct TemporaryKeys {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expires_in: Duration,
}

impl TemporaryKeys {
    /// Keys that are good for an hour; the name tells them from others.
    pub fn named(name: &str) -> Self {
        Self {
            access_key_id: format!("ASIA{name}"),
            secret_access_key: format!("secret-of-{name}"),
            session_token: format!("token-of-{name}"),
            expires_in: Duration::from_secs(3600),
        }
    }

    /// The same keys for another time.
    pub fn expiring_in(self, expires_in: Duration) -> Self {
        Self { expires_in, ..self }
    }

    /// The key as the store has to know it.
    pub fn access_key(&self) -> AccessKey {
        AccessKey::new(&self.access_key_id, &self.secret_access_key).session_token(&self.session_token)
    }

    /// What goes into a profile or a Secret: id, secret and token.
    pub fn parts(&self) -> [&str; 3] {
        [&self.access_key_id, &self.secret_access_key, &self.session_token]
    }

    fn expiration(&self) -> String {
        let at = OffsetDateTime::now_utc() + self.expires_in;
        at.format(&Rfc3339).expect("a date in this century")
    }
}

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub struct IdentityRequest {
    /// `GET /latest/...`, without the version.
    pub line: String,
    /// The headers by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// A running server; dropping it ends it.
#[derive(Debug)]
pub struct IdentityServer {
    scheme: &'static str,
    state: Arc<State>,
    listening: Listening,
}

#[derive(Debug)]
struct State {
    tls: Option<Arc<rustls::ServerConfig>>,
    script: Mutex<Script>,
    requests: Mutex<Vec<IdentityRequest>>,
}

#[derive(Debug, Default)]
struct Script {
    keys: Vec<TemporaryKeys>,
    handed_out: usize,
    authorization: Option<String>,
    refusal: Option<(u16, String)>,
    stalls: bool,
}

impl IdentityServer {
    /// Starts a server on a free port of 127.0.0.1 that hands out `keys`.
    pub fn start(keys: impl IntoIterator<Item = TemporaryKeys>) -> Self {
        Self::start_with(keys, None)
    }

    /// The same over TLS.
    pub fn start_tls(keys: impl IntoIterator<Item = TemporaryKeys>, identity: ServerIdentity) -> Self {
        Self::start_with(keys, Some(identity.server_config(rustls::DEFAULT_VERSIONS)))
    }

    fn start_with(keys: impl IntoIterator<Item = TemporaryKeys>, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let script = Script { keys: keys.into_iter().collect(), ..Script::default() };
        let state = Arc::new(State { tls, script: Mutex::new(script), requests: Mutex::default() });
        let serving = state.clone();
        let listening = Listening::start(move |client, _| serving.serve(client));
        Self { scheme, state, listening }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    /// What belongs into `AWS_ENDPOINT_URL_STS` or `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address())
    }

    /// What belongs into `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub fn container_url(&self) -> String {
        format!("{}{CONTAINER_PATH}", self.url())
    }

    /// Demands this `Authorization` header for container credentials.
    pub fn demand_authorization(&self, authorization: &str) {
        lock(&self.state.script).authorization = Some(authorization.to_owned());
    }

    /// Answers every request from now on with this status and body.
    pub fn refuse(&self, status: u16, body: &str) {
        lock(&self.state.script).refusal = Some((status, body.to_owned()));
    }

    /// Answers every request from now on with half of its body, and goes silent.
    pub fn stall(&self) {
        lock(&self.state.script).stalls = true;
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<IdentityRequest> {
        lock(&self.state.requests).clone()
    }

    /// How often keys were handed out.
    pub fn handed_out(&self) -> usize {
        lock(&self.state.script).handed_out
    }
}

/// What is answered.
struct Answer {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain", body: body.into() }
    }
}

impl State {
    fn serve(&self, tcp: TcpStream) -> io::Result<()> {
        match &self.tls {
            None => self.answer(tcp),
            Some(config) => {
                let connection = rustls::ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                self.answer(rustls::StreamOwned::new(connection, tcp))
            }
        }
    }

    fn answer(&self, stream: impl Read + Write) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let request = read_request(&mut stream)?;
        lock(&self.requests).push(request.clone());
        let (answer, stalls) = self.decide(&request);
        let Answer { status, content_type, body } = answer;
        let stream = stream.get_mut();
        let length = body.len();
        write!(stream, "HTTP/1.1 {status} Said\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n")?;
        write!(stream, "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\nconnection: close\r\n\r\n")?;
        if stalls {
            stream.write_all(&body.as_bytes()[..length / 2])?;
            stream.flush()?;
            // Until the client gives up, or the server ends.
            io::copy(stream, &mut io::sink())?;
            return Ok(());
        }
        stream.write_all(body.as_bytes())?;
        stream.flush()
    }

    fn decide(&self, request: &IdentityRequest) -> (Answer, bool) {
        let mut script = lock(&self.script);
        let answer = match &script.refusal {
            Some((status, body)) => {
                let content_type = if body.starts_with('<') { "text/xml" } else { "application/json" };
                Answer { status: *status, content_type, body: body.clone() }
            }
            None => script.answer(request),
        };
        (answer, script.stalls)
    }
}

impl Script {
    fn answer(&mut self, request: &IdentityRequest) -> Answer {
        const METADATA: &str = "/latest/meta-data/iam/security-credentials/";
        let header = |name: &str| request.headers.get(name).map(String::as_str);
        let in_session = || header("x-aws-ec2-metadata-token") == Some(METADATA_TOKEN);
        let (method, path) = request.line.split_once(' ').unwrap_or_default();
        match (method, path) {
            ("POST", "/") if request.body.contains("Action=AssumeRole") => self.sts(&request.body),
            ("GET", CONTAINER_PATH) if header("authorization") != self.authorization.as_deref() => {
                Answer::text(401, "the authorization token is not the pod's")
            }
            ("GET", CONTAINER_PATH) => self.json(),
            ("PUT", "/latest/api/token") => Answer::text(200, METADATA_TOKEN),
            ("GET", path) if path.starts_with(METADATA) && !in_session() => Answer::text(401, "no session"),
            ("GET", METADATA) => Answer::text(200, INSTANCE_ROLE),
            ("GET", path) if path.strip_prefix(METADATA) == Some(INSTANCE_ROLE) => self.json(),
            _ => Answer::text(404, "nothing here"),
        }
    }

    fn next(&mut self) -> TemporaryKeys {
        let keys = self.keys.get(self.handed_out).or(self.keys.last()).expect("keys to hand out").clone();
        self.handed_out += 1;
        keys
    }

    fn json(&mut self) -> Answer {
        let keys = self.next();
        let [id, secret, token] = keys.parts();
        let body = json!({
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": id,
            "SecretAccessKey": secret,
            "Token": token,
            "Expiration": keys.expiration(),
        });
        Answer { status: 200, content_type: "application/json", body: body.to_string() }
    }

    fn sts(&mut self, form: &str) -> Answer {
        let action = if form.contains("WithWebIdentity") { "AssumeRoleWithWebIdentity" } else { "AssumeRole" };
        let keys = self.next();
        let [id, secret, token] = keys.parts();
        let expiration = keys.expiration();
        let body = format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
             <Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
             <SessionToken>{token}</SessionToken><Expiration>{expiration}</Expiration></Credentials>\
             </{action}Result></{action}Response>"
        );
        Answer { status: 200, content_type: "text/xml", body }
    }
}

fn read_request(stream: &mut impl BufRead) -> io::Result<IdentityRequest> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let line = format!("{} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        if stream.read_line(&mut header)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if length > BODY_LIMIT_BYTES {
        return Err(io::Error::other("a body that no client of these services sends"));
    }
    stream.read_exact(&mut body)?;
    Ok(IdentityRequest { line, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}
