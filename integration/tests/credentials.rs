//! Who signs, where no keys are in the settings: each provider of the AWS chain against a server that speaks its protocol.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use storage_initializer_integration::connect_proxy::ConnectProxy;
use storage_initializer_integration::identity::{IdentityServer, TemporaryKeys};
use storage_initializer_integration::initializer::{Initializer, Outcome};
use storage_initializer_integration::pki::LeafSpec;
use storage_initializer_integration::pod::Pod;
use storage_initializer_integration::s3_server::faults::{Action, ErrorReply, Fault};
use storage_initializer_integration::s3_server::{AccessKey, Expiry, Object, Operation};
use storage_initializer_integration::tree::Tree;

/// The service account's token, which nobody but STS may see.
const WEB_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.service-account.signature";

const ROLE: &str = "arn:aws:iam::123456789012:role/model-reader";

/// A store that knows exactly these keys.
fn pod_knowing(keys: impl IntoIterator<Item = AccessKey>) -> Pod {
    let pod = Pod::with(|server| keys.into_iter().fold(server, |server, key| server.credentials(key)));
    pod.put("bert/config.json", Object::text("{}"));
    pod
}

/// A run without keys in the settings; the node's own metadata service is never asked by accident.
fn run(pod: &Pod) -> Initializer {
    let entry = pod.entry_with(json!({"access_key_id": null, "secret_access_key": null}));
    pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert").env("AWS_EC2_METADATA_DISABLED", "true")
}

#[track_caller]
fn assert_downloaded(pod: &Pod, outcome: &Outcome) {
    outcome.assert_exit(0);
    pod.tree().assert_equals(&Tree::new().bytes("config.json", "{}"));
}

/// The message of a run that nobody could sign for.
#[track_caller]
fn refused(pod: &Pod, identity: &IdentityServer, outcome: &Outcome) -> String {
    let message = pod.refused(outcome, 77);
    message.replace(&identity.address().to_string(), "[identity]")
}

fn keys() -> TemporaryKeys {
    TemporaryKeys::named("FIRST")
}

mod session_tokens {
    use super::*;

    fn entry(pod: &Pod, token: &str) -> Initializer {
        let [id, secret, _] = keys().parts().map(str::to_owned);
        let entry = pod.entry_with(json!({"access_key_id": id, "secret_access_key": secret, "session_token": token}));
        pod.with_entry(&entry).env("STORAGE_URI", "s3://models/bert")
    }

    #[test]
    fn a_token_goes_with_its_key_until_it_expires() {
        let expiry = Expiry::default();
        let pod = pod_knowing([keys().access_key().expires(&expiry)]);
        assert_downloaded(&pod, &entry(&pod, keys().parts()[2]).run());
        pod.server.forget_requests();
        expiry.strike();
        std::fs::remove_dir_all(pod.models()).unwrap();
        insta::assert_snapshot!(pod.refused(&entry(&pod, keys().parts()[2]).run(), 77), @r#"ListObjectsV2 s3://models/bert/ at https://localhost:9000 failed: 400 ExpiredToken "The provided token has expired." (request id [id]); the session token has expired (keys from storage-config entry "default" (/pod/storage-config/default), field "access_key_id")"#);
        let tries = pod.server.requests_of(Operation::ListObjectsV2).len();
        assert_eq!(tries, 1, "keys that cannot be renewed are not tried again");
    }
}

mod web_identity {
    use super::*;

    fn web_identity(pod: &Pod) -> Initializer {
        let token = pod.path("token");
        std::fs::write(&token, format!("{WEB_TOKEN}\n")).unwrap();
        run(pod).env("AWS_WEB_IDENTITY_TOKEN_FILE", token).env("AWS_ROLE_ARN", ROLE)
    }

    /// What S3 saw holds nothing of the token.
    fn assert_token_unseen(pod: &Pod) {
        for request in pod.server.requests() {
            assert_eq!(request.method.as_str().replace("HEAD", "GET"), "GET", "{request:?}");
            assert!(!format!("{request:?}").contains("service-account"), "{request:?}");
        }
    }

    #[test]
    fn the_token_is_exchanged_at_the_sts_endpoint() {
        let pod = pod_knowing([keys().access_key()]);
        let sts = IdentityServer::start([keys()]);
        let run = web_identity(&pod).env("AWS_ENDPOINT_URL_STS", sts.url()).env("AWS_ROLE_SESSION_NAME", "bert-0");
        assert_downloaded(&pod, &run.env("AWS_ENDPOINT_URL", pod.server.endpoint()).run());
        assert_token_unseen(&pod);
        let requests = sts.requests();
        assert_eq!(requests.len(), 1);
        let form = &requests[0].body;
        for field in ["Action=AssumeRoleWithWebIdentity", "role%2Fmodel-reader", "RoleSessionName=bert-0", WEB_TOKEN] {
            assert!(form.contains(field), "{field} is not in {form}");
        }
        assert!(!requests[0].headers.contains_key("authorization"), "the token is the proof, no signature");
    }

    #[test]
    fn without_an_endpoint_of_its_own_sts_is_amazons_and_never_the_stores() {
        let pod = pod_knowing([keys().access_key()]);
        let leaf = pod.authority.issue(LeafSpec::new().names(["sts.eu-west-3.amazonaws.com"]));
        let sts = IdentityServer::start_tls([keys()], leaf.identity());
        let proxy = ConnectProxy::start(sts.address());
        let roots = pod.mount("roots", [("public.pem", pod.authority.pem())]);
        let run = web_identity(&pod).env("AWS_ENDPOINT_URL", pod.server.endpoint()).env("AWS_REGION", "eu-west-3");
        let entry = pod.entry_with(json!({"access_key_id": null, "secret_access_key": null, "region": "eu-west-3"}));
        let run = run.env("STORAGE_CONFIG_DIR", pod.mount("regional", [("default", entry.to_string())]));
        let run = run.env("HTTPS_PROXY", proxy.url()).env("NO_PROXY", "localhost");
        assert_downloaded(&pod, &run.env("SSL_CERT_FILE", roots.join("public.pem")).run());
        assert_eq!(proxy.targets(), ["sts.eu-west-3.amazonaws.com:443"]);
        assert_eq!(sts.handed_out(), 1);
        assert_token_unseen(&pod);
    }

    #[test]
    fn what_sts_refuses_is_said_in_its_words() {
        let pod = pod_knowing([]);
        let sts = IdentityServer::start([keys()]);
        sts.refuse(403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>");
        let outcome = web_identity(&pod).env("AWS_ENDPOINT_URL_STS", sts.url()).run();
        insta::assert_snapshot!(refused(&pod, &sts, &outcome), @r#"no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none (STS answered AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity; set here: AWS_WEB_IDENTITY_TOKEN_FILE=/pod/token, AWS_ROLE_ARN=arn:aws:iam::123456789012:role/model-reader, AWS_EC2_METADATA_DISABLED=true); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set "anonymous": "true" for a public bucket"#);
    }

    #[test]
    fn a_token_file_that_is_not_there_is_named() {
        let pod = pod_knowing([]);
        let sts = IdentityServer::start([keys()]);
        let run = run(&pod).env("AWS_WEB_IDENTITY_TOKEN_FILE", pod.path("no-token")).env("AWS_ROLE_ARN", ROLE);
        insta::assert_snapshot!(refused(&pod, &sts, &run.env("AWS_ENDPOINT_URL_STS", sts.url()).run()), @r#"no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none (the token file /pod/no-token (AWS_WEB_IDENTITY_TOKEN_FILE) cannot be read: No such file or directory (os error 2); set here: AWS_WEB_IDENTITY_TOKEN_FILE=/pod/no-token, AWS_ROLE_ARN=arn:aws:iam::123456789012:role/model-reader, AWS_EC2_METADATA_DISABLED=true); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set "anonymous": "true" for a public bucket"#);
        assert!(sts.requests().is_empty());
    }

    #[test]
    fn a_token_without_a_role_is_a_mistake_of_the_configuration() {
        let pod = pod_knowing([]);
        let outcome = run(&pod).env("AWS_WEB_IDENTITY_TOKEN_FILE", pod.path("token")).run();
        insta::assert_snapshot!(pod.refused(&outcome, 78), @"env AWS_WEB_IDENTITY_TOKEN_FILE is set, but env AWS_ROLE_ARN is not; web identity needs both");
    }
}

mod containers {
    use super::*;

    /// EKS Pod Identity.
    fn pod_identity(pod: &Pod, identity: &IdentityServer, token: &str) -> Initializer {
        let file = pod.path("pod-identity-token");
        std::fs::write(&file, token).unwrap();
        run(pod)
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", identity.container_url())
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file)
    }

    #[test]
    fn eks_pod_identity_reads_its_token_from_the_mounted_file() {
        let pod = pod_knowing([keys().access_key()]);
        let agent = IdentityServer::start([keys()]);
        agent.demand_authorization("projected-token");
        assert_downloaded(&pod, &pod_identity(&pod, &agent, "projected-token").run());
    }

    #[test]
    fn a_token_that_the_agent_refuses_is_said() {
        let pod = pod_knowing([]);
        let agent = IdentityServer::start([keys()]);
        agent.demand_authorization("projected-token");
        insta::assert_snapshot!(refused(&pod, &agent, &pod_identity(&pod, &agent, "another").run()), @r#"no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none (Non-success status from HTTP credential provider: StatusCode(401); set here: AWS_CONTAINER_CREDENTIALS_FULL_URI=http://[identity]/v1/credentials, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/pod/pod-identity-token, AWS_EC2_METADATA_DISABLED=true); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set "anonymous": "true" for a public bucket"#);
        assert_eq!(agent.handed_out(), 0);
    }

    #[test]
    fn a_token_file_that_is_not_there_is_named() {
        let pod = pod_knowing([]);
        let agent = IdentityServer::start([keys()]);
        let run = run(&pod)
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.container_url())
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", pod.path("no-token"));
        insta::assert_snapshot!(refused(&pod, &agent, &run.run()), @r#"no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none (an error occurred while loading credentials: No such file or directory (os error 2); set here: AWS_CONTAINER_CREDENTIALS_FULL_URI=http://[identity]/v1/credentials, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/pod/no-token, AWS_EC2_METADATA_DISABLED=true); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set "anonymous": "true" for a public bucket"#);
    }

    #[test]
    fn ecs_hands_out_keys_with_a_token_in_the_environment_and_without_one() {
        let pod = pod_knowing([keys().access_key()]);
        let agent = IdentityServer::start([keys()]);
        let run = || run(&pod).env("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.container_url());
        assert_downloaded(&pod, &run().run());
        agent.demand_authorization("inline-token");
        assert_downloaded(&pod, &run().env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "inline-token").run());
    }

    #[test]
    fn without_the_token_that_the_endpoint_demands_there_are_no_keys() {
        let pod = pod_knowing([]);
        let agent = IdentityServer::start([keys()]);
        agent.demand_authorization("inline-token");
        let run = run(&pod).env("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.container_url());
        insta::assert_snapshot!(refused(&pod, &agent, &run.run()), @r#"no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none (Non-success status from HTTP credential provider: StatusCode(401); set here: AWS_CONTAINER_CREDENTIALS_FULL_URI=http://[identity]/v1/credentials, AWS_EC2_METADATA_DISABLED=true); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set "anonymous": "true" for a public bucket"#);
    }

    #[test]
    fn an_endpoint_that_goes_silent_is_given_up() {
        let pod = pod_knowing([]);
        let agent = IdentityServer::start([keys()]);
        agent.stall();
        let run = run(&pod).env("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.container_url());
        let run = run.env("S3_READ_TIMEOUT", "1").limit(Duration::from_secs(60));
        insta::assert_snapshot!(refused(&pod, &agent, &run.run()), @r#"no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none (no answer from http://[identity]/v1/credentials within 1 s; set here: AWS_CONTAINER_CREDENTIALS_FULL_URI=http://[identity]/v1/credentials, AWS_EC2_METADATA_DISABLED=true); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set "anonymous": "true" for a public bucket"#);
    }

    #[test]
    fn plain_http_to_any_other_host_is_refused_before_it_is_asked() {
        let pod = pod_knowing([]);
        let agent = IdentityServer::start([keys()]);
        let run = run(&pod).env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/v1/credentials");
        insta::assert_snapshot!(refused(&pod, &agent, &run.run()), @r#"no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none (invalid full URI for ECS provider (URI did not refer to an allowed IP address): http://192.0.2.1/v1/credentials; set here: AWS_CONTAINER_CREDENTIALS_FULL_URI=http://192.0.2.1/v1/credentials, AWS_EC2_METADATA_DISABLED=true); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set "anonymous": "true" for a public bucket"#);
    }
}

mod instances {
    use super::*;

    fn on_instance(pod: &Pod, metadata: &IdentityServer) -> Initializer {
        run(pod).env("AWS_EC2_METADATA_DISABLED", "false").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url())
    }

    #[test]
    fn the_nodes_role_is_asked_for_within_a_session() {
        let pod = pod_knowing([keys().access_key()]);
        let metadata = IdentityServer::start([keys()]);
        assert_downloaded(&pod, &on_instance(&pod, &metadata).run());
        let lines: Vec<String> = metadata.requests().into_iter().map(|request| request.line).collect();
        assert_eq!(lines[0], "PUT /latest/api/token", "IMDSv2 begins with a session: {lines:?}");
    }

    #[test]
    fn a_node_without_a_role_has_no_keys() {
        let pod = pod_knowing([]);
        let metadata = IdentityServer::start([keys()]);
        metadata.refuse(404, "no role");
        insta::assert_snapshot!(refused(&pod, &metadata, &on_instance(&pod, &metadata).run()), @r#"no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none (none of them answers here; set here: AWS_EC2_METADATA_DISABLED=false); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set "anonymous": "true" for a public bucket"#);
    }

    #[test]
    fn a_service_that_goes_silent_is_given_up() {
        let pod = pod_knowing([]);
        let metadata = IdentityServer::start([keys()]);
        metadata.stall();
        let run = on_instance(&pod, &metadata).env("S3_CONNECT_TIMEOUT", "1").env("S3_READ_TIMEOUT", "1");
        insta::assert_snapshot!(refused(&pod, &metadata, &run.limit(Duration::from_secs(60)).run()), @r#"no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none (none of them answers here; set here: AWS_EC2_METADATA_DISABLED=false); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set "anonymous": "true" for a public bucket"#);
    }
}

mod profiles {
    use super::*;

    fn with_profiles(pod: &Pod, credentials: &str, config: &str) -> Initializer {
        let files = pod.mount("aws", [("credentials", credentials.to_owned()), ("config", config.to_owned())]);
        run(pod)
            .env("AWS_SHARED_CREDENTIALS_FILE", files.join("credentials"))
            .env("AWS_CONFIG_FILE", files.join("config"))
    }

    fn profile(name: &str) -> String {
        let [id, secret, token] = keys().parts().map(str::to_owned);
        format!("[{name}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\naws_session_token = {token}\n")
    }

    #[test]
    fn the_default_profile_signs_and_a_named_one_where_it_is_asked_for() {
        let pod = pod_knowing([keys().access_key()]);
        assert_downloaded(&pod, &with_profiles(&pod, &profile("default"), "").run());
        let others = format!("[default]\naws_access_key_id = no\naws_secret_access_key = no\n{}", profile("models"));
        assert_downloaded(&pod, &with_profiles(&pod, &others, "").env("AWS_PROFILE", "models").run());
        // In the config file a profile's section has its kind in front.
        let config = profile("profile models");
        assert_downloaded(&pod, &with_profiles(&pod, "", &config).env("AWS_PROFILE", "models").run());
    }

    #[test]
    fn a_profile_that_is_not_there_is_named() {
        let pod = pod_knowing([]);
        let run = with_profiles(&pod, &profile("default"), "").env("AWS_PROFILE", "model");
        insta::assert_snapshot!(pod.refused(&run.run(), 77), @r#"no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none (none of them answers here; set here: AWS_PROFILE=model, AWS_SHARED_CREDENTIALS_FILE=/pod/aws/credentials, AWS_CONFIG_FILE=/pod/aws/config, AWS_EC2_METADATA_DISABLED=true); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set "anonymous": "true" for a public bucket"#);
    }

    /// A profile whose role STS has to be asked for.
    fn role_profile(pod: &Pod) -> Initializer {
        let token = pod.path("token");
        std::fs::write(&token, WEB_TOKEN).unwrap();
        let config = format!("[default]\nrole_arn = {ROLE}\nweb_identity_token_file = {}\n", token.display());
        with_profiles(pod, "", &config).env("AWS_ENDPOINT_URL", pod.server.endpoint())
    }

    #[test]
    fn a_profiles_role_is_asked_for_at_the_sts_endpoint() {
        let pod = pod_knowing([keys().access_key()]);
        let sts = IdentityServer::start([keys()]);
        assert_downloaded(&pod, &role_profile(&pod).env("AWS_ENDPOINT_URL_STS", sts.url()).run());
        assert_eq!(sts.handed_out(), 1);
    }

    #[test]
    fn a_profiles_token_is_not_sent_to_the_store() {
        let pod = pod_knowing([]);
        insta::assert_snapshot!(pod.refused(&role_profile(&pod).run(), 77), @r#"no credentials: the default AWS credential chain (web identity, EKS pod identity, container, IMDS, profile) has none (the role would be asked for at localhost:9000, because AWS_ENDPOINT_URL counts for STS too in a profile; set AWS_ENDPOINT_URL_STS to the address of STS, for Amazon's own https://sts.REGION.amazonaws.com; set here: AWS_SHARED_CREDENTIALS_FILE=/pod/aws/credentials, AWS_CONFIG_FILE=/pod/aws/config, AWS_EC2_METADATA_DISABLED=true); set access_key_id and secret_access_key in the storage-config entry, give the service account a role, or set "anonymous": "true" for a public bucket"#);
        assert!(pod.server.requests().is_empty(), "{:?}", pod.server.requests());
    }
}

mod renewal {
    use super::*;

    fn second() -> TemporaryKeys {
        TemporaryKeys::named("SECOND")
    }

    /// A pod with a large object, whose first keys expire when its second range is asked for.
    fn pod_with_expiry() -> (Pod, Object) {
        let expiry = Expiry::default();
        let pod = pod_knowing([keys().access_key().expires(&expiry), second().access_key()]);
        let weights = Object::pattern(1, 40 << 20);
        pod.put("bert/weights", weights.clone());
        let strike = Action::Call(Arc::new(move |_, _| expiry.strike()));
        pod.server.fault(Fault::on(Operation::GetObject, strike).nth(2));
        (pod, weights)
    }

    fn in_container(pod: &Pod, agent: &IdentityServer) -> Initializer {
        run(pod).env("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.container_url())
    }

    #[test]
    fn keys_that_the_store_calls_expired_are_renewed_and_the_download_goes_on() {
        let (pod, weights) = pod_with_expiry();
        let agent = IdentityServer::start([keys(), second()]);
        in_container(&pod, &agent).run().assert_exit(0);
        pod.tree().assert_equals(&Tree::new().bytes("config.json", "{}").file("weights", weights.data()));
        assert_eq!(agent.handed_out(), 2, "asked once at the start, and once for all ranges that were refused");
        assert!(pod.server.requests().iter().any(|request| request.status == 400));
    }

    #[test]
    fn a_head_cannot_say_that_keys_have_expired_and_they_are_renewed_all_the_same() {
        let expiry = Expiry::default();
        let pod = pod_knowing([keys().access_key().expires(&expiry), second().access_key()]);
        expiry.strike();
        let agent = IdentityServer::start([keys(), second()]);
        let exact = in_container(&pod, &agent).env("STORAGE_URI", "s3://models/bert/config.json");
        assert_downloaded(&pod, &exact.run());
        assert_eq!(agent.handed_out(), 2);
    }

    #[test]
    fn a_head_that_is_refused_whatever_the_keys_is_not_tried_for_long() {
        let pod = pod_knowing([keys().access_key()]);
        let agent = IdentityServer::start([keys()]);
        pod.server.fault(Fault::on(Operation::HeadObject, Action::Reply(ErrorReply::new(400, "Bad"))).always());
        pod.server.fault(Fault::on(Operation::ListObjectsV2, Action::Reply(ErrorReply::new(400, "Bad"))).always());
        let exact = in_container(&pod, &agent).env("STORAGE_URI", "s3://models/bert/config.json");
        exact.run().assert_exit(78);
        // Once more with other keys, and once more when the listing was refused too.
        assert_eq!(pod.server.requests_of(Operation::HeadObject).len(), 3);
    }

    #[test]
    fn where_there_are_no_new_keys_the_run_ends_as_denied() {
        let (pod, _) = pod_with_expiry();
        let agent = IdentityServer::start([keys()]);
        let outcome = in_container(&pod, &agent).env("S3_MAX_FILE_CONCURRENCY", "1").run();
        outcome.assert_exit(77);
        insta::assert_snapshot!(pod.message(&outcome), @r#"GetObject s3://models/bert/weights at https://localhost:9000 failed: 400 ExpiredToken "The provided token has expired." (request id [id]); the session token has expired (the default AWS credential chain)"#);
    }

    #[test]
    fn keys_that_are_about_to_expire_are_renewed_before_they_do() {
        let pod = pod_knowing([keys().access_key().allow_get(false), second().access_key()]);
        let agent = IdentityServer::start([keys().expiring_in(Duration::from_secs(30)), second()]);
        assert_downloaded(&pod, &in_container(&pod, &agent).run());
        assert_eq!(agent.handed_out(), 2);
    }

    #[test]
    fn keys_that_are_good_for_long_are_asked_for_once() {
        let pod = pod_knowing([keys().access_key()]);
        let agent = IdentityServer::start([keys(), second()]);
        assert_downloaded(&pod, &in_container(&pod, &agent).run());
        assert_eq!(agent.handed_out(), 1);
    }
}
