//! A TCP port in front of a server that is shut, open, or not what it seems.
//!
//! A port that is shut belongs to the test and refuses every connection, as the network of a pod does until its mesh
//! sidecar runs. One that is open leads to the server, TLS and all, but for the connections that the test wants turned
//! away: those never get as far as TLS.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::{fmt, io};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It is led to the server.
    Pass,
    /// A TCP reset as the answer to the client's first words.
    Reset,
    /// A proper end as the answer to them.
    Close,
    /// This text as the answer to them.
    Say(&'static str),
    /// No answer.
    Silence,
}

/// A port of 127.0.0.1.
pub struct Door {
    runtime: Option<Runtime>,
    address: SocketAddr,
    state: Mutex<State>,
    manners: Arc<Mutex<VecDeque<Manner>>>,
}

enum State {
    /// Bound, so that nobody else gets the port, and not listening, so that everybody is refused.
    Shut(TcpSocket),
    /// Sending ends the listener and every connection.
    Open(watch::Sender<()>),
}

impl Door {
    /// A door on a free port, shut.
    pub fn shut() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("start a runtime");
        let (socket, address) = somewhere();
        Self { runtime: Some(runtime), address, state: Mutex::new(State::Shut(socket)), manners: Arc::default() }
    }

    /// A door that leads to `target`.
    pub fn to(target: SocketAddr) -> Self {
        let door = Self::shut();
        door.open(target);
        door
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens to the next connections, in this order; to those after them nothing.
    pub fn greet(&self, manners: impl IntoIterator<Item = Manner>) {
        lock(&self.manners).extend(manners);
    }

    /// From here on it leads to `target`.
    pub fn open(&self, target: SocketAddr) {
        let mut state = lock(&self.state);
        let State::Shut(_) = *state else { return };
        let (ending, ended) = watch::channel(());
        let State::Shut(socket) = std::mem::replace(&mut *state, State::Open(ending)) else { return };
        let Some(runtime) = &self.runtime else { return };
        let _context = runtime.enter();
        let listener = socket.listen(128).expect("listen on a port that is bound");
        runtime.spawn(accept(ended, target, self.manners.clone(), listener));
    }

    /// Ends every connection, and refuses new ones.
    pub fn slam(&self) {
        let mut state = lock(&self.state);
        let State::Open(ending) = &*state else { return };
        let _ = ending.send(());
        let Some(runtime) = &self.runtime else { return };
        // The listener has gone when nobody listens to the channel any more.
        runtime.block_on(ending.closed());
        *state = State::Shut(bound(self.address).expect("bind the door's port again"));
    }
}

/// A port that the system gives to nobody who asks for any: those begin at 32768. A door that is shut does not listen, so
/// another socket could have been given its port.
fn somewhere() -> (TcpSocket, SocketAddr) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() % 12_000;
    for _ in 0..1_000 {
        let offset = (first + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % 12_000;
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + offset as u16));
        if let Ok(socket) = bound(address) {
            return (socket, address);
        }
    }
    panic!("no port from 20000 to 31999 is free");
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of the port's earlier life may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The listener is the last argument, so that it is dropped first: who waits for `ended` finds the port free.
async fn accept(
    mut ended: watch::Receiver<()>,
    target: SocketAddr,
    manners: Arc<Mutex<VecDeque<Manner>>>,
    listener: TcpListener,
) {
    loop {
        tokio::select! {
            biased;
            _ = ended.changed() => return,
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let manner = lock(&manners).pop_front().unwrap_or(Manner::Pass);
                let mut ended = ended.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = ended.changed() => {}
                        // A connection that fails is the client's to notice.
                        _ = meet(client, target, manner) => {}
                    }
                });
            }
        }
    }
}

async fn meet(mut client: TcpStream, target: SocketAddr, manner: Manner) -> std::io::Result<()> {
    if manner == Manner::Pass {
        let mut server = TcpStream::connect(target).await?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    }
    let mut words = [0; 4096];
    let _ = client.read(&mut words).await?;
    match manner {
        Manner::Pass | Manner::Close => Ok(()),
        Manner::Reset => client.set_zero_linger(),
        Manner::Say(text) => client.write_all(text.as_bytes()).await,
        Manner::Silence => std::future::pending().await,
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Door({})", self.address)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_door_refuses_leads_turns_away_and_refuses_again() {
        let house = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = house.local_addr().unwrap();
        let door = Door::shut();
        let refused = || TcpStream::connect(door.address()).unwrap_err().kind() == ErrorKind::ConnectionRefused;
        assert!(refused());
        door.open(target);
        door.greet([Manner::Say("no")]);
        let mut turned_away = TcpStream::connect(door.address()).unwrap();
        turned_away.write_all(b"hello").unwrap();
        let mut answer = String::new();
        turned_away.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "no");
        let mut client = TcpStream::connect(door.address()).unwrap();
        client.write_all(b"hello").unwrap();
        let (mut server, _) = house.accept().unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        door.slam();
        assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);
        assert!(refused());
    }
}
