//! A thread's way to objects' bytes.

use bytes::Bytes;

use super::{Attempt, Get, S3};
use crate::checksum::Verifiability;

/// Reads objects on one thread.
#[derive(Debug)]
pub struct Reader {
    store: S3,
    runtime: tokio::runtime::Handle,
}

impl S3 {
    /// One thread's way to objects' bytes.
    pub fn reader(&self, runtime: tokio::runtime::Handle) -> Reader {
        Reader { store: self.clone(), runtime }
    }
}

impl Reader {
    /// Asks once for bytes of an object, and checks that the answer is for exactly those.
    ///
    /// # Errors
    ///
    /// [`Attempt`].
    pub fn get(&mut self, get: Get<'_>) -> Result<Body<'_>, Attempt> {
        let body = self.runtime.block_on(self.store.get(get))?;
        let left = get.range.map_or(get.size_bytes, |range| range.len_bytes());
        Ok(Body {
            checksum: body.checksum.clone(),
            body,
            runtime: self.runtime.clone(),
            rest: Bytes::new(),
            left,
            stall: self.store.stall_timeout(),
            _reader: self,
        })
    }
}

/// Bytes as they arrive.
pub struct Body<'a> {
    body: super::Body,
    runtime: tokio::runtime::Handle,
    rest: Bytes,
    left: u64,
    stall: std::time::Duration,
    /// What the store says of the whole object.
    pub checksum: Verifiability,
    _reader: &'a mut Reader,
}

impl Body<'_> {
    /// Fills `buffer`.
    ///
    /// # Errors
    ///
    /// [`Attempt`].
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Attempt> {
        if self.rest.is_empty() && self.left > 0 {
            let next = self.runtime.block_on(async { tokio::time::timeout(self.stall, self.body.next()).await });
            match next {
                Err(_) => {
                    return Err(Attempt::broken(format!("only 0 bytes arrived within {} s", self.stall.as_secs_f32())));
                }
                Ok(next) => match next? {
                    Some(bytes) if bytes.len() as u64 > self.left => {
                        return Err(Attempt::wrong_bytes("more bytes arrived than were asked for".to_owned()));
                    }
                    Some(bytes) => self.rest = bytes,
                    None => return Err(Attempt::broken(format!("the body ended {} bytes early", self.left))),
                },
            }
        }
        let length = buffer.len().min(self.rest.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        self.left -= length as u64;
        Ok(length)
    }
}
