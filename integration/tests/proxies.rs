//! The way to the store leads through a proxy: one that wants a password, one behind TLS, one that ends the store's TLS and
//! shows a certificate of its own.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use std::{collections::BTreeSet, io::Write as _, path::Path};

use serde_json::json;
use storage_initializer_integration::{
    connect_proxy::ConnectProxy,
    initializer::{Initializer, Outcome},
    pki::{Authority, LeafSpec},
    pod::{Pod, assert_nothing_visible},
    s3_server::Object,
    squid::Squid,
    tls_front::TlsFront,
    tree::Tree,
};

const USER: &str = "me";
const PASSWORD: &str = "hunter2";

/// `openssl passwd -apr1 -salt harness1 hunter2`
const PASSWORDS: &str = "me:$apr1$harness1$MkNZvKzCyiRpdjMpVxu4G/\n";

fn pod() -> Pod {
    filled(Pod::new())
}

/// A pod whose store speaks plain HTTP.
fn plain_pod() -> Pod {
    filled(Pod::with(|server| server.plain()))
}

fn filled(pod: Pod) -> Pod {
    pod.put("m/config.json", Object::text("{}"));
    pod.put("m/weights.bin", Object::pattern(7, 40 << 20));
    pod
}

fn expected() -> Tree {
    Tree::new().bytes("config.json", "{}").file("weights.bin", Object::pattern(7, 40 << 20).data())
}

/// A run that knows each of these CAs, and the store's where it is not among them.
fn run(pod: &Pod, cas: &[&Authority]) -> Initializer {
    let certificates: String = cas.iter().map(|ca| ca.pem()).collect();
    let entry = pod.entry_with(json!({"certificate": certificates}));
    pod.with_entry(&entry).env("STORAGE_URI", "s3://models/m").env("S3_MAX_ATTEMPTS", "2")
}

#[track_caller]
fn assert_arrived(pod: &Pod, run: Initializer) -> Outcome {
    let outcome = run.env("LOG_LEVEL", "debug").run();
    outcome.assert_exit(0);
    pod.tree().assert_equals(&expected());
    assert!(!outcome.stderr.contains(PASSWORD), "the password was told:\n{}", outcome.stderr);
    outcome
}

#[track_caller]
fn refused(pod: &Pod, run: Initializer, code: i32) -> String {
    let outcome = run.run();
    assert_nothing_visible(&pod.models());
    assert!(!outcome.stderr.contains(PASSWORD), "the password was told:\n{}", outcome.stderr);
    pod.refused(&outcome, code)
}

fn with_password(authority: &str) -> String {
    format!("http://{USER}:{PASSWORD}@{authority}")
}

mod that_wants_a_password {
    use super::*;

    fn proxy(pod: &Pod) -> ConnectProxy {
        ConnectProxy::demanding(pod.server.address(), USER, PASSWORD)
    }

    fn authority(proxy: &ConnectProxy) -> String {
        proxy.url().trim_start_matches("http://").to_owned()
    }

    #[test]
    fn gets_it_and_the_store_does_not() {
        let pod = pod();
        let proxy = proxy(&pod);
        let url = with_password(&authority(&proxy));
        assert_arrived(&pod, run(&pod, &[&pod.authority]).env("HTTPS_PROXY", url));
        assert!(!proxy.heads().is_empty());
        let told = pod.server.requests().iter().any(|request| request.headers.contains_key("proxy-authorization"));
        assert!(!told, "the store was told the proxy's password");
    }

    #[test]
    fn and_does_not_get_it_says_so() {
        let pod = pod();
        let proxy = proxy(&pod);
        let run = run(&pod, &[&pod.authority]).env("HTTPS_PROXY", proxy.url());
        insta::assert_snapshot!(refused(&pod, run, 69).replace(&authority(&proxy), "proxy"), @"HeadObject s3://models/m at https://localhost:9000 failed: no connection to localhost:9000 through proxy http://proxy/: proxy authorization required; write http://USER:PASSWORD@HOST:PORT into the variable that names the proxy");
        assert!(pod.server.requests().is_empty());
    }

    #[test]
    fn and_gets_another_says_so() {
        let pod = pod();
        let proxy = proxy(&pod);
        let url = format!("http://{USER}:hunter3@{}", authority(&proxy));
        let message = refused(&pod, run(&pod, &[&pod.authority]).env("HTTPS_PROXY", url), 69);
        assert!(message.contains("proxy authorization required") && !message.contains("hunter3"), "{message}");
    }
}

mod from_debian {
    use super::*;

    fn squid() -> Option<Squid> {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("sharing/squid.conf");
        let squid = Squid::start(&config, &[("passwords", PASSWORDS)]);
        if squid.is_none() {
            let _ = writeln!(
                std::io::stderr(),
                "proxies: LEFT OUT squid: there is none here (Debian: apt-get install squid)"
            );
        }
        squid
    }

    #[test]
    fn leads_to_a_store_behind_tls() {
        let pod = pod();
        let Some(squid) = squid() else { return };
        let url = with_password(&squid.authority());
        assert_arrived(&pod, run(&pod, &[&pod.authority]).env("HTTPS_PROXY", url));
        let log = squid.read("access.log");
        assert!(log.contains(&format!("CONNECT localhost:{} me", pod.server.address().port())), "{log}");
    }

    #[test]
    fn leads_to_a_store_without_tls() {
        let pod = plain_pod();
        let Some(squid) = squid() else { return };
        let url = with_password(&squid.authority());
        assert_arrived(&pod, run(&pod, &[&pod.authority]).env("HTTP_PROXY", url));
        let log = squid.read("access.log");
        assert!(log.contains("/models/m/config.json me"), "{log}");
    }

    #[test]
    fn turns_away_who_has_no_password() {
        for (pod, variable) in [(pod(), "HTTPS_PROXY"), (plain_pod(), "HTTP_PROXY")] {
            let Some(squid) = squid() else { return };
            let run = run(&pod, &[&pod.authority]).env(variable, format!("http://{}", squid.authority()));
            let outcome = run.run();
            assert!(outcome.last_line().contains("write http://USER:PASSWORD@HOST:PORT"), "{}", outcome.last_line());
            outcome.assert_exit(69);
            assert!(squid.read("access.log").contains("/407 "), "{}", squid.read("access.log"));
            assert!(pod.server.requests().is_empty());
        }
    }
}

mod that_is_not_asked {
    use super::*;

    /// Which stores were asked for by way of the proxy.
    fn asked(no_proxy: &str) -> BTreeSet<String> {
        let pod = pod();
        let proxy = ConnectProxy::start(pod.server.address());
        let run = run(&pod, &[&pod.authority]).env("HTTPS_PROXY", proxy.url()).env("NO_PROXY", no_proxy);
        assert_arrived(&pod, run);
        proxy.targets().into_iter().map(|target| target.split(':').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn is_what_no_proxy_names() {
        for list in ["localhost", "example.org, localhost", "*"] {
            assert_eq!(asked(list), BTreeSet::new(), "{list}");
        }
        for list in ["example.org", "ocalhost", ".localhost.example"] {
            assert_eq!(asked(list), BTreeSet::from(["localhost".to_owned()]), "{list}");
        }
    }
}

mod behind_tls {
    use super::*;

    #[test]
    fn is_believed_by_a_ca_of_its_own_in_the_bundle() {
        let pod = pod();
        let company = Authority::new("Proxy Root CA");
        let proxy = ConnectProxy::demanding(pod.server.address(), USER, PASSWORD);
        let identity = company.issue(LeafSpec::new()).identity();
        let front = TlsFront::start(identity, proxy.address());
        let url = format!("https://{USER}:{PASSWORD}@127.0.0.1:{}", front.address().port());
        assert_arrived(&pod, run(&pod, &[&pod.authority, &company]).env("HTTPS_PROXY", url));
        assert!(!proxy.heads().is_empty());
    }

    #[test]
    fn is_not_believed_without() {
        let pod = pod();
        let company = Authority::new("Proxy Root CA");
        let proxy = ConnectProxy::start(pod.server.address());
        let front = TlsFront::start(company.issue(LeafSpec::new()).identity(), proxy.address());
        let port = front.address().port();
        let run = run(&pod, &[&pod.authority]).env("HTTPS_PROXY", format!("https://127.0.0.1:{port}"));
        insta::assert_snapshot!(refused(&pod, run, 76).replace(&format!(":{port}"), ":3128"), @r#"HeadObject s3://models/m at https://localhost:9000 failed: TLS with the proxy 127.0.0.1:3128 refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Proxy Root CA", valid until [date], SHA-256 [fingerprint]); its issuer "O=Harness, CN=Proxy Root CA" is not in the trust store, and the server sent no intermediate certificate; certificates in the trust store: CA ConfigMap at /pod/no-ca-configmap (not mounted): 0, storage-config entry "default" (/pod/storage-config/default), field "certificate": 1 ("O=Harness, CN=Harness Root CA"), system roots (SSL_CERT_FILE /pod/no-system-roots.pem, SSL_CERT_DIR /pod/no-system-roots): 0; have the server send its whole chain, or put the CA certificate "O=Harness, CN=Proxy Root CA" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate""#);
        assert!(proxy.heads().is_empty());
    }
}

mod that_looks_into_tls {
    use super::*;

    /// A store, and a proxy that shows a certificate of `company` for it.
    fn intercepted(company: &Authority) -> (Pod, TlsFront, ConnectProxy) {
        let pod = plain_pod();
        let identity = company.issue(LeafSpec::new().names(["store.example.org"])).identity();
        let front = TlsFront::start(identity, pod.server.address());
        let proxy = ConnectProxy::start(front.address());
        (pod, front, proxy)
    }

    fn run(pod: &Pod, proxy: &ConnectProxy, cas: &[&Authority]) -> Initializer {
        let certificates: String = cas.iter().map(|ca| ca.pem()).collect();
        let entry = json!({"certificate": certificates, "endpoint_url": "https://store.example.org"});
        pod.with_entry(&pod.entry_with(entry)).env("STORAGE_URI", "s3://models/m").env("HTTPS_PROXY", proxy.url())
    }

    #[test]
    fn is_believed_by_its_ca_in_the_bundle() {
        let company = Authority::new("Proxy Root CA");
        let (pod, _front, proxy) = intercepted(&company);
        assert_arrived(&pod, run(&pod, &proxy, &[&pod.authority, &company]));
        let targets = BTreeSet::from_iter(proxy.targets());
        assert_eq!(targets, BTreeSet::from(["store.example.org:443".to_owned()]));
    }

    #[test]
    fn is_not_believed_without() {
        let company = Authority::new("Proxy Root CA");
        let (pod, _front, proxy) = intercepted(&company);
        insta::assert_snapshot!(refused(&pod, run(&pod, &proxy, &[&pod.authority]), 76), @r#"HeadObject s3://models/m at https://store.example.org failed: TLS with store.example.org:443 refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Proxy Root CA", valid until [date], SHA-256 [fingerprint]); its issuer "O=Harness, CN=Proxy Root CA" is not in the trust store, and the server sent no intermediate certificate; certificates in the trust store: CA ConfigMap at /pod/no-ca-configmap (not mounted): 0, storage-config entry "default" (/pod/storage-config/default), field "certificate": 1 ("O=Harness, CN=Harness Root CA"), system roots (SSL_CERT_FILE /pod/no-system-roots.pem, SSL_CERT_DIR /pod/no-system-roots): 0; have the server send its whole chain, or put the CA certificate "O=Harness, CN=Proxy Root CA" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate""#);
        assert!(pod.server.requests().is_empty());
    }
}
