//! The way to the store is not there yet, goes away, or is not what it seems.

#![allow(clippy::unwrap_used, reason = "a test has no better use for an error")]

use std::{fs, path::Path, time::Duration};

use serde_json::json;
use storage_initializer_integration::{
    connect_proxy::ConnectProxy,
    door::{Door, Manner},
    initializer::{Initializer, Running},
    mount,
    pki::LeafSpec,
    pod::Pod,
    s3_server::{
        Checksum, Object, Operation,
        faults::{Action, ErrorReply, Fault, Gate},
    },
    tree::Tree,
};

/// How long a test waits for what should take milliseconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Fetched in ranges.
const LARGE_BYTES: u64 = 40 << 20;

fn pod() -> (Pod, Tree) {
    pod_of(LARGE_BYTES)
}

fn pod_of(size_bytes: u64) -> (Pod, Tree) {
    let pod = Pod::new();
    let object = Object::pattern(7, size_bytes).checksum(Checksum::Crc64Nvme);
    let expected = Tree::new().file("weights.bin", object.data());
    pod.put("m/weights.bin", object);
    (pod, expected)
}

/// A run that reaches the store through a door.
fn through(pod: &Pod, door: &Door) -> Initializer {
    let endpoint = format!("https://localhost:{}", door.address().port());
    let entry = pod.entry_with(json!({"endpoint_url": endpoint}));
    pod.with_entry(&entry).env("STORAGE_URI", "s3://models/m")
}

/// How a run through a door ended, for snapshots.
fn refused(pod: &Pod, door: &Door, run: Initializer, code: i32) -> String {
    let message = pod.refused(&run.run(), code);
    message.replace(&format!(":{}", door.address().port()), ":9000")
}

fn moved(pod: &Pod) -> u64 {
    pod.server.requests_of(Operation::GetObject).iter().map(|get| get.bytes_sent).sum()
}

mod that_comes_late {
    use super::*;

    #[test]
    fn a_port_that_is_refused_until_the_sidecar_runs_is_waited_for() {
        let (pod, expected) = pod();
        let door = Door::shut();
        let running = through(&pod, &door).spawn();
        running.wait_for_stderr("Connection refused");
        door.open(pod.server.address());
        let outcome = running.wait();
        outcome.assert_exit(0);
        pod.tree().assert_equals(&expected);
        assert!(outcome.stderr.contains("does a service mesh hold back the network"), "{}", outcome.stderr);
    }

    #[test]
    fn one_that_is_never_opened_is_not() {
        let (pod, _) = pod();
        let door = Door::shut();
        let run = through(&pod, &door).env("S3_MAX_ATTEMPTS", "3");
        insta::assert_snapshot!(refused(&pod, &door, run, 69), @"HeadObject s3://models/m at https://localhost:9000 failed 3 times in [n] s: no connection to localhost:9000: Connection refused (os error 111); is it the right host and port, may this pod reach it, and does a service mesh hold back the network until its sidecar runs?");
    }

    #[test]
    fn a_name_that_does_not_resolve_yet_is_asked_for_again() {
        let (pod, expected) = pod();
        let Some((running, hosts)) = on_a_host_without_the_name(&pod) else { return };
        running.wait_for_stderr("host name minio.late.example");
        // Written in place: the file is mounted.
        fs::write(&hosts, "127.0.0.1 minio.late.example\n").unwrap();
        running.wait().assert_exit(0);
        pod.tree().assert_equals(&expected);
    }

    /// A run that looks for the store under a name that its hosts file does not have, and that file.
    fn on_a_host_without_the_name(pod: &Pod) -> Option<(Running, std::path::PathBuf)> {
        let leaf = pod.authority.issue(LeafSpec::new().names(["minio.late.example"]));
        pod.server.replace_identity(leaf.identity());
        let (hosts, resolver) = (pod.path("hosts"), pod.path("resolv.conf"));
        fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
        // Nobody answers there, and says so at once.
        fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
        let entry = pod.entry_with(json!({"endpoint_url": pod.server.endpoint_named("minio.late.example")}));
        let run = pod.with_entry(&entry).env("STORAGE_URI", "s3://models/m");
        let files = [(Path::new("/etc/hosts"), hosts.as_path()), (Path::new("/etc/resolv.conf"), resolver.as_path())];
        Some((mount::with_files(run, &files)?.spawn(), hosts))
    }
}

mod that_goes_away {
    use super::*;

    /// A run through a proxy that is in the middle of a download, and waits for more.
    fn in_the_middle(pod: &Pod, run: Initializer) -> (Running, Gate) {
        let gate = pod.server.hold_after(LARGE_BYTES / 2);
        let running = run.env("S3_READ_TIMEOUT", "30").spawn();
        gate.wait_reached(LIMIT);
        (running, gate)
    }

    #[test]
    fn a_proxy_that_dies_ends_the_run_after_as_many_attempts_as_were_said() {
        let (pod, _) = pod();
        let proxy = ConnectProxy::start(pod.server.address());
        let url = proxy.url();
        let run = pod.download("s3://models/m").env("HTTPS_PROXY", &url).env("S3_MAX_ATTEMPTS", "3");
        let (running, gate) = in_the_middle(&pod, run);
        drop(proxy);
        let message = pod.refused(&running.wait(), 69);
        gate.open();
        insta::assert_snapshot!(message.replace(&url, "http://proxy"), @"GetObject s3://models/m/weights.bin at https://localhost:9000 failed 3 times in [n] s: no connection to localhost:9000 through proxy http://proxy/: Connection refused (os error 111); is the proxy up, and should NO_PROXY name this host?");
    }

    #[test]
    fn one_that_comes_back_is_gone_on_with_where_it_broke() {
        let (pod, expected) = pod();
        let proxy = ConnectProxy::start(pod.server.address());
        let behind = proxy.url().trim_start_matches("http://").parse().unwrap();
        let door = Door::to(behind);
        let run = pod.download("s3://models/m").env("HTTPS_PROXY", format!("http://{}", door.address()));
        let (running, gate) = in_the_middle(&pod, run);
        door.slam();
        gate.open();
        running.wait_for_stderr("keeps failing");
        door.open(behind);
        running.wait().assert_exit(0);
        pod.tree().assert_equals(&expected);
        // What the sockets held is lost; what had arrived is not.
        assert!(moved(&pod) < LARGE_BYTES * 2, "{}", moved(&pod));
    }

    #[test]
    fn credentials_that_expire_in_the_middle_and_cannot_be_renewed() {
        let (pod, _) = pod();
        let expired = ErrorReply::new(400, "ExpiredToken").message("The provided token has expired.");
        pod.server.fault(Fault::on_get("*", Action::Reply(expired)).nth(2).always());
        insta::assert_snapshot!(pod.refused(&pod.download("s3://models/m").run(), 77), @r#"GetObject s3://models/m/weights.bin at https://localhost:9000 failed: 400 ExpiredToken "The provided token has expired." (request id [id]); the session token has expired (keys from storage-config entry "default" (/pod/storage-config/default), field "access_key_id")"#);
    }
}

mod that_is_slow {
    use super::*;

    #[test]
    fn a_trickle_is_given_up() {
        let (pod, _) = pod_of(100_000);
        pod.server.fault(Fault::on_get("*", Action::Throttle { bytes_per_second: 100 }).always());
        let run = pod.download("s3://models/m").env("S3_READ_TIMEOUT", "2").env("S3_MAX_ATTEMPTS", "2");
        let message = pod.refused(&run.run(), 69);
        let (before, after) = message.split_once("only ").unwrap();
        let (_, after) = after.split_once(" bytes").unwrap();
        insta::assert_snapshot!(format!("{before}only [n] bytes{after}"), @"GetObject s3://models/m/weights.bin at https://localhost:9000 failed 2 times in [n] s: only [n] bytes arrived within 2 s");
    }

    #[test]
    fn a_thin_stream_is_not() {
        let (pod, expected) = pod_of(100_000);
        pod.server.fault(Fault::on_get("*", Action::Throttle { bytes_per_second: 30_000 }).always());
        let run = pod.download("s3://models/m").env("S3_READ_TIMEOUT", "2").env("S3_MAX_ATTEMPTS", "1");
        run.run().assert_exit(0);
        pod.tree().assert_equals(&expected);
        assert_eq!(pod.server.requests_of(Operation::GetObject).len(), 1);
    }
}

mod before_tls {
    use super::*;

    /// The second connection is the first one for bytes.
    const SECOND: [Manner; 1] = [Manner::Pass];

    #[test]
    fn a_handshake_that_is_reset_ended_or_not_answered_is_begun_again() {
        for manner in [Manner::Reset, Manner::Close, Manner::Silence] {
            for before in [&[][..], &SECOND] {
                let (pod, expected) = pod_of(1000);
                let door = Door::to(pod.server.address());
                door.greet(before.iter().copied().chain([manner]));
                through(&pod, &door).env("S3_CONNECT_TIMEOUT", "1").run().assert_exit(0);
                pod.tree().assert_equals(&expected);
            }
        }
    }

    #[test]
    fn one_that_is_always_reset_is_given_up() {
        let (pod, _) = pod_of(1000);
        let door = Door::to(pod.server.address());
        door.greet([Manner::Reset; 3]);
        let run = through(&pod, &door).env("S3_MAX_ATTEMPTS", "3");
        insta::assert_snapshot!(refused(&pod, &door, run, 69), @"HeadObject s3://models/m at https://localhost:9000 failed 3 times in [n] s: no connection to localhost:9000: Connection reset by peer (os error 104); is it the right host and port, may this pod reach it, and does a service mesh hold back the network until its sidecar runs?");
    }

    #[test]
    fn one_that_is_reset_whenever_bytes_are_wanted_is_given_up() {
        let (pod, _) = pod_of(1000);
        let door = Door::to(pod.server.address());
        // More than the attempts: a client's pool may begin a connection that it does not need after all.
        door.greet(SECOND.into_iter().chain([Manner::Reset; 8]));
        let run = through(&pod, &door).env("S3_MAX_ATTEMPTS", "3");
        insta::assert_snapshot!(refused(&pod, &door, run, 69), @"GetObject s3://models/m/weights.bin at https://localhost:9000 failed 3 times in [n] s: no connection to localhost:9000: Connection reset by peer (os error 104); is it the right host and port, may this pod reach it, and does a service mesh hold back the network until its sidecar runs?");
    }

    #[test]
    fn an_answer_in_plain_text_ends_the_run_at_once() {
        for before in [&[][..], &SECOND] {
            let (pod, _) = pod_of(1000);
            let door = Door::to(pod.server.address());
            door.greet(before.iter().copied().chain([Manner::Say("HTTP/1.1 400 Bad Request\r\n\r\n")]));
            let message = refused(&pod, &door, through(&pod, &door), 76);
            let (_, why) = message.split_once("failed: ").unwrap();
            insta::allow_duplicates!(
                insta::assert_snapshot!(why, @"TLS with localhost:9000 failed: the server speaks plain HTTP on this port; write the endpoint with http://, or use the port that speaks TLS")
            );
        }
    }
}
