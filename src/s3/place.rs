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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, Region};
    use aws_smithy_runtime_api::{
        client::{
            http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
            orchestrator::HttpRequest,
            result::ConnectorError,
            runtime_components::RuntimeComponents,
        },
        shared::IntoShared as _,
    };

    use super::*;

    /// Keeps the URL and the `Authorization` of each request, and answers none.
    #[derive(Clone, Debug, Default)]
    struct Listener(Arc<Mutex<Vec<(String, String)>>>);

    impl HttpClient for Listener {
        fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
            self.clone().into_shared()
        }
    }

    impl HttpConnector for Listener {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let authorization = request.headers().get("authorization").unwrap_or_default();
            self.0.lock().unwrap().push((request.uri().to_owned(), authorization.to_owned()));
            HttpConnectorFuture::ready(Err(ConnectorError::io("nobody answers".into())))
        }
    }

    const KEYS: [&str; 11] = [
        "k",
        "a b",
        "a+b",
        "100%",
        "%41",
        "//a//b/",
        "/k",
        "./a/../b",
        "ümläut/日本",
        "a?b#c&d=e",
        "~-_.!*'()\"<>\\^`{|}:,;@$[]",
    ];

    type Configure = fn(Builder) -> Builder;

    /// Each way to address a bucket: with keys, and anonymously.
    const WAYS: [(&str, Configure); 9] = [
        ("bert", |config| config),
        ("bert.v1", |config| config),
        ("bert", |config| config.endpoint_url("https://minio.example:9000").force_path_style(true)),
        ("bert", |config| config.endpoint_url("http://gateway.example/s3/v1").force_path_style(true)),
        ("bert", |config| config.endpoint_url("https://minio.example")),
        ("bert", |config| config.accelerate(true)),
        ("bert", |config| config.use_dual_stack(true).region(Region::new("eu-west-1"))),
        ("bert", |config| config.region(Region::new("cn-north-1"))),
        ("arn:aws:s3:eu-central-1:123456789012:accesspoint/models", |config| config),
    ];

    #[tokio::test]
    async fn every_key_has_the_address_that_the_sdk_would_ask() {
        for (bucket, configure) in WAYS {
            for is_anonymous in [false, true] {
                let listener = Listener::default();
                let config = aws_sdk_s3::Config::builder()
                    .behavior_version(BehaviorVersion::latest())
                    .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
                    .region(Region::new("us-east-1"))
                    .use_arn_region(true)
                    .http_client(listener.clone());
                let config = match is_anonymous {
                    true => config.allow_no_auth(),
                    false => {
                        config.credentials_provider(Credentials::new("id/with/slashes", "secret", None, None, "test"))
                    }
                };
                let client = Client::from_conf(configure(config).build());
                let place = Place::find(&client, bucket).await.unwrap();
                for key in KEYS {
                    // The SDK's word of what it does comes as an error, because nobody answers.
                    let _ = client.get_object().bucket(bucket).key(key).version_id("a/b+c").send().await;
                    let (url, authorization) = listener.0.lock().unwrap().pop().unwrap();
                    let own = format!("{}{}", place.origin.url(), place.path_of(key, Some("a/b+c")));
                    assert_eq!(url.replace("x-id=GetObject&", ""), own, "{bucket} {key:?}");
                    match &place.scope {
                        Some(Scope { region, service }) => {
                            assert!(
                                authorization.contains(&format!("/{region}/{service}/aws4_request,")),
                                "{authorization}"
                            );
                        }
                        None => assert_eq!(authorization, ""),
                    }
                    assert_eq!(place.scope.is_none(), is_anonymous);
                }
            }
        }
    }

    #[tokio::test]
    async fn a_bucket_that_cannot_be_addressed_is_refused_with_the_sdks_words() {
        let config = aws_sdk_s3::Config::builder().behavior_version(BehaviorVersion::latest()).allow_no_auth();
        let client = Client::from_conf(config.region(Region::new("us-east-1")).build());
        let failure = Place::find(&client, "arn:aws:s3:::nonsense").await.unwrap_err();
        assert!(!failure.to_string().is_empty());
    }
}
