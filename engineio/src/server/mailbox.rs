//! The way into a session's task: a bounded, lazily allocated queue with one reader.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem::size_of;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytestring::ByteString;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::oneshot;

use super::gather::{MAX_GATHERED_BYTES, gather};
use super::websocket::WebSocket;
use crate::frame::Frame;
use crate::session::{FRAME_OVERHEAD_BYTES, PostDrop, Refusal};

/// What reaches a session's task from outside.
pub(super) enum Mail<M> {
    Poll(oneshot::Sender<Reply>),
    Post(oneshot::Sender<Reply>, PostBody),
    Candidate(Box<WebSocket>),
    Send(Frame),
    SendVolatile(Frame),
    Close,
    /// The whole server closes.
    ShutDown,
    Application(M),
}

/// The body of a POST.
pub(super) enum PostBody {
    /// It came with the header, or has come since.
    Complete(ByteString),
    /// It is being read. A sender that is dropped means a client that left.
    Coming(oneshot::Receiver<Result<ByteString, PostDrop>>),
    /// It will not come.
    Dropped(PostDrop),
}

/// The answer to one polling request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Payload(ByteString),
    Accepted,
    Refused(Refusal),
    /// Break the connection off.
    Reset,
}

pub(super) struct Mailbox<M> {
    state: Mutex<State<M>>,
    /// What the queue counts, readable without the lock.
    queued: AtomicUsize,
    /// The frame that mail consists of, if it is nothing but a frame.
    frame_of: fn(&M) -> Option<&Frame>,
}

struct State<M> {
    queue: VecDeque<Mail<M>>,
    /// What the queue counts against the limit.
    cost: usize,
    /// What waits behind the reader, to be written: as of its last turn, with the mail it took since.
    backlog: usize,
    /// What the client's messages occupy that wait for their handlers, as of the reader's last turn.
    unhandled: usize,
    limits: Limits,
    overflowed: bool,
    closed: bool,
    /// A socket or a timer that the reader waits for has called.
    called: bool,
    /// The reader is at work: between [`Mailbox::take`] and [`Mailbox::park`].
    running: bool,
    /// Set while the reader sleeps.
    waker: Option<Waker>,
    /// Tasks that wait for the backlog to shrink.
    senders: Vec<Waker>,
    /// A second hold on the reader's connection, for [`Mailbox::flush`].
    outlet: Option<OwnedWriteHalf>,
    /// Nothing waits to be written before the mail. Only true while the reader sleeps.
    outlet_open: bool,
    /// The reader has not been woken for the mail, since a flush follows.
    to_flush: bool,
    /// How much of the first mail's frame has been written. Then the reader is awake.
    written: usize,
}

/// What mail with so many bytes counts.
const fn mail_cost<M>(bytes: usize) -> usize {
    bytes + size_of::<Mail<M>>() + FRAME_OVERHEAD_BYTES
}

/// The limits of what waits for one client, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Beyond it mail is refused.
    pub(super) max: usize,
    /// Up to it senders that wait for room go on.
    pub(super) high_water: usize,
}

impl<M> State<M> {
    /// What waits for the client: the mail, and what is behind the reader.
    fn waiting(&self) -> usize {
        self.cost + self.backlog
    }

    fn fits(&self, cost: usize) -> bool {
        let waiting = self.waiting();
        waiting == 0 || waiting + cost <= self.limits.max
    }

    /// Makes room for mail of the application, unless too much waits. The mailbox is open.
    #[inline]
    fn admit(&mut self, cost: usize, frame_of: fn(&M) -> Option<&Frame>) -> Result<(), SendError> {
        let waiting = self.cost + self.backlog;
        if waiting + cost > self.limits.max && waiting > 0 {
            self.try_to_make_room(cost, frame_of)?;
        }
        self.cost += cost;
        Ok(())
    }

    /// Writes what waits, where the reader has had no turn to do so: a client is not behind before a write was tried.
    #[cold]
    fn try_to_make_room(&mut self, cost: usize, frame_of: fn(&M) -> Option<&Frame>) -> Result<(), SendError> {
        if !self.running && self.backlog == 0 && self.written == 0 {
            self.write(frame_of);
        }
        if self.fits(cost) { Ok(()) } else { Err(SendError::Full) }
    }

    /// Takes mail that is never refused, since it is bounded by what causes it: requests, and the end.
    fn push_own(&mut self, mail: Mail<M>) -> Result<(), SendError> {
        if self.closed {
            return Err(SendError::Gone);
        }
        self.queue.push_back(mail);
        Ok(())
    }

    /// Takes the senders that may go on, of those that wait for room.
    fn take_senders(&mut self) -> Vec<Waker> {
        if !self.senders.is_empty() && (self.closed || self.waiting() <= self.limits.high_water) {
            std::mem::take(&mut self.senders)
        } else {
            Vec::new()
        }
    }

    /// The reader is awake from here on, or will be when the waker is called: mail is its business alone.
    fn wake(&mut self) -> Option<Waker> {
        self.to_flush = false;
        self.outlet_open = false;
        self.waker.take()
    }

    /// Writes the mail to the outlet, small frames together; false where some of it is left.
    // Inlined into the flush of a broadcast, as if that were its only caller.
    #[inline(always)]
    fn write(&mut self, frame_of: fn(&M) -> Option<&Frame>) -> bool {
        while let Some(first) = self.first_frame(frame_of) {
            let Some(outlet) = &self.outlet else { return false };
            let mut together;
            let bytes = if self.queue.len() == 1 || first.len() > MAX_GATHERED_BYTES {
                first
            } else {
                together = [0; MAX_GATHERED_BYTES];
                let frames = self.queue.iter().map_while(|mail| mail.frame(frame_of)).map(Frame::wire);
                let len = gather(frames, &mut together);
                &together[..len]
            };
            // A broken connection is for the reader to find out.
            let (len, written) = (bytes.len(), outlet.try_write(bytes).unwrap_or(0));
            self.drop_written(frame_of, written);
            if written < len {
                return false;
            }
        }
        if self.queue.is_empty() {
            self.cost = 0;
            if self.queue.capacity() > KEPT_MAILS {
                self.queue = VecDeque::new();
            }
        }
        self.queue.is_empty()
    }

    /// Returns the frame that the first mail consists of, if it is one.
    fn first_frame(&self, frame_of: fn(&M) -> Option<&Frame>) -> Option<&[u8]> {
        self.queue.front().and_then(|mail| mail.frame(frame_of)).map(Frame::wire)
    }

    /// Drops frames that have been written whole, and takes note of how much of the next one has been.
    fn drop_written(&mut self, frame_of: fn(&M) -> Option<&Frame>, mut written: usize) {
        while let Some(len) = self.first_frame(frame_of).map(<[u8]>::len)
            && written >= len
        {
            written -= len;
            self.cost = self.cost.saturating_sub(mail_cost::<M>(len));
            self.queue.pop_front();
        }
        self.written = written;
    }
}

impl<M> Mail<M> {
    fn frame(&self, frame_of: fn(&M) -> Option<&Frame>) -> Option<&Frame> {
        match self {
            Self::Application(mail) => frame_of(mail),
            Self::Send(frame) => Some(frame),
            Self::SendVolatile(_)
            | Self::Poll(_)
            | Self::Post(..)
            | Self::Candidate(_)
            | Self::Close
            | Self::ShutDown => None,
        }
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The session is over.
    Gone,
    /// As much waits for the client as may, see [`Config::max_backlog_bytes`](crate::Config). Nothing of the message was
    /// sent; the client stays.
    Full,
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gone => "the session is over",
            Self::Full => "too much waits for the client",
        })
    }
}

impl std::error::Error for SendError {}

impl<M> Mailbox<M> {
    pub(super) fn new(limits: Limits, frame_of: fn(&M) -> Option<&Frame>) -> Arc<Self> {
        let state = State {
            queue: VecDeque::new(),
            cost: 0,
            backlog: 0,
            unhandled: 0,
            limits,
            overflowed: false,
            closed: false,
            called: false,
            // Nothing may be written before what the session writes first.
            running: true,
            waker: None,
            senders: Vec::new(),
            outlet: None,
            outlet_open: false,
            to_flush: false,
            written: 0,
        };
        Arc::new(Self { state: Mutex::new(state), queued: AtomicUsize::new(0), frame_of })
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        // Nothing under this lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and then calls the waker that the change returns.
    fn change<T>(&self, change: impl FnOnce(&mut State<M>) -> (T, Option<Waker>)) -> T {
        let (value, waker) = {
            let mut state = self.lock();
            let changed = change(&mut state);
            self.queued.store(state.cost, Relaxed);
            changed
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        value
    }

    /// Hands mail of the application over; `bytes` counts against the limit.
    pub(super) fn push(&self, mail: Mail<M>, bytes: usize) -> Result<(), SendError> {
        // Also where the mail was refused: part of what waits may have been written.
        self.change(|state| {
            if state.closed {
                return (Err(SendError::Gone), None);
            }
            let admitted = state.admit(mail_cost::<M>(bytes), self.frame_of);
            if admitted.is_ok() {
                state.queue.push_back(mail);
            }
            (admitted, state.wake())
        })
    }

    /// Hands mail over that counts against no limit: requests of the client, and the end.
    pub(super) fn push_own(&self, mail: Mail<M>) -> Result<(), SendError> {
        self.change(|state| (state.push_own(mail), state.wake()))
    }

    /// Hands mail over that consists of a frame, without waking the reader where it sleeps. `wanted` is asked behind
    /// everything that the reader did before it fell asleep.
    ///
    /// `Ok(true)` asks for a [`flush`](Self::flush).
    pub(super) fn push_for_flush(
        &self,
        mail: M,
        bytes: usize,
        wanted: impl FnOnce() -> bool,
    ) -> Result<bool, SendError> {
        self.change(|state| {
            if state.closed || !wanted() {
                return (Err(SendError::Gone), None);
            }
            if let Err(error) = state.admit(mail_cost::<M>(bytes), self.frame_of) {
                return (Err(error), state.wake());
            }
            let first = state.queue.is_empty();
            state.queue.push_back(Mail::Application(mail));
            // Where part of the mail has been written already, the reader has to write the rest of it.
            let open = state.outlet_open && !state.overflowed && state.written == 0;
            if open && (first || state.to_flush) {
                state.to_flush = true;
                // Mail behind other mail leaves with it.
                return (Ok(first), None);
            }
            (Ok(false), state.wake())
        })
    }

    /// Has the reader end the session at once, without what waits.
    pub(super) fn abort(&self) {
        self.change(|state| {
            state.overflowed = true;
            ((), state.wake())
        });
    }

    /// Returns what the mail counts that has not been taken yet.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Relaxed)
    }

    /// Returns the place where [`queued`](Self::queued) stands.
    pub(super) fn queued_bytes(&self) -> &AtomicUsize {
        &self.queued
    }

    /// Returns what waits for the client, as far as it is known.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        let state = self.lock();
        !state.closed && state.fits(mail_cost::<M>(bytes))
    }

    /// Returns what the session occupies of what all sessions may together, as of its last turn; 0 for one that is ending.
    pub(super) fn weight(&self) -> usize {
        let state = self.lock();
        if state.overflowed || state.closed { 0 } else { state.waiting() + state.unhandled }
    }

    /// Ready when there is room for more to be sent: when no more waits than the high-water mark.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<(), SendError>> {
        let mut state = self.lock();
        if state.closed {
            return Poll::Ready(Err(SendError::Gone));
        }
        if state.waiting() <= state.limits.high_water {
            return Poll::Ready(Ok(()));
        }
        if !state.senders.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.senders.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Writes mail that waits for it past the sleeping reader; wakes the reader where the socket does not take it all.
    pub(super) fn flush(&self) {
        let mut state = self.lock();
        if !std::mem::take(&mut state.to_flush) {
            return;
        }
        let done = state.written == 0 && state.write(self.frame_of);
        self.queued.store(state.cost, Relaxed);
        if done && state.senders.is_empty() {
            return;
        }
        let waker = if done { None } else { state.wake() };
        let senders = state.take_senders();
        drop(state);
        waker.into_iter().chain(senders).for_each(Waker::wake);
    }

    /// Gives the mailbox a way past its reader.
    pub(super) fn set_outlet(&self, outlet: OwnedWriteHalf) {
        self.lock().outlet = Some(outlet);
    }

    /// Takes that way back.
    pub(super) fn take_outlet(&self) -> Option<OwnedWriteHalf> {
        self.lock().outlet.take()
    }

    /// Takes all that waits; `backlog` is what waits to be written before it.
    pub(super) fn take(&self, backlog: usize) -> Taken<M> {
        let mut state = self.lock();
        // The reader is awake: mail that it sends itself from here on needs no further turn of its task.
        let _awake = state.wake();
        state.running = true;
        state.backlog = backlog + std::mem::take(&mut state.cost);
        self.queued.store(0, Relaxed);
        Taken {
            mails: std::mem::take(&mut state.queue),
            written: std::mem::take(&mut state.written),
            overflowed: state.overflowed,
            called: std::mem::take(&mut state.called),
        }
    }

    /// Registers the reader and gives the mailbox the emptied queue back, unless that is large; false where mail waits
    /// and the reader should go on. `backlog` is what waits to be written before the mail to come.
    pub(super) fn park(&self, cx: &Context<'_>, emptied: &mut VecDeque<Mail<M>>, backlog: Backlog) -> bool {
        if emptied.capacity() > KEPT_MAILS {
            *emptied = VecDeque::new();
        }
        let mut state = self.lock();
        state.backlog = backlog.bytes;
        state.unhandled = backlog.unhandled;
        let senders = state.take_senders();
        let sleeps = state.queue.is_empty() && !state.overflowed && !state.called;
        if sleeps {
            if state.queue.capacity() < emptied.capacity() {
                std::mem::swap(&mut state.queue, emptied);
            }
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            state.running = false;
            state.outlet_open = backlog.writable && state.outlet.is_some();
        }
        drop(state);
        senders.into_iter().for_each(Waker::wake);
        sleeps
    }

    /// Notes what waits to be written, by a reader that gives way to other tasks with more to do.
    pub(super) fn pause(&self, backlog: Backlog) {
        let senders = {
            let mut state = self.lock();
            state.backlog = backlog.bytes;
            state.unhandled = backlog.unhandled;
            state.running = false;
            state.take_senders()
        };
        senders.into_iter().for_each(Waker::wake);
    }

    /// Takes no more mail, and drops what waits.
    pub(super) fn close(&self) {
        let (dropped, senders) = {
            let mut state = self.lock();
            state.closed = true;
            let _awake = state.wake();
            if let Some(outlet) = state.outlet.take() {
                outlet.forget(); // what is still to be written is the reader's
            }
            (std::mem::take(&mut state.queue), state.take_senders())
        };
        senders.into_iter().for_each(Waker::wake);
        drop(dropped); // outside of the lock: mail may run destructors that come back here
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

/// The waker for sockets and timers: it tells their calls from mail, so that a task which got mail only leaves them
/// alone. Most turns of a session that is sent broadcasts are of that kind.
impl<M: Send + 'static> Wake for Mailbox<M> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.change(|state| {
            state.called = true;
            ((), state.wake())
        });
    }
}

const KEPT_MAILS: usize = 16;

/// What a reader leaves behind at the end of its turn.
#[derive(Clone, Copy)]
pub(super) struct Backlog {
    /// What waits to be written, with its overhead.
    pub(super) bytes: usize,
    /// What the client's messages occupy that wait for their handlers.
    pub(super) unhandled: usize,
    /// Mail may be written by others while the reader sleeps.
    pub(super) writable: bool,
}

pub(super) struct Taken<M> {
    pub(super) mails: VecDeque<Mail<M>>,
    /// How much of the first one, a frame, has been written already.
    pub(super) written: usize,
    pub(super) overflowed: bool,
    /// A socket or timer has called since the last time.
    pub(super) called: bool,
}

/// A handle on a session for its application: cheap to clone, usable from everywhere.
pub struct Socket<M> {
    mailbox: Arc<Mailbox<M>>,
}

impl<M> Clone for Socket<M> {
    fn clone(&self) -> Self {
        Self { mailbox: Arc::clone(&self.mailbox) }
    }
}

impl<M> std::fmt::Debug for Socket<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

impl<M> Socket<M> {
    pub(super) fn new(mailbox: Arc<Mailbox<M>>) -> Self {
        Self { mailbox }
    }

    /// Sends a message, in order with everything else sent to this client.
    ///
    /// # Errors
    /// [`SendError`] where the session is over, or too much waits for the client.
    pub fn send(&self, frame: Frame) -> Result<(), SendError> {
        let bytes = frame.wire_len();
        self.mailbox.push(Mail::Send(frame), bytes)
    }

    /// Sends a message that is dropped if the client is not ready for it at once.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_volatile(&self, frame: Frame) -> Result<(), SendError> {
        let bytes = frame.wire_len();
        self.mailbox.push(Mail::SendVolatile(frame), bytes)
    }

    /// Waits until little enough waits for the client: no more than
    /// [`Config::high_water_bytes`](crate::Config). A sender that asks this before each message keeps the client's queue
    /// short, however slowly the client reads.
    ///
    /// # Errors
    /// [`SendError::Gone`] when the session is over.
    pub async fn ready(&self) -> Result<(), SendError> {
        poll_fn(|cx| self.mailbox.poll_room(cx)).await
    }

    /// Returns `true` if a message of this size would be taken.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.mailbox.has_room_for(bytes)
    }

    /// Returns how many bytes wait to be sent to the client, with what each message occupies beside its bytes.
    pub fn queued_bytes(&self) -> usize {
        self.mailbox.waiting()
    }

    /// Hands mail to the session's [`Handler`](super::Handler); `bytes` is what it counts against
    /// [`Config::max_backlog_bytes`](crate::Config), beside its overhead.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn mail(&self, mail: M, bytes: usize) -> Result<(), SendError> {
        self.mailbox.push(Mail::Application(mail), bytes)
    }

    /// Hands mail to the session's [`Handler`](super::Handler) that is not refused, however much waits: orders that send
    /// nothing themselves.
    ///
    /// # Errors
    /// [`SendError::Gone`] where the session is over.
    pub fn order(&self, mail: M) -> Result<(), SendError> {
        self.mailbox.push_own(Mail::Application(mail))
    }

    /// Hands mail over that consists of a frame ([`Handler::frame_of`](super::Handler::frame_of)), if `wanted` says so,
    /// and leaves it lying: `Ok(true)` asks for a [`flush`](Self::flush) soon, by the sender of the same to many. It is in
    /// order with everything else sent to this client.
    ///
    /// `wanted` is asked under a lock, so it must not use this socket.
    ///
    /// # Errors
    /// [`SendError::Gone`] also where the mail was not wanted.
    pub fn mail_for_flush(&self, mail: M, bytes: usize, wanted: impl FnOnce() -> bool) -> Result<bool, SendError> {
        self.mailbox.push_for_flush(mail, bytes, wanted)
    }

    /// Writes what [`mail_for_flush`](Self::mail_for_flush) has left lying. Otherwise does nothing.
    ///
    /// It spares the session's task a turn, which costs a broadcast more than the write does. Never waits for the
    /// client: what the connection does not take at once is left to the session's task.
    pub fn flush(&self) {
        self.mailbox.flush();
    }

    /// Closes the session once everything sent so far has left.
    pub fn close(&self) {
        // An error means that it is closed already.
        let _closed = self.mailbox.push_own(Mail::Close);
    }

    /// Closes the session at once and drops what waits, with
    /// [`CloseReason::TransportError`](crate::CloseReason): for a client that is too far behind.
    pub fn abort(&self) {
        self.mailbox.abort();
    }

    /// Returns `true` if the session is over.
    pub fn is_closed(&self) -> bool {
        self.mailbox.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// A mailbox whose reader sleeps, and the far end of its connection.
    struct Sleeping {
        mailbox: Arc<Mailbox<Frame>>,
        wakes: Arc<Wakes>,
        client: TcpStream,
    }

    impl Sleeping {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let mailbox = Mailbox::new(Limits { max: 4 << 20, high_water: 1 << 20 }, |frame| Some(frame));
            let (_, outlet) = accepted.unwrap().0.into_split();
            outlet.writable().await.unwrap();
            mailbox.set_outlet(outlet);
            let sleeping = Self { mailbox, wakes: Arc::default(), client: client.unwrap() };
            assert!(sleeping.park(true));
            sleeping
        }

        fn park(&self, drained: bool) -> bool {
            let waker = Waker::from(Arc::clone(&self.wakes));
            let backlog = Backlog { bytes: 0, unhandled: 0, writable: drained };
            self.mailbox.park(&Context::from_waker(&waker), &mut VecDeque::new(), backlog)
        }

        fn push(&self, text: &str) -> bool {
            let frame = frame(text);
            let bytes = frame.wire_len();
            self.mailbox.push_for_flush(frame, bytes, || true).unwrap_or(false)
        }

        fn wakes(&self) -> usize {
            self.wakes.0.load(SeqCst)
        }
    }

    fn frame(text: &str) -> Frame {
        Frame::text_with(text.len(), |out| out.extend_from_slice(text.as_bytes()))
    }

    #[tokio::test]
    async fn a_flush_writes_all_that_waits_and_lets_the_reader_sleep() {
        let mut sleeping = Sleeping::new().await;
        assert!(sleeping.push("one"), "the first asks for a flush");
        assert!(!sleeping.push("two"), "the others leave in the same one");
        sleeping.mailbox.flush();
        sleeping.mailbox.flush();
        let expected = b"\x81\x044one\x81\x044two";
        let mut read = [0; 12];
        sleeping.client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, expected);
        assert!(sleeping.mailbox.take(0).mails.is_empty());
        assert_eq!(sleeping.wakes(), 0);
    }

    #[tokio::test]
    async fn small_and_large_frames_leave_in_their_order() {
        let mut sleeping = Sleeping::new().await;
        let texts = ["a".repeat(10), "b".repeat(5_000), "c".repeat(5_000), "d".repeat(20_000), "e".repeat(3)];
        for text in &texts {
            sleeping.push(text);
        }
        sleeping.mailbox.flush();
        let expected: Vec<u8> = texts.iter().flat_map(|text| frame(text).wire().to_vec()).collect();
        let mut read = vec![0; expected.len()];
        sleeping.client.read_exact(&mut read).await.unwrap();
        assert!(read == expected);
        assert_eq!(sleeping.wakes(), 0);
    }

    #[tokio::test]
    async fn a_reader_that_wakes_first_takes_everything() {
        let sleeping = Sleeping::new().await;
        assert!(sleeping.push("one"));
        sleeping.mailbox.push_own(Mail::Close).unwrap();
        assert_eq!(sleeping.wakes(), 1);
        assert!(!sleeping.push("two"), "the reader is awake");
        sleeping.mailbox.flush();
        let taken = sleeping.mailbox.take(0);
        assert_eq!((taken.mails.len(), taken.written), (3, 0));
    }

    #[tokio::test]
    async fn nothing_is_written_past_a_reader_with_something_to_write() {
        let sleeping = Sleeping::new().await;
        assert!(!sleeping.park(false) || !sleeping.push("one"));
        assert_eq!(sleeping.wakes(), 1);
        assert_eq!(sleeping.mailbox.take(0).mails.len(), 1);
    }

    #[tokio::test]
    async fn what_the_socket_does_not_take_is_left_to_the_reader() {
        let mut sleeping = Sleeping::new().await;
        let text = "x".repeat(100_001);
        let len = frame(&text).wire_len();
        let mut whole = 0;
        // Until the buffers of the system are full.
        while sleeping.wakes() == 0 {
            assert!(sleeping.push(&text));
            sleeping.mailbox.flush();
            whole += 1;
            assert!(whole < 1_000);
        }
        let taken = sleeping.mailbox.take(0);
        assert_eq!(taken.mails.len(), 1);
        assert!(taken.written < len);
        let mut read = vec![0; (whole - 1) * len + taken.written];
        sleeping.client.read_exact(&mut read).await.unwrap();
        assert!(read.chunks(len).all(|chunk| frame(&text).wire().starts_with(chunk)));
    }

    #[tokio::test]
    async fn a_frame_that_was_written_in_part_is_left_to_the_reader() {
        let mut sleeping = Sleeping::new().await;
        let text = "x".repeat(100_001);
        let len = frame(&text).wire_len();
        let mut pushed = 0;
        // Mail is written where there is no room for more, until the buffers of the system are full.
        while sleeping.wakes() == 0 {
            assert!(pushed < 10_000);
            sleeping.push(&text);
            pushed += 1;
        }
        sleeping.mailbox.flush();
        let taken = sleeping.mailbox.take(0);
        let whole = pushed - taken.mails.len();
        let mut read = vec![0; whole * len + taken.written];
        sleeping.client.read_exact(&mut read).await.unwrap();
        assert!(read.chunks(len).all(|chunk| frame(&text).wire().starts_with(chunk)));
        let mut more = [0; 1];
        assert_eq!(sleeping.client.try_read(&mut more).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn a_sender_that_waits_for_room_is_woken_by_a_flush() {
        let sleeping = Sleeping::new().await;
        let waits = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&waits));
        let text = "x".repeat(600_000);
        assert!(sleeping.push(&text));
        assert!(sleeping.mailbox.poll_room(&Context::from_waker(&waker)).is_ready());
        assert!(!sleeping.push(&text));
        assert!(sleeping.mailbox.poll_room(&Context::from_waker(&waker)).is_pending());
        sleeping.mailbox.flush();
        assert_eq!((waits.0.load(SeqCst), sleeping.mailbox.waiting()), (1, 0));
    }

    #[tokio::test]
    async fn mail_that_is_not_wanted_any_more_is_dropped() {
        let sleeping = Sleeping::new().await;
        assert_eq!(sleeping.mailbox.push_for_flush(frame("late"), 6, || false), Err(SendError::Gone));
        sleeping.mailbox.close();
        assert!(!sleeping.push("later"));
        assert_eq!(sleeping.wakes(), 0);
    }
}
