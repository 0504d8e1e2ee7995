//! A port whose clients are served on threads of their own.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// A free port of 127.0.0.1; dropping it ends it, and every stream that it knows of.
#[derive(Debug)]
pub(crate) struct Listening {
    address: SocketAddr,
    streams: Arc<Streams>,
    accepting: Option<JoinHandle<()>>,
}

/// What ends with the port.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Listening {
    /// Lets `serve` have each client. A connection that fails is the client's to notice.
    pub(crate) fn start(serve: impl Fn(TcpStream, &Streams) -> io::Result<()> + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a port of 127.0.0.1");
        let address = listener.local_addr().expect("ask a listener for its address");
        let streams = Arc::new(Streams::default());
        let known = streams.clone();
        let accepting = thread::spawn(move || {
            for client in listener.incoming() {
                if known.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                let (serve, known) = (serve.clone(), known.clone());
                thread::spawn(move || known.add(&client).and_then(|()| serve(client, &known)));
            }
        });
        Self { address, streams, accepting: Some(accepting) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Streams {
    /// Ends this stream too when the port ends.
    pub(crate) fn add(&self, stream: &TcpStream) -> io::Result<()> {
        self.open().push(stream.try_clone()?);
        // Whoever ends the port may have looked before.
        if self.ended.load(Ordering::SeqCst) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    fn open(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.streams.ended.store(true, Ordering::SeqCst);
        for stream in self.streams.open().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the listener, which then sees that it ended.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}
