//! The S3 endpoint as people write it.

use std::fmt;

/// Scheme, host and port of an S3 endpoint, with a path where a gateway needs one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether the endpoint speaks TLS.
    pub tls: bool,
    /// `host[:port][/path]`, without the bucket.
    authority: String,
}

/// An [`Endpoint`] and what its text gave away besides.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ParsedEndpoint {
    pub(super) endpoint: Endpoint,
    /// The bucket in the host: `https://bucket.s3.eu-central-1.amazonaws.com`.
    pub(super) bucket: Option<String>,
    /// The region in an AWS host.
    pub(super) region: Option<String>,
    /// `https://` was added.
    pub(super) scheme_missing: bool,
}

/// Why an endpoint's text cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// A scheme other than these two.
    #[error("scheme {0:?} is not http or https; write https://host[:port]")]
    Scheme(String),
    /// Nothing between the scheme and the path.
    #[error("no host in it; write https://host[:port]")]
    NoHost,
    /// User name or password in the URL.
    #[error("credentials do not belong in the URL; use access_key_id and secret_access_key")]
    Credentials,
    /// `?query` or `#fragment`.
    #[error("a query or a fragment does not belong in an endpoint; write https://host[:port]")]
    Query,
    /// Not a URL for the parser's reason.
    #[error("not a URL ({0}); write https://host[:port]")]
    Invalid(String),
}

impl Endpoint {
    /// Reads `https://host[:port]`, or `host[:port]` as https.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] says what does not belong there. The text itself is not repeated: it may
    /// hold a password.
    pub(super) fn parse(text: &str, tls_by_default: bool) -> Result<ParsedEndpoint, EndpointError> {
        let text = text.trim();
        let (tls, rest, scheme_missing) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest, false),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest, false),
            Some((scheme, _)) => return Err(EndpointError::Scheme(scheme.to_owned())),
            None => (tls_by_default, text, true),
        };
        let scheme = if tls { "https" } else { "http" };
        let url = reqwest::Url::parse(&format!("{scheme}://{rest}"))
            .map_err(|error| EndpointError::Invalid(error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointError::Query);
        }
        let host = url.host_str().ok_or(EndpointError::NoHost)?;
        let (bucket, region, host) = split_aws_host(host);
        let port = url.port().map_or(String::new(), |port| format!(":{port}"));
        let path = url.path().trim_end_matches('/');
        Ok(ParsedEndpoint {
            endpoint: Self { tls, authority: format!("{host}{port}{path}") },
            bucket,
            region,
            scheme_missing,
        })
    }

    /// Host name or address, without port, brackets or path.
    pub fn host(&self) -> &str {
        let authority = self.authority.split('/').next().unwrap_or_default();
        match authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        }
    }

    /// Whether the endpoint is Amazon's own, where virtual-hosted addressing is the rule.
    pub fn is_aws(&self) -> bool {
        is_aws_host(self.host())
    }

    /// Whether it is one of Amazon's regional endpoints and nothing more, so that another region's
    /// may take its place: no VPC endpoint, no FIPS, no dual stack.
    pub fn is_aws_region(&self) -> bool {
        let labels: Vec<&str> = self.host().split('.').collect();
        matches!(labels.as_slice(), ["s3", "amazonaws", "com"] | ["s3", _, "amazonaws", "com"])
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

fn is_aws_host(host: &str) -> bool {
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

/// Splits `bucket.s3.region.amazonaws.com` (also `s3-region`, `s3.dualstack.region`) into its
/// parts; any other host stays whole.
fn split_aws_host(host: &str) -> (Option<String>, Option<String>, String) {
    let whole = (None, None, host.to_owned());
    if !is_aws_host(host) {
        return whole;
    }
    let labels: Vec<&str> = host.split('.').collect();
    // The service label is the last one that is `s3`, `s3-accelerate` or `s3-<region>`: a bucket's
    // own name may hold dots, and even an `s3` label.
    let Some(service) = labels.iter().rposition(|label| *label == "s3" || label.starts_with("s3-")) else {
        return whole;
    };
    let after =
        labels[service + 1..].iter().take_while(|label| **label != "amazonaws").find(|label| **label != "dualstack");
    let region = after.map(|label| (*label).to_owned()).or_else(|| {
        let old = labels[service].strip_prefix("s3-")?;
        (!matches!(old, "accelerate" | "external-1" | "fips")).then(|| old.to_owned())
    });
    // In front of the service of a VPC endpoint stands the endpoint's id, and the word `bucket`:
    // https://docs.aws.amazon.com/AmazonS3/latest/userguide/privatelink-interface-endpoints.html.
    if labels.contains(&"vpce") {
        return (None, region, host.to_owned());
    }
    let bucket = (service > 0).then(|| labels[..service].join("."));
    (bucket, region, labels[service..].join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ParsedEndpoint {
        Endpoint::parse(text, true).unwrap()
    }

    #[test]
    fn an_endpoint_without_a_scheme_is_https() {
        let parsed = parse("minio.example:9000");
        assert!(parsed.scheme_missing);
        assert_eq!(parsed.endpoint.to_string(), "https://minio.example:9000");
        assert!(!parse("http://minio.example:9000").endpoint.tls);
    }

    #[test]
    fn a_trailing_slash_is_dropped_and_a_gateway_path_is_kept() {
        assert_eq!(parse("https://h/").endpoint.to_string(), "https://h");
        assert_eq!(parse("https://h/s3/").endpoint.to_string(), "https://h/s3");
    }

    #[test]
    fn the_host_is_without_port_and_brackets() {
        assert_eq!(parse("https://h:9000/x").endpoint.host(), "h");
        assert_eq!(parse("https://[::1]:9000").endpoint.host(), "::1");
    }

    #[test]
    fn a_bucket_in_an_aws_host_is_recognised() {
        for (text, bucket, region, host) in [
            (
                "https://b.s3.eu-central-1.amazonaws.com",
                Some("b"),
                Some("eu-central-1"),
                "https://s3.eu-central-1.amazonaws.com",
            ),
            ("https://a.b.s3.amazonaws.com", Some("a.b"), None, "https://s3.amazonaws.com"),
            ("https://s3.eu-west-1.amazonaws.com", None, Some("eu-west-1"), "https://s3.eu-west-1.amazonaws.com"),
            ("https://s3-us-west-2.amazonaws.com", None, Some("us-west-2"), "https://s3-us-west-2.amazonaws.com"),
            (
                "https://s3.dualstack.us-west-2.amazonaws.com",
                None,
                Some("us-west-2"),
                "https://s3.dualstack.us-west-2.amazonaws.com",
            ),
            ("https://s3.amazonaws.com", None, None, "https://s3.amazonaws.com"),
            (
                "https://b.s3.cn-north-1.amazonaws.com.cn",
                Some("b"),
                Some("cn-north-1"),
                "https://s3.cn-north-1.amazonaws.com.cn",
            ),
            (
                "https://bucket.vpce-1a2b-5e6f.s3.us-east-1.vpce.amazonaws.com",
                None,
                Some("us-east-1"),
                "https://bucket.vpce-1a2b-5e6f.s3.us-east-1.vpce.amazonaws.com",
            ),
            ("https://bucket.s3.example.com", None, None, "https://bucket.s3.example.com"),
        ] {
            let parsed = parse(text);
            assert_eq!(parsed.bucket.as_deref(), bucket, "{text}");
            assert_eq!(parsed.region.as_deref(), region, "{text}");
            assert_eq!(parsed.endpoint.to_string(), host, "{text}");
        }
    }

    #[test]
    fn what_does_not_belong_in_an_endpoint_is_named_and_never_repeated() {
        for text in ["s3://hunter2", "https://", "https://u:hunter2@h", "https://h?hunter2=1", "https://h:hunter2"] {
            let error = Endpoint::parse(text, true).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
