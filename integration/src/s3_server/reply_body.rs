//! The body of a reply on its way to the connection: counted, and bent as the fault script says.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::connection::{Ending, Wire};
use super::faults::{Allowance, Hold};
use super::record::Reply;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What happens to a body.
#[derive(Debug, Clone)]
pub(crate) enum Bend {
    /// Nothing.
    None,
    /// The connection ends after this many bytes.
    End { after: u64, ending: Ending },
    /// The body stops after this many bytes until the hold is over.
    Stall { after: u64, hold: Hold },
    /// Each chunk waits until the mean rate allows it.
    Throttle { bytes_per_second: u64 },
    /// The byte at this position of the body has its lowest bit flipped.
    FlipBit { at: u64 },
}

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body of `s3s`, bent.
pub(crate) struct ReplyBody {
    inner: s3s::Body,
    bend: Bend,
    /// How much may be sent in all, where this body's bytes count.
    allowance: Option<Allowance>,
    reply: Reply,
    wire: Arc<Wire>,
    /// Bytes that were given to the connection.
    given: u64,
    /// What came from `inner` beyond a point where the body has to stop first.
    held_back: Option<Bytes>,
    waiting: Option<Waiting>,
    began: Option<Instant>,
}

impl ReplyBody {
    pub(crate) fn new(
        inner: s3s::Body,
        bend: Bend,
        allowance: Option<Allowance>,
        reply: Reply,
        wire: Arc<Wire>,
    ) -> Self {
        Self { inner, bend, allowance, reply, wire, given: 0, held_back: None, waiting: None, began: None }
    }

    /// Before which byte the body must not go on just now.
    fn barrier(&self) -> Option<u64> {
        match self.bend {
            Bend::End { after, .. } | Bend::Stall { after, .. } => Some(after),
            Bend::None | Bend::Throttle { .. } | Bend::FlipBit { .. } => None,
        }
    }

    /// What happens at the barrier, once everything before it was written to the socket.
    fn at_barrier(&mut self) -> Result<(), BoxError> {
        match std::mem::replace(&mut self.bend, Bend::None) {
            Bend::End { ending, .. } => {
                self.wire.end(ending);
                Err("the fault script ends the connection".into())
            }
            Bend::Stall { hold, .. } => {
                self.waiting = Some(Box::pin(hold.pass()));
                Ok(())
            }
            bend @ (Bend::None | Bend::Throttle { .. } | Bend::FlipBit { .. }) => {
                self.bend = bend;
                Ok(())
            }
        }
    }

    /// Cuts a chunk at the barrier, flips its bit, and lets it wait for its turn.
    fn give(&mut self, mut chunk: Bytes) -> Bytes {
        if let Some(barrier) = self.barrier()
            && self.given + chunk.len() as u64 > barrier
        {
            self.held_back = Some(chunk.split_off((barrier - self.given) as usize));
        }
        if let Bend::Throttle { bytes_per_second } = self.bend {
            // Ten times a second, so that a trickle is one and not a flood now and then.
            let most = usize::try_from(bytes_per_second / 10).unwrap_or(usize::MAX).max(1);
            if chunk.len() > most {
                self.held_back = Some(chunk.split_off(most));
            }
        }
        if let Bend::FlipBit { at } = self.bend
            && let Some(index) = at.checked_sub(self.given).filter(|index| *index < chunk.len() as u64)
        {
            let mut bytes = BytesMut::from(&chunk[..]);
            bytes[index as usize] ^= 1;
            chunk = bytes.freeze();
        }
        self.given += chunk.len() as u64;
        self.reply.sent(chunk.len() as u64);
        if let Bend::Throttle { bytes_per_second } = self.bend {
            let began = *self.began.get_or_insert_with(Instant::now);
            let due = Duration::from_secs_f64(self.given as f64 / bytes_per_second.max(1) as f64);
            self.waiting = Some(Box::pin(tokio::time::sleep_until(began + due)));
        }
        chunk
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                std::task::ready!(waiting.as_mut().poll(context));
                self.waiting = None;
            }
            if self.barrier() == Some(self.given) {
                // Hyper buffers: what was given is only surely written after its next flush.
                let wire = self.wire.clone();
                std::task::ready!(wire.poll_flushed(context));
                if let Err(error) = self.at_barrier() {
                    return Poll::Ready(Some(Err(error)));
                }
                continue;
            }
            let chunk = match self.held_back.take() {
                Some(chunk) => chunk,
                None => match std::task::ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(chunk) => chunk,
                        Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    },
                },
            };
            if let Some(gate) = self.allowance.as_ref().and_then(|allowance| allowance.take(chunk.len())) {
                self.held_back = Some(chunk);
                let wire = self.wire.clone();
                // What was given before is on its way before anybody learns that the gate was reached.
                self.waiting = Some(Box::pin(async move {
                    std::future::poll_fn(|context| wire.poll_flushed(context)).await;
                    gate.pass().await;
                }));
                continue;
            }
            let chunk = self.give(chunk);
            self.wire.dirty();
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.barrier().is_none() && self.held_back.is_none() && self.waiting.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.held_back {
            // Only asked before the first frame in practice; afterwards nothing exact is known here.
            Some(_) => SizeHint::new(),
            None => self.inner.size_hint(),
        }
    }
}
