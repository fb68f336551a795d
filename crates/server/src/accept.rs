//! The accept loop: TCP_NODELAY, a limit on connections, a time limit on request heads, and an end
//! that lets running requests finish.

use std::{convert::Infallible, future::Future, io, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, rt::Executor};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use crate::layers::Peer;

/// A client that takes longer to send its request's head is let go.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// A moment for streams to say good-bye, and another for what they leave behind.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What an HTTP/2 client begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The tasks of all connections, so that none outlives the server.
#[derive(Clone, Default)]
struct Tasks {
    all: TaskTracker,
    end: CancellationToken,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        // A token of its own: each poll looks at it behind a lock, which all connections would share.
        let end = self.end.child_token();
        // On the heap, because every future around another has room for it twice.
        let task = Box::pin(task);
        self.all.spawn(async move { end.run_until_cancelled_owned(task).await.map(drop) });
    }
}

impl Tasks {
    /// Drops what still runs, with all that it holds: a stream whose client does not read it is
    /// entered into the account only when it is dropped.
    async fn end(self) {
        self.end.cancel();
        self.all.close();
        if timeout(LAST_WORDS, self.all.wait()).await.is_err() {
            tracing::warn!(tasks = self.all.len(), "some connections did not end");
        }
    }
}

/// Resolves when the client has sent enough to tell its protocol. hyper has no limit of time for this.
async fn begins(stream: &TcpStream) -> io::Result<()> {
    let mut head = [0; PREFACE.len()];
    loop {
        let len = stream.peek(&mut head).await?;
        let sent = head.get(..len).unwrap_or_default();
        if sent.is_empty() || sent.len() == PREFACE.len() || !PREFACE.starts_with(sent) {
            return Ok(());
        }
        // There is something to read all the time; whoever sends so little is in no hurry.
        sleep(Duration::from_millis(20)).await;
    }
}

/// Serves until `stop` is cancelled, then waits up to `grace` for what is running, then cancels
/// `stop_streams`, and waits a moment for the streams to say good-bye. No connection is left behind.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    stop: CancellationToken,
    grace: Duration,
    stop_streams: CancellationToken,
) {
    let tasks = Tasks::default();
    let mut builder = auto::Builder::new(tasks.clone());
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
                sleep(Duration::from_millis(50)).await;
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
        let (builder, watcher, stop) = (Arc::clone(&builder), graceful.watcher(), stop.clone());
        tasks.execute(async move {
            let _permit = permit;
            let begun = stop.run_until_cancelled(timeout(HEAD_LIMIT, begins(&stream))).await;
            if !matches!(begun, Some(Ok(Ok(())))) {
                return;
            }
            let connection =
                builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
            if let Err(error) = Box::pin(watcher.watch(connection)).await {
                tracing::debug!(%error, "a connection ended badly");
            }
        });
    }
    drop(listener);
    let running = graceful.count();
    if running > 0 {
        tracing::info!(connections = running, "waiting for running requests");
    }
    let mut finished = std::pin::pin!(graceful.shutdown());
    if timeout(grace, &mut finished).await.is_err() {
        tracing::warn!("the grace is over; ending the streams that still run");
        stop_streams.cancel();
        let _ = timeout(LAST_WORDS, &mut finished).await;
    }
    tasks.end().await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        task::JoinHandle,
        time::Instant,
    };

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    struct Server {
        address: std::net::SocketAddr,
        stop: CancellationToken,
        serving: JoinHandle<()>,
    }

    async fn start(router: Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let streams = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router, 10, stop.clone(), GRACE, streams));
        Server { address, stop, serving }
    }

    fn app() -> Router {
        Router::new().route("/", get(|| async { "well" }))
    }

    // Time moves by itself whenever everybody waits, so that half a minute takes no time here.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_end_its_head_is_let_go() {
        let server = start(app()).await;
        for sent in [&b"GET / HTTP/1.1\r\nhost: loom\r\nx-slow: "[..], b"", b"PRI * HTTP/2.0"] {
            let started = Instant::now();
            let mut slow = TcpStream::connect(server.address).await.unwrap();
            slow.write_all(sent).await.unwrap();
            let mut answer = Vec::new();
            let read = timeout(Duration::from_secs(3600), slow.read_to_end(&mut answer)).await;
            assert!(read.is_ok(), "it is still let in after an hour: {sent:?}");
            let waited = started.elapsed();
            assert!(waited >= HEAD_LIMIT && waited < HEAD_LIMIT * 2, "{waited:?}: {sent:?}");
            assert!(!answer.starts_with(b"HTTP/1.1 200"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_are_silent_or_idle_do_not_hold_up_the_end() {
        let server = start(app()).await;
        let _silent = TcpStream::connect(server.address).await.unwrap();
        let mut idle = TcpStream::connect(server.address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: loom\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        idle.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        let started = Instant::now();
        server.stop.cancel();
        server.serving.await.unwrap();
        assert!(started.elapsed() < GRACE, "{:?}", started.elapsed());
    }

    struct Held(Arc<AtomicBool>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_nobody_reads_is_dropped_before_the_server_has_ended() {
        let dropped = Arc::new(AtomicBool::new(false));
        let held = Arc::clone(&dropped);
        let endless = move || async move {
            let held = Held(held);
            Body::from_stream(futures::stream::repeat_with(move || {
                let _ = &held;
                Ok::<_, Infallible>(bytes::Bytes::from_static(&[b'x'; 64 << 10]))
            }))
        };
        let server = start(Router::new().route("/", get(endless))).await;
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: loom\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        client.read_exact(&mut answer).await.unwrap();
        server.stop.cancel();
        server.serving.await.unwrap();
        assert!(dropped.load(Ordering::SeqCst), "it lives on");
    }
}
