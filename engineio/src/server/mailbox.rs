//! The way into a session's task: a bounded, lazily allocated queue with one reader.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use bytestring::ByteString;
use tokio::sync::oneshot;

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
#[derive(Debug)]
pub(super) enum Reply {
    Payload(String),
    Accepted,
    Refused(Refusal),
    /// Break the connection off.
    Reset,
}

pub(super) struct Mailbox<M> {
    state: Mutex<State<M>>,
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
    pub(super) fn new(max_bytes: usize) -> Arc<Self> {
        let state = State {
            queue: VecDeque::new(),
            bytes: 0,
            max_bytes,
            overflowed: false,
            closed: false,
            called: false,
            waker: None,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        // Nothing under this lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands mail over; `bytes` counts against the budget.
    ///
    /// Mail over the budget is dropped and the session told, which closes it.
    pub(super) fn push(&self, mail: Mail<M>, bytes: usize) -> Result<(), Gone> {
        let waker = {
            let mut state = self.lock();
            if state.closed {
                return Err(Gone);
            }
            if (state.bytes + bytes > state.max_bytes && state.bytes > 0) || state.queue.len() >= MAX_MAILS {
                state.overflowed = true;
            } else {
                state.bytes += bytes;
                state.queue.push_back(mail);
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Takes all that waits.
    pub(super) fn take(&self) -> Taken<M> {
        let mut state = self.lock();
        // The reader is awake: mail that it sends itself from here on needs no further turn of its task.
        state.waker = None;
        state.bytes = 0;
        Taken {
            mails: std::mem::take(&mut state.queue),
            overflowed: state.overflowed,
            called: std::mem::take(&mut state.called),
        }
    }

    /// Registers the reader and gives the mailbox the emptied queue back, unless that is large; false where mail waits
    /// and the reader should go on.
    pub(super) fn park(&self, cx: &Context<'_>, emptied: &mut VecDeque<Mail<M>>) -> bool {
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
        true
    }

    /// Takes no more mail, and drops what waits.
    pub(super) fn close(&self) {
        let dropped = {
            let mut state = self.lock();
            state.closed = true;
            state.waker = None;
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
        let waker = {
            let mut state = self.lock();
            state.called = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

const KEPT_MAILS: usize = 16;

pub(super) struct Taken<M> {
    pub(super) mails: VecDeque<Mail<M>>,
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
