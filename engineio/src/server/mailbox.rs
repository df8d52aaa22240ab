//! The way into a session's task: a bounded, lazily allocated queue with one reader.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use bytestring::ByteString;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::oneshot;

use super::gather::{MAX_GATHERED_BYTES, gather};
use super::websocket::WebSocket;
use crate::frame::Frame;
use crate::session::{PostDrop, Refusal};

/// What reaches a session's task from outside.
pub(super) enum Mail<M> {
    Poll(oneshot::Sender<Reply>),
    Post(oneshot::Sender<Reply>, PostBody),
    Candidate(Box<WebSocket>),
    Send(Frame),
    SendVolatile(Frame),
    Close,
    Application(M),
}

/// The body of a POST.
pub(super) enum PostBody {
    /// It came with the header, or has come since.
    Complete(ByteString),
    /// It is being read. A sender that is dropped means a client that left.
    Coming(oneshot::Receiver<Result<ByteString, PostDrop>>),
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
    /// The frame that mail consists of, if it is nothing but a frame.
    frame_of: fn(&M) -> Option<&Frame>,
}

struct State<M> {
    queue: VecDeque<Mail<M>>,
    bytes: usize,
    max_bytes: usize,
    overflowed: bool,
    closed: bool,
    /// A socket or a timer that the reader waits for has called.
    called: bool,
    /// Set while the reader sleeps.
    waker: Option<Waker>,
    /// A second hold on the reader's connection, for [`Mailbox::flush`].
    outlet: Option<OwnedWriteHalf>,
    /// Nothing waits to be written before the mail. Only true while the reader sleeps.
    outlet_open: bool,
    /// The reader has not been woken for the mail, since somebody is to flush it.
    to_flush: bool,
    /// How much of the first mail's frame has been written. Then the reader is awake.
    written: usize,
}

impl<M> State<M> {
    fn push(&mut self, mail: Mail<M>, bytes: usize) {
        if (self.bytes + bytes > self.max_bytes && self.bytes > 0) || self.queue.len() >= MAX_MAILS {
            self.overflowed = true;
        } else {
            self.bytes += bytes;
            self.queue.push_back(mail);
        }
    }

    /// The reader is awake from here on, or will be when the waker is called: mail is its business alone.
    fn wake(&mut self) -> Option<Waker> {
        self.to_flush = false;
        self.outlet_open = false;
        self.waker.take()
    }

    /// Writes the mail to the outlet, small frames together; false where some of it is left.
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
        if self.queue.capacity() > KEPT_MAILS && self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        self.bytes = 0;
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
            Self::SendVolatile(_) | Self::Poll(_) | Self::Post(..) | Self::Candidate(_) | Self::Close => None,
        }
    }
}

/// The session is over; the mail was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the session is over")
    }
}

impl std::error::Error for Gone {}

/// Mail besides frames that may wait: far above what any client can cause between two turns of its task, and a bound
/// on what an application can pile up.
const MAX_MAILS: usize = 65_536;

impl<M> Mailbox<M> {
    pub(super) fn new(max_bytes: usize, frame_of: fn(&M) -> Option<&Frame>) -> Arc<Self> {
        let state = State {
            queue: VecDeque::new(),
            bytes: 0,
            max_bytes,
            overflowed: false,
            closed: false,
            called: false,
            waker: None,
            outlet: None,
            outlet_open: false,
            to_flush: false,
            written: 0,
        };
        Arc::new(Self { state: Mutex::new(state), frame_of })
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        // Nothing under this lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and then wakes whom the change names.
    fn change<T>(&self, change: impl FnOnce(&mut State<M>) -> (T, Option<Waker>)) -> T {
        let (value, waker) = change(&mut self.lock());
        if let Some(waker) = waker {
            waker.wake();
        }
        value
    }

    /// Hands mail over; `bytes` counts against the budget.
    ///
    /// Mail over the budget is dropped and the session told, which closes it.
    pub(super) fn push(&self, mail: Mail<M>, bytes: usize) -> Result<(), Gone> {
        self.change(|state| {
            if state.closed {
                return (Err(Gone), None);
            }
            state.push(mail, bytes);
            (Ok(()), state.wake())
        })
    }

    /// Hands mail over that consists of a frame, without waking the reader where it sleeps. `wanted` is asked behind
    /// everything that the reader did before it fell asleep.
    ///
    /// True asks for a [`flush`](Self::flush).
    pub(super) fn push_for_flush(&self, mail: M, bytes: usize, wanted: impl FnOnce() -> bool) -> bool {
        self.change(|state| {
            if state.closed || !wanted() {
                return (false, None);
            }
            let first = state.queue.is_empty();
            state.push(Mail::Application(mail), bytes);
            if state.outlet_open && !state.overflowed && (first || state.to_flush) {
                state.to_flush = true;
                // Mail behind other mail leaves with it.
                return (first, None);
            }
            (false, state.wake())
        })
    }

    /// Writes mail that waits for it past the sleeping reader; wakes the reader where the socket does not take it all.
    pub(super) fn flush(&self) {
        self.change(|state| {
            let done = !std::mem::take(&mut state.to_flush) || state.write(self.frame_of);
            ((), if done { None } else { state.wake() })
        });
    }

    /// Gives the mailbox a way past its reader.
    pub(super) fn set_outlet(&self, outlet: OwnedWriteHalf) {
        self.lock().outlet = Some(outlet);
    }

    /// Takes that way back.
    pub(super) fn take_outlet(&self) -> Option<OwnedWriteHalf> {
        self.lock().outlet.take()
    }

    /// Takes all that waits.
    pub(super) fn take(&self) -> Taken<M> {
        let mut state = self.lock();
        // The reader is awake: mail that it sends itself from here on needs no further turn of its task.
        let _awake = state.wake();
        state.bytes = 0;
        Taken {
            mails: std::mem::take(&mut state.queue),
            written: std::mem::take(&mut state.written),
            overflowed: state.overflowed,
            called: std::mem::take(&mut state.called),
        }
    }

    /// Registers the reader and gives the mailbox the emptied queue back, unless that is large; false where mail waits
    /// and the reader should go on. `drained` tells that nothing waits to be written before the mail to come.
    pub(super) fn park(&self, cx: &Context<'_>, emptied: &mut VecDeque<Mail<M>>, drained: bool) -> bool {
        if emptied.capacity() > KEPT_MAILS {
            *emptied = VecDeque::new();
        }
        let mut state = self.lock();
        if !state.queue.is_empty() || state.overflowed || state.called {
            return false;
        }
        if state.queue.capacity() < emptied.capacity() {
            std::mem::swap(&mut state.queue, emptied);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        state.outlet_open = drained && state.outlet.is_some();
        true
    }

    /// Takes no more mail, and drops what waits.
    pub(super) fn close(&self) {
        let dropped = {
            let mut state = self.lock();
            state.closed = true;
            let _awake = state.wake();
            if let Some(outlet) = state.outlet.take() {
                outlet.forget(); // what is still to be written is the reader's
            }
            std::mem::take(&mut state.queue)
        };
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
    /// [`Gone`] where the session is over. A client that is too far behind is closed instead
    /// ([`Config::max_buffered_bytes`](crate::Config)).
    pub fn send(&self, frame: Frame) -> Result<(), Gone> {
        let bytes = frame.wire_len();
        self.mailbox.push(Mail::Send(frame), bytes)
    }

    /// Sends a message that is dropped if the client is not ready for it at once.
    ///
    /// # Errors
    /// [`Gone`] where the session is over.
    pub fn send_volatile(&self, frame: Frame) -> Result<(), Gone> {
        let bytes = frame.wire_len();
        self.mailbox.push(Mail::SendVolatile(frame), bytes)
    }

    /// Hands mail to the session's [`Handler`](super::Handler); `bytes` is what it counts against
    /// [`Config::max_buffered_bytes`](crate::Config).
    ///
    /// # Errors
    /// [`Gone`] where the session is over.
    pub fn mail(&self, mail: M, bytes: usize) -> Result<(), Gone> {
        self.mailbox.push(Mail::Application(mail), bytes)
    }

    /// Hands mail over that consists of a frame ([`Handler::frame_of`](super::Handler::frame_of)), if `wanted` says so,
    /// and leaves it lying: true asks for a [`flush`](Self::flush) soon, by whoever sends the same to many. It is in
    /// order with everything else sent to this client.
    ///
    /// `wanted` is asked under a lock, so it must not use this socket.
    #[must_use]
    pub fn mail_for_flush(&self, mail: M, bytes: usize, wanted: impl FnOnce() -> bool) -> bool {
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
        let _closed = self.mailbox.push(Mail::Close, 0);
    }

    /// Tells whether the session is over.
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
            let mailbox = Mailbox::new(4 << 20, |frame| Some(frame));
            let (_, outlet) = accepted.unwrap().0.into_split();
            outlet.writable().await.unwrap();
            mailbox.set_outlet(outlet);
            let sleeping = Self { mailbox, wakes: Arc::default(), client: client.unwrap() };
            assert!(sleeping.park(true));
            sleeping
        }

        fn park(&self, drained: bool) -> bool {
            let waker = Waker::from(Arc::clone(&self.wakes));
            self.mailbox.park(&Context::from_waker(&waker), &mut VecDeque::new(), drained)
        }

        fn push(&self, text: &str) -> bool {
            let frame = frame(text);
            let bytes = frame.wire_len();
            self.mailbox.push_for_flush(frame, bytes, || true)
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
        assert!(sleeping.mailbox.take().mails.is_empty());
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
        sleeping.mailbox.push(Mail::Close, 0).unwrap();
        assert_eq!(sleeping.wakes(), 1);
        assert!(!sleeping.push("two"), "the reader is awake");
        sleeping.mailbox.flush();
        let taken = sleeping.mailbox.take();
        assert_eq!((taken.mails.len(), taken.written), (3, 0));
    }

    #[tokio::test]
    async fn nothing_is_written_past_a_reader_with_something_to_write() {
        let sleeping = Sleeping::new().await;
        assert!(!sleeping.park(false) || !sleeping.push("one"));
        assert_eq!(sleeping.wakes(), 1);
        assert_eq!(sleeping.mailbox.take().mails.len(), 1);
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
        let taken = sleeping.mailbox.take();
        assert_eq!(taken.mails.len(), 1);
        assert!(taken.written < len);
        let mut read = vec![0; (whole - 1) * len + taken.written];
        sleeping.client.read_exact(&mut read).await.unwrap();
        assert!(read.chunks(len).all(|chunk| frame(&text).wire().starts_with(chunk)));
    }

    #[tokio::test]
    async fn mail_that_is_not_wanted_any_more_is_dropped() {
        let sleeping = Sleeping::new().await;
        assert!(!sleeping.mailbox.push_for_flush(frame("late"), 6, || false));
        sleeping.mailbox.close();
        assert!(!sleeping.push("later"));
        assert_eq!(sleeping.wakes(), 0);
    }
}
