//! The floor: what no client can be below that does the same work on the same machine.
//!
//! A few threads, each with one blocking connection, take ranges of 16 MiB in turn. Each receives 256 KiB per system call,
//! decrypts the records from there straight into the buffer that is written (no other copy is made), and writes that at its
//! place in a file whose blocks are allocated before. It lists nothing, signs nothing, checks nothing and
//! retries nothing: the list of objects comes as a file.

mod connection;

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rustix::fs::FallocateFlags;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs::{cipher_suite, default_provider},
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::{cases::Case, server::BUCKET};
use crate::measure::Measured;
use connection::Connection;

/// The first argument that makes the benchmark the floor.
const FLOOR: &str = "--floor";

/// What is asked at once.
const RANGE_BYTES: u64 = 16 << 20;

/// What is collected and then written at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// A run of the floor.
pub(super) fn command(case: &Case, endpoint: &str, ca: &Path, scratch: &Path, destination: &Path) -> Measured {
    let list = scratch.join("floor-list");
    let lines: Vec<String> = case.objects.iter().map(|object| format!("{} {}", object.size, object.key)).collect();
    fs::write(&list, lines.join("\n")).expect("the floor's list can be written");
    let this = std::env::current_exe().expect("the benchmark knows its own path");
    let address = endpoint.rsplit('/').next().unwrap_or_default();
    Measured::new(&this)
        .args([FLOOR, address, if case.tls { "tls" } else { "plain" }])
        .arg(ca.display().to_string())
        .arg(case.connections.to_string())
        .arg(list.display().to_string())
        .arg(destination.display().to_string())
}

/// A range of a file that is there.
struct Piece {
    key: String,
    file: Arc<Target>,
    range: Range<u64>,
}

/// A file; small ones are opened only when they are written.
enum Target {
    /// One writer at a time: the kernel allows no more, and lets the others spin.
    Open(Mutex<File>),
    Small(PathBuf),
}

/// Where this process was started to be the floor, it is that, and ends.
pub(super) fn floor_if_asked() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [first, address, transport, ca, connections, list, destination] = arguments.as_slice() else { return };
    if first != FLOOR {
        return;
    }
    let address: SocketAddr = address.parse().expect("an address");
    let tls = (transport == "tls").then(|| Arc::new(tls_config(Path::new(ca))));
    let pieces = pieces(&fs::read_to_string(list).expect("the list"), Path::new(destination)).expect("the files");
    let next = AtomicUsize::new(0);
    let ended: io::Result<Vec<()>> = thread::scope(|scope| {
        let work = || fetch_all(address, tls.as_ref(), &pieces, &next);
        let threads: Vec<_> =
            (0..connections.parse().expect("a number of connections")).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread of the floor")).collect()
    });
    ended.expect("the floor fetches everything");
    std::process::exit(0);
}

fn pieces(list: &str, destination: &Path) -> io::Result<Vec<Piece>> {
    fs::create_dir_all(destination)?;
    let mut pieces = Vec::new();
    for line in list.lines() {
        let (size, key) = line.split_once(' ').expect("a size and a key");
        let size: u64 = size.parse().expect("a size");
        let path = destination.join(key.rsplit('/').next().unwrap_or(key));
        let file = Arc::new(if size > RANGE_BYTES {
            let file = File::create(path)?;
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size)?;
            Target::Open(Mutex::new(file))
        } else {
            Target::Small(path)
        });
        let starts = (0..size).step_by(RANGE_BYTES as usize);
        pieces.extend(starts.map(|start| Piece {
            key: key.to_owned(),
            file: file.clone(),
            range: start..size.min(start + RANGE_BYTES),
        }));
    }
    // One range of each file after the other: two writers of one file wait for each other in the kernel.
    pieces.sort_by_key(|piece| piece.range.start);
    Ok(pieces)
}

fn fetch_all(
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    pieces: &[Piece],
    next: &AtomicUsize,
) -> io::Result<()> {
    let mut connection = Connection::open(address, tls)?;
    let mut buffer = vec![0; BUFFER_BYTES + connection::SLACK_BYTES];
    while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
        fetch(&mut connection, piece, &mut buffer)?;
    }
    Ok(())
}

fn fetch(connection: &mut Connection, piece: &Piece, buffer: &mut [u8]) -> io::Result<()> {
    let Range { start, end } = piece.range;
    connection.send(&format!(
        "GET /{BUCKET}/{} HTTP/1.1\r\nHost: floor\r\nRange: bytes={start}-{}\r\n\r\n",
        piece.key,
        end - 1
    ))?;
    let mut filled = 0;
    let head = loop {
        filled += connection.receive(&mut buffer[filled..])?;
        if let Some(at) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    assert!(buffer.starts_with(b"HTTP/1.1 206 "), "the floor asks for ranges only");
    buffer.copy_within(head..filled, 0);
    filled -= head;
    let opened;
    let file = match &*piece.file {
        Target::Open(file) => file,
        Target::Small(path) => {
            opened = Mutex::new(File::create(path)?);
            &opened
        }
    };
    let mut at = start;
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let wanted = left.min(BUFFER_BYTES);
        while filled < wanted {
            filled += connection.receive(&mut buffer[filled..])?;
        }
        file.lock().unwrap_or_else(PoisonError::into_inner).write_all_at(&buffer[..wanted], at)?;
        buffer.copy_within(wanted..filled, 0);
        filled -= wanted;
        at += wanted as u64;
    }
    Ok(())
}

fn tls_config(ca: &Path) -> ClientConfig {
    let mut provider = default_provider();
    provider.cipher_suites.retain(|suite| *suite == cipher_suite::TLS13_AES_128_GCM_SHA256);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a CA as PEM")).expect("a CA");
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // The records are read by hand.
    config.enable_secret_extraction = true;
    config
}
