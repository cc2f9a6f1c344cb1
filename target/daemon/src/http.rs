//! The HTTP server of metrics and health. One thread of its own; pollers never know of a request. What is answered is in
//! `http/answers.rs`, who may ask in `http/access.rs`.
//!
//! Everything that a client can make us hold is bounded: connections, the bytes of a request's head, and the time that a
//! handshake, a head, and a connection as a whole may take.

mod access;
mod answers;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

pub use self::access::{Access, AccessError, Secrets};
use crate::health::Health;
use crate::metrics::Exporter;

/// A running server.
pub struct HttpServer {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// What answers are made of.
pub struct Answers {
    /// The metrics.
    pub exporter: Exporter,
    /// Whether the target is ready.
    pub health: Arc<Health>,
    /// Who may ask.
    pub access: Arc<Access>,
}

/// Connections at once. More wait in the kernel's queue. Each may hold the text of one scrape.
const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request's head, and its lines.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEAD_LINES_MAX: usize = 64;
/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long the head of a request may take, and the wait for it.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// A connection ends with the first answer after so long …
const CONNECTION_MAX: Duration = Duration::from_secs(120);
/// … and at the latest so long after that.
const LAST_ANSWER_MAX: Duration = Duration::from_secs(30);
/// After a connection that could not be accepted: descriptors have run out, as a rule.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Binds the address, so that an address in use ends the start.
///
/// # Errors
/// What `bind` said, with the address.
pub fn bind(addr: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(addr).map_err(|error| format!("{addr}: {error}"))
}

impl HttpServer {
    /// Serves on a thread.
    ///
    /// # Errors
    /// If the thread or its event loop cannot be made.
    pub fn start(listener: TcpListener, answers: Answers) -> io::Result<HttpServer> {
        let addr = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("ringside-http".into()).spawn(move || {
            let served = runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    () = listen(&listener, answers) => {}
                    _ = stopped => {} // a scrape under way is cut off: nobody waits for it any more
                }
                io::Result::Ok(())
            });
            if let Err(error) = served {
                tracing::error!("metrics: {error}");
            }
        })?;
        Ok(HttpServer { addr, stop, thread })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends it.
    pub fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

async fn listen(listener: &tokio::net::TcpListener, answers: Answers) {
    let access = Arc::clone(&answers.access);
    let router = answers::router(Arc::new(answers));
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&free).acquire_owned().await.expect("nobody closes it");
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(stream, Arc::clone(&access), router.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("metrics: a connection was not accepted: {error}");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, access: Arc<Access>, router: Router) {
    let _ = stream.set_nodelay(true);
    match access.tls() {
        None => serve(stream, router).await,
        Some(acceptor) => match timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, router).await,
            Ok(Err(error)) => tracing::debug!("metrics: TLS: {error}"),
            Err(_) => tracing::debug!("metrics: TLS: no handshake within {HANDSHAKE_MAX:?}"),
        },
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEAD_LINES_MAX);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    // What goes wrong on a connection is the client's business.
    if timeout(CONNECTION_MAX, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER_MAX, connection).await;
    }
}

#[cfg(test)]
mod tests;
