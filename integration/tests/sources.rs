//! Where trust comes from: the entry's `certificate`, `ca_bundle` or `AWS_CA_BUNDLE`, the CA ConfigMap, the system.
//!
//! What is there is united, what is broken is named, and nothing falls back to the system's roots in silence. Each test
//! is a pod with its mounts; the snapshots hold every warning of a run that succeeds, or the one message of one that
//! does not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails it by a panic")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use insta::assert_snapshot;
use storage_initializer_integration::initializer::Running;
use storage_initializer_integration::mounted_volume::MountedVolume;
use storage_initializer_integration::pki::{Authority, AuthoritySpec, LeafSpec, Validity};
use storage_initializer_integration::scene::Scene;

/// A store behind a fresh CA, and the CA.
fn store() -> (Scene, Authority) {
    let ca = Authority::new("Store CA");
    (Scene::with_server(ca.issue(LeafSpec::new()).identity()), ca)
}

fn other_ca() -> String {
    Authority::new("Other CA").pem()
}

fn keys(files: &[(&str, &str)]) -> MountedVolume {
    files.iter().fold(MountedVolume::new(), |volume, (name, content)| volume.file(name, content))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

mod a_union {
    use super::*;

    #[test]
    fn the_right_ca_in_the_certificate_and_a_wrong_one_in_the_configmap() {
        let (scene, ca) = store();
        let run = scene.certificate(ca.pem()).configmap(other_ca()).run();
        run.succeeds_quietly();
        assert_snapshot!(run.sources(), @r#"storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "certificate": 1, CA ConfigMap at [pod]/ca (cabundle.crt): 1, system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1"#);
    }

    #[test]
    fn a_wrong_ca_in_the_certificate_and_the_right_one_in_the_configmap() {
        let (scene, ca) = store();
        scene.certificate(other_ca()).configmap(ca.pem()).run().succeeds_quietly();
    }

    #[test]
    fn a_wrong_ca_in_both_beside_the_right_one_in_ca_bundle() {
        let (scene, ca) = store();
        let run = scene.certificate(other_ca()).configmap(other_ca()).ca_bundle(ca.pem()).run();
        run.succeeds_quietly();
        assert_snapshot!(run.sources(), @r#"storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "certificate": 1, storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle" -> [pod]/ca-bundle-file.pem: 1, CA ConfigMap at [pod]/ca (cabundle.crt): 1, system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1"#);
    }

    #[test]
    fn wrong_cas_everywhere_are_all_named_with_their_sources() {
        let (scene, _) = store();
        let scene = scene.certificate(other_ca()).configmap(Authority::new("Cluster CA").pem()).ca_bundle(other_ca());
        assert_snapshot!(scene.run().fails(76), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store CA", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Store CA" is not in the trust store, and the server sent no intermediate certificate;
        certificates in the trust store: storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "certificate": 1 ("O=Harness, CN=Other CA"), storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle" -> [pod]/ca-bundle-file.pem: 1 ("O=Harness, CN=Other CA"), CA ConfigMap at [pod]/ca (cabundle.crt): 1 ("O=Harness, CN=Cluster CA"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        have the server send its whole chain, or put the CA certificate "O=Harness, CN=Store CA" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate"
        "#);
    }

    #[test]
    fn a_certificate_that_the_configmap_contains_can_go_one_day() {
        let (scene, ca) = store();
        let run = scene.certificate(ca.pem()).configmap(other_ca() + &ca.pem()).run();
        run.succeeds_quietly();
        assert!(run.outcome().stderr.contains("the field can go once no ModelMesh reads this Secret"));
    }

    #[test]
    fn a_certificate_that_the_configmap_does_not_contain_stays() {
        let (scene, ca) = store();
        let run = scene.certificate(ca.pem()).configmap(other_ca()).run();
        assert!(!run.outcome().stderr.contains("the field can go"));
    }

    #[test]
    fn public_endpoints_stay_reachable_beside_a_bundle() {
        let (scene, public) = store();
        let roots = scene.write("roots.pem", public.pem());
        scene.configmap(other_ca()).env("SSL_CERT_FILE", roots).run().succeeds_quietly();
    }

    #[test]
    fn the_same_expired_ca_in_two_sources_is_one_warning() {
        let (scene, ca) = store();
        let spec = AuthoritySpec::new("Old CA");
        let old = Authority::from_spec(spec.validity(Validity::Expired));
        let bundle = old.pem() + &ca.pem();
        assert_snapshot!(scene.certificate(&bundle).configmap(&bundle).run().succeeds(), @r#"storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "certificate": expired, so not trusted: "O=Harness, CN=Old CA" (until [date]); replace it with the CA certificate that is in use, or remove it"#);
    }

    #[test]
    fn many_expired_cas_are_one_warning() {
        let (scene, ca) = store();
        let old: String = (0..7)
            .map(|number| {
                let spec = AuthoritySpec::new(&format!("Old CA {number}"));
                Authority::from_spec(spec.validity(Validity::Expired)).pem()
            })
            .collect();
        assert_snapshot!(scene.configmap(old + &ca.pem()).run().succeeds(), @r#"CA ConfigMap at [pod]/ca: expired, so not trusted: "O=Harness, CN=Old CA 0" (until [date]), "O=Harness, CN=Old CA 1" (until [date]), "O=Harness, CN=Old CA 2" (until [date]) and 4 more; replace it with the CA certificate that is in use, or remove it"#);
    }
}

mod a_broken_source {
    use super::*;

    #[test]
    fn beside_a_usable_one_is_a_warning_with_its_name_and_the_reason() {
        let (scene, ca) = store();
        assert_snapshot!(scene.certificate("see the wiki").configmap(ca.pem()).run().succeeds(), @r#"storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "certificate": no certificate in it: 12 bytes of text without a BEGIN CERTIFICATE line; paste the certificate of the CA, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"#);
        let (scene, ca) = store();
        assert_snapshot!(scene.certificate(ca.pem()).configmap("").run().succeeds(), @"CA ConfigMap at [pod]/ca: cabundle.crt: empty; paste the certificate of the CA, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----");
        let (scene, ca) = store();
        let scene = scene.configmap(ca.pem()).ca_bundle("-----BEGIN CERTIFICATE-----");
        assert_snapshot!(scene.run().succeeds(), @r#"storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle" -> [pod]/ca-bundle-file.pem: block 1 (line 1): skipped: BEGIN without END; paste the block to its end"#);
    }

    #[test]
    fn alone_is_an_error_even_where_the_system_roots_would_do() {
        let (scene, public) = store();
        let roots = scene.write("roots.pem", public.pem());
        let scene = scene.env("SSL_CERT_FILE", roots).configmap("see the wiki");
        assert_snapshot!(scene.run().fails(78), @r"
        no CA source holds a usable certificate: CA ConfigMap at [pod]/ca: cabundle.crt: no certificate in it: 12 bytes of text without a BEGIN CERTIFICATE line;
        paste the certificate of the CA, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----
        ");
        assert_eq!(scene.server().connections(), 0);
    }

    #[test]
    fn and_another_are_named_in_one_error() {
        let (scene, _) = store();
        let missing = text(&scene.path("missing.pem"));
        let scene = scene.certificate("see the wiki").configmap("").field("ca_bundle", missing);
        assert_snapshot!(scene.run().fails(78), @r#"
        no CA source holds a usable certificate: storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "certificate": no certificate in it: 12 bytes of text without a BEGIN CERTIFICATE line;
        paste the certificate of the CA, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----;
        storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle" -> [pod]/missing.pem: no such file or directory;
        beside it there are: public-roots.pem;
        CA ConfigMap at [pod]/ca: cabundle.crt: empty;
        paste the certificate of the CA, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----
        "#);
    }

    #[test]
    fn a_configmap_without_any_ca_key_lists_the_keys_it_has() {
        let (scene, ca) = store();
        let volume = keys(&[("notes.txt", "hello"), ("settings.json", "{}")]);
        let scene = scene.field("cabundle_configmap", "store-ca").configmap_of(volume);
        assert_snapshot!(scene.run().fails(78), @r#"
        no CA source holds a usable certificate: CA ConfigMap at [pod]/ca: no key "cabundle.crt", and no .crt, .pem or .cer;
        it has: notes.txt, settings.json
        "#);
        assert_snapshot!(scene.certificate(ca.pem()).run().succeeds(), @r#"CA ConfigMap at [pod]/ca: no key "cabundle.crt", and no .crt, .pem or .cer; it has: notes.txt, settings.json"#);
    }

    #[test]
    fn a_file_in_place_of_the_configmap_directory() {
        let (scene, ca) = store();
        scene.write("ca", ca.pem());
        assert_snapshot!(scene.run().fails(78), @"no CA source holds a usable certificate: CA ConfigMap at [pod]/ca: [pod]/ca is not a directory");
    }
}

mod a_configmap {
    use super::*;

    #[test]
    fn named_but_not_mounted_is_a_warning_and_the_system_roots_are_used() {
        let (scene, public) = store();
        let roots = scene.write("roots.pem", public.pem());
        let scene = scene.env("SSL_CERT_FILE", roots).field("cabundle_configmap", "store-ca");
        assert_snapshot!(scene.run().succeeds(), @r#"storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "cabundle_configmap" names ConfigMap "store-ca", but nothing is mounted at [pod]/ca; mount it there, or say with env CA_BUNDLE_VOLUME_MOUNT_POINT where it is"#);
    }

    #[test]
    fn named_but_not_mounted_is_said_first_where_tls_then_fails() {
        let (scene, _) = store();
        assert_snapshot!(scene.field("cabundle_configmap", "store-ca").run().fails(76), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "cabundle_configmap" names ConfigMap "store-ca", but nothing is mounted at [pod]/ca;
        mount it there, or say with env CA_BUNDLE_VOLUME_MOUNT_POINT where it is;
        the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store CA", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Store CA" is not in the trust store;
        certificates in the trust store: CA ConfigMap at [pod]/ca (not mounted): 0, system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        put the CA certificate "O=Harness, CN=Store CA" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate"
        "#);
    }

    #[test]
    fn named_by_the_environment_but_not_mounted_is_said_first_as_well() {
        let (scene, _) = store();
        let message = scene.env("CA_BUNDLE_CONFIGMAP_NAME", "cluster-ca").run().fails(76);
        assert!(
            message.contains(r#"refused: env CA_BUNDLE_CONFIGMAP_NAME names ConfigMap "cluster-ca", but nothing"#),
            "{message}"
        );
    }

    #[test]
    fn optional_and_empty_is_like_none() {
        let (scene, _) = store();
        let scene = scene.field("cabundle_configmap", "store-ca").configmap_of(MountedVolume::new());
        assert_snapshot!(scene.run().fails(76), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "cabundle_configmap" names ConfigMap "store-ca", but [pod]/ca is empty: there is no such ConfigMap in this pod's namespace, or it has no keys;
        the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store CA", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Store CA" is not in the trust store;
        certificates in the trust store: CA ConfigMap at [pod]/ca (empty): 0, system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        put the CA certificate "O=Harness, CN=Store CA" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate"
        "#);
        let (scene, ca) = store();
        let scene = scene.configmap_of(MountedVolume::new()).certificate(ca.pem());
        scene.run().succeeds_quietly();
    }

    #[test]
    fn has_its_ca_under_any_key_that_other_systems_use() {
        for key in [
            "ca-bundle.crt",
            "odh-ca-bundle.crt",
            "service-ca.crt",
            "ca.crt",
            "tls.crt",
            "company-root.pem",
            "root.cer",
        ] {
            let (scene, ca) = store();
            println!("{key}");
            scene.configmap_of(keys(&[(key, &ca.pem())])).run().succeeds_quietly();
        }
    }

    #[test]
    fn has_its_cas_under_several_of_these_keys() {
        let (scene, ca) = store();
        let both = other_ca() + &ca.pem();
        let volume = keys(&[("ca-bundle.crt", &both), ("service-ca.crt", &ca.pem()), ("odh-ca-bundle.crt", "")]);
        let run = scene.configmap_of(volume).run();
        assert_snapshot!(run.succeeds(), @"CA ConfigMap at [pod]/ca: odh-ca-bundle.crt: empty; paste the certificate of the CA, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----");
        assert_snapshot!(run.sources(), @"CA ConfigMap at [pod]/ca (ca-bundle.crt, odh-ca-bundle.crt, service-ca.crt): 2, system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1");
    }

    #[test]
    fn with_kserves_key_is_that_key_alone() {
        let (scene, ca) = store();
        let volume = keys(&[("cabundle.crt", &other_ca()), ("ca.crt", &ca.pem())]);
        assert_snapshot!(scene.configmap_of(volume).run().fails(76), @r#"
        HeadObject s3://models/bert at https://localhost:[port] failed: TLS with localhost:[port] refused: the server presented "O=Harness, CN=localhost" (issued by "O=Harness, CN=Store CA", valid until [date], SHA-256 [sha256]);
        its issuer "O=Harness, CN=Store CA" is not in the trust store, and the server sent no intermediate certificate;
        certificates in the trust store: CA ConfigMap at [pod]/ca (cabundle.crt, not ca.crt): 1 ("O=Harness, CN=Other CA"), system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1;
        have the server send its whole chain, or put the CA certificate "O=Harness, CN=Store CA" into the CA ConfigMap's key "cabundle.crt" or the storage-config entry's "certificate"
        "#);
    }

    #[test]
    fn beside_a_private_key_is_read_without_it() {
        let (scene, ca) = store();
        let volume = keys(&[("tls.crt", &ca.pem()), ("tls.key", &ca.key_pem())]);
        scene.configmap_of(volume).run().succeeds_quietly();
    }

    #[test]
    fn mounted_by_sub_path_is_plain_files() {
        let (scene, ca) = store();
        scene.write("ca/cabundle.crt", ca.pem());
        scene.run().succeeds_quietly();
    }
}

mod a_file_that_may_not_be_read {
    use super::*;

    fn forbid(path: &Path) {
        fs::set_permissions(path, Permissions::from_mode(0o400)).unwrap();
    }

    #[test]
    fn in_the_configmap_says_which_and_how_to_open_it() {
        let (scene, ca) = store();
        let scene = scene.configmap_of(keys(&[("cabundle.crt", &ca.pem())]).mode(0o000)).unprivileged();
        assert_snapshot!(scene.run().fails(78), @r"
        no CA source holds a usable certificate: CA ConfigMap at [pod]/ca: [pod]/ca/cabundle.crt may not be read by this user;
        set the volume's defaultMode (for example 0444) or the pod's fsGroup
        ");
    }

    #[test]
    fn in_the_configmap_is_a_warning_beside_the_certificate() {
        let (scene, ca) = store();
        let scene = scene.configmap_of(keys(&[("cabundle.crt", &ca.pem())]).mode(0o000)).unprivileged();
        assert_snapshot!(scene.certificate(ca.pem()).run().succeeds(), @"CA ConfigMap at [pod]/ca: [pod]/ca/cabundle.crt may not be read by this user; set the volume's defaultMode (for example 0444) or the pod's fsGroup");
    }

    #[test]
    fn beside_one_that_may_costs_only_itself() {
        let (scene, ca) = store();
        let scene = scene.configmap_of(keys(&[("ca.crt", &ca.pem()), ("tls.crt", &other_ca())])).unprivileged();
        let mounted = fs::read_link(scene.path("ca/..data")).unwrap();
        fs::set_permissions(scene.path("ca").join(mounted).join("tls.crt"), Permissions::from_mode(0o000)).unwrap();
        assert_snapshot!(scene.run().succeeds(), @"CA ConfigMap at [pod]/ca: [pod]/ca/tls.crt may not be read by this user; set the volume's defaultMode (for example 0444) or the pod's fsGroup");
    }

    #[test]
    fn named_by_ca_bundle_says_which_and_how_to_open_it() {
        let (scene, ca) = store();
        let scene = scene.ca_bundle(ca.pem()).unprivileged();
        fs::set_permissions(scene.path("ca-bundle-file.pem"), Permissions::from_mode(0o000)).unwrap();
        assert_snapshot!(scene.run().fails(78), @r#"
        no CA source holds a usable certificate: storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle" -> [pod]/ca-bundle-file.pem: [pod]/ca-bundle-file.pem may not be read by this user;
        set the volume's defaultMode (for example 0444) or the pod's fsGroup
        "#);
    }

    #[test]
    fn in_a_directory_that_may_not_be_read() {
        let (scene, ca) = store();
        let scene = scene.configmap(ca.pem()).unprivileged();
        fs::set_permissions(scene.path("ca"), Permissions::from_mode(0o000)).unwrap();
        let run = scene.run();
        // So that the directory can be removed.
        fs::set_permissions(scene.path("ca"), Permissions::from_mode(0o755)).unwrap();
        assert_snapshot!(run.fails(78), @r"
        no CA source holds a usable certificate: CA ConfigMap at [pod]/ca: [pod]/ca may not be read by this user;
        set the volume's defaultMode (for example 0444) or the pod's fsGroup
        ");
    }

    #[test]
    fn by_others_is_fine_for_its_owner() {
        let (scene, ca) = store();
        let scene = scene.ca_bundle(ca.pem());
        forbid(&scene.path("ca-bundle-file.pem"));
        scene.run().succeeds_quietly();
    }
}

mod ca_bundle {
    use super::*;

    #[test]
    fn is_a_file() {
        let (scene, ca) = store();
        scene.ca_bundle(ca.pem()).run().succeeds_quietly();
    }

    #[test]
    fn may_come_from_the_environment() {
        let (scene, ca) = store();
        let file = scene.write("bundle.pem", ca.pem());
        scene.env("AWS_CA_BUNDLE", file).run().succeeds_quietly();
    }

    #[test]
    fn may_be_a_directory() {
        let (scene, ca) = store();
        scene.write("certs/other.pem", other_ca());
        scene.write("certs/store.crt", ca.pem());
        scene.write("certs/README", "not a certificate");
        // As distributions leave them behind.
        std::os::unix::fs::symlink("gone.pem", scene.path("certs/dangling.pem")).unwrap();
        let directory = scene.path("certs");
        let run = scene.env("AWS_CA_BUNDLE", directory).run();
        run.succeeds_quietly();
        assert_snapshot!(run.sources(), @"CA ConfigMap at [pod]/ca (not mounted): 0, env AWS_CA_BUNDLE -> [pod]/certs (other.pem, store.crt): 2, system roots (SSL_CERT_FILE [pod]/public-roots.pem): 1");
    }

    #[test]
    fn may_be_a_directory_that_openssl_hashed() {
        let (scene, ca) = store();
        scene.write("certs/4a6481c9.0", ca.pem());
        let directory = scene.path("certs");
        scene.env("AWS_CA_BUNDLE", directory).run().succeeds_quietly();
    }

    #[test]
    fn may_be_the_mounted_configmap_itself() {
        let (scene, ca) = store();
        let path = text(&scene.path("ca/cabundle.crt"));
        scene.configmap(ca.pem()).field("ca_bundle", path).run().succeeds_quietly();
    }

    #[test]
    fn that_is_missing_gives_way_to_the_mounted_configmap() {
        let (scene, ca) = store();
        let missing = text(&scene.path("global/cabundle.crt"));
        assert_snapshot!(scene.configmap(ca.pem()).field("ca_bundle", missing).run().succeeds(), @r#"storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle": [pod]/global/cabundle.crt does not exist; using the mounted CA ConfigMap instead"#);
    }

    #[test]
    fn that_is_missing_beside_a_certificate_is_a_warning() {
        let (scene, ca) = store();
        let missing = text(&scene.path("global/cabundle.crt"));
        assert_snapshot!(scene.certificate(ca.pem()).field("ca_bundle", missing).run().succeeds(), @r#"storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle" -> [pod]/global/cabundle.crt: no such file or directory; is the volume mounted?"#);
    }

    #[test]
    fn that_is_missing_and_all_there_is_is_an_error_that_lists_what_is_beside_it() {
        let (scene, ca) = store();
        scene.write("certs/ca-bundle.crt", ca.pem());
        let missing = text(&scene.path("certs/cabundle.crt"));
        assert_snapshot!(scene.field("ca_bundle", missing).run().fails(78), @r#"
        no CA source holds a usable certificate: storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle" -> [pod]/certs/cabundle.crt: no such file or directory;
        beside it there are: ca-bundle.crt
        "#);
    }

    #[test]
    fn that_holds_pem_text_is_used_with_a_warning() {
        let (scene, ca) = store();
        assert_snapshot!(scene.field("ca_bundle", ca.pem()).run().succeeds(), @r#"storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle": PEM text where a path belongs; it is used, but KServe wants a path here and the text belongs in "certificate" or in the ConfigMap"#);
    }

    #[test]
    fn that_holds_pem_in_base64_is_used_with_warnings_and_never_shown() {
        let (scene, ca) = store();
        let pasted = base64_simd::STANDARD.encode_to_string(ca.pem());
        assert_snapshot!(scene.field("ca_bundle", pasted).run().succeeds(), @r#"
        storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle": PEM text where a path belongs; it is used, but KServe wants a path here and the text belongs in "certificate" or in the ConfigMap
        storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle": block 1 (line 1): base64 of a PEM, decoded once; paste what `base64 -d FILE` prints (kubectl and stringData encode by themselves)
        "#);
    }

    #[test]
    fn that_holds_a_private_key_is_refused_and_never_shown() {
        let (scene, ca) = store();
        let pasted = base64_simd::STANDARD.encode_to_string(ca.key_pem());
        assert_snapshot!(scene.field("ca_bundle", pasted).run().fails(78), @r#"
        no CA source holds a usable certificate: storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "ca_bundle": block 1 (line 1): PRIVATE KEY in a CA bundle: everybody who can read the bundle has it;
        remove it from here, and replace the key and its certificate
        "#);
    }

    #[test]
    fn that_is_empty_is_none_and_verification_stays_on() {
        let (scene, _) = store();
        let message = scene.field("ca_bundle", "").run().fails(76);
        assert!(message.contains("its issuer \"O=Harness, CN=Store CA\" is not in the trust store"), "{message}");
    }
}

mod certificate {
    use super::*;

    #[test]
    fn as_a_path_is_read_with_a_warning() {
        let (scene, ca) = store();
        let file = text(&scene.write("old/ca.crt", ca.pem()));
        assert_snapshot!(scene.certificate(file).run().succeeds(), @r#"storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "certificate": a path, as KServe until 0.12.0 had it; KServe now wants it as "ca_bundle", and ModelMesh wants the PEM text here"#);
    }

    #[test]
    fn as_a_path_to_nowhere_is_an_error() {
        let (scene, _) = store();
        let missing = text(&scene.path("old/ca.crt"));
        assert_snapshot!(scene.certificate(missing).run().fails(78), @r#"
        no CA source holds a usable certificate: storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "certificate" -> [pod]/old/ca.crt: no such file or directory;
        is the volume mounted?
        "#);
    }

    #[test]
    fn that_is_empty_is_none() {
        let (scene, ca) = store();
        scene.certificate("").configmap(ca.pem()).run().succeeds_quietly();
    }
}

mod verification {
    use super::*;

    #[test]
    fn that_is_off_is_a_warning_and_works() {
        let (scene, _) = store();
        assert_snapshot!(scene.field("verify_ssl", "false").run().succeeds(), @r#"the server's certificate is NOT verified (storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "verify_ssl"): anyone in between can read the keys and change the model"#);
        let (scene, _) = store();
        assert_snapshot!(scene.env("S3_VERIFY_SSL", "0").run().succeeds(), @"the server's certificate is NOT verified (env S3_VERIFY_SSL): anyone in between can read the keys and change the model");
    }

    #[test]
    fn that_is_off_by_a_json_boolean_works_and_kserves_webhook_is_mentioned() {
        let (scene, _) = store();
        assert_snapshot!(scene.field("verify_ssl", false).run().succeeds(), @r#"
        storage-config entry "localMinIO" ([pod]/storage-config/localMinIO): field "verify_ssl" is a JSON boolean; KServe's webhook accepts only strings: write it in double quotes
        the server's certificate is NOT verified (storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "verify_ssl"): anyone in between can read the keys and change the model
        "#);
    }

    #[test]
    fn that_is_off_beside_a_ca_says_that_the_ca_is_not_used() {
        let (scene, _) = store();
        assert_snapshot!(scene.field("verify_ssl", "false").configmap("see the wiki").run().succeeds(), @r#"the server's certificate is NOT verified (storage-config entry "localMinIO" ([pod]/storage-config/localMinIO), field "verify_ssl"): anyone in between can read the keys and change the model; the CA that is configured is not used"#);
    }

    #[test]
    fn that_is_on_or_nonsense_stays_on() {
        for value in ["true", "1", "maybe"] {
            let (scene, _) = store();
            scene.field("verify_ssl", value).run().fails(76);
        }
    }
}

mod an_http_endpoint {
    use super::*;

    #[test]
    fn with_a_ca_says_that_it_is_not_used() {
        let scene = Scene::with_plain_server().certificate(other_ca());
        assert_snapshot!(scene.run().succeeds(), @"the endpoint is http://, so the CA that is configured is not used; write https:// if the store speaks TLS");
    }

    #[test]
    fn does_not_look_at_what_the_ca_is() {
        let scene = Scene::with_plain_server().configmap("see the wiki");
        assert_snapshot!(scene.run().succeeds(), @"the endpoint is http://, so the CA that is configured is not used; write https:// if the store speaks TLS");
    }
}

mod the_system_roots {
    use super::*;

    #[test]
    fn of_ssl_cert_dir_are_trusted_whatever_the_files_are_called() {
        let (scene, ca) = store();
        scene.write("certs/4a6481c9.0", ca.pem());
        std::os::unix::fs::symlink("gone.pem", scene.path("certs/dangling.pem")).unwrap();
        let directory = scene.path("certs");
        let run = scene.without_env("SSL_CERT_FILE").env("SSL_CERT_DIR", directory).run();
        run.succeeds_quietly();
        assert_snapshot!(run.sources(), @"CA ConfigMap at [pod]/ca (not mounted): 0, system roots (SSL_CERT_DIR [pod]/certs): 1");
    }

    #[test]
    fn of_ssl_cert_dir_are_trusted_beside_those_of_ssl_cert_file() {
        let (scene, ca) = store();
        scene.write("one/other.pem", other_ca());
        scene.write("two/store.pem", ca.pem());
        let directories = format!("{}:{}", text(&scene.path("one")), text(&scene.path("two")));
        let run = scene.env("SSL_CERT_DIR", directories).run();
        run.succeeds_quietly();
        assert_snapshot!(run.sources(), @"CA ConfigMap at [pod]/ca (not mounted): 0, system roots (SSL_CERT_FILE [pod]/public-roots.pem, SSL_CERT_DIR [pod]/one, SSL_CERT_DIR [pod]/two): 3");
    }

    #[test]
    fn that_cannot_be_read_are_a_warning() {
        let (scene, ca) = store();
        let (file, directory) = (scene.path("no.pem"), scene.path("no"));
        let empty = scene.write("empty.pem", "");
        let scene = scene.configmap(ca.pem());
        let scene = scene.env("SSL_CERT_FILE", file).env("SSL_CERT_DIR", directory);
        assert_snapshot!(scene.run().succeeds(), @r"
        env SSL_CERT_FILE [pod]/no.pem: no such file or directory; beside it there are: empty.pem, public-roots.pem
        env SSL_CERT_DIR [pod]/no: no such file or directory; beside it there are: empty.pem, public-roots.pem
        ");
        assert_snapshot!(scene.without_env("SSL_CERT_DIR").env("SSL_CERT_FILE", empty).run().succeeds(), @"env SSL_CERT_FILE [pod]/empty.pem: no certificate in it");
    }

    #[test]
    fn of_the_machine_or_of_the_binary_are_used_where_nothing_names_others() {
        let (scene, ca) = store();
        let run = scene.without_env("SSL_CERT_FILE").configmap(ca.pem()).run();
        run.succeeds_quietly();
        let sources = run.sources();
        let (_, count) = sources.rsplit_once("): ").expect("a count of system roots");
        assert!(count.parse::<usize>().unwrap() > 50, "{sources}");
    }

    #[test]
    fn are_no_business_of_a_bundle_alone() {
        let (scene, ca) = store();
        let missing = scene.path("no.pem");
        let scene = scene.configmap(ca.pem()).env("SSL_CERT_FILE", missing).env("TRUST_STORE", "bundle-only");
        let run = scene.run();
        run.succeeds_quietly();
        assert_snapshot!(run.sources(), @"CA ConfigMap at [pod]/ca (cabundle.crt): 1");
    }

    #[test]
    fn are_combined_or_not_and_nothing_else() {
        let (scene, ca) = store();
        assert_snapshot!(scene.configmap(ca.pem()).env("TRUST_STORE", "strict").run().fails(78), @r#"env TRUST_STORE: "strict" is not combined or bundle-only"#);
    }
}

mod a_rotation {
    use super::*;

    /// How many initializers start at once.
    const STARTS: usize = 10;

    /// Two keys of one version; the server's CA is in each version, at another place.
    fn version(number: usize, ca: &Authority, crowd: &[String]) -> MountedVolume {
        let (cluster, service) = if number.is_multiple_of(2) { (10, 1) } else { (20, 2) };
        let bundle = crowd[..cluster].concat();
        let service = crowd[crowd.len() - service..].concat();
        keys(&[("ca-bundle.crt", &(bundle + &ca.pem())), ("service-ca.crt", &service)])
    }

    #[test]
    fn while_ten_initializers_start_shows_none_of_them_half_a_bundle() {
        let (scene, ca) = store();
        let crowd: Vec<String> = (0..30).map(|number| Authority::new(&format!("Root {number}")).pem()).collect();
        let mounted = scene.mount_configmap(version(0, &ca, &crowd));
        let file = text(&scene.path("ca/ca-bundle.crt"));
        // Read once as a directory and once as a file, through the same swap.
        let scene = scene.field("ca_bundle", file);
        let ended = AtomicBool::new(false);
        let (outcomes, swaps) = std::thread::scope(|scope| {
            let swapping = scope.spawn(|| {
                let swap = |number| mounted.update(version(number, &ca, &crowd));
                // Bounded, so that a failure below ends the test as well.
                (1..20_000).take_while(|_| !ended.load(Ordering::Relaxed)).inspect(|number| swap(*number)).count()
            });
            let destinations: Vec<_> = (0..STARTS).map(|_| scene.destination()).collect();
            let running: Vec<_> = destinations.iter().map(|destination| scene.start(destination)).collect();
            let outcomes: Vec<_> = running.into_iter().map(Running::wait).zip(destinations).collect();
            ended.store(true, Ordering::Relaxed);
            (outcomes, swapping.join().unwrap())
        });
        let mut seen = std::collections::BTreeMap::new();
        for (outcome, destination) in outcomes {
            let run = scene.look_at(outcome, &destination);
            run.succeeds_quietly();
            *seen.entry(run.sources()).or_insert(0) += 1;
        }
        println!("{swaps} swaps; {seen:#?}");
        for sources in seen.keys() {
            // 10 + 1 of one key and 1 of the other, or 20 + 1 and 2: never some of each.
            assert!([12, 23].iter().any(|count| sources.contains(&format!("service-ca.crt): {count},"))), "{sources}");
            assert!(sources.contains("ca-bundle.crt: 11,") || sources.contains("ca-bundle.crt: 21,"), "{sources}");
        }
    }

    #[test]
    fn from_the_old_ca_to_the_new_one_lets_the_next_start_in() {
        let old = Authority::new("Store CA");
        let new = old.rekeyed();
        let scene = Scene::with_server(old.issue(LeafSpec::new()).identity());
        let mounted = scene.mount_configmap(keys(&[("cabundle.crt", &old.pem())]));
        scene.run().succeeds_quietly();
        scene.server().replace_identity(new.issue(LeafSpec::new()).identity());
        let refused = scene.run().fails(76);
        assert!(refused.contains("holds a CA with its issuer's name"), "{refused}");
        mounted.update(keys(&[("cabundle.crt", &(old.pem() + &new.pem()))]));
        scene.run().succeeds_quietly();
        mounted.update(keys(&[("cabundle.crt", &new.pem())]));
        scene.run().succeeds_quietly();
    }
}
