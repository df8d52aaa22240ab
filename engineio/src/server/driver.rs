//! The one task that drives one session: mail, reads, writes and deadlines in one poll.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::mailbox::{Backlog, Mail, Mailbox, PostBody, Reply};
use super::websocket::{End, Event, WebSocket};
use super::{Handler, Link, Registration};
use crate::config::Config;
use crate::error::CloseReason;
use crate::frame::Frame;
use crate::handshake::Transport;
use crate::packet::Message;
use crate::session::{Action, Input, PostDrop, Session};

/// How long the connection under a WebSocket handshake may take to switch over.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Driver<H: Handler> {
    session: Session,
    handler: H,
    mailbox: Arc<Mailbox<H::Mail>>,
    /// The mailbox's queue of the turn before, for its next.
    emptied: VecDeque<Mail<H::Mail>>,
    websocket: Option<WebSocket>,
    candidate: Option<Box<WebSocket>>,
    requests: Option<Box<Requests>>,
    /// Messages that came while the handler was not ready.
    held: VecDeque<Message>,
    held_bytes: usize,
    /// What was read while the handler was not ready, or too much waited for the client.
    ahead: Ahead,
    /// Nothing is read since the handler is behind, and the session knows.
    paused: bool,
    /// Reading stopped before the socket had nothing more.
    stopped: bool,
    /// The handler has put something off until less waits for the client.
    puts_off: bool,
    /// Keeps the session in the server's table and counts.
    registration: Registration<H::Mail>,
    config: Arc<Config>,
    /// Sockets or timers want to be polled: one has called, or none has been asked yet.
    called: bool,
    /// The handler has been polled since it was last given something, or woke this task.
    settled: bool,
    /// What this session last added to the server's count of waiting bytes.
    counted_bytes: usize,
    closed: Option<CloseReason>,
}

/// Reply slots of polling requests, which a WebSocket never needs.
#[derive(Default)]
struct Requests {
    poll: Option<oneshot::Sender<Reply>>,
    /// A poll that arrived beside a waiting one.
    second_poll: Option<oneshot::Sender<Reply>>,
    post: Option<oneshot::Sender<Reply>>,
    /// The body of that POST, while it is being read or the handler is behind.
    post_body: Option<PostBody>,
    second_post: Option<oneshot::Sender<Reply>>,
}

#[derive(Clone, Copy, Default)]
struct Ahead {
    bytes: usize,
    messages: usize,
}

/// How much is read while the handler is not ready or too much waits for the client: enough that the heartbeats and the
/// end of a client that sends little are still noticed.
const MAX_AHEAD: Ahead = Ahead { bytes: 64 * 1024, messages: 64 };

/// How many bytes one turn reads before other tasks of its thread get theirs.
const MAX_TURN_BYTES: usize = 256 * 1024;
/// What some packets of a polling body count in that, however small they are.
const BATCH_BYTES: usize = 16 * 1024;

/// The handler's way to its client, over some fields of a driver while others are in use.
macro_rules! link {
    ($driver:expr, $now:expr) => {
        Link {
            session: &mut $driver.session,
            now: $now,
            queued: $driver.mailbox.queued_bytes(),
            puts_off: &mut $driver.puts_off,
        }
    };
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Runs a session whose WebSocket is still being switched over from HTTP.
pub(super) async fn run_websocket<H: Handler>(mut driver: Box<Driver<H>>, switch: OnUpgrade) {
    match tokio::time::timeout(SWITCH_TIMEOUT, switch).await {
        Ok(Ok(upgraded)) => {
            driver.websocket = Some(WebSocket::new(upgraded, driver.config.max_payload_bytes));
            driver.share();
            run(driver).await;
        }
        Ok(Err(_)) | Err(_) => {
            driver.session.handle(Input::WebSocketEnded { close_frame: false }, now());
            run(driver).await;
        }
    }
}

/// Runs a session to its end; this task alone owns it and its sockets.
pub(super) async fn run<H: Handler>(mut driver: Box<Driver<H>>) {
    {
        let first = driver.deadline().unwrap_or_else(now);
        let mut sleep = pin!(tokio::time::sleep_until(first.into()));
        let mut armed = first;
        let caller = Waker::from(Arc::clone(&driver.mailbox));
        poll_fn(|cx| driver.poll(cx, &mut Context::from_waker(&caller), sleep.as_mut(), &mut armed)).await;
    }
    // The rest happens once, so it is boxed to keep the task of a living session small.
    Box::pin(driver.finish()).await;
}

impl<H: Handler> Driver<H> {
    pub(super) fn new(
        session: Session,
        handler: H,
        mailbox: Arc<Mailbox<H::Mail>>,
        registration: Registration<H::Mail>,
        config: Arc<Config>,
    ) -> Box<Self> {
        Box::new(Self {
            session,
            handler,
            mailbox,
            emptied: VecDeque::new(),
            websocket: None,
            candidate: None,
            requests: None,
            held: VecDeque::new(),
            held_bytes: 0,
            ahead: Ahead::default(),
            paused: false,
            stopped: false,
            puts_off: false,
            registration,
            config,
            called: true,
            settled: false,
            counted_bytes: 0,
            closed: None,
        })
    }

    /// Lets others write to the WebSocket while this task sleeps.
    fn share(&mut self) {
        if let Some(outlet) = self.websocket.as_mut().and_then(WebSocket::share) {
            self.mailbox.set_outlet(outlet);
        }
    }

    /// Keeps the reply slot of the handshake, which counts as the first poll.
    pub(super) fn first_poll(&mut self, reply: oneshot::Sender<Reply>) {
        self.requests().poll = Some(reply);
    }

    fn requests(&mut self) -> &mut Requests {
        self.requests.get_or_insert_default()
    }

    fn deadline(&self) -> Option<Instant> {
        match (self.session.poll_timeout(), self.handler.poll_timeout()) {
            (Some(session), Some(handler)) => Some(session.min(handler)),
            (session, handler) => session.or(handler),
        }
    }

    /// One turn: everything that can be done without waiting. Ready when the session is over.
    ///
    /// Sockets and timers are polled with `io`, and only when one of them has called: a turn for mail alone, such as a
    /// broadcast, costs the mail and the write.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Context<'_>,
        mut sleep: Pin<&mut Sleep>,
        armed: &mut Instant,
    ) -> Poll<()> {
        self.settled = false;
        let mut budget = MAX_TURN_BYTES;
        loop {
            let now = now();
            self.take_mail(now);
            let called = std::mem::take(&mut self.called);
            if called {
                self.read(cx, io, &mut budget, now);
                self.read_candidate(cx, io, &mut budget, now);
                self.poll_requests(io, &mut budget, now);
                self.handle_timeouts(io, now);
            }
            if !self.settled {
                self.poll_handler(cx, now);
            }
            self.write(io, now);
            self.update_flow(now);
            let Some(deadline) = self.deadline().filter(|_| self.closed.is_none()) else {
                return Poll::Ready(());
            };
            if called || deadline != *armed {
                self.called |= is_due(io, sleep.as_mut(), armed, deadline);
            }
            if budget == 0 {
                self.count_bytes();
                self.mailbox.pause(self.backlog());
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.called && self.settled && self.park(cx) {
                self.count_bytes();
                return Poll::Pending;
            }
        }
    }

    /// Lets reading, and a handler that has put work off, go on where they can.
    fn update_flow(&mut self, now: Instant) {
        if self.puts_off && self.session.wants_input(self.mailbox.queued()) {
            self.puts_off = false;
            self.settled = false;
        }
        if self.has_room() {
            self.called |= std::mem::take(&mut self.stopped);
        }
        // A client that takes nothing is for the heartbeat to find out, unless the handler is what holds up reading.
        let paused = self.stopped && !self.handler.is_ready();
        if paused != std::mem::replace(&mut self.paused, paused) {
            self.session.handle(if paused { Input::ReadingPaused } else { Input::ReadingResumed }, now);
        }
    }

    fn backlog(&self) -> Backlog {
        let bytes = self.session.buffered_bytes();
        let writable = self.websocket.is_some() && self.candidate.is_none() && bytes == 0;
        Backlog { bytes, unhandled: self.unhandled_bytes(), writable }
    }

    /// What the client's messages occupy that have not been handled.
    fn unhandled_bytes(&self) -> usize {
        let bodies = match self.requests.as_deref() {
            Some(Requests { post_body: Some(PostBody::Complete(body)), .. }) => body.len(),
            Some(_) | None => 0,
        };
        let held = self.held_bytes + self.held.len() * size_of::<Message>();
        held + bodies + self.session.unread_bytes() + self.handler.unhandled_bytes()
    }

    /// Goes to sleep, unless there is mail.
    fn park(&mut self, cx: &Context<'_>) -> bool {
        let backlog = self.backlog();
        self.mailbox.park(cx, &mut self.emptied, backlog)
    }

    fn take_mail(&mut self, now: Instant) {
        let taken = self.mailbox.take(self.session.buffered_bytes());
        self.called |= taken.called;
        if taken.overflowed {
            // Nothing can follow a frame that has been cut short, not even a close frame.
            let input = if taken.written > 0 { Input::WebSocketFailed } else { Input::Overflowed };
            self.session.handle(input, now);
            self.perform(now);
            return;
        }
        let mut mails = taken.mails;
        // The session has something to do that no handler's turn follows.
        let mut acts = false;
        for mail in mails.drain(..) {
            match mail {
                Mail::Send(frame) => {
                    acts = true;
                    self.session.handle(Input::Send(frame), now);
                }
                Mail::SendVolatile(frame) => {
                    acts = true;
                    self.session.handle(Input::SendVolatile(frame), now);
                }
                Mail::Application(mail) => {
                    self.settled = false;
                    self.handler.on_mail(mail, &mut link!(self, now));
                }
                Mail::Poll(reply) => {
                    self.called = true;
                    let requests = self.requests();
                    if requests.poll.is_none() {
                        requests.poll = Some(reply)
                    } else {
                        requests.second_poll = Some(reply)
                    }
                    self.session.handle(Input::PollArrived, now);
                    self.perform(now);
                }
                Mail::Post(reply, body) => {
                    self.called = true;
                    let requests = self.requests();
                    if requests.post.is_none() {
                        requests.post = Some(reply);
                        requests.post_body = Some(body);
                    } else {
                        requests.second_post = Some(reply);
                    }
                    self.session.handle(Input::PostArrived, now);
                    self.perform(now);
                }
                Mail::Candidate(websocket) => {
                    self.called = true;
                    if let Some(second) = self.candidate.take() {
                        // The session keeps the first; this one leaves by the same door as a refused one.
                        tokio::spawn(websocket.finish(None, self.config.close_timeout));
                        self.candidate = Some(second);
                    } else {
                        self.candidate = Some(websocket);
                        self.session.handle(Input::CandidateArrived, now);
                        self.perform(now);
                    }
                }
                Mail::Close => {
                    acts = true;
                    self.session.handle(Input::Close, now);
                }
                Mail::ShutDown => {
                    acts = true;
                    self.session.handle(Input::ShutDown, now);
                }
            }
        }
        if taken.written > 0 {
            // The first mail was a frame, and nothing waited before it.
            match self.session.outbox().filter(|outbox| !outbox.is_empty()) {
                Some(outbox) => outbox.advance(taken.written),
                // The handler has dropped a frame of which part is written: nothing can follow that.
                None => self.session.handle(Input::WebSocketFailed, now),
            }
            acts = true;
        }
        if acts {
            self.perform(now);
        }
        if mails.capacity() > self.emptied.capacity() {
            self.emptied = mails;
        }
    }

    /// Carries out what the session orders.
    fn perform(&mut self, now: Instant) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Deliver(message) => {
                    let ready = self.handler.is_ready();
                    if ready && self.session.wants_input(self.mailbox.queued()) {
                        self.ahead = Ahead::default();
                    } else {
                        self.ahead.bytes += message.len();
                        self.ahead.messages += 1;
                    }
                    if ready && self.held.is_empty() {
                        self.settled = false;
                        self.handler.on_message(message, &mut link!(self, now));
                    } else {
                        self.held_bytes += message.len();
                        self.held.push_back(message);
                    }
                }
                Action::RoundTrip(time) => self.handler.on_round_trip(time),
                Action::AnswerPoll(payload) => answer(&mut self.requests().poll, Reply::Payload(payload.into())),
                Action::RefusePoll(refusal) => {
                    let requests = self.requests();
                    let slot =
                        if requests.second_poll.is_some() { &mut requests.second_poll } else { &mut requests.poll };
                    answer(slot, Reply::Refused(refusal));
                }
                Action::AcceptPost => self.answer_post(Reply::Accepted),
                Action::RefusePost(refusal) => {
                    let requests = self.requests();
                    if requests.second_post.is_some() {
                        answer(&mut requests.second_post, Reply::Refused(refusal));
                    } else {
                        self.answer_post(Reply::Refused(refusal));
                    }
                }
                Action::AbortPost => self.answer_post(Reply::Reset),
                Action::DropCandidate => {
                    if let Some(candidate) = self.candidate.take() {
                        tokio::spawn(candidate.finish(None, self.config.close_timeout));
                    }
                }
                Action::WriteCandidate(frame) => {
                    if let Some(candidate) = &mut self.candidate {
                        candidate.write_soon(frame);
                    }
                }
                Action::SwitchTransport => {
                    self.websocket = self.candidate.take().map(|candidate| *candidate);
                    self.share();
                    self.registration.switch(Transport::WebSocket);
                }
                Action::Closed(reason) => self.closed = Some(reason),
            }
        }
    }

    fn answer_post(&mut self, reply: Reply) {
        let requests = self.requests();
        requests.post_body = None;
        answer(&mut requests.post, reply);
    }

    /// Returns `true` if the handler keeps up, and the client takes what is sent to it.
    fn keeps_up(&mut self) -> bool {
        self.session.wants_input(self.mailbox.queued()) && self.handler.is_ready()
    }

    /// Returns `true` if more may be read.
    fn has_room(&mut self) -> bool {
        let little_ahead = self.ahead.bytes < MAX_AHEAD.bytes && self.ahead.messages < MAX_AHEAD.messages;
        self.closed.is_none() && (little_ahead || self.keeps_up())
    }

    /// Reads what the WebSocket has, as long as there is room and the budget of this turn lasts.
    fn read(&mut self, cx: &mut Context<'_>, io: &mut Context<'_>, budget: &mut usize, now: Instant) {
        let Some(mut websocket) = self.websocket.take() else { return };
        while self.closed.is_none() {
            if *budget == 0 || !self.has_room() {
                self.stopped = true;
                break;
            }
            let read = websocket.poll_read(io, budget, |event| {
                match event {
                    Event::Frame(frame) => {
                        self.session.handle(Input::Frame(frame), now);
                        self.perform(now);
                        // At once, while the message is in the processor's cache.
                        if !self.settled {
                            self.poll_handler(cx, now);
                        }
                    }
                    Event::Control(frame) => {
                        if let Some(outbox) = self.session.outbox() {
                            outbox.push_control(frame);
                        }
                    }
                }
                self.has_room()
            });
            match read {
                Poll::Pending => break,
                Poll::Ready(None) => {}
                Poll::Ready(Some(end)) => {
                    self.session.handle(ended(end), now);
                    self.perform(now);
                    break;
                }
            }
        }
        self.websocket = Some(websocket);
    }

    fn read_candidate(&mut self, cx: &mut Context<'_>, io: &mut Context<'_>, budget: &mut usize, now: Instant) {
        let Some(mut candidate) = self.candidate.take() else { return };
        let mut frames = Vec::new();
        let mut pong: Option<Frame> = None;
        let read = candidate.poll_read(io, budget, |event| {
            match event {
                Event::Frame(frame) => frames.push(frame),
                Event::Control(frame) => pong = Some(frame),
            }
            true
        });
        if let Some(pong) = pong {
            candidate.write_soon(pong);
        }
        self.called |= matches!(read, Poll::Ready(None)); // the budget is spent, and there may be more
        self.candidate = Some(candidate);
        for frame in frames {
            // The first frame may make the candidate the transport; those behind it are the session's.
            let input = if self.candidate.is_some() { Input::CandidateFrame(frame) } else { Input::Frame(frame) };
            self.session.handle(input, now);
            self.perform(now);
        }
        if let Poll::Ready(Some(end)) = read {
            match self.candidate.take() {
                Some(candidate) => {
                    tokio::spawn(candidate.finish(None, self.config.close_timeout));
                    self.session.handle(Input::CandidateLost, now);
                }
                None => self.session.handle(ended(end), now),
            }
            self.perform(now);
        }
        if self.candidate.is_none() && self.websocket.is_some() {
            self.read(cx, io, budget, now); // registers the new transport with this task
        }
        if let Some(candidate) = &mut self.candidate
            && let Poll::Ready(Err(_broken)) = candidate.poll_probe(io)
        {
            self.candidate = None;
            self.session.handle(Input::CandidateLost, now);
        }
    }

    fn handle_timeouts(&mut self, io: &mut Context<'_>, now: Instant) {
        if self.handler.poll_timeout().is_some_and(|due| now >= due) {
            self.settled = false;
            self.handler.on_timeout(&mut link!(self, now));
        }
        if self.session.poll_timeout().is_some_and(|due| now >= due) {
            // A client is not judged before a write was tried: this task may have had no turn for a long time.
            self.write(io, now);
            self.session.handle(Input::Timeout, now);
        }
        self.perform(now);
    }

    /// Lets the handler go on, and hands over what was held for it.
    fn poll_handler(&mut self, cx: &mut Context<'_>, now: Instant) {
        self.settled = true;
        self.handler.poll(cx, &mut link!(self, now));
        while !self.held.is_empty() && self.handler.is_ready() {
            self.hand_over_held(now);
            self.handler.poll(cx, &mut link!(self, now));
        }
        self.perform(now);
    }

    fn hand_over_held(&mut self, now: Instant) {
        if let Some(message) = self.held.pop_front() {
            self.held_bytes -= message.len();
            self.handler.on_message(message, &mut link!(self, now));
        }
        if self.held.is_empty() {
            self.held = VecDeque::new();
        }
    }

    /// Reads on in the body of a POST that is complete, as long as there is room and the budget of this turn lasts, and
    /// notices a poll that its client gave up.
    fn poll_requests(&mut self, cx: &mut Context<'_>, budget: &mut usize, now: Instant) {
        loop {
            let (has_unread, has_body) = (self.session.has_unread(), self.has_body(cx));
            let has_room = *budget > 0 && self.has_room();
            if has_body && (self.session.takes_body() || (has_room && !has_unread)) {
                self.read_body(now);
            } else if has_unread && has_room {
                self.session.handle(Input::ReadOn, now);
                self.perform(now);
            } else {
                self.stopped |= has_unread || has_body;
                break;
            }
            *budget = budget.saturating_sub(BATCH_BYTES);
        }
        if let Some(requests) = &mut self.requests
            && let Some(PostBody::Dropped(drop)) = requests.post_body
        {
            requests.post_body = None;
            requests.post = None; // the shell has answered it
            self.session.handle(Input::PostDropped(drop), now);
            self.perform(now);
        }
        if let Some(requests) = &mut self.requests
            && let Some(poll) = &mut requests.poll
            && poll.poll_closed(cx).is_ready()
        {
            requests.poll = None;
            self.session.handle(Input::PollAborted, now);
            self.perform(now);
        }
    }

    /// Returns `true` if the body of a POST is there, to be read.
    fn has_body(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Requests { post_body: Some(body), .. }) = self.requests.as_deref_mut() else { return false };
        if let PostBody::Coming(coming) = body {
            match Pin::new(coming).poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(Ok(text))) => *body = PostBody::Complete(text),
                Poll::Ready(Ok(Err(drop))) => *body = PostBody::Dropped(drop),
                // The request was dropped, since its client left.
                Poll::Ready(Err(_)) => *body = PostBody::Dropped(PostDrop::Aborted),
            }
        }
        matches!(body, PostBody::Complete(_))
    }

    /// Hands the body in.
    fn read_body(&mut self, now: Instant) {
        let Some(requests) = self.requests.as_deref_mut() else { return };
        if let Some(PostBody::Complete(body)) = requests.post_body.take_if(|body| matches!(body, PostBody::Complete(_)))
        {
            self.session.handle(Input::PostReceived(body), now);
            self.perform(now);
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, now: Instant) {
        if let (Some(websocket), Some(outbox)) = (&mut self.websocket, self.session.outbox())
            && !outbox.is_empty()
        {
            match websocket.poll_write(cx, outbox) {
                Poll::Ready(Err(_broken)) => {
                    self.session.handle(Input::WebSocketFailed, now);
                    self.perform(now);
                }
                Poll::Ready(Ok(())) | Poll::Pending => self.session.handle(Input::Written, now),
            }
        }
    }

    /// Keeps the server's count of waiting bytes true, without touching it while nothing waits.
    fn count_bytes(&mut self) {
        let bytes = self.session.buffered_bytes() + self.unhandled_bytes();
        if bytes != self.counted_bytes {
            self.registration.count_queued(self.counted_bytes, bytes);
            self.counted_bytes = bytes;
        }
    }

    fn uncount_bytes(&mut self) {
        let counted = std::mem::take(&mut self.counted_bytes);
        self.registration.count_queued(counted, 0);
    }

    /// Tells the application, lets the sockets go, and waits for both.
    async fn finish(mut self: Box<Self>) {
        let reason = self.closed.unwrap_or(CloseReason::TransportError);
        self.registration.leave();
        if let (Some(websocket), Some(outlet)) = (&mut self.websocket, self.mailbox.take_outlet()) {
            websocket.unshare(outlet);
        }
        self.mailbox.close();
        self.requests = None;
        // What came before the end is handed over before it.
        let now = now();
        while !self.held.is_empty() {
            self.hand_over_held(now);
        }
        self.handler.on_close(reason);
        let candidate = self.candidate.take();
        let websocket = self.websocket.take();
        let outbox = self.session.take_outbox();
        // Others need not make room for what is gone.
        let bytes = outbox.cost() + self.handler.unhandled_bytes();
        self.registration.count_queued(self.counted_bytes, bytes);
        self.counted_bytes = bytes;
        let within = self.config.close_timeout;
        tokio::join!(
            async {
                if let Some(websocket) = websocket {
                    websocket.finish(Some(outbox), within).await;
                }
            },
            async {
                if let Some(candidate) = candidate {
                    candidate.finish(None, within).await;
                }
            },
            poll_fn(|cx| self.handler.poll_finished(cx)),
        );
    }
}

impl<H: Handler> Drop for Driver<H> {
    // Matters where a handler panicked: the mailbox would go on to take mail.
    fn drop(&mut self) {
        self.mailbox.close();
        self.uncount_bytes();
    }
}

/// Sets the alarm, and tells whether it is time. Putting it off is cheap: tokio's wheel moves the timer when its former
/// time comes, without waking anybody.
fn is_due(io: &mut Context<'_>, mut sleep: Pin<&mut Sleep>, armed: &mut Instant, deadline: Instant) -> bool {
    if deadline != *armed {
        *armed = deadline;
        sleep.as_mut().reset(deadline.into());
    }
    sleep.poll(io).is_ready()
}

fn ended(end: End) -> Input {
    match end {
        End::CloseFrame => Input::WebSocketEnded { close_frame: true },
        End::Lost => Input::WebSocketEnded { close_frame: false },
        End::Failed => Input::WebSocketFailed,
    }
}

/// Fills a reply slot. Where the client has left meanwhile, the answer has nowhere to go.
fn answer(slot: &mut Option<oneshot::Sender<Reply>>, reply: Reply) {
    if let Some(slot) = slot.take() {
        let _client_left = slot.send(reply);
    }
}
