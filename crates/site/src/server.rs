//! Connections: accepted up to a limit, served, and let end when the server is to stop.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::files::Site;
use crate::respond::respond;

/// How much of anything there may be.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Bytes of a request's head. Longer: 431.
    pub head_bytes: usize,
    /// How long a connection may be idle, and how long a request's head may take.
    pub idle: Duration,
    /// How long a client may take nothing of an answer that is on its way.
    pub stalled: Duration,
    /// How long answers under way may take after the server was told to stop.
    pub grace: Duration,
    /// Bytes of files that were compressed, kept for the next request.
    pub compressed_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head_bytes: 32 << 10,
            idle: Duration::from_secs(60),
            stalled: Duration::from_secs(30),
            // a container is killed 10 s after it was asked to end
            grace: Duration::from_secs(8),
            compressed_bytes: 32 << 20,
        }
    }
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Neither threads nor signals.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
    /// The port cannot be listened on.
    #[error("cannot listen on port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// There is no directory to serve.
    #[error("cannot serve {}", root.display())]
    Root {
        /// The directory.
        root: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Serves the directory `root` until `stop` is ready, then lets the answers under way end. Dropping the future closes
/// the listener and leaves open connections to their own tasks.
///
/// # Errors
/// [`ServeError::Root`].
pub async fn serve(
    listener: TcpListener,
    root: &Path,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let site = Site::open(root, limits.compressed_bytes);
    let site = Arc::new(site.map_err(|source| ServeError::Root { root: root.into(), source })?);
    let places = Arc::new(Semaphore::new(limits.connections));
    let connections = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (accept(&listener, &limits).await, place)
        };
        let (stream, place) = tokio::select! {
            accepted = next => accepted,
            () = &mut stop => break,
        };
        let site = Arc::clone(&site);
        let service = service_fn(move |request| {
            let site = Arc::clone(&site);
            async move { Ok::<_, Infallible>(respond(site, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle)
            .max_buf_size(limits.head_bytes)
            .max_header_size(limits.head_bytes)
            .pipeline_flush(true)
            .serve_connection(TokioIo::new(stream), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // an error is the client's: a request that is none (hyper has answered), or a connection that broke
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    // what is not done by then is cut off when the process ends
    let _ = tokio::time::timeout(limits.grace, connections.shutdown()).await;
    Ok(())
}

async fn accept(listener: &TcpListener, limits: &Limits) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // neither can fail on a connected socket
                let _ = stream.set_nodelay(true);
                let stalled = u32::try_from(limits.stalled.as_millis()).unwrap_or(u32::MAX);
                // a client that takes nothing is the kernel's to time: it knows what was taken, we only what was sent
                let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, stalled);
                return stream;
            }
            // nothing tells when there are descriptors or memory again; errors of a connection that is gone come at
            // most once each, and a moment's wait does no harm
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
