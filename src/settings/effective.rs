//! The settings as a table: what is in force, and where each value comes from. Secrets are `***`.

use std::time::Duration;

use super::{Addressing, Credentials, ModelCheck, Origin, Settings, Sourced, TrustMode};

/// One value that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The setting, by the name of its field or variable.
    pub name: &'static str,
    /// Its value; a secret's is `***`, never even its length.
    pub value: String,
    /// Where it was read.
    pub origin: String,
}

impl Settings {
    /// Every setting that is in force, in the order of the documentation.
    pub fn effective(&self) -> Vec<Effective> {
        let mut table = Vec::new();
        let mut row = |name, value: String, origin: &Origin| {
            table.push(Effective { name, value, origin: origin.to_string() });
        };
        for download in &self.downloads {
            let way = format!("{} to {}", download.source, download.destination.display());
            row("download", way, &download.origin);
        }
        let connection = &self.connection;
        match &connection.endpoint {
            Some(endpoint) => row("endpoint_url", endpoint.value.to_string(), &endpoint.origin),
            None => row("endpoint_url", "Amazon S3".to_owned(), &Origin::Default),
        }
        match &connection.region {
            Some(region) => row("region", region.value.clone(), &region.origin),
            None => row("region", "learned from the first reply, else us-east-1".to_owned(), &Origin::Default),
        }
        let addressing = match (connection.addressing.value, connection.uses_path_style()) {
            (Addressing::Auto, true) => "auto (path)",
            (Addressing::Auto, false) => "auto (virtual)",
            (Addressing::Path, _) => "path",
            (Addressing::Virtual, _) => "virtual",
        };
        row("addressing_style", addressing.to_owned(), &connection.addressing.origin);
        match &connection.credentials {
            Credentials::Anonymous(origin) => row("anonymous", "true".to_owned(), origin),
            Credentials::Keys { access_key_id, secret_access_key, session_token } => {
                row("access_key_id", access_key_id.value.to_string(), &access_key_id.origin);
                row("secret_access_key", secret_access_key.value.to_string(), &secret_access_key.origin);
                if let Some(token) = session_token {
                    row("session_token", token.value.to_string(), &token.origin);
                }
            }
            Credentials::Chain => row("credentials", connection.credentials.to_string(), &Origin::Default),
        }
        let trust = &self.trust;
        row("verify_ssl", trust.verify.value.to_string(), &trust.verify.origin);
        let mode = match trust.mode.value {
            TrustMode::Combined => "combined",
            TrustMode::BundleOnly => "bundle-only",
        };
        row("TRUST_STORE", mode.to_owned(), &trust.mode.origin);
        let mut text = |name, setting: &Option<Sourced<String>>, shown: fn(&str) -> String| {
            if let Some(setting) = setting {
                row(name, shown(&setting.value), &setting.origin);
            }
        };
        text("certificate", &trust.certificate, |text| format!("{} bytes", text.len()));
        text("ca_bundle", &trust.ca_bundle, |text| {
            if text.contains("-----BEGIN") { format!("{} bytes", text.len()) } else { text.to_owned() }
        });
        text("cabundle_configmap", &trust.configmap_name, str::to_owned);
        row(
            "CA_BUNDLE_VOLUME_MOUNT_POINT",
            trust.configmap_dir.value.display().to_string(),
            &trust.configmap_dir.origin,
        );
        let limits = &self.limits;
        let mut seconds = |name, limit: &Sourced<Duration>| {
            row(name, format!("{} s", limit.value.as_secs_f32()), &limit.origin);
        };
        seconds("S3_CONNECT_TIMEOUT", &limits.connect_timeout);
        seconds("S3_READ_TIMEOUT", &limits.first_byte_timeout);
        if let Some(attempts) = &limits.max_attempts {
            row("S3_MAX_ATTEMPTS", attempts.value.to_string(), &attempts.origin);
        }
        if let Some(objects) = &limits.max_objects {
            row("S3_MAX_FILE_CONCURRENCY", objects.value.to_string(), &objects.origin);
        }
        if let Some(digest) = &limits.verification_digest {
            row("VERIFICATION_DIGEST", digest.value.to_string(), &digest.origin);
        }
        let model_check = match limits.model_check.value {
            ModelCheck::Off => "off",
            ModelCheck::Warn => "warn",
            ModelCheck::Strict => "strict",
        };
        row("MODEL_CHECK", model_check.to_owned(), &limits.model_check.origin);
        let verify_etag = &limits.verify_etag_md5;
        row("S3_VERIFY_ETAG_MD5", verify_etag.value.to_string(), &verify_etag.origin);
        let mut patterns = |name, patterns: Vec<&str>| {
            if !patterns.is_empty() {
                row(name, patterns.join(", "), &Origin::Environment(name));
            }
        };
        patterns("STORAGE_ALLOW_PATTERNS", self.filter.allow_patterns().collect());
        patterns("STORAGE_IGNORE_PATTERNS", self.filter.ignore_patterns().collect());
        table
    }
}
