//! Why an S3 request failed, in the terms that a user can act on.
//!
//! The store's own code, message and request id are kept; what is added is who asked whom for what,
//! whether another attempt could help, and what to change.

use std::{fmt, time::Duration};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::credentials::Renewing;
use crate::{
    cause::innermost,
    http::{HttpError, http_error, is_broken_body},
    retry::Kind as RetryKind,
};

/// What the store, or the way to it, refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No such bucket.
    NoSuchBucket,
    /// No such object.
    NoSuchKey,
    /// The credentials do not allow it, or are not valid.
    Denied,
    /// There are no credentials to sign with.
    NoCredentials,
    /// The server's certificate or protocol was refused.
    TlsRefused,
    /// The object is no longer the one that was planned.
    Changed,
    /// No answer: name, connection or time.
    Unreachable,
    /// The store answers that it cannot.
    Unavailable,
    /// The bucket lives in another region, or behind another endpoint.
    Misaddressed,
    /// What answers does not speak S3, or does not take this request.
    NotS3,
    /// Other bytes than those that were asked for.
    WrongBytes,
}

/// A request that failed for good.
#[derive(Debug)]
pub struct S3Error {
    /// `ListObjectsV2`, `HeadObject` or `GetObject`.
    pub(super) operation: &'static str,
    /// The bucket, with the key or prefix: an `s3://` URI.
    pub(super) target: Box<str>,
    /// Who was asked.
    pub(super) endpoint: Box<str>,
    /// Who asked: where the credentials come from.
    pub(super) identity: Box<str>,
    /// How often it was tried.
    pub(super) attempts: u32,
    /// How long it was tried.
    pub(super) elapsed: Duration,
    /// How it failed the last time.
    pub(super) failure: Box<Failure>,
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {}", self.operation, self.target, self.endpoint)?;
        if self.attempts > 1 {
            write!(f, " failed {} times in {:.0} s", self.attempts, self.elapsed.as_secs_f64())?;
        } else {
            f.write_str(" failed")?;
        }
        if self.failure.has_words() {
            write!(f, ": {}", self.failure)?;
        }
        match self.advice() {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for S3Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failure.source.as_ref().map(|source| source as _)
    }
}

impl S3Error {
    /// What was refused.
    pub fn kind(&self) -> Kind {
        self.failure.kind
    }

    /// What to change, where the cause below does not say it already.
    fn advice(&self) -> Option<String> {
        let code = self.failure.code_by_amazon();
        let identity = &self.identity;
        match self.kind() {
            Kind::Denied => Some(match code {
                "InvalidAccessKeyId" => format!("the store does not know this access key id ({identity}); a temporary one needs its session_token as well"),
                "SignatureDoesNotMatch" => format!("the secret access key is not the one of this access key id ({identity})"),
                "RequestTimeTooSkewed" => "the clock of this node and the store's differ by more than 15 minutes".to_owned(),
                "ExpiredToken" | "ExpiredTokenException" => format!("the session token has expired ({identity})"),
                "InvalidToken" => format!("the session token is not valid ({identity})"),
                "InvalidObjectState" => "the object is archived (Glacier); restore it first".to_owned(),
                _ => format!("asked as: {identity}; it needs s3:GetObject on the objects, and s3:ListBucket on the bucket for a prefix"),
            }),
            Kind::NoCredentials => Some("set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set \"anonymous\": \"true\" for a public bucket".to_owned()),
            Kind::NoSuchBucket => Some("check the bucket's name and the endpoint".to_owned()),
            Kind::Changed => Some("the object was replaced while it was read; start again when nobody writes to it".to_owned()),
            Kind::Misaddressed => Some("set \"region\" (or env AWS_REGION) to the bucket's region, or \"endpoint_url\" to the endpoint that serves it".to_owned()),
            Kind::NotS3 => Some("is this the S3 API's address, and not a console's or a load balancer's default page?".to_owned()),
            Kind::WrongBytes => Some("does a proxy or a cache between this pod and the store not pass on Range requests?".to_owned()),
            Kind::NoSuchKey | Kind::TlsRefused | Kind::Unreachable | Kind::Unavailable => None,
        }
    }
}

/// One failed attempt, before it is known whether it was the last.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) status: Option<u16>,
    pub(super) code: Option<String>,
    /// The store's words.
    pub(super) message: Option<String>,
    /// What is wrong with an answer, in this program's words.
    pub(super) finding: Option<String>,
    pub(super) request_id: Option<String>,
    /// The region that the store says the bucket is in.
    pub(super) region: Option<String>,
    /// Whether and how to try again.
    pub(super) retry: Option<RetryKind>,
    pub(super) retry_after: Option<Duration>,
    pub(super) source: Option<HttpError>,
}

/// The store's own words; what happened below S3 is the source.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.map(|status| status.to_string());
        let message = self.message.as_ref().map(|message| format!("{message:?}"));
        let id = self.request_id.as_ref().map(|id| format!("(request id {id})"));
        let words: Vec<&str> =
            [&status, &self.code, &message, &self.finding, &id].into_iter().flatten().map(String::as_str).collect();
        f.write_str(&words.join(" "))
    }
}

/// What a proxy that forwards plain HTTP means by a 407.
const PROXY_WANTS_PASSWORD: &str =
    "the proxy wants a user and a password; write http://USER:PASSWORD@HOST:PORT into HTTP_PROXY";

impl Failure {
    /// Reads everything that an SDK error knows.
    pub(super) fn read<E>(error: &SdkError<E, HttpResponse>) -> Box<Self>
    where
        E: ProvideErrorMetadata + RequestId + std::error::Error + Send + Sync + 'static,
    {
        let mut failure = Self::new(Kind::NotS3, None);
        failure.source = http_error(error).cloned();
        if let Some(response) = error.raw_response() {
            failure.read_response(response);
        }
        if let SdkError::ServiceError(service) = error {
            let metadata = service.err().meta();
            failure.code = metadata.code().map(str::to_owned);
            failure.message = metadata.message().map(str::to_owned);
            failure.request_id = service.err().request_id().map(str::to_owned).or(failure.request_id);
        }
        if failure.status.is_some() && is_broken_body(error) {
            failure.break_off(&innermost(error));
            return Box::new(failure);
        }
        // Before the wire the SDK's words are all there is, and for an answer that it cannot read.
        let is_unreadable = failure.code.is_none() && failure.status.is_some_and(|status| status < 300);
        if failure.source.is_none() && (failure.status.is_none() || is_unreadable) {
            failure.finding = Some(innermost(error));
        }
        failure.judge();
        Box::new(failure)
    }

    /// No answer at all.
    pub(super) fn of_http(error: HttpError) -> Box<Self> {
        let mut failure = Self { source: Some(error), ..Self::new(Kind::Unreachable, None) };
        failure.judge();
        Box::new(failure)
    }

    /// An answer that is no success.
    pub(super) fn of_reply(reply: &Reply<'_>) -> Box<Self> {
        let mut failure = Self::new(Kind::NotS3, None);
        failure.read_reply(reply);
        failure.code = element(reply.body, "Code");
        failure.message = element(reply.body, "Message");
        failure.judge();
        Box::new(failure)
    }

    /// An answer that is no success, and that did not arrive whole.
    pub(super) fn of_broken_reply(reply: &Reply<'_>, cause: &str) -> Box<Self> {
        let mut failure = Self::new(Kind::Unreachable, None);
        failure.read_reply(reply);
        failure.break_off(cause);
        Box::new(failure)
    }

    /// Nobody can sign any more.
    pub(super) fn of_credentials(error: &CredentialsError) -> Box<Self> {
        let mut failure = Self { source: http_error(error).cloned(), ..Self::new(Kind::NoCredentials, None) };
        if failure.source.is_none() {
            failure.finding = Some(innermost(error));
        }
        failure.judge();
        Box::new(failure)
    }

    /// A request that cannot be made.
    pub(super) fn of_request(cause: String) -> Box<Self> {
        Self::of_answer(Kind::NotS3, None, cause)
    }

    /// A body that broke off, or an answer that is not what was asked for.
    pub(super) fn of_answer(kind: Kind, retry: Option<RetryKind>, finding: String) -> Box<Self> {
        Box::new(Self { finding: Some(finding), ..Self::new(kind, retry) })
    }

    fn new(kind: Kind, retry: Option<RetryKind>) -> Self {
        Self {
            kind,
            status: None,
            code: None,
            message: None,
            finding: None,
            request_id: None,
            region: None,
            retry,
            retry_after: None,
            source: None,
        }
    }

    /// Whether the keys' time is over, or may be, so that others are asked for and may help.
    pub(super) fn may_be_of_keys(&self, keys: &Renewing, issue: u64) -> bool {
        match (self.status, self.code.as_deref()) {
            (_, Some("ExpiredToken" | "ExpiredTokenException")) => {
                keys.reject(issue);
                true
            }
            (Some(400), None) => keys.suspect(issue),
            _ => false,
        }
    }

    /// The code, in Amazon's terms: Garage denies everything by one code, and says why in words.
    fn code_by_amazon(&self) -> &str {
        let message = self.message.as_deref().unwrap_or_default();
        match self.code.as_deref().unwrap_or_default() {
            "AccessDenied" if message.ends_with("Invalid signature") => "SignatureDoesNotMatch",
            "AccessDenied" if message.contains("No such key: ") => "InvalidAccessKeyId",
            code => code,
        }
    }

    fn has_words(&self) -> bool {
        self.status.is_some() || self.code.is_some() || self.message.is_some() || self.finding.is_some()
    }

    /// Whether the same request may succeed with fresh credentials.
    pub(super) fn is_of_expired_keys(&self) -> bool {
        matches!(self.code.as_deref(), Some("ExpiredToken" | "ExpiredTokenException"))
    }

    fn break_off(&mut self, cause: &str) {
        self.kind = Kind::Unreachable;
        self.retry = Some(RetryKind::Transient);
        self.finding = Some(format!("the answer broke off: {cause}"));
    }

    fn read_response(&mut self, response: &HttpResponse) {
        let body = response.body().bytes().and_then(|body| std::str::from_utf8(body).ok());
        self.read_reply(&Reply {
            status: response.status().as_u16(),
            header: &|name| response.headers().get(name),
            body: body.unwrap_or_default(),
        });
    }

    fn read_reply(&mut self, reply: &Reply<'_>) {
        let header = |name| (reply.header)(name).map(str::to_owned);
        self.status = Some(reply.status);
        self.request_id = header("x-amzn-requestid").or_else(|| header("x-amz-request-id"));
        self.retry_after =
            header("retry-after").and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        // AuthorizationHeaderMalformed names the region in its body, PermanentRedirect an endpoint.
        self.region = header("x-amz-bucket-region").or_else(|| element(reply.body, "Region"));
    }

    fn judge(&mut self) {
        if let Some(source) = &self.source {
            let permanent = source.is_permanent();
            self.kind = match source {
                HttpError::CertificateRefused { .. } | HttpError::Handshake { .. } => Kind::TlsRefused,
                HttpError::Unsendable { .. } => Kind::NotS3,
                HttpError::Dns { .. }
                | HttpError::Connect { .. }
                | HttpError::ConnectByProxy { .. }
                | HttpError::ProxyPassword { .. }
                | HttpError::Timeout { .. }
                | HttpError::Broken { .. } => Kind::Unreachable,
            };
            self.retry = (!permanent).then_some(RetryKind::Transient);
            return;
        }
        let code = self.code.as_deref().unwrap_or_default();
        (self.kind, self.retry) = match (self.status, code) {
            (_, "NoSuchBucket") => (Kind::NoSuchBucket, None),
            (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException")
            | (Some(301 | 307 | 308), _) => (Kind::Misaddressed, None),
            // A throttled or slow store says so with a code as well as with a status.
            (Some(429), _) | (_, "SlowDown" | "ThrottlingException" | "TooManyRequests" | "RequestLimitExceeded") => {
                (Kind::Unavailable, Some(RetryKind::Throttled))
            }
            (Some(501 | 505), _) => (Kind::NotS3, None),
            (Some(416), _) => (Kind::Changed, None),
            (_, "RequestTimeout") | (Some(408 | 500..=599), _) => (Kind::Unavailable, Some(RetryKind::Transient)),
            (Some(401 | 403), _)
            | (_, "ExpiredToken" | "ExpiredTokenException" | "InvalidToken" | "InvalidAccessKeyId") => {
                (Kind::Denied, None)
            }
            (Some(404), _) => (Kind::NoSuchKey, None),
            // No store's: a proxy that forwards plain HTTP.
            (Some(407), _) => {
                self.finding = Some(PROXY_WANTS_PASSWORD.to_owned());
                (Kind::Unreachable, None)
            }
            (Some(412), _) => (Kind::Changed, None),
            (None, _) => (Kind::NoCredentials, None),
            (Some(_), _) => (Kind::NotS3, None),
        };
    }
}

/// What a failed answer tells, whoever received it.
pub(super) struct Reply<'a> {
    pub(super) status: u16,
    pub(super) header: &'a dyn for<'n> Fn(&'n str) -> Option<&'a str>,
    pub(super) body: &'a str,
}

/// The text of the first `<name>` element: error bodies are a few lines without attributes.
fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(unescaped(text.trim())).filter(|text| !text.is_empty())
}

/// A text with the five entities of XML, and numeric ones, as what they stand for.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let entity = part.split_once(';').and_then(|(name, rest)| Some((character(name)?, rest)));
        match entity {
            Some((character, rest)) => {
                plain.push(character);
                plain.push_str(rest);
            }
            None => {
                plain.push('&');
                plain.push_str(part);
            }
        }
    }
    plain
}

fn character(entity: &str) -> Option<char> {
    match entity {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}
