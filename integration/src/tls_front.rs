//! TLS in front of what speaks none: makes an `http://` proxy an `https://` one, and a store what a proxy pretends it is.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::pki::ServerIdentity;

/// A port of 127.0.0.1 that ends TLS and leads on in plain; dropping it ends it and every connection through it.
#[derive(Debug)]
pub struct TlsFront {
    runtime: Option<Runtime>,
    address: SocketAddr,
}

impl TlsFront {
    /// Starts one that presents `identity` and leads to `target`.
    pub fn start(identity: ServerIdentity, target: SocketAddr) -> Self {
        let acceptor = TlsAcceptor::from(identity.server_config(rustls::DEFAULT_VERSIONS));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("start a runtime");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).expect("bind a port of 127.0.0.1");
        let address = listener.local_addr().expect("ask a listener for its address");
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                // A connection that fails is the client's to notice.
                tokio::spawn(async move {
                    let mut tls = acceptor.accept(tcp).await?;
                    let mut plain = TcpStream::connect(target).await?;
                    tokio::io::copy_bidirectional(&mut tls, &mut plain).await
                });
            }
        });
        Self { runtime: Some(runtime), address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}
