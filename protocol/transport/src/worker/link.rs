//! A connection of a worker behind the [`Link`] traits.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quinn_proto::{Dir, SendDatagramError, StreamId};

use super::connection::Handle;
use super::waits::Wait;
use crate::link::{
    BiStream, DatagramError, Link, LinkClosed, LinkStats, ReadError, RecvHalf, SendHalf, WriteError,
};
use crate::quic::{link_stats, signals};
use crate::socket::canonical;

/// A connection on a worker.
#[derive(Debug)]
pub(super) struct WorkerLink(Handle);

impl WorkerLink {
    pub fn new(handle: Handle) -> Self {
        Self(handle)
    }

    fn send_half(&self, stream: StreamId) -> Box<dyn SendHalf> {
        let handle = self.0.clone();
        Box::new(WorkerSend { handle, stream })
    }

    fn recv_half(&self, stream: StreamId) -> Box<dyn RecvHalf> {
        Box::new(WorkerRecv {
            handle: self.0.clone(),
            stream,
            over: false,
        })
    }

    fn halves(&self, stream: StreamId) -> BiStream {
        (self.send_half(stream), self.recv_half(stream))
    }
}

impl Link for WorkerLink {
    fn open_bi(&self) -> BoxFuture<'_, Result<BiStream, LinkClosed>> {
        Box::pin(async {
            let stream = poll_fn(|context| self.0.poll_open(context, Dir::Bi)).await?;
            Ok(self.halves(stream))
        })
    }

    fn accept_bi(&self) -> BoxFuture<'_, Result<BiStream, LinkClosed>> {
        Box::pin(async {
            let stream = poll_fn(|context| self.0.poll_accept(context, Dir::Bi)).await?;
            Ok(self.halves(stream))
        })
    }

    fn open_uni(&self) -> BoxFuture<'_, Result<Box<dyn SendHalf>, LinkClosed>> {
        Box::pin(async {
            let stream = poll_fn(|context| self.0.poll_open(context, Dir::Uni)).await?;
            Ok(self.send_half(stream))
        })
    }

    fn accept_uni(&self) -> BoxFuture<'_, Result<Box<dyn RecvHalf>, LinkClosed>> {
        Box::pin(async {
            let stream = poll_fn(|context| self.0.poll_accept(context, Dir::Uni)).await?;
            Ok(self.recv_half(stream))
        })
    }

    fn send_datagram(&self, data: Bytes) -> Result<(), DatagramError> {
        if let Some(closed) = self.0.ended() {
            return Err(closed.into());
        }
        let sent = {
            let mut state = self.0.state();
            state.sends_datagrams = true;
            state.quic.datagrams().send(data, true)
        };
        sent.map_err(|error| match error {
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => DatagramError::Unsupported,
            // The oldest make room, so it is never blocked.
            SendDatagramError::TooLarge | SendDatagramError::Blocked(_) => DatagramError::TooLarge,
        })?;
        self.0.touch();
        Ok(())
    }

    fn recv_datagram(&self) -> BoxFuture<'_, Result<Bytes, LinkClosed>> {
        Box::pin(poll_fn(|context| self.0.poll_datagram(context)))
    }

    fn max_datagram_size(&self) -> Option<usize> {
        self.0.state().quic.datagrams().max_size()
    }

    fn close(&self, code: u32, reason: &str) {
        self.0.close(code, Bytes::copy_from_slice(reason.as_bytes()));
    }

    fn closed(&self) -> BoxFuture<'_, LinkClosed> {
        Box::pin(poll_fn(|context| self.0.poll_closed(context)))
    }

    fn ended(&self) -> Option<LinkClosed> {
        self.0.ended()
    }

    fn remote_address(&self) -> SocketAddr {
        canonical(self.0.state().quic.remote_address())
    }

    fn signals(&self) -> u64 {
        signals(&self.0.state().quic.stats())
    }

    fn stats(&self) -> LinkStats {
        let state = self.0.state();
        link_stats(&state.quic.stats(), state.quic.rtt())
    }
}

#[derive(Debug)]
struct WorkerSend {
    handle: Handle,
    stream: StreamId,
}

impl SendHalf for WorkerSend {
    fn write_all_chunks<'a>(&'a mut self, chunks: &'a mut [Bytes]) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(poll_fn(move |context| {
            self.handle.poll_write(context, self.stream, chunks)
        }))
    }

    fn try_write(&mut self, chunks: &mut [Bytes]) -> Result<bool, WriteError> {
        self.handle.write(self.stream, chunks)
    }

    fn finish(&mut self) {
        self.handle.finish(self.stream);
    }

    fn reset(&mut self, code: u32) {
        self.handle.reset(self.stream, code);
    }

    fn set_priority(&mut self, priority: i32) {
        self.handle.set_priority(self.stream, priority);
    }

    fn stopped(&self) -> BoxFuture<'static, Result<Option<u32>, LinkClosed>> {
        let (handle, stream) = (self.handle.clone(), self.stream);
        Box::pin(poll_fn(move |context| handle.poll_stopped(context, stream)))
    }
}

impl Drop for WorkerSend {
    fn drop(&mut self) {
        self.handle.forget(Wait::Write(self.stream));
        self.handle.finish(self.stream);
    }
}

#[derive(Debug)]
struct WorkerRecv {
    handle: Handle,
    stream: StreamId,
    /// The peer has finished, and has been heard to.
    over: bool,
}

impl RecvHalf for WorkerRecv {
    fn read_chunk(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(async move {
            if self.over {
                return Ok(None);
            }
            let chunk = poll_fn(|context| self.handle.poll_read(context, self.stream, max)).await?;
            self.over = chunk.is_none();
            Ok(chunk)
        })
    }

    fn stop(&mut self, code: u32) {
        self.handle.stop(self.stream, code);
    }
}

impl Drop for WorkerRecv {
    fn drop(&mut self) {
        self.handle.forget(Wait::Read(self.stream));
        if !self.over {
            self.handle.stop(self.stream, 0);
        }
    }
}
