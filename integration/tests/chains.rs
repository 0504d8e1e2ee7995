//! Whom we then trust: one server certificate, one trust store, and what comes of it.
//!
//! Every handshake is a real one. Where trust is right, the model arrives; where it is not, the exit code is 76, no
//! request was answered, and the snapshot holds the one line that a user gets (a clause per line here; paths, ports,
//! fingerprints and dates have names instead). The system's roots are one public authority that vouches for nothing here.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails it by a panic")]

use insta::assert_snapshot;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use storage_initializer_integration::mounted_volume::MountedVolume;
use storage_initializer_integration::pki::openssl::{TlsEndpoint, Weakness, weak_leaf};
use storage_initializer_integration::pki::{
    Authority, AuthoritySpec, Leaf, LeafSpec, SelfSigned, ServerIdentity, Usage, Validity, self_signed_server,
};
use storage_initializer_integration::s3_server::{S3Server, TlsVersions};
use storage_initializer_integration::scene::Scene;

/// A server with `identity`, and `bundle` in the CA ConfigMap.
fn scene(identity: ServerIdentity, bundle: &str) -> Scene {
    Scene::with_server(identity).configmap(bundle)
}

/// The model arrives; answers the warnings.
#[track_caller]
fn trusts(identity: ServerIdentity, bundle: &str) -> String {
    scene(identity, bundle).run().succeeds()
}

/// The handshake is refused at once, and before anything was asked; answers the message.
#[track_caller]
fn distrusts(identity: ServerIdentity, bundle: &str) -> String {
    refuses(&scene(identity, bundle))
}

#[track_caller]
fn refuses(scene: &Scene) -> String {
    let message = scene.run().fails(76);
    assert_eq!(scene.server().requests().len(), 0, "the server got a request");
    assert_eq!(scene.server().connections(), 1, "a refused certificate is not tried again");
    message
}

fn root() -> Authority {
    Authority::new("Store Root")
}

fn server_of(authority: &Authority) -> Leaf {
    authority.issue(LeafSpec::new())
}

mod a_chain_to_a_ca_of_the_bundle {
    use super::*;

    #[test]
    fn a_leaf_below_the_root_is_trusted() {
        let root = root();
        assert_eq!(trusts(server_of(&root).identity(), &root.pem()), "");
    }

    #[test]
    fn a_leaf_below_two_intermediates_is_trusted() {
        let root = root();
        let issuing = root.intermediate("Middle CA").intermediate("Issuing CA");
        assert_eq!(trusts(server_of(&issuing).identity(), &root.pem()), "");
    }

    #[test]
    fn only_the_intermediate_in_the_bundle_is_enough() {
        let issuing = root().intermediate("Issuing CA");
        assert_eq!(trusts(server_of(&issuing).identity(), &issuing.pem()), "");
        assert_eq!(trusts(server_of(&issuing).identity_without_intermediates(), &issuing.pem()), "");
    }

    #[test]
    fn root_and_intermediate_in_the_bundle_make_up_for_a_server_that_sends_none() {
        let root = root();
        let issuing = root.intermediate("Issuing CA");
        let bundle = root.pem() + &issuing.pem();
        assert_eq!(trusts(server_of(&issuing).identity_without_intermediates(), &bundle), "");
    }

    #[test]
    fn a_ca_without_any_key_usage_is_a_ca() {
        let root = Authority::from_spec(AuthoritySpec::new("Handmade Root").without_key_usage());
        assert_eq!(trusts(server_of(&root).identity(), &root.pem()), "");
    }

    #[test]
    fn a_root_with_policy_constraints_is_a_ca() {
        let root = Authority::from_spec(AuthoritySpec::new("Policy Root").policy_constraints());
        assert_eq!(trusts(server_of(&root).identity(), &root.pem()), "");
    }

    #[test]
    fn a_leaf_without_extended_usage_or_with_several_is_a_server() {
        let root = root();
        for usages in [&[][..], &[Usage::ClientAuth, Usage::ServerAuth]] {
            let leaf = root.issue(LeafSpec::new().usages(usages));
            assert_eq!(trusts(leaf.identity(), &root.pem()), "", "{usages:?}");
        }
    }

    #[test]
    fn the_old_ca_beside_the_new_one_of_the_same_name_does_no_harm() {
        let old = root();
        let new = old.rekeyed();
        assert_eq!(trusts(server_of(&new).identity(), &(old.pem() + &new.pem())), "");
        assert_eq!(trusts(server_of(&old).identity(), &(old.pem() + &new.pem())), "");
    }

    #[test]
    fn a_ca_with_the_name_of_its_server_is_still_its_ca() {
        let root = Authority::new("localhost");
        assert_eq!(trusts(server_of(&root).identity(), &root.pem()), "");
    }

    #[test]
    fn tls_1_2_alone_and_tls_1_3_alone_will_do() {
        for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
            let root = root();
            let builder = S3Server::builder().identity(server_of(&root).identity()).tls_versions(versions);
            Scene::with_store(builder).configmap(root.pem()).run().succeeds_quietly();
        }
    }

    #[test]
    fn the_same_ca_120_times_and_the_new_one() {
        let old = root();
        let new = old.rekeyed();
        assert_eq!(trusts(server_of(&new).identity(), &(old.pem().repeat(120) + &new.pem())), "");
    }

    #[test]
    fn a_crowd_of_500_cas_with_duplicates() {
        let crowd: Vec<Authority> = (0..250).map(|number| Authority::new(&format!("Root {number}"))).collect();
        let pems: String = crowd.iter().map(Authority::pem).collect();
        let last = &crowd[249];
        let scene = scene(server_of(last).identity(), &(pems.clone() + &pems));
        let run = scene.run();
        run.succeeds_quietly();
        assert_snapshot!(run.sources(), @"CA ConfigMap at [pod]/ca (cabundle.crt): 250, system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1");
        let stranger = server_of(&Authority::new("Root 250"));
        assert_snapshot!(distrusts(stranger.identity(), &pems), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Root 250", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Root 250" is not in the trust store, and the server sent no intermediate certificate;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 250 ("O=Harness, CN=Root 0", "O=Harness, CN=Root 1", "O=Harness, CN=Root 2" and 247 more), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        have the server send its whole chain, or put the CA certificate "O=Harness, CN=Root 250" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate"
        "#);
    }
}

mod a_pin {
    use super::*;

    fn self_signed(kind: SelfSigned) -> Leaf {
        self_signed_server(LeafSpec::new(), kind)
    }

    #[test]
    fn a_self_signed_server_with_ca_true_is_trusted() {
        let leaf = self_signed(SelfSigned::CaTrue);
        assert_eq!(trusts(leaf.identity(), &leaf.pem()), "");
    }

    #[test]
    fn a_self_signed_server_with_ca_false_is_trusted() {
        let leaf = self_signed(SelfSigned::CaFalse);
        assert_eq!(trusts(leaf.identity(), &leaf.pem()), "");
    }

    #[test]
    fn a_self_signed_server_is_trusted_by_its_pin_alone() {
        for kind in [SelfSigned::CaTrue, SelfSigned::CaFalse] {
            let leaf = self_signed(kind);
            let scene = scene(leaf.identity(), &leaf.pem()).env("TRUST_STORE", "bundle-only");
            scene.run().succeeds_quietly();
        }
    }

    #[test]
    fn a_self_signed_server_is_trusted_where_ssl_cert_file_names_it() {
        let leaf = self_signed(SelfSigned::CaTrue);
        let scene = Scene::with_server(leaf.identity());
        let file = scene.write("store.pem", leaf.pem());
        scene.env("SSL_CERT_FILE", file).run().succeeds_quietly();
    }

    #[test]
    fn a_leaf_in_the_bundle_instead_of_its_ca_is_trusted_and_the_ca_advised() {
        let leaf = server_of(&root());
        assert_snapshot!(trusts(leaf.identity(), &leaf.pem()), @r#"CA ConfigMap at [pod]/ca: "O=Harness, CN=localhost" is a server's own certificate and no CA: that one server is trusted, until it is renewed ([date] at the latest); put the CA "O=Harness, CN=Store Root" there instead"#);
    }

    #[test]
    fn a_leaf_in_the_bundle_beside_its_ca_is_not_worth_a_word() {
        let root = root();
        let leaf = server_of(&root);
        assert_eq!(trusts(leaf.identity(), &(leaf.pem() + &root.pem())), "");
    }

    #[test]
    fn one_that_expired_is_refused() {
        let leaf = self_signed_server(LeafSpec::new().validity(Validity::Expired), SelfSigned::CaTrue);
        assert_snapshot!(distrusts(leaf.identity(), &leaf.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (self-signed, valid until [date], SHA-256 [sha256]);
        it expired at [date], and this container's clock says [date];
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=localhost"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        renew it on the server, and put the new one where this one is now: CA ConfigMap at [pod]/ca
        "#);
    }

    #[test]
    fn one_that_is_not_valid_yet_is_refused() {
        let leaf = self_signed_server(LeafSpec::new().validity(Validity::NotYetValid), SelfSigned::CaTrue);
        assert_snapshot!(distrusts(leaf.identity(), &leaf.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (self-signed, valid until [date], SHA-256 [sha256]);
        it is valid only from [date], and this container's clock says [date];
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=localhost"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        check the clock of this node and of whoever issued the certificate
        "#);
    }

    #[test]
    fn one_with_another_name_is_refused() {
        let leaf = self_signed_server(LeafSpec::new().names(["minio.example"]), SelfSigned::CaTrue);
        assert_snapshot!(distrusts(leaf.identity(), &leaf.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (self-signed, valid until [date], SHA-256 [sha256]);
        it is not for "localhost": it is for minio.example;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=localhost"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        use one of its names in the endpoint, or reissue the certificate with subjectAltName=DNS:localhost
        "#);
    }

    #[test]
    fn one_with_the_same_subject_and_another_key_is_refused() {
        for kind in [SelfSigned::CaTrue, SelfSigned::CaFalse] {
            let (renewed, old) = (self_signed(kind), self_signed(kind));
            let message = distrusts(renewed.identity(), &old.pem());
            insta::allow_duplicates! { assert_snapshot!(message, @r#"
            HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (self-signed, valid until [date], SHA-256 [sha256]);
            it is self-signed and not in the trust store;
            the one with the same name in CA ConfigMap at [pod]/ca is another one (valid until [date], SHA-256 [sha256]);
            certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=localhost"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
            if the server's certificate was renewed, replace it there;
            compare the SHA-256 with whoever runs the server
            "#); }
        }
    }

    #[test]
    fn one_whose_usage_allows_no_server_is_refused() {
        let leaf = self_signed_server(LeafSpec::new().usages(&[Usage::ClientAuth]), SelfSigned::CaTrue);
        assert_snapshot!(distrusts(leaf.identity(), &leaf.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (self-signed, valid until [date], SHA-256 [sha256]);
        its extended key usage does not allow a server;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=localhost"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        reissue the server's certificate with extendedKeyUsage=serverAuth
        "#);
    }

    #[test]
    fn a_self_signed_server_that_nobody_put_into_the_bundle_is_refused() {
        for kind in [SelfSigned::CaTrue, SelfSigned::CaFalse] {
            let message = distrusts(self_signed(kind).identity(), &root().pem());
            insta::allow_duplicates! { assert_snapshot!(message, @r#"
            HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (self-signed, valid until [date], SHA-256 [sha256]);
            it is self-signed and not in the trust store;
            certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
            put this certificate itself into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate", after comparing the SHA-256 with whoever runs the server
            "#); }
        }
    }

    #[test]
    fn a_ca_that_serves_with_its_own_certificate_is_refused() {
        let root = root();
        let issuing = root.intermediate("Issuing CA");
        let key = PrivateKeyDer::from_pem_slice(issuing.key_pem().as_bytes()).unwrap();
        let identity = ServerIdentity { chain: vec![issuing.der().clone()], key };
        assert_snapshot!(distrusts(identity, &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=Issuing CA" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        it is the certificate of a CA (CA:TRUE), which serves a server only where the trust store holds exactly this one;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        have the server present a certificate that was issued for it
        "#);
    }
}

mod a_server_that_is_not_trusted {
    use super::*;

    #[test]
    fn an_unknown_issuer() {
        assert_snapshot!(distrusts(server_of(&Authority::new("Other Root")).identity(), &root().pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Other Root", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Other Root" is not in the trust store, and the server sent no intermediate certificate;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        have the server send its whole chain, or put the CA certificate "O=Harness, CN=Other Root" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate"
        "#);
    }

    #[test]
    fn an_unknown_issuer_and_no_bundle_at_all() {
        let scene = Scene::with_server(server_of(&root()).identity());
        assert_snapshot!(refuses(&scene), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Store Root" is not in the trust store;
        certificates in the trust store: CA ConfigMap at [pod]/ca (not mounted): 0, system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        put the CA certificate "O=Harness, CN=Store Root" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate"
        "#);
    }

    #[test]
    fn a_root_that_the_server_sends_itself_proves_nothing() {
        let root = root();
        let mut identity = server_of(&root).identity();
        identity.chain.push(root.der().clone());
        assert_snapshot!(distrusts(identity, &Authority::new("Other Root").pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]) and 1 more certificate;
        its root "O=Harness, CN=Store Root" is not in the trust store (that the server sends it proves nothing);
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Other Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        put the CA certificate "O=Harness, CN=Store Root" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate"
        "#);
    }

    #[test]
    fn a_missing_intermediate_is_named() {
        let root = root();
        let leaf = server_of(&root.intermediate("Issuing CA"));
        assert_snapshot!(distrusts(leaf.identity_without_intermediates(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Issuing CA", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Issuing CA" is not in the trust store, and the server sent no intermediate certificate;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        have the server send its whole chain, or put the CA certificate "O=Harness, CN=Issuing CA" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate"
        "#);
    }

    #[test]
    fn a_missing_second_intermediate_is_named() {
        let root = root();
        let leaf = server_of(&root.intermediate("Middle CA").intermediate("Issuing CA"));
        let mut identity = leaf.identity();
        identity.chain.pop();
        assert_snapshot!(distrusts(identity, &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Issuing CA", valid until [date], SHA-256 [sha256]) and 1 more certificate;
        its issuer "O=Harness, CN=Middle CA" is not in the trust store;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        put the CA certificate "O=Harness, CN=Middle CA" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate"
        "#);
    }

    #[test]
    fn a_ca_with_the_same_name_and_another_key() {
        let old = root();
        assert_snapshot!(distrusts(server_of(&old.rekeyed()).identity(), &old.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        CA ConfigMap at [pod]/ca holds a CA with its issuer's name "O=Harness, CN=Store Root" but another key (valid until [date], SHA-256 [sha256]);
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        replace it there with the CA certificate that is in use now, or add that one
        "#);
    }

    #[test]
    fn a_ca_with_the_name_of_its_server_and_another_key() {
        let old = Authority::new("localhost");
        assert_snapshot!(distrusts(server_of(&old.rekeyed()).identity(), &old.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=localhost", valid until [date], SHA-256 [sha256]);
        CA ConfigMap at [pod]/ca holds a CA with its issuer's name "O=Harness, CN=localhost" but another key (valid until [date], SHA-256 [sha256]);
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=localhost"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        replace it there with the CA certificate that is in use now, or add that one
        "#);
    }

    #[test]
    fn an_intermediate_with_the_same_name_and_another_key_sent_by_the_server() {
        let root = root();
        let (old, new) = (root.intermediate("Issuing CA"), root.intermediate("Issuing CA"));
        let mut identity = server_of(&new).identity();
        identity.chain[1] = old.der().clone();
        assert_snapshot!(distrusts(identity, &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Issuing CA", valid until [date], SHA-256 [sha256]) and 1 more certificate;
        the server also sent a CA with its issuer's name "O=Harness, CN=Issuing CA" but another key (SHA-256 [sha256]);
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        have the server send the intermediate certificate that issued its own
        "#);
    }

    #[test]
    fn an_expired_root() {
        let root = Authority::from_spec(AuthoritySpec::new("Old Root").validity(Validity::Expired));
        let scene = scene(server_of(&root).identity(), &root.pem());
        assert_snapshot!(refuses(&scene), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Old Root", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Old Root" is in CA ConfigMap at [pod]/ca, but expired at [date];
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Old Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        replace it there with the CA certificate that is in use now
        "#);
        assert_snapshot!(scene.run().warnings(), @r#"CA ConfigMap at [pod]/ca: expired, so not trusted: "O=Harness, CN=Old Root" (until [date]); replace it with the CA certificate that is in use, or remove it"#);
    }

    #[test]
    fn a_root_that_is_not_valid_yet() {
        let root = Authority::from_spec(AuthoritySpec::new("Next Root").validity(Validity::NotYetValid));
        let scene = scene(server_of(&root).identity(), &root.pem());
        assert_snapshot!(refuses(&scene), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Next Root", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Next Root" is in CA ConfigMap at [pod]/ca, but is valid only from [date];
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Next Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        check this node's clock, or put the CA certificate that is in use now there
        "#);
        assert_snapshot!(scene.run().warnings(), @r#"CA ConfigMap at [pod]/ca: not valid yet, so not trusted: "O=Harness, CN=Next Root" (from [date]); check this node's clock"#);
    }

    #[test]
    fn an_expired_root_among_the_system_roots() {
        let root = Authority::from_spec(AuthoritySpec::new("Old Root").validity(Validity::Expired));
        let scene = Scene::with_server(server_of(&root).identity());
        let file = scene.write("roots.pem", root.pem());
        assert_snapshot!(refuses(&scene.env("SSL_CERT_FILE", file)), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Old Root", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Old Root" is in system roots (SSL_CERT_FILE [pod]/roots.pem), but expired at [date];
        certificates in the trust store: CA ConfigMap at [pod]/ca (not mounted): 0, system roots (SSL_CERT_FILE [pod]/roots.pem): 1;
        replace it there with the CA certificate that is in use now
        "#);
    }

    #[test]
    fn an_issuer_without_ca_true() {
        let root = Authority::from_spec(AuthoritySpec::new("No CA").without_ca_true());
        assert_snapshot!(distrusts(server_of(&root).identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=No CA", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=No CA" is in CA ConfigMap at [pod]/ca, but is no CA certificate (no CA:TRUE);
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=No CA"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        reissue it with basicConstraints=CA:TRUE, and replace it there
        "#);
    }

    #[test]
    fn an_issuer_without_key_cert_sign() {
        let root = Authority::from_spec(AuthoritySpec::new("No Signer").without_key_cert_sign());
        let scene = scene(server_of(&root).identity(), &root.pem());
        assert_snapshot!(refuses(&scene), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=No Signer", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=No Signer" is in CA ConfigMap at [pod]/ca, but may not issue certificates (its key usage lacks keyCertSign);
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=No Signer"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        reissue it with keyUsage=keyCertSign, and replace it there
        "#);
        assert_snapshot!(scene.run().warnings(), @r#"CA ConfigMap at [pod]/ca: no CA, because its key usage lacks keyCertSign, so nothing that it issued is trusted: "O=Harness, CN=No Signer"; reissue it with keyCertSign"#);
    }

    #[test]
    fn an_intermediate_with_a_critical_extension_that_nobody_here_knows() {
        let root = root();
        let issuing = root.intermediate_from(AuthoritySpec::new("Policy CA").policy_constraints());
        let identity = server_of(&issuing).identity();
        // As the message advises.
        assert_eq!(trusts(identity.clone(), &issuing.pem()), "");
        assert_snapshot!(distrusts(identity, &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Policy CA", valid until [date], SHA-256 [sha256]) and 1 more certificate;
        a certificate of its chain has a critical extension that this client does not know;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        put the CA certificate "O=Harness, CN=Policy CA" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate", or have the chain reissued without that extension
        "#);
    }

    #[test]
    fn an_intermediate_without_ca_true() {
        let root = root();
        let no_ca = root.intermediate_from(AuthoritySpec::new("No CA").without_ca_true());
        assert_snapshot!(distrusts(server_of(&no_ca).identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=No CA", valid until [date], SHA-256 [sha256]) and 1 more certificate;
        "O=Harness, CN=No CA", which issued it, is no CA certificate (no CA:TRUE);
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        have that CA reissued with basicConstraints=CA:TRUE, and the server send the new one
        "#);
    }

    #[test]
    fn an_intermediate_without_key_cert_sign() {
        let root = root();
        let no_signer = root.intermediate_from(AuthoritySpec::new("No Signer").without_key_cert_sign());
        assert_snapshot!(distrusts(server_of(&no_signer).identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=No Signer", valid until [date], SHA-256 [sha256]) and 1 more certificate;
        "O=Harness, CN=No Signer", which issued it, may not issue certificates (its key usage lacks keyCertSign);
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        have that CA reissued with keyUsage=keyCertSign, and the server send the new one
        "#);
    }

    #[test]
    fn an_expired_intermediate() {
        let root = root();
        let old = root.intermediate_from(AuthoritySpec::new("Old CA").validity(Validity::Expired));
        assert_snapshot!(distrusts(server_of(&old).identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Old CA", valid until [date], SHA-256 [sha256]) and 1 more certificate;
        "O=Harness, CN=Old CA" expired at [date], and this container's clock says [date];
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        renew it on the server, or set this node's clock if it is wrong
        "#);
    }

    #[test]
    fn one_intermediate_too_many() {
        let root = root();
        let last = root.intermediate_from(AuthoritySpec::new("Last CA").path_len(0));
        let leaf = server_of(&last.intermediate("One More CA"));
        assert_snapshot!(distrusts(leaf.identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=One More CA", valid until [date], SHA-256 [sha256]) and 2 more certificates;
        one of its CAs does not allow so many intermediate CAs below it (pathLenConstraint);
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        have it issued by a CA further up, or that CA reissued with a larger path length
        "#);
    }

    #[test]
    fn an_expired_leaf_with_the_containers_clock() {
        let root = root();
        let leaf = root.issue(LeafSpec::new().validity(Validity::Expired));
        assert_snapshot!(distrusts(leaf.identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        it expired at [date], and this container's clock says [date];
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        renew it on the server, or set this node's clock if it is wrong
        "#);
    }

    #[test]
    fn a_leaf_that_is_not_valid_yet_with_the_containers_clock() {
        let root = root();
        let leaf = root.issue(LeafSpec::new().validity(Validity::NotYetValid));
        assert_snapshot!(distrusts(leaf.identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        it is valid only from [date], and this container's clock says [date];
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        check the clock of this node and of whoever issued the certificate
        "#);
    }

    #[test]
    fn a_wrong_name() {
        let root = root();
        let leaf = root.issue(LeafSpec::new().names(["minio.example", "*.minio.example", "10.0.0.7"]));
        assert_snapshot!(distrusts(leaf.identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        it is not for "localhost": it is for minio.example, *.minio.example, 10.0.0.7;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        use one of its names in the endpoint, or reissue the certificate with subjectAltName=DNS:localhost
        "#);
    }

    #[test]
    fn one_of_very_many_wrong_names() {
        let root = root();
        let names: Vec<String> = (0..40).map(|number| format!("site-{number}.example")).collect();
        let leaf = root.issue(LeafSpec::new().names(names.iter().map(String::as_str)));
        assert_snapshot!(distrusts(leaf.identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        it is not for "localhost": it is for site-0.example, site-1.example, site-2.example, site-3.example, site-4.example, site-5.example, site-6.example, site-7.example and 32 more;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        use one of its names in the endpoint, or reissue the certificate with subjectAltName=DNS:localhost
        "#);
    }

    #[test]
    fn an_ip_endpoint_without_an_ip_san() {
        let root = root();
        let scene = scene(root.issue(LeafSpec::new().names(["localhost"])).identity(), &root.pem());
        let endpoint = scene.server().endpoint_ip();
        assert_snapshot!(refuses(&scene.field("endpoint_url", endpoint)), @r#"
        HeadObject s3://models/bert at https://127.0.0.1:[port] failed: TLS with 127.0.0.1:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        it is not for "127.0.0.1": it is for localhost;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        use one of its names in the endpoint, or reissue the certificate with subjectAltName=IP:127.0.0.1
        "#);
    }

    #[test]
    fn an_ip_endpoint_with_an_ip_san_is_trusted() {
        let root = root();
        let scene = scene(root.issue(LeafSpec::new().names(["127.0.0.1"])).identity(), &root.pem());
        let endpoint = scene.server().endpoint_ip();
        scene.field("endpoint_url", endpoint).run().succeeds_quietly();
    }

    #[test]
    fn a_common_name_alone() {
        let root = root();
        let leaf = root.issue(LeafSpec::new().common_name("localhost").without_names());
        assert_snapshot!(distrusts(leaf.identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        it is not for "localhost": it has no subjectAltName, and the common name does not count (boto3 accepts it, Go and this client do not);
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        reissue the certificate with subjectAltName=DNS:localhost
        "#);
    }

    #[test]
    fn a_usage_that_allows_no_server() {
        let root = root();
        let leaf = root.issue(LeafSpec::new().usages(&[Usage::ClientAuth, Usage::CodeSigning]));
        assert_snapshot!(distrusts(leaf.identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        its extended key usage does not allow a server;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        reissue the server's certificate with extendedKeyUsage=serverAuth
        "#);
    }

    #[test]
    fn a_name_that_the_root_may_not_issue_for() {
        let root = Authority::from_spec(AuthoritySpec::new("Narrow Root").permit_dns("example.org"));
        let leaf = root.issue(LeafSpec::new().names(["localhost"]));
        assert_snapshot!(distrusts(leaf.identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Narrow Root", valid until [date], SHA-256 [sha256]);
        it is for localhost, and "O=Harness, CN=Narrow Root" may issue certificates only for example.org (name constraints);
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Narrow Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        have it issued by a CA that may issue for its names, or reissue it for names that are allowed
        "#);
    }

    #[test]
    fn a_name_that_an_intermediate_excludes() {
        let root = root();
        let narrow = root.intermediate_from(AuthoritySpec::new("Narrow CA").exclude_dns("localhost"));
        let leaf = narrow.issue(LeafSpec::new().names(["localhost"]));
        assert_snapshot!(distrusts(leaf.identity(), &root.pem()), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Narrow CA", valid until [date], SHA-256 [sha256]) and 1 more certificate;
        it is for localhost, and "O=Harness, CN=Narrow CA" may issue certificates for any name but localhost (name constraints);
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        have it issued by a CA that may issue for its names, or reissue it for names that are allowed
        "#);
    }

    #[test]
    fn a_name_within_the_constraints_is_trusted() {
        let root = Authority::from_spec(AuthoritySpec::new("Narrow Root").permit_dns("localhost"));
        let leaf = root.issue(LeafSpec::new().names(["localhost"]));
        assert_eq!(trusts(leaf.identity(), &root.pem()), "");
    }

    #[test]
    fn a_crowd_of_cas_with_one_name_and_different_keys() {
        let old = root();
        let crowd: String = (0..130).map(|_| old.rekeyed().pem()).collect();
        assert_snapshot!(distrusts(server_of(&old).identity(), &(crowd + &old.pem())), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        there are too many CAs with its issuer's name "O=Harness, CN=Store Root" to try them all;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 131 ("O=Harness, CN=Store Root", "O=Harness, CN=Store Root", "O=Harness, CN=Store Root" and 128 more), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        keep only those of them in the CA bundle that are in use
        "#);
    }
}

mod a_server_that_is_too_weak {
    use super::*;

    /// A bare endpoint with this leaf, or nothing, said aloud, where there is no openssl command.
    fn endpoint(leaf: Option<&Leaf>, arguments: &[&str]) -> Option<TlsEndpoint> {
        let endpoint = leaf.and_then(|leaf| TlsEndpoint::start(leaf, arguments));
        if endpoint.is_none() {
            println!("skipped: there is no openssl command here that makes such a server");
        }
        endpoint
    }

    #[track_caller]
    fn distrusts(endpoint: &TlsEndpoint, root: &Authority) -> String {
        Scene::with_endpoint(&endpoint.endpoint()).configmap(root.pem()).run().fails(76)
    }

    #[test]
    fn an_rsa_key_of_1024_bits() {
        let root = root();
        let leaf = weak_leaf(&root, Weakness::Rsa1024);
        for version in ["-tls1_2", "-tls1_3"] {
            let Some(endpoint) = endpoint(leaf.as_ref(), &[version]) else { return };
            let message = distrusts(&endpoint, &root);
            insta::allow_duplicates! { assert_snapshot!(message, @r#"
            HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
            its RSA key has 1024 bits;
            fewer than 2048 are not safe and not accepted;
            certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
            reissue the server's certificate with an RSA key of at least 2048 bits or an ECDSA key
            "#); }
        }
    }

    #[test]
    fn a_sha_1_signature() {
        let root = root();
        let leaf = weak_leaf(&root, Weakness::Sha1Signature);
        let Some(endpoint) = endpoint(leaf.as_ref(), &[]) else { return };
        assert_snapshot!(distrusts(&endpoint, &root), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]) and 1 more certificate;
        "O=Harness, CN=localhost" is signed with SHA-1 with ECDSA, which can be forged and is no longer accepted;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        reissue it with SHA-256
        "#);
    }

    #[test]
    fn an_md5_signature() {
        let root = root();
        let leaf = weak_leaf(&root, Weakness::Md5Signature);
        let Some(endpoint) = endpoint(leaf.as_ref(), &[]) else { return };
        assert_snapshot!(distrusts(&endpoint, &root), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]) and 1 more certificate;
        "O=Harness, CN=localhost" is signed with MD5 with RSA, which can be forged and is no longer accepted;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        reissue it with SHA-256
        "#);
    }

    #[test]
    fn a_certificate_of_version_1() {
        let root = root();
        let leaf = weak_leaf(&root, Weakness::Version1);
        let Some(endpoint) = endpoint(leaf.as_ref(), &[]) else { return };
        assert_snapshot!(distrusts(&endpoint, &root), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]) and 1 more certificate;
        it is an X.509 certificate of version 1, which cannot have a subjectAltName;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Store Root"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        reissue it as version 3 with subjectAltName=DNS:localhost
        "#);
    }

    #[test]
    fn tls_1_1_only() {
        let root = root();
        let leaf = server_of(&root);
        let Some(endpoint) = endpoint(Some(&leaf), &["-tls1_1"]) else { return };
        assert_snapshot!(distrusts(&endpoint, &root), @r"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] failed: the server speaks only old TLS;
        enable TLS 1.2 or 1.3 on it
        ");
    }

    #[test]
    fn an_old_cipher_suite_only() {
        let root = root();
        let leaf = server_of(&root);
        let Some(endpoint) = endpoint(Some(&leaf), &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"]) else { return };
        assert_snapshot!(distrusts(&endpoint, &root), @r"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] failed: the server ended the handshake: it has no cipher suite that this client has, or it wants a client certificate, which S3 does not have;
        enable TLS 1.3 on it, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20, or use a port without client certificates
        ");
    }

    #[test]
    fn one_that_wants_a_client_certificate() {
        let root = root();
        let leaf = server_of(&root);
        let wants = |version| endpoint(Some(&leaf), &[version, "-Verify", "1", "-verify_return_error"]);
        let (Some(old), Some(new)) = (wants("-tls1_2"), wants("-tls1_3")) else { return };
        assert_snapshot!(distrusts(&old, &root), @r"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] failed: the server ended the handshake: it has no cipher suite that this client has, or it wants a client certificate, which S3 does not have;
        enable TLS 1.3 on it, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20, or use a port without client certificates
        ");
        assert_snapshot!(distrusts(&new, &root), @r"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] failed: the server wants a client certificate, which S3 does not have;
        use the port that is meant for clients outside of a service mesh
        ");
    }
}

mod no_tls_at_all {
    use super::*;

    #[test]
    fn plain_http_on_an_https_endpoint() {
        let scene = Scene::with_plain_server().configmap(root().pem());
        let endpoint = scene.server().endpoint().replace("http://", "https://");
        assert_snapshot!(scene.field("endpoint_url", endpoint).run().fails(76), @r"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] failed: the server speaks plain HTTP on this port;
        write the endpoint with http://, or use the port that speaks TLS
        ");
    }

    #[test]
    fn plain_http_on_an_http_endpoint_is_what_was_asked_for() {
        Scene::with_plain_server().run().succeeds_quietly();
    }
}

mod bundle_only {
    use super::*;

    #[test]
    fn a_ca_of_the_bundle_is_trusted() {
        let root = root();
        scene(server_of(&root).identity(), &root.pem()).env("TRUST_STORE", "bundle-only").run().succeeds_quietly();
    }

    #[test]
    fn a_system_root_beside_the_bundle_is_not_and_that_is_said() {
        let public = root();
        let scene = scene(server_of(&public).identity(), &Authority::new("Other Root").pem());
        let file = scene.write("roots.pem", public.pem());
        let scene = scene.env("SSL_CERT_FILE", file);
        scene.run().succeeds_quietly();
        assert_snapshot!(scene.env("TRUST_STORE", "bundle-only").run().fails(76), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Store Root" is not in the trust store, and the server sent no intermediate certificate;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Other Root");
        the system roots would accept it, but TRUST_STORE=bundle-only leaves them out;
        have the server send its whole chain, or put the CA certificate "O=Harness, CN=Store Root" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate"
        "#);
    }

    #[test]
    fn nothing_but_pins_still_refuses_a_stranger() {
        let pin = self_signed_server(LeafSpec::new(), SelfSigned::CaFalse);
        let scene = scene(server_of(&root()).identity(), &pin.pem()).env("TRUST_STORE", "bundle-only");
        assert_snapshot!(refuses(&scene), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store Root", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Store Root" is not in the trust store;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=localhost");
        put the CA certificate "O=Harness, CN=Store Root" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate"
        "#);
    }

    #[test]
    fn without_a_bundle_is_a_configuration_error() {
        let scene = Scene::with_server(server_of(&root()).identity()).env("TRUST_STORE", "bundle-only");
        assert_snapshot!(scene.run().fails(78), @r#"
        TRUST_STORE=bundle-only, but there is no CA bundle;
        set "certificate", "ca_bundle" or "cabundle_configmap" in the storage-config entry, or mount the CA ConfigMap at [pod]/ca
        "#);
        let scene = scene.field("cabundle_configmap", "store-ca");
        assert_snapshot!(scene.run().fails(78), @r#"
        storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "cabundle_configmap" names ConfigMap "store-ca", but nothing is mounted at [pod]/ca;
        mount it there, or say with env CA_BUNDLE_VOLUME_MOUNT_POINT where it is;
        TRUST_STORE=bundle-only, but there is no CA bundle;
        set "certificate", "ca_bundle" or "cabundle_configmap" in the storage-config entry, or mount the CA ConfigMap at [pod]/ca
        "#);
        scene.mount_configmap(MountedVolume::new());
        assert_snapshot!(scene.run().fails(78), @r#"
        storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "cabundle_configmap" names ConfigMap "store-ca", but [pod]/ca is empty: there is no such ConfigMap in this pod's namespace, or it has no keys;
        TRUST_STORE=bundle-only, but there is no CA bundle;
        set "certificate", "ca_bundle" or "cabundle_configmap" in the storage-config entry, or mount the CA ConfigMap at [pod]/ca
        "#);
    }
}
