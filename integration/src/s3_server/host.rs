//! Virtual-hosted addressing: which bucket a `Host` header names.

use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};

/// The domain below which each bucket has a host name of its own. Every other host is path style, port or not.
#[derive(Debug, Clone)]
pub(crate) struct BaseDomain(pub(crate) String);

impl BaseDomain {
    /// The bucket in `host`, which may end in a port.
    pub(crate) fn bucket<'a>(&self, host: &'a str) -> Option<&'a str> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) | None => host,
        };
        name.strip_suffix(self.0.as_str())?.strip_suffix('.')
    }
}

impl S3Host for BaseDomain {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let parsed = VirtualHost::new(self.0.as_str());
        Ok(match self.bucket(host) {
            Some(bucket) => parsed.with_bucket(bucket),
            None => parsed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_what_stands_before_the_base_domain() {
        let base = BaseDomain("localhost".to_owned());
        assert_eq!(base.bucket("models.localhost:8443"), Some("models"));
        assert_eq!(base.bucket("my.models.localhost"), Some("my.models"));
        assert_eq!(base.bucket("localhost:8443"), None);
        assert_eq!(base.bucket("example.org"), None);
    }
}
