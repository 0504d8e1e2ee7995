//! An S3 of our own, in the test's process: real TLS, real signatures, real HTTP, and faults on demand.
//!
//! Owns the server and its threads. The API is synchronous, so that a plain `#[test]` can use it: the server brings its
//! own runtime, listens on a free port of 127.0.0.1, and dropping it ends every task and connection. Objects are put
//! through the server's [`Store`], not over the wire, and may change while the product reads them.
//!
//! It answers as S3 does where the product could notice: path and virtual-hosted addressing, signatures with session
//! tokens, permissions, regions, versions, part numbers, conditional reads, checksums, listing in pages. What it does
//! not have, because no download needs it: multipart uploads, deletes and ACLs over the wire.
//!
//! [`faults`] is the script of what goes wrong.

pub mod faults;

mod access;
mod connection;
mod describe;
mod front;
mod host;
pub(crate) mod listing;
mod object;
mod operations;
mod read;
mod record;
mod reply_body;
mod store;
#[cfg(test)]
mod test_client;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::pki::ServerIdentity;

pub use access::{AccessKey, Expiry};
pub(crate) use object::hex;
pub use object::{Checksum, ChecksumType, Object, ObjectData, Pattern};
pub use record::{Operation, RecordedRequest};
pub use store::Store;

use connection::Wire;
use faults::{Allowance, Fault, FaultHandle, Gate, Script};
use front::Front;
use host::BaseDomain;
use record::Log;

/// Which TLS versions a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    Both,
    /// 1.2 only.
    Tls12,
    /// 1.3 only.
    Tls13,
}

/// Describes a server before it starts.
#[derive(Debug)]
pub struct S3ServerBuilder {
    transport: Option<Transport>,
    tls_versions: TlsVersions,
    keys: access::KeyRing,
    store: Store,
    base_domain: Option<BaseDomain>,
    region: Option<String>,
    page_size: usize,
    workers: usize,
}

#[derive(Debug)]
enum Transport {
    Plain,
    Tls(ServerIdentity),
}

impl S3ServerBuilder {
    /// Speaks TLS with this certificate.
    pub fn identity(mut self, identity: ServerIdentity) -> Self {
        self.transport = Some(Transport::Tls(identity));
        self
    }

    /// Speaks plain HTTP.
    pub fn plain(mut self) -> Self {
        self.transport = Some(Transport::Plain);
        self
    }

    /// Limits the TLS versions.
    pub fn tls_versions(mut self, versions: TlsVersions) -> Self {
        self.tls_versions = versions;
        self
    }

    /// Adds a key pair.
    pub fn credentials(mut self, key: AccessKey) -> Self {
        self.keys.0.push(key);
        self
    }

    /// Adds an empty bucket.
    pub fn bucket(self, bucket: &str) -> Self {
        self.store.create_bucket(bucket);
        self
    }

    /// Adds an empty bucket that keeps every version.
    pub fn versioned_bucket(self, bucket: &str) -> Self {
        self.store.enable_versioning(bucket);
        self
    }

    /// Adds an empty bucket that everybody may read and list without a signature.
    pub fn public_bucket(self, bucket: &str) -> Self {
        self.store.allow_anonymous(bucket);
        self
    }

    /// Also takes `bucket.DOMAIN` as a host name; path style goes on working.
    pub fn base_domain(mut self, domain: &str) -> Self {
        self.base_domain = Some(BaseDomain(domain.to_owned()));
        self
    }

    /// Refuses signatures for another region, naming this one, as AWS does.
    pub fn region(mut self, region: &str) -> Self {
        self.region = Some(region.to_owned());
        self
    }

    /// Answers at most this many entries per page of a listing; the default is S3's 1,000, which is also the most.
    pub fn page_size(mut self, entries: usize) -> Self {
        assert!((1..=1000).contains(&entries), "S3 pages hold 1 to 1,000 entries");
        self.page_size = entries;
        self
    }

    /// How many threads serve; the default is two.
    pub fn workers(mut self, threads: usize) -> Self {
        self.workers = threads;
        self
    }

    /// Starts the server. Panics where it cannot, for a test has no use for an error here.
    pub fn start(self) -> S3Server {
        let transport = self.transport.expect("choose .identity(..) or .plain() before .start()");
        let versions = self.tls_versions;
        let tls = match transport {
            Transport::Plain => None,
            Transport::Tls(identity) => Some(acceptor(identity, versions)),
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let front = Front {
            s3: service(&self.store, self.keys, &self.base_domain, &self.region, self.page_size),
            store: self.store,
            script: Script::default(),
            allowance: Allowance::default(),
            log: Log::default(),
            base_domain: self.base_domain,
            region: self.region,
            connection: 0,
            wire: Arc::new(Wire::default()),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.workers)
            .thread_name("s3-server")
            .enable_all()
            .build()
            .expect("start a runtime");
        let shared = Arc::new(Shared {
            front,
            tls: RwLock::new(tls),
            connections: AtomicU64::new(0),
            handshake_failures: Mutex::default(),
        });
        let listening = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind a port of 127.0.0.1");
        listening.set_nonblocking(true).expect("make a listener non-blocking");
        let address = listening.local_addr().expect("ask a listener for its address");
        let accepting = shared.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listening).expect("register a listener");
            accept(listener, accepting).await;
        });
        S3Server { runtime: Some(runtime), shared, address, scheme, versions }
    }
}

fn service(
    store: &Store,
    keys: access::KeyRing,
    base_domain: &Option<BaseDomain>,
    region: &Option<String>,
    page_size: usize,
) -> S3Service {
    let mut builder =
        S3ServiceBuilder::new(operations::Operations { store: store.clone(), region: region.clone(), page_size });
    builder.set_auth(keys.clone());
    builder.set_access(access::Permissions { keys, store: store.clone() });
    if let Some(base_domain) = base_domain {
        builder.set_host(base_domain.clone());
    }
    builder.build()
}

fn acceptor(identity: ServerIdentity, versions: TlsVersions) -> TlsAcceptor {
    let versions: &[_] = match versions {
        TlsVersions::Both => &[&TLS12, &TLS13],
        TlsVersions::Tls12 => &[&TLS12],
        TlsVersions::Tls13 => &[&TLS13],
    };
    TlsAcceptor::from(identity.server_config(versions))
}

/// What the accept loop and the test share.
struct Shared {
    front: Front,
    tls: RwLock<Option<TlsAcceptor>>,
    connections: AtomicU64,
    handshake_failures: Mutex<Vec<String>>,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // An error here is one connection's (it was reset before it was accepted), not the listener's.
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let tls = shared.tls.read().unwrap_or_else(|poison| poison.into_inner()).clone();
        let front = Front { connection: number, ..shared.front.clone() };
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Err(failure) = connection::serve(tcp, tls, front).await {
                let failures = shared.handshake_failures.lock();
                failures.unwrap_or_else(|poison| poison.into_inner()).push(failure);
            }
        });
    }
}

/// A running server.
pub struct S3Server {
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    address: SocketAddr,
    scheme: &'static str,
    versions: TlsVersions,
}

impl S3Server {
    /// A server without buckets or keys, still to be told how it speaks.
    pub fn builder() -> S3ServerBuilder {
        S3ServerBuilder {
            transport: None,
            tls_versions: TlsVersions::Both,
            keys: access::KeyRing::default(),
            store: Store::default(),
            base_domain: None,
            region: None,
            page_size: 1000,
            workers: 2,
        }
    }

    /// The endpoint by name: `https://localhost:PORT`.
    pub fn endpoint(&self) -> String {
        self.endpoint_named("localhost")
    }

    /// The endpoint by address: `https://127.0.0.1:PORT`.
    pub fn endpoint_ip(&self) -> String {
        self.endpoint_named("127.0.0.1")
    }

    /// The endpoint by a host name of the test's choice.
    pub fn endpoint_named(&self, host: &str) -> String {
        format!("{}://{host}:{}", self.scheme, self.address.port())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The buckets.
    pub fn store(&self) -> &Store {
        &self.shared.front.store
    }

    /// Puts an object; see [`Store::put`].
    pub fn put(&self, bucket: &str, key: &str, object: Object) -> Option<String> {
        self.store().put(bucket, key, object)
    }

    /// Removes an object; see [`Store::remove`].
    pub fn remove(&self, bucket: &str, key: &str) {
        self.store().remove(bucket, key);
    }

    /// Adds a fault to the end of the script.
    pub fn fault(&self, fault: Fault) -> FaultHandle {
        self.shared.front.script.add(fault)
    }

    /// Disarms every fault; what is under way goes on as it began.
    pub fn disarm_faults(&self) {
        self.shared.front.script.disarm();
    }

    /// Stops all bodies of objects at a gate once so many more bytes of them were sent (and up to a chunk per connection
    /// beyond that).
    pub fn hold_after(&self, bytes: u64) -> Gate {
        let gate = Gate::new();
        self.shared.front.allowance.set(bytes, gate.clone());
        gate
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.front.log.requests()
    }

    /// The requests so far of one operation.
    pub fn requests_of(&self, operation: Operation) -> Vec<RecordedRequest> {
        let mut requests = self.requests();
        requests.retain(|request| request.operation == operation);
        requests
    }

    /// How many bytes of bodies were given to connections, in all replies so far.
    pub fn bytes_sent(&self) -> u64 {
        self.shared.front.log.bytes_sent()
    }

    /// Forgets the requests so far, and with them their bytes.
    pub fn forget_requests(&self) {
        self.shared.front.log.clear();
    }

    /// How many TCP connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Why TLS handshakes failed so far, as the server saw it.
    pub fn handshake_failures(&self) -> Vec<String> {
        let failures = self.shared.handshake_failures.lock();
        failures.unwrap_or_else(|poison| poison.into_inner()).clone()
    }

    /// Presents another certificate from the next connection on.
    pub fn replace_identity(&self, identity: ServerIdentity) {
        assert_eq!(self.scheme, "https", "a plain server presents no certificate");
        let tls = Some(acceptor(identity, self.versions));
        *self.shared.tls.write().unwrap_or_else(|poison| poison.into_inner()) = tls;
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        // A runtime must not be waited for on another runtime's thread, and the test may be an async one.
        let ended = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5)));
        let _ = ended.join();
    }
}

impl std::fmt::Debug for S3Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "S3Server({})", self.endpoint())
    }
}
