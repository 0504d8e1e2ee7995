//! The layer between HTTP and `s3s`: it records, strikes with faults, checks the region, and finishes replies.
//!
//! `s3s` answers the operations. What S3 sends beyond that is added here: request ids, the resource in an error, 206 for
//! a partial HEAD, and the region error with the right region in it.

use std::pin::Pin;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use s3s::service::S3Service;

use super::connection::{Ending, Wire};
use super::faults::{Action, Allowance, ErrorReply, Script};
use super::host::BaseDomain;
use super::operations::Ignored;
use super::record::{Log, Operation, RecordedRequest};
use super::reply_body::{Bend, BoxError, ReplyBody};
use super::store::Store;

/// Everything that a reply is made from; cheap to clone, one per connection.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) s3: S3Service,
    pub(crate) store: Store,
    pub(crate) script: Script,
    pub(crate) allowance: Allowance,
    pub(crate) log: Log,
    pub(crate) base_domain: Option<BaseDomain>,
    pub(crate) region: Option<String>,
    pub(crate) connection: u64,
    pub(crate) wire: Arc<Wire>,
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<ReplyBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move { front.answer(request).await })
    }
}

impl Front {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<ReplyBody>, BoxError> {
        let recorded = RecordedRequest::read(
            self.connection,
            request.method(),
            request.uri(),
            request.headers(),
            self.base_domain.as_ref(),
        );
        let reply = self.log.push(recorded.clone());
        let action = self.script.strike(&recorded);
        let response = self.respond(request, &recorded, action.as_ref()).await?;
        let mut response = self.finish(response, &recorded).await;
        if let Some(action) = &action {
            falsify(response.headers_mut(), action);
        }
        reply.status(response.status().as_u16());
        let bend = bend(action, &recorded);
        let allowance = (recorded.operation == Operation::GetObject).then_some(self.allowance);
        let wire = self.wire;
        // The head of the reply is about to be given to the connection.
        wire.dirty();
        Ok(response.map(|body| ReplyBody::new(body, bend, allowance, reply, wire)))
    }

    /// What the fault script, the region check, or else `s3s` answers.
    async fn respond(
        &self,
        request: Request<Incoming>,
        recorded: &RecordedRequest,
        action: Option<&Action>,
    ) -> Result<Response<s3s::Body>, BoxError> {
        let mut request = request.map(s3s::Body::from);
        match action {
            Some(Action::Reply(error)) => return error_response(error),
            Some(Action::CloseBeforeResponse) => {
                self.wire.end(Ending::Close);
                return Err("the fault script closes the connection".into());
            }
            Some(Action::Delay(hold)) => hold.clone().pass().await,
            Some(Action::Call(callback)) => callback(&self.store, recorded),
            Some(Action::IgnoreRange) => {
                request.extensions_mut().insert(Ignored::Range);
            }
            Some(Action::IgnoreIfMatch(callback)) => {
                callback(&self.store, recorded);
                request.extensions_mut().insert(Ignored::IfMatch);
            }
            Some(
                Action::ResetAfter { .. }
                | Action::TruncateAfter { .. }
                | Action::Stall { .. }
                | Action::Throttle { .. }
                | Action::FlipBit { .. }
                | Action::WrongContentRange
                | Action::WrongChecksum,
            )
            | None => {}
        }
        if let Some(region) = &self.region
            && let Some(signed) = signed_region(request.headers())
            && signed != region
        {
            return error_response(&wrong_region(signed, region));
        }
        self.s3.call(request).await.map_err(BoxError::from)
    }

    /// Adds what S3 sends with every reply.
    async fn finish(&self, response: Response<s3s::Body>, recorded: &RecordedRequest) -> Response<s3s::Body> {
        let (mut parts, mut body) = response.into_parts();
        let request_id = format!("HARNESS{:09X}", self.log.count());
        insert(&mut parts.headers, "x-amz-request-id", &request_id);
        if let Some(region) = &self.region {
            insert(&mut parts.headers, "x-amz-bucket-region", region);
        }
        let failed = parts.status.is_client_error() || parts.status.is_server_error();
        if recorded.method == Method::HEAD {
            if parts.status == StatusCode::OK && parts.headers.contains_key(CONTENT_RANGE) {
                parts.status = StatusCode::PARTIAL_CONTENT;
            }
            if failed {
                // A reply to HEAD has no body, and S3 does not say how long it would be.
                parts.headers.remove(CONTENT_LENGTH);
                body = s3s::Body::empty();
            }
        } else if failed {
            let collected = body.collect().await.map(|collected| collected.to_bytes());
            let text = String::from_utf8_lossy(&collected.unwrap_or_default()).into_owned();
            let text = detailed(&text, recorded, &request_id);
            insert(&mut parts.headers, "content-length", &text.len().to_string());
            parts.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/xml"));
            body = s3s::Body::from(text);
        }
        Response::from_parts(parts, body)
    }
}

/// The region in the scope of a signature: `Credential=AKID/20260101/us-east-1/s3/aws4_request`.
fn signed_region(headers: &HeaderMap) -> Option<&str> {
    let (_, credential) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once("Credential=")?;
    credential.split('/').nth(2)
}

fn wrong_region(signed: &str, region: &str) -> ErrorReply {
    ErrorReply::new(400, "AuthorizationHeaderMalformed")
        .message(&format!(
            "The authorization header is malformed; the region '{signed}' is wrong; expecting '{region}'"
        ))
        .element("Region", region)
}

fn error_response(error: &ErrorReply) -> Result<Response<s3s::Body>, BoxError> {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>");
    let fixed = [("Code", error.code.as_str()), ("Message", error.message.as_str())];
    let further = error.elements.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in fixed.into_iter().chain(further) {
        xml.push_str(&format!("<{name}>{}</{name}>", escaped(value)));
    }
    xml.push_str("</Error>");
    let mut response = Response::builder().status(error.status);
    for (name, value) in &error.headers {
        response = response.header(name.as_str(), value.as_str());
    }
    let response = response.header(CONTENT_TYPE, "application/xml").header(CONTENT_LENGTH, xml.len());
    Ok(response.body(s3s::Body::from(xml))?)
}

/// Puts the resource and the request id into an error that lacks them.
fn detailed(xml: &str, recorded: &RecordedRequest, request_id: &str) -> String {
    let path: String = [&recorded.bucket, &recorded.key].into_iter().flatten().map(|name| format!("/{name}")).collect();
    let details = format!("<Resource>{}</Resource><RequestId>{request_id}</RequestId></Error>", escaped(&path));
    xml.replacen("</Error>", &details, 1)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The lies that are in headers.
fn falsify(headers: &mut HeaderMap, action: &Action) {
    match action {
        Action::WrongContentRange => {
            let shifted = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).and_then(shifted_range);
            if let Some(range) = shifted {
                insert(headers, "content-range", &range);
            }
        }
        Action::WrongChecksum => {
            for (name, value) in headers.iter_mut() {
                let checksum = name.as_str().starts_with("x-amz-checksum-") && name != "x-amz-checksum-type";
                if checksum && let Some(wrong) = another_base64(value) {
                    *value = wrong;
                }
            }
        }
        Action::Reply(_)
        | Action::CloseBeforeResponse
        | Action::Delay(_)
        | Action::ResetAfter { .. }
        | Action::TruncateAfter { .. }
        | Action::Stall { .. }
        | Action::Throttle { .. }
        | Action::FlipBit { .. }
        | Action::IgnoreRange
        | Action::Call(_)
        | Action::IgnoreIfMatch(_) => {}
    }
}

/// Other bytes of the same object, so that the header stays well-formed: the last range shifts down, any other one up.
fn shifted_range(value: &str) -> Option<String> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let last: u64 = last.parse().ok()?;
    let is_last = total.parse() == Ok(last + 1);
    let (first, last) = if is_last { (first.saturating_sub(1), last.saturating_sub(1)) } else { (first + 1, last + 1) };
    Some(format!("bytes {first}-{last}/{total}"))
}

/// The same length and still base64, but another value.
fn another_base64(value: &HeaderValue) -> Option<HeaderValue> {
    let mut bytes = value.as_bytes().to_vec();
    let first = bytes.first_mut()?;
    *first = if *first == b'A' { b'B' } else { b'A' };
    HeaderValue::from_bytes(&bytes).ok()
}

fn bend(action: Option<Action>, recorded: &RecordedRequest) -> Bend {
    match action {
        Some(Action::ResetAfter { body_bytes }) => Bend::End { after: body_bytes, ending: Ending::Reset },
        Some(Action::TruncateAfter { body_bytes }) => Bend::End { after: body_bytes, ending: Ending::Close },
        Some(Action::Stall { after_bytes, hold }) => Bend::Stall { after: after_bytes, hold },
        Some(Action::Throttle { bytes_per_second }) => Bend::Throttle { bytes_per_second },
        Some(Action::FlipBit { object_offset }) => {
            Bend::FlipBit { at: object_offset - recorded.range_bytes().map_or(0, |(first, _)| first) }
        }
        Some(
            Action::Reply(_)
            | Action::CloseBeforeResponse
            | Action::Delay(_)
            | Action::IgnoreRange
            | Action::WrongContentRange
            | Action::WrongChecksum
            | Action::Call(_)
            | Action::IgnoreIfMatch(_),
        )
        | None => Bend::None,
    }
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
