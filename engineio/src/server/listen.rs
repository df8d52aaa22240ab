//! Serving HTTP/1.1 with upgrades over a listener, within limits.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Sleep;

use super::gather::gather;
use super::{Body, Reset};

/// Limits on HTTP connections, for [`serve`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Most HTTP connections at once; one beyond is closed without an answer. WebSockets do not count: they have left
    /// HTTP, and [`Config::max_sessions`](crate::Config) bounds them. Default: 100,000.
    pub max_connections: usize,
    /// How long a new connection may take until the header of its first request is complete. Default: 30 s.
    pub header_timeout: Duration,
    /// How long a connection may stay idle after an answer: by then the header of its next request must be complete, else
    /// the connection is closed. It also applies to the first request, where it is shorter than
    /// [`header_timeout`](Self::header_timeout). Default: 180 s.
    ///
    /// A proxy keeps idle connections and sends the next request over one of them. If the server closes a connection at
    /// the same moment, that request fails, and a proxy must not send a POST again. The proxy therefore has to be the side
    /// that closes: this time must be longer than the idle time of every proxy in front of the server.
    pub keep_alive_timeout: Duration,
    /// Most bytes of a request's header. Default: 16 KiB. At least 8 KiB.
    pub max_header_bytes: usize,
    /// How long a client may take nothing of an answer that is being written. Default: 30 s.
    pub write_timeout: Duration,
    /// How long requests in progress may take once the shutdown has begun. Default: 10 s.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 100_000,
            header_timeout: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(180),
            max_header_bytes: 16 * 1024,
            write_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// Serves until `shutdown` is ready, then lets requests in progress finish within [`Limits::shutdown_timeout`] and
/// breaks off the rest. WebSockets go on: [`Server::close`](super::Server::close) ends them.
///
/// A [`Reset`] from the service breaks the connection off without an answer. Failing to accept (too many open files,
/// say) is logged and tried again; it never ends the server.
pub async fn serve<S, F>(listener: TcpListener, limits: Limits, service: S, shutdown: impl Future<Output = ()>)
where
    S: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, Reset>> + Send + 'static,
{
    let mut http = http1::Builder::new();
    // The time that hyper gives each header begins with the end of the answer before it, so it is that of an idle
    // connection. The first header has a shorter one, below.
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.keep_alive_timeout)
        .max_buf_size(limits.max_header_bytes.max(MIN_BUFFER_BYTES));
    let (phase, phases) = watch::channel(Phase::Serving);
    let max = u32::try_from(limits.max_connections.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
    let places = Arc::new(Semaphore::new(max as usize));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue; // dropping the stream closes it
        };
        // Packets are small and urgent. Where the option cannot be set the connection is lost anyway.
        let _lost = stream.set_nodelay(true);
        let service = service.clone();
        let has_asked = Arc::new(AtomicBool::new(false));
        let asking = Arc::clone(&has_asked);
        let connection = http
            .serve_connection(
                TokioIo::new(Connection { stream, write_timeout: limits.write_timeout, stalled: None }),
                service_fn(move |request| {
                    asking.store(true, Ordering::Relaxed);
                    service(request, peer)
                }),
            )
            .with_upgrades();
        let mut phases = phases.clone();
        let header_timeout = limits.header_timeout;
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let mut first_header = pin!(tokio::time::sleep(header_timeout));
            let is_stopping = loop {
                tokio::select! {
                    biased;
                    // An error is the peer's doing (a reset, a header too large or too late) or our own `Reset`.
                    _ended = &mut connection => break false,
                    _ = phases.wait_for(|phase| *phase != Phase::Serving) => break true,
                    () = &mut first_header, if !first_header.is_elapsed() => {
                        if !has_asked.load(Ordering::Relaxed) {
                            break false; // dropping the connection closes it
                        }
                    }
                }
            };
            if is_stopping {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    _ended = connection => {}
                    _ = phases.wait_for(|phase| *phase == Phase::Over) => {}
                }
            }
            drop(place);
        });
    }
    drop(listener);
    phase.send_replace(Phase::Finishing);
    // All places are free again when the last connection has ended.
    if tokio::time::timeout(limits.shutdown_timeout, places.acquire_many(max)).await.is_err() {
        phase.send_replace(Phase::Over);
        let _all_broken_off = places.acquire_many(max).await;
    }
}

/// How far [`serve`] has come. Dropping it is the last phase.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    Finishing,
    Over,
}

/// A TCP connection that fails when its peer takes nothing of what is written for too long: hyper would wait forever
/// and hold the answer meanwhile.
pub(super) struct Connection {
    stream: TcpStream,
    write_timeout: Duration,
    /// Set while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn limit<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.limit(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut small = [0; SMALL_ANSWER_BYTES]; // its head and its body
        let len = gather(bufs.iter().map(|buf| &**buf), &mut small);
        let written = if len == bufs.iter().map(|buf| buf.len()).sum::<usize>() {
            Pin::new(&mut self.stream).poll_write(cx, &small[..len])
        } else {
            Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
        };
        self.limit(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const SMALL_ANSWER_BYTES: usize = 2048;

/// The least that hyper allows.
const MIN_BUFFER_BYTES: usize = 8 * 1024;

/// Errors of one connection are passed over; others (no file descriptors, no memory) are given time to end.
async fn pause_after(error: &io::Error) {
    let of_one_connection =
        [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionRefused];
    if !of_one_connection.contains(&error.kind()) {
        tracing::warn!(%error, "cannot accept connections for the moment: raise the limit of open files, or lower the number of clients");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl From<Infallible> for Reset {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, timeout};

    use super::*;

    /// Serves `ok` until the test ends.
    async fn serving(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = |request: Request<Incoming>, _peer| async move {
            let _body = request.into_body().collect().await;
            Ok::<_, Reset>(Response::new(Full::from("ok")))
        };
        tokio::spawn(serve(listener, limits, service, std::future::pending()));
        address
    }

    async fn ask(stream: &mut TcpStream) {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "the connection is closed");
        }
    }

    /// How long it takes until the server closes the connection.
    async fn closed_after(stream: &mut TcpStream) -> Duration {
        let began = Instant::now();
        let read = timeout(Duration::from_secs(10), stream.read(&mut [0; 64])).await.expect("the server closes it");
        assert_eq!(read.unwrap_or(0), 0, "it is closed without an answer");
        began.elapsed()
    }

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_millis(600);

    #[tokio::test]
    async fn an_idle_connection_is_kept_for_longer_than_a_header_may_take() {
        let limits = Limits { header_timeout: SHORT, keep_alive_timeout: LONG, ..Limits::default() };
        let mut stream = TcpStream::connect(serving(limits).await).await.unwrap();
        for _ in 0..3 {
            ask(&mut stream).await;
            tokio::time::sleep(2 * SHORT).await; // idle for longer than the time of a header
        }
        ask(&mut stream).await;
        let idle = closed_after(&mut stream).await;
        assert!(idle >= LONG - SHORT / 2, "{idle:?}");
    }

    #[tokio::test]
    async fn a_new_connection_has_the_short_time_for_its_first_header() {
        let limits = Limits { header_timeout: SHORT, keep_alive_timeout: Duration::from_secs(60), ..Limits::default() };
        let address = serving(limits).await;
        for begun in ["", "GET / HTTP/1.1\r\nhost: "] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            let held = closed_after(&mut stream).await;
            assert!(held < Duration::from_secs(5), "{held:?}");
        }
    }

    #[tokio::test]
    async fn a_header_that_never_ends_on_a_kept_connection_is_cut_off_with_the_idle_time() {
        let limits = Limits { keep_alive_timeout: SHORT, ..Limits::default() };
        let mut stream = TcpStream::connect(serving(limits).await).await.unwrap();
        ask(&mut stream).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
        assert!(closed_after(&mut stream).await < Duration::from_secs(5));
    }
}
