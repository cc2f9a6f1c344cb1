//! The HTTP server of the metrics. One thread of its own; pollers never know of a scrape.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::oneshot;

use crate::metrics::Exporter;

/// A running server.
pub struct HttpServer {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Binds the address, so that an address in use ends the start.
///
/// # Errors
/// What `bind` said, with the address.
pub fn bind(addr: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(addr).map_err(|error| format!("{addr}: {error}"))
}

impl HttpServer {
    /// Serves `/metrics` on a thread.
    ///
    /// # Errors
    /// If the thread or its event loop cannot be made.
    pub fn start(listener: TcpListener, exporter: Exporter) -> io::Result<HttpServer> {
        let addr = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let exporter = Arc::new(exporter);
        let thread = thread::Builder::new().name("ringside-http".into()).spawn(move || {
            let served = runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let server = axum::serve(listener, router(exporter));
                tokio::select! {
                    result = async { server.await } => result,
                    _ = stopped => Ok(()), // a scrape under way is cut off: nobody waits for it any more
                }
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

fn router(exporter: Arc<Exporter>) -> Router {
    let metrics = move || {
        let exporter = Arc::clone(&exporter);
        async move { ([(CONTENT_TYPE, Exporter::CONTENT_TYPE)], exporter.text()).into_response() }
    };
    let index = || async { "ringside: see /metrics\n" };
    Router::new().route("/metrics", get(metrics)).route("/", get(index))
}
