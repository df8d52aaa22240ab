//! Reading a WebSocket through tungstenite, writing finished frames past it.
//!
//! Bytes are read into a buffer of the worker thread and fed to tungstenite from there, so an idle connection holds
//! no read buffer; frames of the outbox go out as they are, small ones copied together, large ones in vectored writes.

mod reader;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::reader::{Fed, Reader};
use super::gather::{MAX_GATHERED_BYTES, gather};
use super::listen::Connection;
use crate::frame::Frame;
use crate::session::{Outbox, WsFrame};

/// The transport under a WebSocket: TCP without detours, anything else (TLS, in-memory) through hyper's box.
enum Stream {
    Tcp(TcpStream),
    /// The same, while the mailbox holds the other half.
    Shared(OwnedReadHalf),
    Other(Box<TokioIo<Upgraded>>),
    /// The client is at another instance.
    Carried(Box<Carried>),
    /// Nothing, for the moment of a change.
    Nothing,
}

/// A connection within this process, to where it is carried on.
struct Carried {
    stream: DuplexStream,
    /// Dropped with it.
    _held: oneshot::Sender<Infallible>,
}

/// Writes to a connection of which only the reading half is at hand.
fn poll_write_shared(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    write: impl Fn(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match write(stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

fn poll_nothing<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Shared(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Other(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Carried(carried) => Pin::new(&mut carried.stream).poll_read(cx, buf),
            Self::Nothing => poll_nothing(),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Shared(stream) => poll_write_shared(stream.as_ref(), cx, |stream| stream.try_write(bytes)),
            Self::Other(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Carried(carried) => Pin::new(&mut carried.stream).poll_write(cx, bytes),
            Self::Nothing => poll_nothing(),
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Shared(stream) => poll_write_shared(stream.as_ref(), cx, |stream| stream.try_write_vectored(slices)),
            Self::Other(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Carried(carried) => Pin::new(&mut carried.stream).poll_write_vectored(cx, slices),
            Self::Nothing => poll_nothing(),
        }
    }

    /// Writes, says that nothing follows, and waits for the peer to say the same: closing a socket with unread input
    /// would reset it and could cost the peer our last frames. One that goes on sending instead is cut off.
    async fn finish(&mut self, last: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => finish(stream, last).await,
            Self::Other(stream) => finish(stream, last).await,
            Self::Carried(carried) => finish(&mut carried.stream, last).await,
            // Whoever shares it takes the other half back first.
            Self::Shared(_) | Self::Nothing => Ok(()),
        }
    }
}

async fn finish(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), last: &[u8]) -> io::Result<()> {
    stream.write_all(last).await?;
    stream.shutdown().await?;
    let mut discarded = [0; 1024];
    let mut left = MAX_DISCARDED_BYTES;
    loop {
        let read = stream.read(&mut discarded).await?;
        if read == 0 || read > left {
            return Ok(());
        }
        left -= read;
    }
}

/// How a WebSocket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A close frame came, without a code or with 1000 or 1001.
    CloseFrame,
    /// The connection ended without one, or one of another code came.
    Lost,
    /// The peer broke the rules.
    Failed,
}

/// Takes the TCP connection out of hyper's box, with what hyper had read past the handshake; gives the box back where
/// there is none in it.
pub(super) fn into_tcp(upgraded: Upgraded) -> Result<(TcpStream, Bytes), Upgraded> {
    let (stream, read) = match upgraded.downcast::<TokioIo<Connection>>() {
        Ok(parts) => (parts.io.into_inner().into_stream(), parts.read_buf),
        // Served by somebody else than `serve`.
        Err(upgraded) => {
            let parts = upgraded.downcast::<TokioIo<TcpStream>>()?;
            (parts.io.into_inner(), parts.read_buf)
        }
    };
    // Even empty it would keep hyper's whole read buffer alive for as long as the connection lasts.
    Ok((stream, if read.is_empty() { Bytes::new() } else { read }))
}

pub(super) struct WebSocket {
    stream: Stream,
    reader: Reader,
    /// What hyper had read past the handshake.
    rewind: Bytes,
    /// Frames of an upgrade, which leave before the session's own.
    probe: Option<Box<Outbox>>,
    /// The close frame that is due: an empty one, unless the peer asked for another or broke the rules.
    close_frame: CloseFrame,
}

#[derive(Clone, Copy)]
enum CloseFrame {
    Empty,
    Code(u16),
}

impl WebSocket {
    pub(super) fn new(upgraded: Upgraded, max_message_bytes: usize) -> Self {
        let (stream, rewind) = match into_tcp(upgraded) {
            Ok((stream, rewind)) => (Stream::Tcp(stream), rewind),
            Err(upgraded) => (Stream::Other(Box::new(TokioIo::new(upgraded))), Bytes::new()),
        };
        Self::over(stream, rewind, max_message_bytes)
    }

    /// Makes the WebSocket of a client that is connected to another instance; `held` is dropped with it.
    pub(super) fn carried(stream: DuplexStream, held: oneshot::Sender<Infallible>, max_message_bytes: usize) -> Self {
        let carried = Carried { stream, _held: held };
        Self::over(Stream::Carried(Box::new(carried)), Bytes::new(), max_message_bytes)
    }

    fn over(stream: Stream, rewind: Bytes, max_message_bytes: usize) -> Self {
        Self { stream, reader: Reader::new(max_message_bytes), rewind, probe: None, close_frame: CloseFrame::Empty }
    }

    /// Gives a hold on the connection away, where it is TCP.
    pub(super) fn share(&mut self) -> Option<OwnedWriteHalf> {
        match std::mem::replace(&mut self.stream, Stream::Nothing) {
            Stream::Tcp(stream) => {
                let (read, write) = stream.into_split();
                self.stream = Stream::Shared(read);
                Some(write)
            }
            other @ (Stream::Shared(_) | Stream::Other(_) | Stream::Carried(_) | Stream::Nothing) => {
                self.stream = other;
                None
            }
        }
    }

    /// Takes it back.
    pub(super) fn unshare(&mut self, write: OwnedWriteHalf) {
        match std::mem::replace(&mut self.stream, Stream::Nothing) {
            Stream::Shared(read) => {
                // They are halves of one another: an error has nothing to tell.
                self.stream = read.reunite(write).map_or(Stream::Nothing, Stream::Tcp);
            }
            other @ (Stream::Tcp(_) | Stream::Other(_) | Stream::Carried(_) | Stream::Nothing) => self.stream = other,
        }
    }

    /// Reads what there is, as long as the `budget` of bytes lasts, and hands each message, and each control frame that is
    /// due, to `on_event`, which answers false to stop. Ready with `None` where it was stopped.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        budget: &mut usize,
        mut on_event: impl FnMut(Event) -> bool,
    ) -> Poll<Option<End>> {
        if !self.rewind.is_empty() {
            let input = std::mem::take(&mut self.rewind);
            match self.feed(&input, &mut on_event) {
                Fed::All => {}
                Fed::Stopped => return Poll::Ready(None),
                Fed::Ended(end) => return Poll::Ready(Some(end)),
                Fed::Failed(_) => return Poll::Ready(Some(End::Failed)),
            }
        }
        let mut scratch = Scratch::take();
        while *budget > 0 {
            let mut buf = ReadBuf::new(&mut scratch.0);
            if let Err(_lost) = ready!(self.stream.poll_read(cx, &mut buf)) {
                return Poll::Ready(Some(End::Lost));
            }
            if buf.filled().is_empty() {
                return Poll::Ready(Some(End::Lost));
            }
            *budget = budget.saturating_sub(buf.filled().len());
            match self.feed(buf.filled(), &mut on_event) {
                Fed::All => {}
                Fed::Stopped => return Poll::Ready(None),
                Fed::Ended(end) => return Poll::Ready(Some(end)),
                Fed::Failed(_) => return Poll::Ready(Some(End::Failed)),
            }
        }
        Poll::Ready(None)
    }

    fn feed(&mut self, input: &[u8], on_event: &mut impl FnMut(Event) -> bool) -> Fed {
        let mut code = None;
        let fed = self.reader.feed(input, &mut code, on_event);
        if let Fed::Failed(of_ours) = fed {
            code = Some(of_ours);
        }
        self.close_frame = code.map_or(self.close_frame, CloseFrame::Code);
        fed
    }

    /// Queues a frame of the upgrade. A client that reads none of the answers to its probes gets no more of them.
    pub(super) fn write_soon(&mut self, frame: Frame) {
        let probe = self.probe.get_or_insert_default();
        if probe.bytes() < MAX_PROBE_BYTES {
            probe.push(frame);
        }
    }

    /// Writes frames of the upgrade.
    pub(super) fn poll_probe(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(mut probe) = self.probe.take() {
            let written = self.poll_outbox(cx, &mut probe);
            if written.is_pending() {
                self.probe = Some(probe);
            }
            return written;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what waits, as much as the socket takes.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<()>> {
        ready!(self.poll_probe(cx))?;
        self.poll_outbox(cx, outbox)
    }

    fn poll_outbox(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<()>> {
        while !outbox.is_empty() {
            let written = if outbox.len() == 1
                && let Some(only) = outbox.pieces().next()
            {
                ready!(self.stream.poll_write(cx, only))?
            } else if outbox.remaining() <= MAX_GATHERED_BYTES {
                let mut gathered = Scratch::take();
                let len = gather(outbox.pieces(), &mut gathered.0);
                ready!(self.stream.poll_write(cx, &gathered.0[..len]))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let filled = outbox.slices(&mut slices);
                ready!(self.stream.poll_write_vectored(cx, &slices[..filled]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            outbox.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the connection: writes what waits and a close frame, then waits for the peer's end. A peer that takes nothing
    /// for a while is given up, and so is any peer after `within`.
    ///
    /// A failure leaves nothing to be done: the connection is gone either way.
    pub(super) async fn finish(mut self, mut outbox: Option<Outbox>, within: Duration) {
        let close: Vec<u8> = match self.close_frame {
            CloseFrame::Empty => vec![0x88, 0],
            CloseFrame::Code(code) => {
                let [high, low] = code.to_be_bytes();
                vec![0x88, 2, high, low]
            }
        };
        let closing = async {
            poll_fn(|cx| self.poll_probe(cx)).await?;
            if let Some(outbox) = &mut outbox {
                while !outbox.is_empty() {
                    let waiting = outbox.remaining();
                    let progress = poll_fn(|cx| match self.poll_write(cx, outbox) {
                        Poll::Pending if outbox.remaining() < waiting => Poll::Ready(Ok(())),
                        written @ (Poll::Ready(_) | Poll::Pending) => written,
                    });
                    timeout(CLOSE_TIMEOUT, progress).await??;
                }
            }
            timeout(CLOSE_TIMEOUT, self.stream.finish(&close)).await?
        };
        let _gone_either_way = timeout(within.max(CLOSE_TIMEOUT), closing).await;
    }
}

/// What a read brings.
pub(super) enum Event {
    Frame(WsFrame),
    /// A control frame to be written.
    Control(Frame),
}

/// Answers to probes that may wait on a WebSocket that is no transport yet.
const MAX_PROBE_BYTES: usize = 64;
/// Frames in one vectored write.
const SLICES: usize = 64;
/// What a peer may have sent before it learns of the end: more than fits into the buffers on the way.
const MAX_DISCARDED_BYTES: usize = 16 << 20;
/// How long the client of a WebSocket that is being closed may take nothing, and then take to close it too.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The read buffer of this thread, on loan; connections share it since a poll never gives way half-way.
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    const BYTES: usize = 32 * 1024;

    pub(super) fn take() -> Self {
        let mut buffer = SCRATCH.take();
        buffer.resize(Self::BYTES, 0); // allocates and fills once per thread
        Self(buffer)
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SCRATCH.set(std::mem::take(&mut self.0));
    }
}
