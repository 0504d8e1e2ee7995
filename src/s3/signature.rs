//! Who signs a GET, and how: the credentials of the moment, and AWS Signature Version 4 as S3 has it
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>).

use std::{sync::Arc, time::SystemTime};

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError};
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use aws_smithy_runtime_api::client::identity::Identity;

use super::credentials::Renewing;

/// Where the credentials of the moment come from. The provider keeps them while they are good, for
/// LIST and HEAD as well.
#[derive(Clone, Debug)]
pub(super) struct Keyring {
    provider: SharedCredentialsProvider,
    /// The same, where it can be told that the store refuses its keys.
    renewing: Option<Arc<Renewing>>,
}

/// What signs a request.
#[derive(Clone, Debug)]
pub(super) struct Signatory {
    identity: Identity,
    /// Which keys these are, or older ones.
    issue: Option<u64>,
}

impl Keyring {
    pub(super) fn new(provider: SharedCredentialsProvider, renewing: Option<Arc<Renewing>>) -> Self {
        Self { provider, renewing }
    }

    /// Who signs now; blocks where there are no keys that are good for a while.
    pub(super) fn signatory(&self, runtime: &tokio::runtime::Handle) -> Result<Signatory, CredentialsError> {
        let issue = self.renewing.as_ref().map(|renewing| renewing.issue());
        let keys = runtime.block_on(self.provider.provide_credentials())?;
        Ok(Signatory { identity: Identity::from(keys), issue })
    }

    /// The store calls the keys of `refused` expired. `false` where there are no others.
    pub(super) fn reject(&self, refused: &Signatory) -> bool {
        match (&self.renewing, refused.issue) {
            (Some(renewing), Some(issue)) => {
                renewing.reject(issue);
                true
            }
            _ => false,
        }
    }
}

/// For what a signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) region: String,
    pub(super) service: String,
}

/// The headers that sign a GET of `path`, which is percent-encoded, with `headers`, `Host` among
/// them.
pub(super) fn signed_headers(
    signatory: &Signatory,
    scope: &Scope,
    path: &str,
    headers: &[(&'static str, String)],
    now: SystemTime,
) -> Result<Vec<(&'static str, String)>, String> {
    let mut settings = SigningSettings::default();
    // S3 takes keys as they are: `a//b`, `./a` and `a%2Fb` are keys of their own.
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let params = v4::SigningParams::builder()
        .identity(&signatory.identity)
        .region(&scope.region)
        .name(&scope.service)
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let request = SignableRequest::new("GET", path, headers, SignableBody::empty()).map_err(|e| e.to_string())?;
    let (instructions, _) = sign(request, &params).map_err(|error| error.to_string())?.into_parts();
    let (headers, _) = instructions.into_parts();
    Ok(headers.into_iter().map(|header| (header.name(), header.value().to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_credential_types::Credentials as Keys;

    use super::*;

    fn signatory() -> Signatory {
        let keys = Keys::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None, None, "test");
        Signatory { identity: Identity::from(keys), issue: None }
    }

    /// The example "GET Object" of
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.
    #[test]
    fn amazons_example_has_amazons_signature() {
        let scope = Scope { region: "us-east-1".to_owned(), service: "s3".to_owned() };
        let headers = [("host", "examplebucket.s3.amazonaws.com".to_owned()), ("range", "bytes=0-9".to_owned())];
        let may_24_2013 = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        let signed = signed_headers(&signatory(), &scope, "/test.txt", &headers, may_24_2013).unwrap();
        let value = |name| signed.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str());
        assert_eq!(value("x-amz-date"), Some("20130524T000000Z"));
        assert_eq!(
            value("authorization"),
            Some(
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
            )
        );
    }

    #[test]
    fn nothing_secret_is_shown() {
        assert!(!format!("{:?}", signatory()).contains("EXAMPLEKEY"));
    }
}
