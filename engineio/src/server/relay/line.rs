//! The bytes of a WebSocket on their way between two instances.
//!
//! Each direction has a window: a sender waits for credit once so many bytes are under way, so that a slow reader slows
//! down its writer as it does over TCP. Parts are numbered. Where one is missing, or an end is silent or gone, the line
//! is broken: both ends let their connection go without a word.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::AcqRel;
use std::task::ready;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::websocket::Scratch;
use super::exchange::Exchange;
use super::letter::{Content, Part, Toward};
use crate::handshake::Instance;

/// What a part of data counts beside its bytes, so that many small ones are bounded too.
const PART_BYTES: usize = 64;

/// What a part counts against the window.
pub(super) fn cost(part: &Part) -> usize {
    match part {
        Part::Data(data) => data.len() + PART_BYTES,
        Part::Credit(_) | Part::End | Part::Broken => 0,
    }
}

/// What one end of a line may send, and what it is to get: a machine.
#[derive(Debug)]
struct Flow {
    window: usize,
    /// What may be sent.
    credit: usize,
    /// What has been taken and not been granted again.
    taken: usize,
    /// The number of the next part to be sent, and of the next to come.
    next_out: u64,
    next_in: u64,
    /// Nothing follows but credit.
    ended_out: bool,
    ended_in: bool,
}

/// A part that cannot be right: one before it is missing, or the other end does not keep to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wrong;

impl Flow {
    fn new(window: usize) -> Self {
        Self { window, credit: window, taken: 0, next_out: 0, next_in: 0, ended_out: false, ended_in: false }
    }

    /// Returns how many bytes may be sent in one part.
    fn room(&self) -> usize {
        if self.ended_out { 0 } else { self.credit.saturating_sub(PART_BYTES) }
    }

    /// Takes account of a part that is sent, and numbers it.
    fn send(&mut self, part: &Part) -> u64 {
        self.credit = self.credit.saturating_sub(cost(part));
        self.ended_out |= matches!(part, Part::End);
        let number = self.next_out;
        self.next_out += 1;
        number
    }

    /// Takes account of a part that has come.
    fn hear(&mut self, number: u64, part: &Part) -> Result<(), Wrong> {
        if number != self.next_in {
            return Err(Wrong);
        }
        self.next_in += 1;
        match part {
            Part::Data(_) if self.ended_in => return Err(Wrong),
            Part::Data(_) => {}
            Part::Credit(bytes) => {
                self.credit += *bytes as usize;
                if self.credit > self.window {
                    return Err(Wrong);
                }
            }
            Part::End => self.ended_in = true,
            Part::Broken => return Err(Wrong),
        }
        Ok(())
    }

    /// Takes account of what has been passed on; returns what is to be granted again, once it is worth a letter.
    fn take(&mut self, bytes: usize) -> Option<u32> {
        self.taken += bytes;
        (self.taken >= self.window / 4).then(|| u32::try_from(std::mem::take(&mut self.taken)).unwrap_or(u32::MAX))
    }
}

/// One end of a line. Dropped before both directions have ended, it breaks the line.
pub(super) struct End {
    exchange: Arc<Exchange>,
    with: Instance,
    id: u64,
    hears: Toward,
    inbox: mpsc::Receiver<(u64, Part)>,
    owed: Arc<AtomicUsize>,
    flow: Flow,
    /// The line that this would have been is another's.
    disowned: bool,
}

impl End {
    pub(super) fn new(
        exchange: Arc<Exchange>,
        (with, id, hears): (Instance, u64, Toward),
        inbox: mpsc::Receiver<(u64, Part)>,
        owed: Arc<AtomicUsize>,
    ) -> Self {
        let flow = Flow::new(exchange.config.line_bytes);
        Self { exchange, with, id, hears, inbox, owed, flow, disowned: false }
    }

    /// Drops it without a word.
    pub(super) fn disown(mut self) {
        self.disowned = true;
    }

    /// Sends a part; an error breaks the line.
    fn send(&mut self, part: Part) -> io::Result<()> {
        let number = self.flow.send(&part);
        let sent = self.exchange.send(self.with, self.id, Content::Line(self.hears.other(), number, part));
        sent.map_err(|_undelivered| io::ErrorKind::BrokenPipe.into())
    }

    /// Takes account of what has been passed on.
    fn took(&mut self, bytes: usize) -> io::Result<()> {
        match self.flow.take(bytes) {
            Some(granted) => {
                self.owed.fetch_sub(granted as usize, AcqRel);
                self.send(Part::Credit(granted))
            }
            None => Ok(()),
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.exchange.lines.fetch_sub(1, AcqRel);
        if self.disowned {
            return;
        }
        let known = self.exchange.forget_line(self.with, self.id, self.hears);
        if known && !(self.flow.ended_in && self.flow.ended_out) {
            self.exchange.tell(self.with, self.id, Content::Line(self.hears.other(), 0, Part::Broken));
        }
    }
}

/// How long a line may go on once one direction has ended, or its session is over, before it is cut: longer than a
/// WebSocket takes to say goodbye.
const LINGER: Duration = Duration::from_secs(3);

/// Carries what a connection says to the other end of its line, and what comes from there to the connection, until both
/// directions have ended or the line breaks. `first` has been read from the connection already; `let_go` is ready when
/// nobody is at its other end any more, which is not to be seen while nothing may be sent.
pub(super) async fn carry<S>(connection: S, first: Bytes, let_go: impl Future<Output = ()>, mut end: End)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Whatever went wrong, both sides let go.
    let _broken = carry_on(connection, first, let_go, &mut end).await;
}

async fn carry_on<S>(
    connection: S,
    mut unsent: Bytes,
    let_go: impl Future<Output = ()>,
    end: &mut End,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut let_go = pin!(let_go);
    let (mut reader, mut writer) = tokio::io::split(connection);
    let mut unwritten: VecDeque<Bytes> = VecDeque::new();
    let mut written_all = false;
    let mut lingers: Option<Instant> = None;
    loop {
        if end.flow.ended_in && unwritten.is_empty() && !written_all {
            writer.shutdown().await?;
            written_all = true;
        }
        if written_all && end.flow.ended_out {
            return Ok(());
        }
        if lingers.is_none() && end.flow.ended_out {
            lingers = Some(Instant::now() + LINGER);
        }
        let room = end.flow.room();
        if !unsent.is_empty() && room > 0 {
            let part = unsent.split_to(unsent.len().min(room));
            end.send(Part::Data(part))?;
            continue;
        }
        tokio::select! {
            part = end.inbox.recv() => {
                let (number, part) = part.ok_or(io::ErrorKind::ConnectionAborted)?;
                end.flow.hear(number, &part).map_err(|_wrong| io::ErrorKind::InvalidData)?;
                if let Part::Data(data) = part {
                    unwritten.push_back(data);
                }
            }
            read = read_some(&mut reader, room), if room > 0 => {
                let read = read?;
                end.send(if read.is_empty() { Part::End } else { Part::Data(read) })?;
            }
            written = write_some(&mut writer, unwritten.front()) => {
                let written = written?;
                if let Some(data) = unwritten.front_mut() {
                    data.advance(written);
                    let whole = data.is_empty();
                    if whole {
                        unwritten.pop_front();
                    }
                    end.took(written + if whole { PART_BYTES } else { 0 })?;
                }
            }
            () = &mut let_go, if lingers.is_none() => lingers = Some(Instant::now() + LINGER),
            () = sleep_until(lingers) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Reads what there is, through the buffer of the thread: an idle line has none.
async fn read_some(reader: &mut (impl AsyncRead + Unpin), max: usize) -> io::Result<Bytes> {
    poll_fn(|cx| {
        let mut scratch = Scratch::take();
        let max = max.min(scratch.bytes().len());
        let mut buffer = ReadBuf::new(&mut scratch.bytes()[..max]);
        ready!(Pin::new(&mut *reader).poll_read(cx, &mut buffer))?;
        std::task::Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
    .await
}

/// Writes what the connection takes; waits for ever where there is nothing.
async fn write_some(writer: &mut (impl AsyncWrite + Unpin), data: Option<&Bytes>) -> io::Result<usize> {
    match data {
        // An empty part is done without.
        Some(data) if data.is_empty() => Ok(0),
        Some(data) => match writer.write(data).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        },
        None => pending().await,
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(len: usize) -> Part {
        Part::Data(vec![b'x'; len].into())
    }

    #[test]
    fn a_sender_waits_for_credit() {
        let mut flow = Flow::new(1000);
        assert_eq!(flow.room(), 936);
        assert_eq!((flow.send(&data(500)), flow.send(&data(300))), (0, 1));
        assert_eq!(flow.room(), 8);
        assert_eq!(flow.send(&data(8)), 2);
        assert_eq!(flow.room(), 0);
        assert_eq!(flow.hear(0, &Part::Credit(564)), Ok(()));
        assert_eq!(flow.room(), 500);
        assert_eq!(flow.send(&Part::End), 3);
        assert_eq!(flow.room(), 0);
    }

    #[test]
    fn what_is_taken_is_granted_again_a_quarter_of_the_window_at_a_time() {
        let mut flow = Flow::new(1000);
        assert_eq!([flow.take(100), flow.take(149), flow.take(1), flow.take(249)], [None, None, Some(250), None]);
    }

    #[test]
    fn a_part_out_of_its_order_is_wrong() {
        for number in [0, 2] {
            let mut flow = Flow::new(1000);
            assert_eq!(flow.hear(0, &data(1)), Ok(()));
            assert_eq!(flow.hear(number, &data(1)), Err(Wrong));
        }
    }

    #[test]
    fn nothing_but_credit_follows_an_end() {
        let mut flow = Flow::new(1000);
        flow.send(&data(10));
        assert_eq!(flow.hear(0, &Part::End), Ok(()));
        assert_eq!(flow.hear(1, &Part::Credit(74)), Ok(()));
        assert_eq!(flow.hear(2, &data(0)), Err(Wrong));
    }

    #[test]
    fn more_credit_than_there_can_be_is_wrong() {
        let mut flow = Flow::new(1000);
        assert_eq!(flow.hear(0, &Part::Credit(1)), Err(Wrong));
    }
}
