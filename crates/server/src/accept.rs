//! The accept loop: TCP_NODELAY, a limit on connections, a time limit on request heads, and an end
//! that loses no request: of what was sent before the end everything is answered.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, Version, header},
    response::Response,
};
use hyper::{body::Incoming, rt::Executor};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use crate::layers::Peer;

/// A client that takes longer to send its request's head is let go.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// For who is connected when the end begins and has sent nothing yet: a proxy connects when it has a request.
const LATE: Duration = Duration::from_millis(500);
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

/// Does the client send anything while there is time for it?
async fn begins_in_time(stream: &TcpStream, stop: &CancellationToken) -> bool {
    let mut begun = pin!(timeout(HEAD_LIMIT, begins(stream)));
    let begun = tokio::select! {
        begun = &mut begun => begun,
        () = stop.cancelled() => timeout(LATE, begun).await.unwrap_or_else(Err),
    };
    matches!(begun, Ok(Ok(())))
}

/// How the end comes, from its announcement to the last word.
#[derive(Clone, Default)]
pub(crate) struct Ending {
    /// Each answer ends its connection, so that nobody has an idle one open when the end comes.
    pub(crate) leaving: Arc<AtomicBool>,
    /// No further connections, and no further requests on those that are there.
    pub(crate) stop: CancellationToken,
    /// Cancelled here, when nobody can connect any more.
    pub(crate) closed: CancellationToken,
    /// Cancelled here, when what runs has had the grace.
    pub(crate) stop_streams: CancellationToken,
    pub(crate) grace: Duration,
}

/// Serves until `stop` is cancelled, then waits up to the grace for what is running, then cancels
/// `stop_streams`, and waits a moment for the streams to say good-bye. No connection is left behind.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    ending: Ending,
) {
    // Also if this ends in a way that nobody meant.
    let closed = ending.closed.clone().drop_guard();
    let server = Server::new(router, ending.clone());
    let connections = Arc::new(Semaphore::new(max_connections));
    loop {
        // At the limit nobody is accepted; new clients wait in the kernel's queue.
        let permit = tokio::select! {
            permit = Arc::clone(&connections).acquire_owned() => permit.ok(),
            () = ending.stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => server.take(stream, peer, permit),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of descriptors, most likely: they come back when connections end.
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // Who is in the kernel's queue is connected as far as they know, and has maybe sent a request.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, peer)) = listener.accept() {
            let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { break };
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                server.take(stream, peer, Some(permit));
            }
        }
    }
    drop(closed);
    server.end(&ending).await;
}

/// What serves the connections.
struct Server {
    router: Router,
    builder: Arc<auto::Builder<Tasks>>,
    tasks: Tasks,
    ending: Ending,
}

impl Server {
    fn new(router: Router, ending: Ending) -> Self {
        let tasks = Tasks::default();
        let mut builder = auto::Builder::new(tasks.clone());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(20));
        Self { router, builder: Arc::new(builder), tasks, ending }
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr, permit: Option<OwnedSemaphorePermit>) {
        // Without it a stream's small frames wait for each other's acknowledgement, about 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let (router, leaving) = (self.router.clone(), Arc::clone(&self.ending.leaving));
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (mut router, leaving) = (router.clone(), Arc::clone(&leaving));
            async move {
                let version = request.version();
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Peer(peer));
                let mut response = match router.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                if leaving.load(Ordering::Relaxed) {
                    end_connection(version, &mut response);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let (builder, stop) = (Arc::clone(&self.builder), self.ending.stop.clone());
        self.tasks.execute(async move {
            let _permit = permit;
            if !begins_in_time(&stream, &stop).await {
                return;
            }
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            let mut connection = pin!(connection.into_owned());
            let ended = tokio::select! {
                // In this order: a request that has come is read before the connection hears of the end.
                biased;
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended badly");
            }
        });
    }

    async fn end(self, ending: &Ending) {
        self.tasks.all.close();
        let running = self.tasks.all.len();
        if running > 0 {
            tracing::info!(connections = running, "waiting for running requests");
        }
        if timeout(ending.grace, self.tasks.all.wait()).await.is_err() {
            tracing::warn!("the grace is over; ending the streams that still run");
            ending.stop_streams.cancel();
            let _ = timeout(LAST_WORDS, self.tasks.all.wait()).await;
        }
        self.tasks.end().await;
    }
}

/// Over HTTP/2 the connection itself tells, when the end comes.
fn end_connection(version: Version, response: &mut Response) {
    if version < Version::HTTP_2 && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        task::JoinHandle,
        time::Instant,
    };

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    struct Started {
        address: SocketAddr,
        ending: Ending,
        serving: JoinHandle<()>,
    }

    async fn start(router: Router) -> Started {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ending = Ending { grace: GRACE, ..Ending::default() };
        let serving = tokio::spawn(serve(listener, router, 10, ending.clone()));
        Started { address, ending, serving }
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
        server.ending.stop.cancel();
        server.serving.await.unwrap();
        assert!(started.elapsed() < GRACE, "{:?}", started.elapsed());
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: loom\r\n\r\n";

    #[tokio::test]
    async fn who_was_connected_when_the_end_came_is_answered_all_the_same() {
        let server = start(app()).await;
        // The end comes before the accept loop has seen any of them.
        let mut clients = Vec::new();
        for _ in 0..5 {
            let mut client = std::net::TcpStream::connect(server.address).unwrap();
            client.write_all(REQUEST).unwrap();
            clients.push(client);
        }
        server.ending.stop.cancel();
        server.serving.await.unwrap();
        assert!(server.ending.closed.is_cancelled());
        for mut client in clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("well"), "{answer}");
        }
        assert!(TcpStream::connect(server.address).await.is_err());
    }

    #[tokio::test]
    async fn a_server_that_is_about_to_go_ends_each_connection_with_its_answer() {
        let server = start(app()).await;
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        let mut answer = vec![0; 4096];
        let len = client.read(&mut answer).await.unwrap();
        let first = String::from_utf8_lossy(&answer[..len]).to_lowercase();
        assert!(!first.contains("connection: close"), "{first}");
        server.ending.leaving.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            client.write_all(REQUEST).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
            // New ones are still let in.
            client = TcpStream::connect(server.address).await.unwrap();
        }
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
        server.ending.stop.cancel();
        server.serving.await.unwrap();
        assert!(dropped.load(Ordering::SeqCst), "it lives on");
    }
}
