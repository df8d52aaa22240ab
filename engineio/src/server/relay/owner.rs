//! The instance that has a session, where its client has reached another one.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::mailbox::{Mail, Mailbox, PostBody, Reply};
use super::super::websocket::WebSocket;
use super::super::{Application, Handler, Shared};
use super::exchange::{Exchange, Serving};
use super::letter::{Answer, Content, Toward};
use super::line::carry;
use crate::error::RequestError;
use crate::handshake::{Instance, Sid};
use crate::session::{PostDrop, Refusal};

/// Bytes between a session and its end of a line, in each direction.
const LINE_BUFFER_BYTES: usize = 32 * 1024;

type MailboxOf<A> = Arc<Mailbox<<<A as Application>::Handler as Handler>::Mail>>;

impl<A: Application> Shared<A> {
    /// Hands another instance's request to its session.
    pub(super) fn serve(&self, exchange: &Arc<Exchange>, from: Instance, id: u64, content: Content) {
        let refuse = |answer| exchange.tell(from, id, Content::Answer(answer));
        match content {
            Content::Poll(sid) => {
                let Some((mailbox, serving)) = self.begin(exchange, from, id, &sid) else { return };
                let (reply, answered) = oneshot::channel();
                // Where the session has ended, the slot is dropped.
                let _ended = mailbox.push_own(Mail::Poll(reply));
                tokio::spawn(serving.answer(answered, RequestError::UnknownSid.into()));
            }
            // Whoever sends it has another limit than we have.
            Content::Post(_, Ok(body)) if body.len() > self.config.max_payload_bytes => {
                refuse(Answer::Reply(Reply::Refused(Refusal::TooLarge)));
            }
            Content::Post(sid, body) => {
                let Some((mailbox, serving)) = self.begin(exchange, from, id, &sid) else { return };
                let (reply, answered) = oneshot::channel();
                let (body, unless) = posted(body);
                let _ended = mailbox.push_own(Mail::Post(reply, body));
                tokio::spawn(serving.answer(answered, unless));
            }
            Content::Unusable(sid) => refuse(match self.table.find(&sid) {
                Some(_) => Answer::Unusable,
                None => RequestError::UnknownSid.into(),
            }),
            Content::Upgrade(sid) => self.serve_upgrade(exchange, from, id, &sid),
            Content::Cancel | Content::Ack | Content::Answer(_) | Content::Line(..) | Content::Ping | Content::Pong => {
            }
        }
    }

    /// Finds the session of a request, and tells the other instance that it has come.
    fn begin(&self, exchange: &Arc<Exchange>, from: Instance, id: u64, sid: &Sid) -> Option<(MailboxOf<A>, Serving)> {
        let begun = match self.table.find(sid) {
            Some(mailbox) => exchange.serving(from, id).map(|serving| (mailbox, serving)).ok_or(Answer::Overloaded),
            None => Err(RequestError::UnknownSid.into()),
        };
        let (content, begun) = match begun {
            Ok(begun) => (Content::Ack, Some(begun)),
            Err(answer) => (Content::Answer(answer), None),
        };
        exchange.tell(from, id, content);
        begun
    }

    fn serve_upgrade(&self, exchange: &Arc<Exchange>, from: Instance, id: u64, sid: &Sid) {
        let refuse = |answer| exchange.tell(from, id, Content::Answer(answer));
        let Some(mailbox) = self.table.find(sid) else { return refuse(RequestError::UnknownSid.into()) };
        let Some(end) = exchange.line(from, id, Toward::Session) else { return refuse(Answer::Overloaded) };
        let (near, far) = tokio::io::duplex(LINE_BUFFER_BYTES);
        let (held, let_go) = oneshot::channel();
        let websocket = WebSocket::carried(near, held, self.config.max_payload_bytes);
        if mailbox.push_own(Mail::Candidate(Box::new(websocket))).is_err() {
            return refuse(RequestError::UnknownSid.into());
        }
        exchange.tell(from, id, Content::Ack);
        let let_go = async {
            let _dropped = let_go.await;
        };
        tokio::spawn(carry(far, Bytes::new(), let_go, end));
    }
}

/// Returns the body as the session takes it, and how a request ends whose slot the session drops.
fn posted(body: Result<bytestring::ByteString, PostDrop>) -> (PostBody, Answer) {
    match body {
        Ok(body) => (PostBody::Complete(body), RequestError::UnknownSid.into()),
        Err(why) => {
            let (session, coming) = oneshot::channel();
            // The receiver is right here.
            let _told = session.send(Err(why));
            let unless = match why {
                PostDrop::TooLarge => Answer::Reply(Reply::Refused(Refusal::TooLarge)),
                PostDrop::Binary => Answer::Reply(Reply::Refused(Refusal::Empty)),
                PostDrop::Aborted => RequestError::UnknownSid.into(), // nobody reads it
            };
            (PostBody::Coming(coming), unless)
        }
    }
}

impl Serving {
    /// Waits for the session's reply, and sends it. Where the client leaves, the slot is dropped: so the session learns
    /// of it.
    async fn answer(mut self, answered: oneshot::Receiver<Reply>, unless: Answer) {
        let answer = tokio::select! {
            biased;
            reply = answered => reply.map_or(unless, Answer::Reply),
            _left = &mut self.leaves => return,
        };
        self.exchange.tell(self.from, self.id, Content::Answer(answer));
    }
}
