//! Who signs: the keys of the settings, nobody, or the AWS SDK's credential chain.
//!
//! The chain is the SDK's own, with three differences. It has an HTTP client of its own ([`IdentityHttp`]), which trusts
//! the system's roots in any case and goes to metadata services without a proxy. Web identity (IRSA) comes first and asks
//! STS at `AWS_ENDPOINT_URL_STS` or at Amazon's own address: the S3 endpoint is S3's alone, while the SDK would send a
//! service account's token to whatever `AWS_ENDPOINT_URL` names (kserve/kserve#3482). And keys are renewed not only when
//! their time is over, but also when the store says that it is ([`Renewing`]): clocks differ, and sessions are revoked.

mod identity_http;
mod renewing;

use std::{error::Error, sync::Arc};

use aws_config::{default_provider::credentials::DefaultCredentialsChain, provider_config::ProviderConfig};
use aws_credential_types::{
    Credentials as Keys,
    provider::{
        ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future::ProvideCredentials as Provided,
    },
};
use aws_sdk_s3::config::Region;
use aws_sdk_sts::operation::{
    assume_role::AssumeRoleError, assume_role_with_web_identity::AssumeRoleWithWebIdentityError,
};

use crate::{
    cause::{innermost, one_line},
    http::{Http, http_error},
    settings::{Connection, Credentials, Limits, WebIdentity},
};
use identity_http::IdentityHttp;
pub(super) use renewing::Renewing;

/// The region of STS where nothing names one; any will do, this one always exists.
const DEFAULT_STS_REGION: &str = "us-east-1";

/// The name of the session in AWS' logs where `AWS_ROLE_SESSION_NAME` gives none.
const DEFAULT_SESSION_NAME: &str = "storage-initializer";

/// Nobody could sign.
#[derive(Debug, thiserror::Error)]
#[error(
    "no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none ({cause}{variables}); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set \"anonymous\": \"true\" for a public bucket"
)]
pub struct NoCredentials {
    cause: String,
    /// What the chain was told, as a part of the sentence.
    variables: String,
}

impl NoCredentials {
    fn new(error: &CredentialsError, connection: &Connection) -> Self {
        let set: Vec<String> =
            connection.chain_variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let variables = if set.is_empty() { String::new() } else { format!("; set here: {}", set.join(", ")) };
        Self { cause: cause(error), variables }
    }
}

/// Where keys come from, and who it was that had them.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    /// `None` signs nothing.
    pub(super) provider: Option<SharedCredentialsProvider>,
    /// The same provider, where its keys can be renewed.
    pub(super) renewing: Option<Arc<Renewing>>,
    /// For messages.
    pub(super) identity: String,
}

impl Signer {
    /// Finds out who signs; the chain is asked here and now, so that its failure has its own words.
    pub(super) async fn find(
        connection: &Connection,
        limits: &Limits,
        http_for_credentials: impl FnOnce() -> Result<Http, crate::http::HttpSetupError>,
    ) -> Result<Self, SignerError> {
        let identity = connection.credentials.to_string();
        match &connection.credentials {
            Credentials::Anonymous(_) => Ok(Self { provider: None, renewing: None, identity }),
            Credentials::Keys { access_key_id, secret_access_key, session_token } => {
                let keys = Keys::new(
                    access_key_id.value.expose(),
                    secret_access_key.value.expose(),
                    session_token.as_ref().map(|token| token.value.expose().to_owned()),
                    None,
                    "settings",
                );
                Ok(Self { provider: Some(SharedCredentialsProvider::new(keys)), renewing: None, identity })
            }
            Credentials::Chain => {
                let http = IdentityHttp::new(http_for_credentials()?, connection.sts_endpoint.as_deref(), limits);
                Self::from_chain(connection, http).await
            }
        }
    }

    async fn from_chain(connection: &Connection, http: IdentityHttp) -> Result<Self, SignerError> {
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
        let renewing = Arc::new(Renewing::new(provider));
        renewing.keys().await.map_err(|error| SignerError::None(NoCredentials::new(&error, connection)))?;
        let identity = match &connection.web_identity {
            Some(web_identity) => format!("web identity, role {}", web_identity.role_arn),
            None => "the default AWS credential chain".to_owned(),
        };
        let shared: Arc<dyn ProvideCredentials> = Arc::<Renewing>::clone(&renewing);
        let provider = SharedCredentialsProvider::new(shared);
        Ok(Self { provider: Some(provider), renewing: Some(renewing), identity })
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
    let mut chain: Vec<&(dyn Error + 'static)> = vec![error];
    let mut next = error.source();
    while let Some(error) = next {
        chain.push(error);
        next = error.source();
    }
    if let Some(words) = chain.iter().find_map(|error| words_of_sts(*error)) {
        return words;
    }
    let innermost = innermost(error);
    // The SDK lists each member of the chain with "was not enabled".
    if innermost.starts_with("no credentials found in chain") {
        return "none of them answers here".to_owned();
    }
    // A file that cannot be read is named a layer above the system's error.
    let is_system = chain.last().is_some_and(|error| error.is::<std::io::Error>());
    let words = match chain.as_slice() {
        [.., above, _] if is_system => one_line(*above),
        _ => innermost,
    };
    words.trim_end_matches('.').to_owned()
}

/// What STS said, instead of the SDK's way to show it.
fn words_of_sts(error: &(dyn Error + 'static)) -> Option<String> {
    let metadata = match error.downcast_ref::<AssumeRoleWithWebIdentityError>() {
        Some(error) => error.meta(),
        None => error.downcast_ref::<AssumeRoleError>()?.meta(),
    };
    let words: Vec<&str> = [metadata.code(), metadata.message()].into_iter().flatten().collect();
    (!words.is_empty()).then(|| format!("STS answered {}", words.join(": ")))
}

/// `AssumeRoleWithWebIdentity` with the token that Kubernetes renews in its file.
#[derive(Debug)]
struct WebIdentityProvider {
    identity: WebIdentity,
    sts: aws_sdk_sts::Client,
}

impl WebIdentityProvider {
    fn new(identity: WebIdentity, endpoint: Option<&str>, region: Region, http: IdentityHttp) -> Self {
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
