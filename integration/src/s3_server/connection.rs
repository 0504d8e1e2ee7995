//! One connection: the TLS handshake, HTTP/1.1 with keep-alive, and the three ways in which it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::front::Front;

/// How a connection ends that the fault script ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// In order: close_notify where there is TLS, then FIN.
    Close,
    /// A TCP reset, and nothing of TLS before it.
    Reset,
}

/// What a reply's body and its connection tell each other.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// Something was given to the connection since its last complete flush.
    dirty: AtomicBool,
    waiting: Mutex<Option<Waker>>,
    ending: Mutex<Option<Ending>>,
}

impl Wire {
    pub(crate) fn dirty(&self) {
        self.dirty.store(true, Ordering::SeqCst);
    }

    pub(crate) fn end(&self, ending: Ending) {
        *self.ending.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(ending);
    }

    /// Ready when everything that was given before is written to the socket.
    pub(crate) fn poll_flushed(&self, context: &Context<'_>) -> Poll<()> {
        if !self.dirty.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        *self.waiting.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(context.waker().clone());
        Poll::Pending
    }

    fn flushed(&self) {
        self.dirty.store(false, Ordering::SeqCst);
        if let Some(waker) = self.waiting.lock().unwrap_or_else(|poison| poison.into_inner()).take() {
            waker.wake();
        }
    }

    fn ending(&self) -> Option<Ending> {
        *self.ending.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// Serves one connection to its end. The error of a failed handshake is returned as text.
pub(crate) async fn serve(tcp: TcpStream, tls: Option<TlsAcceptor>, mut front: Front) -> Result<(), String> {
    // Small replies must not wait for the acknowledgement of the one before.
    let _ = tcp.set_nodelay(true);
    let stream = match tls {
        None => Stream::Plain(tcp),
        Some(acceptor) => match acceptor.accept(tcp).await {
            Ok(stream) => Stream::Tls(Box::new(stream)),
            Err(error) => return Err(error.to_string()),
        },
    };
    let wire = Arc::new(Wire::default());
    front.wire = wire.clone();
    let io = TokioIo::new(Tracked { stream, wire: wire.clone() });
    let mut connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, front);
    // Without its own shutdown, so that the end of the connection is the script's choice.
    let _ = std::future::poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let mut stream = connection.into_parts().io.into_inner().stream;
    match wire.ending() {
        Some(Ending::Reset) => {
            // With a linger of zero the close below is a reset.
            let _ = stream.tcp().set_zero_linger();
        }
        Some(Ending::Close) | None => {
            let _ = stream.shutdown().await;
        }
    }
    Ok(())
}

/// A connection with or without TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
        }
    }
}

/// A stream that reports its complete flushes.
struct Tracked {
    stream: Stream,
    wire: Arc<Wire>,
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Stream::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Stream::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write_vectored(context, slices),
            Stream::Tls(tls) => Pin::new(tls).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(tcp) => tcp.is_write_vectored(),
            Stream::Tls(tls) => tls.is_write_vectored(),
        }
    }
}

impl AsyncRead for Tracked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tracked {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Hyper calls this only when its own buffer is empty.
        let result = std::task::ready!(Pin::new(&mut self.stream).poll_flush(context));
        self.wire.flushed();
        Poll::Ready(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
