//! The accept loop: TCP_NODELAY, a limit on connections, a time limit on request heads, and an end
//! that lets running requests finish.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::layers::Peer;

/// A client that takes longer to send its request's head is let go.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// Serves until `stop` is cancelled, then waits up to `grace` for what is running, then cancels
/// `stop_streams`, and waits a moment for the streams to say good-bye.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    stop: CancellationToken,
    grace: Duration,
    stop_streams: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(20));
    let builder = Arc::new(builder);
    let connections = Arc::new(Semaphore::new(max_connections));
    let graceful = GracefulShutdown::new();
    loop {
        // At the limit nobody is accepted; new clients wait in the kernel's queue.
        let permit = tokio::select! {
            permit = Arc::clone(&connections).acquire_owned() => permit,
            () = stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of descriptors, most likely: they come back when connections end.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Without it a stream's small frames wait for each other's acknowledgement, about 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let router = router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut router = router.clone();
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Peer(peer));
                Ok::<_, Infallible>(match router.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                })
            }
        });
        let connection =
            builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended badly");
            }
            drop(permit);
        });
    }
    drop(listener);
    let running = graceful.count();
    if running > 0 {
        tracing::info!(connections = running, "waiting for running requests");
    }
    let mut finished = std::pin::pin!(graceful.shutdown());
    if tokio::time::timeout(grace, &mut finished).await.is_err() {
        tracing::warn!("the grace is over; ending the streams that still run");
        stop_streams.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(2), &mut finished).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::{Instant, timeout},
    };

    use super::*;

    async fn start(router: Router) -> (std::net::SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let grace = Duration::from_secs(5);
        let streams = CancellationToken::new();
        tokio::spawn(serve(listener, router, 10, stop.clone(), grace, streams));
        (address, stop)
    }

    // Time moves by itself whenever everybody waits, so that half a minute takes no time here.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_end_its_head_is_let_go() {
        let (address, _stop) = start(Router::new().route("/", get(|| async { "well" }))).await;
        let started = Instant::now();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nhost: loom\r\nx-slow: ").await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(3600), slow.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "it is still let in after an hour");
        let waited = started.elapsed();
        assert!(waited >= HEAD_LIMIT && waited < HEAD_LIMIT * 2, "{waited:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
}
