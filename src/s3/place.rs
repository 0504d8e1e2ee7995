//! Where a bucket's objects are: the SDK's own answer, asked once per bucket.
//!
//! Path style, virtual hosts, acceleration, access points and custom endpoints make a dozen rules.
//! So that there is one owner of them, the SDK presigns a GET of a key that is known, and what is
//! in front of the key holds for every other.

use std::time::Duration;

use aws_sdk_s3::{Client, presigning::PresigningConfig};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{error::Failure, signature::Scope};
use crate::http::Origin;

/// The key that stands for all of a bucket's.
const ANY_KEY: &str = "k";

/// Never used: nothing is sent to that URL.
const PRESIGNED_FOR: Duration = Duration::from_secs(60);

/// What a key's path leaves as it is: the unreserved characters of RFC 3986, and slashes.
const OF_A_PATH: &AsciiSet = &OF_A_QUERY.remove(b'/');

/// What a query's value leaves as it is.
const OF_A_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How a bucket's objects are addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) origin: Origin,
    /// In front of the key.
    path: String,
    /// What requests are signed for; `None` where nobody signs.
    pub(super) scope: Option<Scope>,
}

impl Place {
    /// Asks `client` where the objects of `bucket` are.
    pub(super) async fn find(client: &Client, bucket: &str) -> Result<Self, Box<Failure>> {
        let presigning =
            PresigningConfig::expires_in(PRESIGNED_FOR).map_err(|error| Failure::of_request(error.to_string()))?;
        let presigned = client.get_object().bucket(bucket).key(ANY_KEY).presigned(presigning).await;
        let presigned = presigned.map_err(|error: SdkError<_, HttpResponse>| Failure::read(&error))?;
        Self::of(presigned.uri())
            .ok_or_else(|| Failure::of_request("the AWS SDK does not tell where the bucket's objects are".to_owned()))
    }

    fn of(url: &str) -> Option<Self> {
        let url: http::Uri = url.parse().ok()?;
        let credential =
            url.query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("X-Amz-Credential="));
        let scope = match credential {
            Some(credential) => Some(scope(&percent_decode_str(credential).decode_utf8().ok()?)?),
            None => None,
        };
        Some(Self { origin: Origin::of(&url)?, path: url.path().strip_suffix(ANY_KEY)?.to_owned(), scope })
    }

    /// Path and query of an object.
    pub(super) fn path_of(&self, key: &str, version: Option<&str>) -> String {
        let mut path = format!("{}{}", self.path, utf8_percent_encode(key, OF_A_PATH));
        if let Some(version) = version {
            path.push_str("?versionId=");
            path.extend(utf8_percent_encode(version, OF_A_QUERY));
        }
        path
    }
}

/// `KEY-ID/date/region/service/aws4_request`; an access key id may hold a slash.
fn scope(credential: &str) -> Option<Scope> {
    let mut parts = credential.rsplit('/');
    let (_aws4_request, service, region) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Scope { region: region.to_owned(), service: service.to_owned() })
}
