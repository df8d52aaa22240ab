//! The instance that a client has reached, where another one has the session.

use std::future;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::super::mailbox::Reply;
use super::super::polling::{self, BodyError, Reading};
use super::super::{Application, Body, Reset, Server, empty, websocket};
use super::exchange::{Exchange, Held};
use super::letter::{Answer, Content, Toward};
use super::line::carry;
use crate::error::RequestError;
use crate::handshake::{Instance, Intent, Sid};
use crate::session::{PostDrop, Refusal};

impl<A: Application> Server<A> {
    /// Returns where the session of a request is, where that is not here.
    pub(in super::super) fn elsewhere(&self, intent: &Intent) -> Option<(Arc<Exchange>, Instance)> {
        let exchange = self.shared.exchange.as_ref()?;
        let to = intent.sid()?.instance().filter(|instance| *instance != exchange.here())?;
        Some((Arc::clone(exchange), to))
    }

    /// Has a request answered by the instance that has its session.
    pub(in super::super) async fn pass_on<B>(
        &self,
        (exchange, to): (Arc<Exchange>, Instance),
        intent: Intent,
        parts: &mut Parts,
        body: B,
    ) -> Result<Response<Body>, Reset>
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
    {
        self.stats().count_relayed();
        let answer = match intent {
            Intent::Poll(sid) => self.ask(&exchange, to, Content::Poll(sid)).await,
            Intent::Post(sid) => return self.pass_on_post(&exchange, to, sid, &parts.headers, body).await,
            Intent::Unusable(sid) => self.ask(&exchange, to, Content::Unusable(sid)).await,
            Intent::Upgrade(sid) => return self.pass_on_upgrade(&exchange, to, sid, parts).await,
            Intent::Open(_) | Intent::Mistaken => RequestError::BadRequest.into(), // no session's: they stay here
        };
        self.conclude(answer, false)
    }

    /// Asks another instance, and waits for as long as its session may take.
    async fn ask(&self, exchange: &Arc<Exchange>, to: Instance, content: Content) -> Answer {
        let Some(mut pending) = exchange.ask(to) else { return Answer::Overloaded };
        if exchange.send(to, pending.id, content).is_err() {
            return Answer::Overloaded;
        }
        let config = self.config();
        // An answer comes in place of an ack, too: then waiting for that ends with an error.
        if timeout(config.relay.ack_timeout, &mut pending.ack).await.is_err() {
            return RequestError::UnknownSid.into();
        }
        // A session that lives pings a client that polls, and closes one that does not answer.
        let patience = config.ping_interval.saturating_add(config.ping_timeout);
        let answered = timeout(patience.saturating_add(config.relay.silence_timeout), &mut pending.answer).await;
        answered.ok().and_then(Result::ok).unwrap_or(RequestError::UnknownSid.into())
    }

    /// Turns the other instance's answer into ours.
    fn conclude(&self, answer: Answer, websocket: bool) -> Result<Response<Body>, Reset> {
        match answer {
            Answer::Reply(Reply::Refused(Refusal::Request(error @ RequestError::UnknownSid))) => {
                Ok(self.refuse(error, websocket))
            }
            Answer::Reply(reply) => polling::respond(reply),
            Answer::Unusable => Ok(empty(StatusCode::INTERNAL_SERVER_ERROR)),
            Answer::Overloaded => {
                self.stats().count_overload();
                Ok(empty(StatusCode::SERVICE_UNAVAILABLE))
            }
        }
    }

    /// Reads a body to its end, and only then asks: the session hears of a request once.
    async fn pass_on_post<B>(
        &self,
        exchange: &Arc<Exchange>,
        to: Instance,
        sid: Sid,
        headers: &HeaderMap,
        mut body: B,
    ) -> Result<Response<Body>, Reset>
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
    {
        let config = self.config();
        if let Some(refusal) = polling::refuse_unread(&body, config) {
            return Ok(refusal);
        }
        let mut held = Held::new(exchange);
        let unless_whole = Unfinished { exchange, to, sid: Some(sid) };
        let body = if polling::is_binary(headers) {
            Err(PostDrop::Binary)
        } else {
            let mut reading = Reading::new(config.max_payload_bytes);
            let whole = polling::while_it_comes(config.body_timeout, |cx| {
                let read = reading.poll(cx, &mut body);
                let bytes = if let Poll::Ready(Ok(whole)) = &read { whole.len() } else { reading.len() };
                let read = if held.grow_to(bytes) { read.map(Some) } else { Poll::Ready(None) };
                (read, reading.received)
            });
            match whole.await {
                Some(Some(Ok(whole))) => Ok(whole),
                Some(Some(Err(BodyError::TooLarge))) => Err(PostDrop::TooLarge),
                Some(Some(Err(BodyError::Lost))) => return Err(Reset),
                Some(None) => {
                    let mut response = self.conclude(Answer::Overloaded, false)?;
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    return Ok(response);
                }
                None => return Ok(polling::too_slow()),
            }
        };
        unless_whole.finish();
        self.conclude(self.ask(exchange, to, Content::Post(sid, body)).await, false)
    }

    /// Lets a WebSocket try to become the transport of a session there.
    async fn pass_on_upgrade(
        &self,
        exchange: &Arc<Exchange>,
        to: Instance,
        sid: Sid,
        parts: &mut Parts,
    ) -> Result<Response<Body>, Reset> {
        let (response, switch) = match self.accept_websocket(parts) {
            Ok(accepted) => accepted,
            Err(refusal) => return Ok(*refusal),
        };
        let Some(mut pending) = exchange.ask(to) else { return self.conclude(Answer::Overloaded, true) };
        let Some(end) = exchange.line(to, pending.id, Toward::Client) else {
            return self.conclude(Answer::Overloaded, true);
        };
        if exchange.send(to, pending.id, Content::Upgrade(sid)).is_err() {
            return self.conclude(Answer::Overloaded, true);
        }
        match timeout(self.config().relay.ack_timeout, &mut pending.ack).await {
            Ok(Ok(())) => pending.settle(),
            // Refused, or it has come to an end otherwise.
            Ok(Err(_)) => {
                let answer = pending.answer.try_recv().unwrap_or(RequestError::UnknownSid.into());
                return self.conclude(answer, true);
            }
            Err(_elapsed) => return self.conclude(RequestError::UnknownSid.into(), true),
        }
        let upgrade_timeout = self.config().upgrade_timeout;
        tokio::spawn(async move {
            // A handshake that is given up breaks the line.
            if let Ok(Ok(upgraded)) = timeout(upgrade_timeout, switch).await {
                match websocket::into_tcp(upgraded) {
                    Ok((stream, read)) => carry(stream, read, future::pending(), end).await,
                    Err(upgraded) => carry(TokioIo::new(upgraded), Bytes::new(), future::pending(), end).await,
                }
            }
        });
        Ok(response)
    }
}

/// A POST that is being read. Dropped before it is whole, since its client left or took too long, it tells the session.
struct Unfinished<'a> {
    exchange: &'a Exchange,
    to: Instance,
    sid: Option<Sid>,
}

impl Unfinished<'_> {
    fn finish(mut self) {
        self.sid = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(sid) = self.sid {
            let id = self.exchange.next_id();
            self.exchange.tell(self.to, id, Content::Post(sid, Err(PostDrop::Aborted)));
        }
    }
}
