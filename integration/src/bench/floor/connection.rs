//! A blocking connection of the floor: plain, or TLS 1.3 records by hand after rustls has shaken hands.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets, pki_types::ServerName};

/// What is received at once.
const RECEIVE_BYTES: usize = 256 * 1024;

/// Most of a record: RFC 8446, section 5.2.
const RECORD_BYTES: usize = HEADER_BYTES + (1 << 14) + 256;

/// Type, version, length.
const HEADER_BYTES: usize = 5;

/// Of AES-128-GCM.
const TAG_BYTES: usize = 16;

/// Inner type of a record that holds data.
const APPLICATION_DATA: u8 = 23;

/// How much room `receive` wants, so that a whole record fits behind what is waited for.
pub(super) const SLACK_BYTES: usize = 2 * RECORD_BYTES;

pub(super) struct Connection {
    tcp: TcpStream,
    tls: Option<Records>,
}

impl Connection {
    pub(super) fn open(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let mut tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        let tls = tls.map(|config| Records::shake_hands(&mut tcp, config, address)).transpose()?;
        Ok(Self { tcp, tls })
    }

    pub(super) fn send(&mut self, request: &str) -> io::Result<()> {
        match &mut self.tls {
            None => self.tcp.write_all(request.as_bytes()),
            Some(records) => self.tcp.write_all(&records.send.seal(request.as_bytes())),
        }
    }

    /// Receives some bytes, at least one, into a buffer of more than [`SLACK_BYTES`] or its rest.
    pub(super) fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.tls {
            None => {
                let room = into.len() - SLACK_BYTES.min(into.len() - 1);
                self.tcp.read(&mut into[..room])?
            }
            Some(records) => records.receive(&mut self.tcp, into)?,
        };
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
    }
}

/// One direction: its key and how many records went by.
struct Direction {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            panic!("AES-128-GCM is the only cipher offered");
        };
        let key = UnboundKey::new(&AES_128_GCM, key.as_ref()).expect("a key of this cipher");
        Self { key: LessSafeKey::new(key), iv: iv.as_ref().try_into().expect("twelve bytes"), sequence }
    }

    /// RFC 8446, section 5.3.
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// A record of application data.
    fn seal(&mut self, text: &[u8]) -> Vec<u8> {
        let length = u16::try_from(text.len() + 1 + TAG_BYTES).expect("a short request").to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, length[0], length[1]];
        let mut inner = [text, &[APPLICATION_DATA]].concat();
        let nonce = self.next_nonce();
        self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut inner).expect("a record can be sealed");
        [&header[..], &inner].concat()
    }
}

struct Records {
    send: Direction,
    receive: Direction,
    /// What was received and not yet decrypted.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Records {
    fn shake_hands(tcp: &mut TcpStream, config: &Arc<ClientConfig>, address: SocketAddr) -> io::Result<Self> {
        let name = ServerName::from(address.ip());
        let mut connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        // Ends when our Finished is sent. Tickets come later, as records like any other, and are passed over.
        while connection.is_handshaking() {
            connection.complete_io(tcp)?;
        }
        while connection.wants_write() {
            connection.write_tls(tcp)?;
        }
        let secrets = connection.dangerous_extract_secrets().map_err(io::Error::other)?;
        Ok(Self {
            send: Direction::new(secrets.tx),
            receive: Direction::new(secrets.rx),
            buffer: vec![0; RECEIVE_BYTES + RECORD_BYTES],
            start: 0,
            end: 0,
        })
    }

    /// Decrypts as many records as are there and fit, and receives only where there is none.
    fn receive(&mut self, tcp: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        loop {
            while let Some(count) = self.open_next(&mut into[filled..])? {
                filled += count;
            }
            if filled > 0 {
                return Ok(filled);
            }
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let count = tcp.read(&mut self.buffer[self.end..])?;
            if count == 0 {
                return Ok(0);
            }
            self.end += count;
        }
    }

    /// Decrypts the next record; `None` where it is not all there or does not fit.
    fn open_next(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let received = &self.buffer[self.start..self.end];
        let Some((header, rest)) = received.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let inner = length.checked_sub(TAG_BYTES).ok_or(io::ErrorKind::InvalidData)?;
        if rest.len() < length || into.len() < inner {
            return Ok(None);
        }
        let (text, tag) = rest[..length].split_at(inner);
        let nonce = self.receive.next_nonce();
        let opened = self.receive.key.open_separate_gather(nonce, Aad::from(*header), text, tag, &mut into[..inner]);
        opened.map_err(|_| io::ErrorKind::InvalidData)?;
        self.start += HEADER_BYTES + length;
        // The server here pads nothing, so the type is the last byte.
        Ok(Some(if into[inner - 1] == APPLICATION_DATA { inner - 1 } else { 0 }))
    }
}
