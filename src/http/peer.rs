//! A server for unit tests.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread::JoinHandle,
};

use super::Origin;

/// What a peer does with each of a connection's requests, one after the other; then it closes.
pub(crate) type Script = Vec<Vec<u8>>;

/// A server that answers by rote, one connection after the other.
pub(crate) struct Peer {
    pub(crate) port: u16,
    serving: JoinHandle<Vec<String>>,
}

impl Peer {
    pub(crate) fn start<S: Read + Write>(
        connections: Vec<Script>,
        accept: impl Fn(TcpStream) -> S + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for script in connections {
                let mut stream = accept(listener.accept().unwrap().0);
                for answer in script {
                    requests.push(read_head(&mut stream));
                    // The client may have gone as soon as it had seen enough.
                    let _ = stream.write_all(&answer).and_then(|()| stream.flush());
                }
            }
            requests
        });
        Self { port, serving }
    }

    pub(crate) fn plain(connections: Vec<Script>) -> Self {
        Self::start(connections, |stream| stream)
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::of(&format!("http://127.0.0.1:{}", self.port).parse().unwrap()).unwrap()
    }

    pub(crate) fn requests(self) -> Vec<String> {
        self.serving.join().unwrap()
    }
}

pub(crate) fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
