//! The store that the clients are measured against, in a process of its own: its CPU time is nobody's.
//!
//! It is lean, so that two cores have as much as possible left for the client: a thread per connection, objects as slices
//! of one mapped file, `sendfile` without TLS, rustls on aws-lc-rs with AES-128-GCM and 256 KiB per write with it. It
//! answers as S3 does what a download asks (GET with ranges, HEAD, both listings), and it does not look at signatures:
//! the server of the tests does that.

mod answer;
mod connection;
mod request;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{cipher_suite, default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};

use super::cases::{Case, Pace};
use crate::{measure::monotonic, pki::Leaf};
use answer::Stored;

/// The first argument that makes the benchmark its server.
const SERVE: &str = "--serve";

/// The only bucket.
pub(super) const BUCKET: &str = "models";

/// A handshake goes deep into the cryptography; thousands of threads of this size are only address space.
const STACK_BYTES: usize = 512 * 1024;

/// What the server did since it was last asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Statistics {
    /// Accepted connections.
    pub(super) connections: u64,
    /// The most bodies of objects that were under way at once.
    pub(super) peak_bodies: u64,
    /// Requests.
    pub(super) requests: u64,
    /// When the first request had been read, by [`monotonic`].
    pub(super) first_request: Option<Duration>,
    /// The server's own CPU time.
    pub(super) cpu: Duration,
}

/// A running server. Dropping it ends its process.
pub(super) struct Server {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    endpoint: String,
}

impl Server {
    /// Serves the objects of a case, out of the file `data`.
    pub(super) fn start(case: &Case, data: &Path, identity: &Leaf) -> Self {
        let this = std::env::current_exe().expect("the benchmark knows its own path");
        let mut process = Command::new(this)
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the benchmark can start itself");
        let mut stdin = process.stdin.take().expect("stdin is a pipe");
        let mut stdout = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        let objects: Vec<Value> =
            case.objects.iter().map(|object| json!([object.key, object.offset, object.size])).collect();
        let description = json!({
            "data": data,
            "objects": objects,
            "tls": case.tls.then(|| json!({"chain": identity.chain_pem(), "key": identity.key_pem()})),
            "pace": case.pace.map(|pace| json!([pace.first_byte.as_millis() as u64, pace.bytes_per_second])),
        });
        writeln!(stdin, "{description}").expect("the server reads what it shall serve");
        let port = read_json(&mut stdout)["port"].as_u64().expect("the server says where it listens");
        let scheme = if case.tls { "https" } else { "http" };
        Self { process, stdin: Some(stdin), stdout, endpoint: format!("{scheme}://127.0.0.1:{port}") }
    }

    /// `scheme://address:port`. An address, so that every client puts the bucket into the path.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What was done since this was last called.
    pub(super) fn take_statistics(&mut self) -> Statistics {
        let stdin = self.stdin.as_mut().expect("a running server has a stdin");
        writeln!(stdin, "statistics").expect("the server is there");
        let told = read_json(&mut self.stdout);
        let number = |name: &str| told[name].as_u64().unwrap_or_default();
        Statistics {
            connections: number("connections"),
            peak_bodies: number("peak_bodies"),
            requests: number("requests"),
            first_request: told["first_request_us"].as_u64().map(Duration::from_micros),
            cpu: Duration::from_micros(number("cpu_us")),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.process.wait();
    }
}

fn read_json(stdout: &mut impl io::BufRead) -> Value {
    let mut line = String::new();
    stdout.read_line(&mut line).expect("the server answers");
    serde_json::from_str(&line).expect("the server answers in JSON; its reason is above")
}

/// Where this process was started to be the server, it is that until its stdin ends.
pub(super) fn serve_if_asked() {
    if std::env::args().nth(1).as_deref() != Some(SERVE) {
        return;
    }
    let mut stdin = io::stdin().lock();
    let description = read_json(&mut stdin);
    let shared = Arc::new(Shared::of(&description));
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    println!("{}", json!({"port": listener.local_addr().expect("its address").port()}));
    let accepting = shared.clone();
    std::thread::spawn(move || accept(&listener, &accepting));
    let mut cpu = own_cpu();
    while stdin.read_line(&mut String::new()).is_ok_and(|count| count > 0) {
        let statistics = std::mem::take(&mut *shared.count()).statistics;
        let before = std::mem::replace(&mut cpu, own_cpu());
        println!(
            "{}",
            json!({
                "connections": statistics.connections,
                "peak_bodies": statistics.peak_bodies,
                "requests": statistics.requests,
                "first_request_us": statistics.first_request.map(|at| at.as_micros() as u64),
                "cpu_us": cpu.saturating_sub(before).as_micros() as u64,
            })
        );
    }
    std::process::exit(0);
}

/// The CPU time of this process so far.
fn own_cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(spent).unwrap_or_default()
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    // An error here is one connection's (it was reset before it was accepted), not the listener's.
    for tcp in listener.incoming().flatten() {
        shared.count().statistics.connections += 1;
        let shared = shared.clone();
        let connection = std::thread::Builder::new().stack_size(STACK_BYTES);
        // A client may hang up whenever it likes: the error that ends a connection is no news.
        connection
            .spawn(move || {
                let _ = connection::serve(tcp, &shared);
            })
            .expect("a thread for a connection");
    }
}

/// What all connections share.
struct Shared {
    /// By key.
    objects: BTreeMap<String, Stored>,
    file: File,
    content: memmap2::Mmap,
    tls: Option<Arc<ServerConfig>>,
    pace: Option<Pace>,
    count: Mutex<Count>,
}

#[derive(Default)]
struct Count {
    statistics: Statistics,
    bodies: u64,
}

impl Shared {
    fn of(description: &Value) -> Self {
        let path = description["data"].as_str().expect("a path");
        let file = File::open(path).expect("the data file");
        let content = map(&file);
        let objects = description["objects"].as_array().expect("objects").iter().map(|object| {
            let number = |index: usize| object[index].as_u64().expect("a number");
            let key = object[0].as_str().expect("a key").to_owned();
            let stored = Stored::new(&content, number(1), number(2));
            (key, stored)
        });
        let objects = objects.collect();
        let tls = description["tls"].as_object().map(|tls| {
            let pem = |name: &str| tls[name].as_str().expect("PEM").as_bytes();
            Arc::new(tls_config(pem("chain"), pem("key")))
        });
        let pace = description["pace"].as_array().map(|pace| Pace {
            first_byte: Duration::from_millis(pace[0].as_u64().expect("milliseconds")),
            bytes_per_second: pace[1].as_u64().expect("bytes"),
        });
        Self { objects, file, content, tls, pace, count: Mutex::default() }
    }

    fn count(&self) -> std::sync::MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request_was_read(&self) {
        let mut count = self.count();
        count.statistics.requests += 1;
        count.statistics.first_request.get_or_insert_with(monotonic);
    }

    fn body_begins(&self) {
        let mut count = self.count();
        count.bodies += 1;
        count.statistics.peak_bodies = count.statistics.peak_bodies.max(count.bodies);
    }

    fn body_ends(&self) {
        let mut count = self.count();
        // Statistics that were taken in the middle of a body have forgotten it.
        count.bodies = count.bodies.saturating_sub(1);
    }
}

fn tls_config(chain: &[u8], key: &[u8]) -> ServerConfig {
    let mut provider = default_provider();
    // What every client here offers, and what S3 itself chooses: the same cipher for all.
    provider.cipher_suites.retain(|suite| {
        [cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256].contains(suite)
    });
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().expect("a chain as PEM");
    ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("the default versions")
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key).expect("a key as PEM"))
        .expect("a certificate and a key that belong together")
}

/// Maps the benchmark's own data file.
#[allow(unsafe_code)]
pub(super) fn map(file: &File) -> memmap2::Mmap {
    // SAFETY: the file is written under another name, renamed when it is complete, and never changed after that.
    unsafe { memmap2::Mmap::map(file) }.expect("a data file that can be mapped")
}
