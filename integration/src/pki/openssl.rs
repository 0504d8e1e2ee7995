//! Certificates and servers that no modern TLS library makes any more, from the `openssl` command.
//!
//! Everything here answers `None` where the command is missing or refuses, so that a test can say that it was skipped.
//! The command works in a directory of its own that is removed afterwards.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{Authority, Leaf};

/// What is weak about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// An RSA key of 1,024 bits, signed with SHA-256.
    Rsa1024,
    /// A P-256 key, but the authority signed with SHA-1.
    Sha1Signature,
    /// A P-256 key, but signed with MD5: by another RSA key under the authority's name, for ECDSA has no MD5.
    Md5Signature,
    /// A certificate of version 1, which has no extensions.
    Version1,
}

/// A server certificate for `localhost`, `127.0.0.1` and `::1` from `authority`, weak in one way.
pub fn weak_leaf(authority: &Authority, weakness: Weakness) -> Option<Leaf> {
    let directory = tempfile::tempdir().ok()?;
    let at = |name: &str| directory.path().join(name);
    fs::write(at("ca.crt"), authority.pem()).ok()?;
    fs::write(at("ca.key"), authority.key_pem()).ok()?;
    fs::write(at("leaf.ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nextendedKeyUsage=serverAuth\n")
        .ok()?;
    let (key, hash) = match weakness {
        Weakness::Rsa1024 => (["RSA", "rsa_keygen_bits:1024"], "-sha256"),
        Weakness::Sha1Signature => (["EC", "ec_paramgen_curve:P-256"], "-sha1"),
        Weakness::Md5Signature => (["EC", "ec_paramgen_curve:P-256"], "-md5"),
        Weakness::Version1 => (["EC", "ec_paramgen_curve:P-256"], "-sha256"),
    };
    if weakness == Weakness::Md5Signature {
        let subject = format!("/O=Harness/CN={}", authority.spec.name);
        let arguments = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt"];
        openssl(directory.path(), &[&arguments[..], &["-subj", &subject]].concat())?;
    }
    let [algorithm, option] = key;
    openssl(directory.path(), &["genpkey", "-algorithm", algorithm, "-pkeyopt", option, "-out", "leaf.key"])?;
    openssl(
        directory.path(),
        &["req", "-new", "-key", "leaf.key", "-subj", "/O=Harness/CN=localhost", "-out", "leaf.csr"],
    )?;
    let extensions: &[&str] = match weakness {
        // Version 3 is what extensions make it.
        Weakness::Version1 => &[],
        Weakness::Rsa1024 | Weakness::Sha1Signature | Weakness::Md5Signature => &["-extfile", "leaf.ext"],
    };
    let sign = ["x509", "-req", "-in", "leaf.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-set_serial", "4242"];
    let further = ["-days", "30", hash, "-out", "leaf.crt"];
    openssl(directory.path(), &[&sign, &further[..], extensions].concat())?;
    let pem = fs::read(at("leaf.crt")).ok()?;
    Some(Leaf {
        certificate: CertificateDer::from_pem_slice(&pem).ok()?,
        intermediates: authority.intermediates.clone(),
        key_pem: fs::read_to_string(at("leaf.key")).ok()?,
    })
}

/// What the command writes to stdout for `input` on its stdin.
pub fn output(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut process = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // What is asked here is smaller than a pipe, so neither side waits for the other.
    process.stdin.take()?.write_all(input).ok()?;
    let output = process.wait_with_output().ok()?;
    output.status.success().then_some(output.stdout)
}

fn openssl(directory: &Path, arguments: &[&str]) -> Option<()> {
    let status = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    status.success().then_some(())
}

/// A bare TLS endpoint by `openssl s_server`, for what the embedded server cannot speak: an RSA-1024 certificate, or
/// TLS 1.1 only. It answers no S3 request; it is there to have its handshake refused. Dropping it ends it.
#[derive(Debug)]
pub struct TlsEndpoint {
    process: Child,
    port: u16,
    _files: tempfile::TempDir,
}

impl TlsEndpoint {
    /// Starts it with a certificate and further arguments of `s_server`, for example `["-tls1_1"]`.
    pub fn start(leaf: &Leaf, arguments: &[&str]) -> Option<Self> {
        let files = tempfile::tempdir().ok()?;
        fs::write(files.path().join("chain.crt"), leaf.chain_pem()).ok()?;
        fs::write(files.path().join("leaf.key"), leaf.key_pem()).ok()?;
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert_chain", "chain.crt", "-cert", "chain.crt"])
            // Security level 0 is what allows short keys and old protocol versions at all.
            .args(["-key", "leaf.key", "-cipher", "ALL:@SECLEVEL=0", "-www"])
            .args(arguments)
            .current_dir(files.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let output = process.stdout.take()?;
        let port = BufReader::new(output).lines().map_while(Result::ok).find_map(|line| {
            // With port 0 it says which one it got: "ACCEPT 127.0.0.1:43211".
            line.strip_prefix("ACCEPT ")?.rsplit_once(':')?.1.trim().parse().ok()
        });
        let Some(port) = port else {
            let _ = process.kill();
            let _ = process.wait();
            return None;
        };
        Some(Self { process, port, _files: files })
    }

    /// `https://localhost:PORT`.
    pub fn endpoint(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

impl Drop for TlsEndpoint {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::sync::Arc;

    use super::*;
    use crate::pki::LeafSpec;

    #[test]
    fn weak_leaves_are_made_where_the_command_exists() {
        if openssl(Path::new("."), &["version"]).is_none() {
            return;
        }
        let authority = Authority::new("Fresh Root");
        let rsa = weak_leaf(&authority, Weakness::Rsa1024).unwrap();
        assert!(rsa.key_pem().contains("PRIVATE KEY"));
        let sha1 = weak_leaf(&authority, Weakness::Sha1Signature).unwrap();
        // ecdsa-with-SHA1, 1.2.840.10045.4.1.
        let oid = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
        assert!(sha1.der().windows(oid.len()).any(|window| window == oid));
    }

    /// The error of a handshake by a modern client that trusts `authority`.
    fn handshake(server: &TlsEndpoint, authority: &Authority) -> Result<(), std::io::Error> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        let mut tls = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut tcp = TcpStream::connect(server.endpoint().trim_start_matches("https://")).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(())
    }

    #[test]
    fn endpoints_are_refused_for_what_is_weak_about_them_and_nothing_else() {
        if openssl(Path::new("."), &["version"]).is_none() {
            return;
        }
        let authority = Authority::new("Fresh Root");
        let leaf = authority.issue(LeafSpec::new());
        handshake(&TlsEndpoint::start(&leaf, &[]).unwrap(), &authority).unwrap();
        let refusal = |leaf: &Leaf, arguments: &[&str]| {
            let server = TlsEndpoint::start(leaf, arguments).unwrap();
            format!("{:?}", handshake(&server, &authority).unwrap_err())
        };
        let old = refusal(&leaf, &["-tls1_1"]);
        assert!(old.contains("ProtocolVersion"), "{old}");
        let rsa = refusal(&weak_leaf(&authority, Weakness::Rsa1024).unwrap(), &[]);
        assert!(rsa.contains("InvalidCertificate"), "{rsa}");
        let sha1 = refusal(&weak_leaf(&authority, Weakness::Sha1Signature).unwrap(), &[]);
        assert!(sha1.contains("InvalidCertificate"), "{sha1}");
    }
}
