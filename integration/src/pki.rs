//! Certificates, made anew for each test.
//!
//! Owns every certificate and key that a test shows to the product: authorities (good ones and ones that must not be
//! trusted), intermediates, server certificates and self-signed ones. Nothing is read from disk and nothing expires
//! with the calendar, so a test that asserts on trust asserts on exactly the certificate it describes.
//!
//! What `rcgen` refuses to make (RSA-1024, SHA-1 signatures) is left to [`openssl`], which asks the command of that
//! name and says `None` where it is missing.

pub mod openssl;

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion};
use time::{Duration, OffsetDateTime};

/// What a server presents: its chain, end-entity certificate first, and the private key.
#[derive(Debug)]
pub struct ServerIdentity {
    /// The certificates in the order in which they are sent.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the first certificate.
    pub key: PrivateKeyDer<'static>,
}

impl ServerIdentity {
    /// A server that presents it and asks clients for nothing.
    pub(crate) fn server_config(self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("TLS versions that the provider has")
            .with_no_client_auth()
            .with_single_cert(self.chain, self.key)
            .expect("a certificate and a key that the server can use");
        Arc::new(config)
    }
}

impl Clone for ServerIdentity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// When a certificate is valid, seen from the moment of the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// From yesterday for a bit more than two years.
    Current,
    /// Ended yesterday.
    Expired,
    /// Begins tomorrow.
    NotYetValid,
    /// Exactly these two instants.
    Between(OffsetDateTime, OffsetDateTime),
}

impl Validity {
    fn bounds(self) -> (OffsetDateTime, OffsetDateTime) {
        let now = OffsetDateTime::now_utc();
        match self {
            Validity::Current => (now - Duration::days(1), now + Duration::days(800)),
            Validity::Expired => (now - Duration::days(800), now - Duration::days(1)),
            Validity::NotYetValid => (now + Duration::days(1), now + Duration::days(800)),
            Validity::Between(not_before, not_after) => (not_before, not_after),
        }
    }
}

/// What a server certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// `serverAuth`, what a TLS server needs.
    ServerAuth,
    /// `clientAuth`, which does not allow a server.
    ClientAuth,
    /// `codeSigning`, which does not allow a server.
    CodeSigning,
    /// `anyExtendedKeyUsage`.
    Any,
}

/// A description of an authority; the default is one that every client accepts.
#[derive(Debug, Clone)]
pub struct AuthoritySpec {
    name: String,
    validity: Validity,
    ca: bool,
    key_usages: Vec<KeyUsagePurpose>,
    path_len: Option<u8>,
    permitted_dns: Vec<String>,
    excluded_dns: Vec<String>,
    policy_constraints: bool,
}

impl AuthoritySpec {
    /// An authority with this common name, CA:TRUE and keyCertSign.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            validity: Validity::Current,
            ca: true,
            key_usages: vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign],
            path_len: None,
            permitted_dns: Vec::new(),
            excluded_dns: Vec::new(),
            policy_constraints: false,
        }
    }

    /// Sets the dates.
    pub fn validity(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }

    /// Makes it CA:FALSE although it goes on issuing.
    pub fn without_ca_true(mut self) -> Self {
        self.ca = false;
        self
    }

    /// Gives it a key usage that lacks keyCertSign.
    pub fn without_key_cert_sign(mut self) -> Self {
        self.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        self
    }

    /// Leaves the key usage extension out, as many hand-made authorities do.
    pub fn without_key_usage(mut self) -> Self {
        self.key_usages = Vec::new();
        self
    }

    /// Sets `pathLenConstraint`: how many intermediates may follow.
    pub fn path_len(mut self, count: u8) -> Self {
        self.path_len = Some(count);
        self
    }

    /// Adds a permitted DNS subtree to the name constraints.
    pub fn permit_dns(mut self, domain: &str) -> Self {
        self.permitted_dns.push(domain.to_owned());
        self
    }

    /// Adds an excluded DNS subtree to the name constraints.
    pub fn exclude_dns(mut self, domain: &str) -> Self {
        self.excluded_dns.push(domain.to_owned());
        self
    }

    /// Gives it policy constraints, which have to be critical (RFC 5280, section 4.2.1.11), and which webpki does not
    /// know.
    pub fn policy_constraints(mut self) -> Self {
        self.policy_constraints = true;
        self
    }

    fn params(&self) -> CertificateParams {
        let mut params = dated(&self.name, self.validity);
        if self.policy_constraints {
            // SEQUENCE { [0] requireExplicitPolicy 0 }
            let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 36], vec![0x30, 0x03, 0x80, 0x01, 0x00]);
            extension.set_criticality(true);
            params.custom_extensions = vec![extension];
        }
        params.is_ca = match (self.ca, self.path_len) {
            (false, _) => IsCa::ExplicitNoCa,
            (true, None) => IsCa::Ca(BasicConstraints::Unconstrained),
            (true, Some(count)) => IsCa::Ca(BasicConstraints::Constrained(count)),
        };
        params.key_usages = self.key_usages.clone();
        if !self.permitted_dns.is_empty() || !self.excluded_dns.is_empty() {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: dns_subtrees(&self.permitted_dns),
                excluded_subtrees: dns_subtrees(&self.excluded_dns),
            });
        }
        params
    }
}

fn dns_subtrees(domains: &[String]) -> Vec<GeneralSubtree> {
    domains.iter().cloned().map(GeneralSubtree::DnsName).collect()
}

/// An authority with its key: a root, or an intermediate below one.
#[derive(Debug, Clone)]
pub struct Authority {
    spec: AuthoritySpec,
    params: CertificateParams,
    key: Arc<KeyPair>,
    certificate: CertificateDer<'static>,
    /// The intermediates that a server sends with a certificate from here: this one first, roots left out.
    intermediates: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// A self-signed P-256 root that every client accepts.
    pub fn new(name: &str) -> Self {
        Self::from_spec(AuthoritySpec::new(name))
    }

    /// A self-signed P-256 root as described.
    pub fn from_spec(spec: AuthoritySpec) -> Self {
        let params = spec.params();
        let key = generate_key();
        let certificate = params.self_signed(&*key).expect("self-sign an authority");
        Self { spec, params, key, certificate: certificate.der().clone(), intermediates: Vec::new() }
    }

    /// Another root with the very same subject and dates, and another key: an authority after a botched rotation.
    pub fn rekeyed(&self) -> Self {
        Self::from_spec(self.spec.clone())
    }

    /// An intermediate authority below this one.
    pub fn intermediate(&self, name: &str) -> Self {
        self.intermediate_from(AuthoritySpec::new(name))
    }

    /// An intermediate authority below this one, as described.
    pub fn intermediate_from(&self, spec: AuthoritySpec) -> Self {
        let mut params = spec.params();
        params.use_authority_key_identifier_extension = true;
        let key = generate_key();
        let certificate = params.signed_by(&*key, &self.issuer()).expect("sign an intermediate");
        let mut intermediates = vec![certificate.der().clone()];
        intermediates.extend(self.intermediates.iter().cloned());
        Self { spec, params, key, certificate: certificate.der().clone(), intermediates }
    }

    /// Issues a server certificate.
    pub fn issue(&self, spec: LeafSpec) -> Leaf {
        let key = generate_key();
        let mut params = spec.params(&[Usage::ServerAuth]);
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&*key, &self.issuer()).expect("sign a server certificate");
        Leaf {
            certificate: certificate.der().clone(),
            intermediates: self.intermediates.clone(),
            key_pem: key.serialize_pem(),
        }
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> String {
        to_pem(&self.certificate)
    }

    /// The certificate as DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key as PKCS#8 PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &*self.key)
    }
}

/// A description of a server certificate; the default is valid for `localhost`, `127.0.0.1` and `::1`.
#[derive(Debug, Clone)]
pub struct LeafSpec {
    common_name: String,
    names: Vec<String>,
    validity: Validity,
    /// `None` leaves the choice to whoever signs.
    usages: Option<Vec<Usage>>,
}

impl Default for LeafSpec {
    fn default() -> Self {
        Self {
            common_name: "localhost".to_owned(),
            names: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into(),
            validity: Validity::Current,
            usages: None,
        }
    }
}

impl LeafSpec {
    /// The default description.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the common name of the subject; it is not a subject alternative name.
    pub fn common_name(mut self, name: &str) -> Self {
        self.common_name = name.to_owned();
        self
    }

    /// Replaces the subject alternative names; what parses as an address becomes an IP name.
    pub fn names<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.names = names.into_iter().map(str::to_owned).collect();
        self
    }

    /// Leaves the subject alternative names out, so that only the common name is there.
    pub fn without_names(self) -> Self {
        self.names([])
    }

    /// Sets the dates.
    pub fn validity(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }

    /// Replaces the extended key usages; an empty list leaves the extension out.
    pub fn usages(mut self, usages: &[Usage]) -> Self {
        self.usages = Some(usages.to_vec());
        self
    }

    fn params(&self, default_usages: &[Usage]) -> CertificateParams {
        let mut params = dated(&self.common_name, self.validity);
        params.subject_alt_names = self.names.iter().map(|name| alt_name(name)).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = self
            .usages
            .as_deref()
            .unwrap_or(default_usages)
            .iter()
            .map(|usage| match usage {
                Usage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
                Usage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
                Usage::CodeSigning => ExtendedKeyUsagePurpose::CodeSigning,
                Usage::Any => ExtendedKeyUsagePurpose::Any,
            })
            .collect();
        params
    }
}

fn alt_name(name: &str) -> SanType {
    match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().expect("a DNS name is ASCII")),
    }
}

/// Which basic constraints a self-signed server certificate carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelfSigned {
    /// CA:TRUE and no key usage: what `openssl req -x509` makes unless told otherwise.
    CaTrue,
    /// CA:FALSE.
    CaFalse,
}

/// A server certificate that signs itself. It has no extended key usage unless the description names one.
pub fn self_signed_server(spec: LeafSpec, kind: SelfSigned) -> Leaf {
    let key = generate_key();
    let mut params = spec.params(&[]);
    match kind {
        SelfSigned::CaTrue => {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = Vec::new();
            params.use_authority_key_identifier_extension = true;
        }
        SelfSigned::CaFalse => params.is_ca = IsCa::ExplicitNoCa,
    }
    let certificate = params.self_signed(&*key).expect("self-sign a server certificate");
    Leaf { certificate: certificate.der().clone(), intermediates: Vec::new(), key_pem: key.serialize_pem() }
}

/// A server certificate with its key.
#[derive(Debug, Clone)]
pub struct Leaf {
    certificate: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    key_pem: String,
}

impl Leaf {
    /// The certificate alone as PEM.
    pub fn pem(&self) -> String {
        to_pem(&self.certificate)
    }

    /// The certificate and the intermediates above it as PEM.
    pub fn chain_pem(&self) -> String {
        let above: String = self.intermediates.iter().map(to_pem).collect();
        self.pem() + &above
    }

    /// The certificate alone as DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key as PKCS#8 PEM.
    pub fn key_pem(&self) -> String {
        self.key_pem.clone()
    }

    /// What a well configured server presents: the certificate and its intermediates.
    pub fn identity(&self) -> ServerIdentity {
        let mut identity = self.identity_without_intermediates();
        identity.chain.extend(self.intermediates.iter().cloned());
        identity
    }

    /// What a server presents whose administrator forgot the intermediates.
    pub fn identity_without_intermediates(&self) -> ServerIdentity {
        ServerIdentity {
            chain: vec![self.certificate.clone()],
            key: PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
                .expect("a private key that was just written as PEM"),
        }
    }
}

/// One certificate as a PEM block with a final newline.
pub fn to_pem(certificate: &CertificateDer<'static>) -> String {
    let text = base64_simd::STANDARD.encode_to_string(certificate.as_ref());
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    // RFC 7468, section 2: lines of exactly 64 characters, except the last.
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn dated(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Harness");
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    (params.not_before, params.not_after) = validity.bounds();
    params
}

fn generate_key() -> Arc<KeyPair> {
    // The default algorithm of rcgen is ECDSA P-256 with SHA-256.
    Arc::new(KeyPair::generate().expect("generate a P-256 key"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{CertificateError, RootCertStore};

    fn verify(anchor: &CertificateDer<'static>, leaf: &Leaf, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(anchor.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        verifier
            .verify_server_cert(
                leaf.der(),
                &leaf.identity().chain[1..],
                &ServerName::try_from(name.to_owned()).unwrap(),
                &[],
                UnixTime::now(),
            )
            .map(|_| ())
    }

    fn refusal(result: Result<(), rustls::Error>) -> CertificateError {
        match result {
            Err(rustls::Error::InvalidCertificate(reason)) => reason,
            other => panic!("expected a refused certificate, got {other:?}"),
        }
    }

    #[test]
    fn a_default_leaf_verifies_below_its_root_and_intermediate() {
        let root = Authority::new("Fresh Root");
        verify(root.der(), &root.issue(LeafSpec::new()), "localhost").unwrap();
        let leaf = root.intermediate("Issuing CA").issue(LeafSpec::new());
        verify(root.der(), &leaf, "127.0.0.1").unwrap();
        assert_eq!(leaf.chain_pem().matches("BEGIN CERTIFICATE").count(), 2);
    }

    #[test]
    fn each_variation_is_refused_for_its_own_reason() {
        let root = Authority::new("Fresh Root");
        let expired = root.issue(LeafSpec::new().validity(Validity::Expired));
        assert!(matches!(refusal(verify(root.der(), &expired, "localhost")), CertificateError::ExpiredContext { .. }));
        let future = root.issue(LeafSpec::new().validity(Validity::NotYetValid));
        assert!(matches!(
            refusal(verify(root.der(), &future, "localhost")),
            CertificateError::NotValidYetContext { .. }
        ));
        let nameless = root.issue(LeafSpec::new().without_names());
        assert!(matches!(
            refusal(verify(root.der(), &nameless, "localhost")),
            CertificateError::NotValidForNameContext { .. }
        ));
        let client = root.issue(LeafSpec::new().usages(&[Usage::ClientAuth]));
        assert!(matches!(
            refusal(verify(root.der(), &client, "localhost")),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
        ));
        assert_eq!(
            refusal(verify(root.rekeyed().der(), &root.issue(LeafSpec::new()), "localhost")),
            CertificateError::BadSignature
        );
    }

    #[test]
    fn name_constraints_and_path_length_are_in_the_certificate() {
        let narrow = Authority::from_spec(AuthoritySpec::new("Narrow").permit_dns("example.org"));
        let leaf = narrow.issue(LeafSpec::new().names(["localhost"]));
        verify(narrow.der(), &leaf, "localhost").unwrap_err();
        // On an intermediate, for webpki does not look at the path length of an anchor.
        let root = Authority::new("Fresh Root");
        let short = root.intermediate_from(AuthoritySpec::new("Short").path_len(0));
        verify(root.der(), &short.issue(LeafSpec::new()), "localhost").unwrap();
        let below = short.intermediate("Too deep").issue(LeafSpec::new());
        verify(root.der(), &below, "localhost").unwrap_err();
    }

    #[test]
    fn a_self_signed_ca_true_server_is_what_webpki_alone_refuses() {
        let leaf = self_signed_server(LeafSpec::new(), SelfSigned::CaTrue);
        let reason = format!("{:?}", refusal(verify(leaf.der(), &leaf, "localhost")));
        assert!(reason.contains("CaUsedAsEndEntity"), "{reason}");
        let leaf = self_signed_server(LeafSpec::new(), SelfSigned::CaFalse);
        verify(leaf.der(), &leaf, "localhost").unwrap();
    }

    #[test]
    fn pem_round_trips() {
        let root = Authority::new("Fresh Root");
        let parsed = CertificateDer::from_pem_slice(root.pem().as_bytes()).unwrap();
        assert_eq!(&parsed, root.der());
        PrivateKeyDer::from_pem_slice(root.key_pem().as_bytes()).unwrap();
    }
}
