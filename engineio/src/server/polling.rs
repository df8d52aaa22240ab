//! GET and POST of long-polling: bodies within limits, requests turned into mail, replies into answers.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use bytestring::ByteString;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::mailbox::{Mail, Mailbox, PostBody, Reply};
use super::{Body, Reset, empty};
use crate::config::Config;
use crate::error::RequestError;
use crate::session::{PostDrop, Refusal};

/// Waits for packets of the session.
pub(super) async fn poll<M>(mailbox: Arc<Mailbox<M>>) -> Result<Response<Body>, Reset> {
    let (reply, answered) = oneshot::channel();
    match mailbox.push_own(Mail::Poll(reply)) {
        Ok(()) => answer(answered).await,
        Err(_gone) => Ok(request_error(RequestError::UnknownSid)),
    }
}

/// Reads packets for the session.
pub(super) async fn post<M, B>(
    mailbox: Arc<Mailbox<M>>,
    headers: &HeaderMap,
    mut body: B,
    config: &Config,
) -> Result<Response<Body>, Reset>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    if let Some(refusal) = refuse_unread(&body, config) {
        return Ok(refusal);
    }
    let binary = is_binary(headers);
    let mut reading = Reading::new(config.max_payload_bytes);
    let (reply, mut answered) = oneshot::channel();

    // Most bodies come with their header: then the session hears of the request once, when it is complete.
    let first = poll_fn(|cx| Poll::Ready(reading.poll(cx, &mut body))).await;
    if let (Poll::Ready(Ok(text)), false) = (&first, binary) {
        return match mailbox.push_own(Mail::Post(reply, PostBody::Complete(text.clone()))) {
            Ok(()) => answer(answered).await,
            Err(_gone) => Ok(request_error(RequestError::UnknownSid)),
        };
    }
    // Dropped with this future where the client leaves: that, too, tells the session.
    let (session, coming) = oneshot::channel();
    if mailbox.push_own(Mail::Post(reply, PostBody::Coming(coming))).is_err() {
        return Ok(request_error(RequestError::UnknownSid));
    }
    let tell = |body| {
        // Where the session has refused the request, or is over, it wants to know nothing.
        let _over = session.send(body);
    };
    if binary {
        // Answered at once, whatever is still to come (CVE-2026-59725: it never was).
        tell(Err(PostDrop::Binary));
        return Ok(empty(StatusCode::BAD_REQUEST));
    }
    let complete = match first {
        Poll::Ready(complete) => complete,
        Poll::Pending => tokio::select! {
            biased;
            // The session refused the request, or is over: the rest of the body does not matter.
            early = &mut answered => return early.map_or_else(|_| Ok(request_error(RequestError::UnknownSid)), respond),
            complete = while_it_comes(config.body_timeout, |cx| {
                let read = reading.poll(cx, &mut body);
                (read, reading.received)
            }) => {
                let Some(complete) = complete else {
                    tell(Err(PostDrop::Aborted));
                    return Ok(too_slow());
                };
                complete
            }
        },
    };
    match complete {
        Ok(text) => {
            tell(Ok(text));
            answer(answered).await
        }
        Err(BodyError::TooLarge) => {
            tell(Err(PostDrop::TooLarge));
            // The slot is dropped once the session has let the request go: a client that sends the next one as soon
            // as it has this answer must not find it overlapping.
            let _let_go = answered.await;
            Ok(empty(StatusCode::PAYLOAD_TOO_LARGE))
        }
        Err(BodyError::Lost) => {
            tell(Err(PostDrop::Aborted));
            Err(Reset)
        }
    }
}

/// Refuses a body of so much that we would not even read and throw it away; the session need not hear of it.
pub(super) fn refuse_unread(body: &impl hyper::body::Body, config: &Config) -> Option<Response<Body>> {
    let most = (config.max_payload_bytes as u64).saturating_mul(EXCESS_FACTOR as u64);
    (body.size_hint().lower() > most).then(|| closing(StatusCode::PAYLOAD_TOO_LARGE))
}

pub(super) fn is_binary(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream")
}

/// Answers a POST that took too long.
pub(super) fn too_slow() -> Response<Body> {
    closing(StatusCode::REQUEST_TIMEOUT)
}

fn closing(status: StatusCode) -> Response<Body> {
    let mut response = empty(status);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Turns the session's reply into an answer.
pub(super) async fn answer(answered: oneshot::Receiver<Reply>) -> Result<Response<Body>, Reset> {
    match answered.await {
        Ok(reply) => respond(reply),
        Err(_session_ended) => Ok(request_error(RequestError::UnknownSid)),
    }
}

pub(super) fn respond(reply: Reply) -> Result<Response<Body>, Reset> {
    Ok(match reply {
        Reply::Payload(payload) => ok(payload.into_bytes(), "text/plain; charset=UTF-8"),
        Reply::Accepted => ok(Bytes::from_static(b"ok"), "text/html"),
        Reply::Refused(Refusal::Empty) => empty(StatusCode::BAD_REQUEST),
        Reply::Refused(Refusal::TooLarge) => empty(StatusCode::PAYLOAD_TOO_LARGE),
        Reply::Refused(Refusal::Request(error)) => request_error(error),
        Reply::Reset => return Err(Reset),
    })
}

fn ok(body: Bytes, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Answers with the error's status and JSON body.
pub(super) fn request_error(error: RequestError) -> Response<Body> {
    let mut response = Response::new(Body::from(error.body()));
    // Every status of the mapping is a valid one.
    *response.status_mut() = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Reads to the end, unless nothing comes for `stall`, or the end takes many times as long; then returns `None`. `read`
/// also returns how many bytes have come by now.
pub(super) async fn while_it_comes<T>(
    stall: Duration,
    mut read: impl FnMut(&mut Context<'_>) -> (Poll<T>, usize),
) -> Option<T> {
    let start = Instant::now();
    let end = start + stall.saturating_mul(STALLS_IN_ALL);
    let mut sleep = pin!(sleep_until(start + stall));
    let mut received = 0;
    poll_fn(|cx| {
        let (read, by_now) = read(cx);
        if let Poll::Ready(value) = read {
            return Poll::Ready(Some(value));
        }
        if by_now > received {
            received = by_now;
            sleep.as_mut().reset((Instant::now() + stall).min(end));
        }
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// How many times [`Config::body_timeout`] a whole body may take, so that a client which sends a byte from time to time
/// does not hold its place for as long as it likes. With the default the 300 s of Node.js.
const STALLS_IN_ALL: u32 = 15;

/// A body on its way in, counted while it streams.
pub(super) struct Reading {
    buffer: BytesMut,
    /// Bytes that have come by now.
    pub(super) received: usize,
    max: usize,
    /// Bytes read and thrown away since the body turned out too large.
    excess: usize,
}

pub(super) enum BodyError {
    TooLarge,
    Lost,
}

/// How much of a body that is too large is read and thrown away, as a multiple of the limit, so that its sender gets
/// to read the answer; after that the connection is closed under it.
const EXCESS_FACTOR: usize = 8;

impl Reading {
    pub(super) fn new(max: usize) -> Self {
        Self { buffer: BytesMut::new(), received: 0, max, excess: 0 }
    }

    /// The bytes that are kept by now.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn poll<B>(&mut self, cx: &mut Context<'_>, body: &mut B) -> Poll<Result<ByteString, BodyError>>
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
    {
        loop {
            match std::task::ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // Trailers carry nothing for us.
                    let Ok(mut data) = frame.into_data() else { continue };
                    self.received += data.len();
                    if self.excess > 0 || self.buffer.len() + data.len() > self.max {
                        self.buffer = BytesMut::new();
                        self.excess += data.len();
                        data.advance(data.len());
                        if self.excess > self.max.saturating_mul(EXCESS_FACTOR) {
                            return Poll::Ready(Err(BodyError::TooLarge));
                        }
                    } else if self.buffer.is_empty() && body.is_end_stream() {
                        return Poll::Ready(Ok(text(data)));
                    } else {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) => return Poll::Ready(Err(BodyError::Lost)),
                None if self.excess > 0 => return Poll::Ready(Err(BodyError::TooLarge)),
                None => return Poll::Ready(Ok(text(std::mem::take(&mut self.buffer).freeze()))),
            }
        }
    }
}

/// Bytes that are no UTF-8 become text that is no payload either: replacement characters, as Node.js reads them.
fn text(bytes: Bytes) -> ByteString {
    ByteString::try_from(bytes.clone()).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
}
