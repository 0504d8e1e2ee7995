//! Who signs: the keys of the settings, nobody, or the AWS SDK's credential chain.
//!
//! The chain is the SDK's own, with two differences. It has an HTTP client of its own, which trusts
//! the system's roots in any case and goes to metadata services without a proxy. And web identity
//! (IRSA) comes first and asks STS at `AWS_ENDPOINT_URL_STS` or at Amazon's own address: the S3
//! endpoint is S3's alone, while the SDK would send a service account's token to whatever
//! `AWS_ENDPOINT_URL` names (kserve/kserve#3482).

use std::sync::Mutex;

use aws_config::{default_provider::credentials::DefaultCredentialsChain, provider_config::ProviderConfig};
use aws_credential_types::{
    Credentials as Keys,
    provider::{
        ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future::ProvideCredentials as Provided,
    },
};
use aws_sdk_s3::config::Region;

use crate::{
    cause::innermost,
    http::{Http, http_error},
    settings::{Connection, Credentials, WebIdentity},
};

/// The region of STS where nothing names one; any will do, this one always exists.
const DEFAULT_STS_REGION: &str = "us-east-1";

/// The name of the session in AWS' logs where `AWS_ROLE_SESSION_NAME` gives none.
const DEFAULT_SESSION_NAME: &str = "storage-initializer";

/// Nobody could sign.
#[derive(Debug, thiserror::Error)]
#[error(
    "no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none ({cause}); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set \"anonymous\": \"true\" for a public bucket"
)]
pub struct NoCredentials {
    cause: String,
}

/// Where keys come from, and who it was that had them.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    /// `None` signs nothing.
    pub(super) provider: Option<SharedCredentialsProvider>,
    /// For messages.
    pub(super) identity: String,
}

impl Signer {
    /// Finds out who signs; the chain is asked here and now, so that its failure has its own words.
    pub(super) async fn find(
        connection: &Connection,
        http_for_credentials: impl FnOnce() -> Result<Http, crate::http::HttpSetupError>,
    ) -> Result<Self, SignerError> {
        let identity = connection.credentials.to_string();
        match &connection.credentials {
            Credentials::Anonymous(_) => Ok(Self { provider: None, identity }),
            Credentials::Keys { access_key_id, secret_access_key, session_token } => {
                let keys = Keys::new(
                    access_key_id.value.expose(),
                    secret_access_key.value.expose(),
                    session_token.as_ref().map(|token| token.value.expose().to_owned()),
                    None,
                    "settings",
                );
                Ok(Self { provider: Some(SharedCredentialsProvider::new(keys)), identity })
            }
            Credentials::Chain => Self::from_chain(connection, http_for_credentials()?).await,
        }
    }

    async fn from_chain(connection: &Connection, http: Http) -> Result<Self, SignerError> {
        let region = connection
            .region
            .as_ref()
            .map_or_else(|| Region::from_static(DEFAULT_STS_REGION), |region| Region::new(region.value.clone()));
        let provider = match &connection.web_identity {
            Some(identity) => SharedCredentialsProvider::new(WebIdentityProvider::new(
                identity.clone(),
                connection.sts_endpoint.as_deref(),
                region,
                http,
            )),
            None => {
                let config = ProviderConfig::without_region().with_region(Some(region.clone())).with_http_client(http);
                let chain = DefaultCredentialsChain::builder().configure(config).region(region).build().await;
                SharedCredentialsProvider::new(chain)
            }
        };
        let keys = provider
            .provide_credentials()
            .await
            .map_err(|error| SignerError::None(NoCredentials { cause: cause(&error) }))?;
        let identity = match &connection.web_identity {
            Some(web_identity) => format!("web identity, role {}", web_identity.role_arn),
            None => "the default AWS credential chain".to_owned(),
        };
        Ok(Self {
            provider: Some(SharedCredentialsProvider::new(AskedOnce { provider, first: Mutex::new(Some(keys)) })),
            identity,
        })
    }
}

/// Why there is no signer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignerError {
    #[error(transparent)]
    None(NoCredentials),
    #[error(transparent)]
    Http(#[from] crate::http::HttpSetupError),
}

fn cause(error: &CredentialsError) -> String {
    if let Some(http) = http_error(error) {
        return http.to_string();
    }
    let cause = innermost(error);
    // The SDK lists each member of the chain with "was not enabled".
    if cause.starts_with("no credentials found in chain") {
        return "none of them is set up here".to_owned();
    }
    cause.trim_end_matches('.').to_owned()
}

/// Hands out the keys that were found at the start, then asks for fresh ones as they expire.
#[derive(Debug)]
struct AskedOnce {
    provider: SharedCredentialsProvider,
    first: Mutex<Option<Keys>>,
}

impl ProvideCredentials for AskedOnce {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        let first = self.first.lock().ok().and_then(|mut first| first.take());
        match first {
            Some(keys) => Provided::ready(Ok(keys)),
            None => self.provider.provide_credentials(),
        }
    }
}

/// `AssumeRoleWithWebIdentity` with the token that Kubernetes renews in its file.
#[derive(Debug)]
struct WebIdentityProvider {
    identity: WebIdentity,
    sts: aws_sdk_sts::Client,
}

impl WebIdentityProvider {
    fn new(identity: WebIdentity, endpoint: Option<&str>, region: Region, http: Http) -> Self {
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version_latest()
            .region(region)
            .http_client(http)
            .retry_config(aws_sdk_sts::config::retry::RetryConfig::standard().with_max_attempts(5));
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(endpoint);
        }
        Self { identity, sts: aws_sdk_sts::Client::from_conf(config.build()) }
    }

    async fn assume_role(&self) -> Result<Keys, CredentialsError> {
        let file = &self.identity.token_file;
        let token = std::fs::read_to_string(file).map_err(|error| {
            CredentialsError::provider_error(format!(
                "the token file {} (AWS_WEB_IDENTITY_TOKEN_FILE) cannot be read: {error}",
                file.display()
            ))
        })?;
        let session_name = self.identity.session_name.as_deref();
        let answer = self
            .sts
            .assume_role_with_web_identity()
            .role_arn(&self.identity.role_arn)
            .role_session_name(session_name.unwrap_or(DEFAULT_SESSION_NAME))
            .web_identity_token(token.trim())
            .send()
            .await
            .map_err(CredentialsError::provider_error)?;
        let keys =
            answer.credentials.ok_or_else(|| CredentialsError::provider_error("STS answered without credentials"))?;
        let expiry = std::time::SystemTime::try_from(keys.expiration).map_err(CredentialsError::provider_error)?;
        Ok(Keys::new(keys.access_key_id, keys.secret_access_key, Some(keys.session_token), Some(expiry), "WebIdentity"))
    }
}

impl ProvideCredentials for WebIdentityProvider {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        Provided::new(self.assume_role())
    }
}
