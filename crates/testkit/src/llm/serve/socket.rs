//! Accepted sockets: no Nagle, and a way to make one end with a reset.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

use std::net::SocketAddr as Addr;

pub(super) struct Sockets(TcpListener);

impl Sockets {
    pub(super) fn new(listener: std::net::TcpListener) -> Self {
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        Self(TcpListener::from_std(listener).expect("a listener can be registered"))
    }
}

impl Listener for Sockets {
    type Io = Socket;
    type Addr = Addr;

    async fn accept(&mut self) -> (Socket, Addr) {
        loop {
            if let Ok((tcp, addr)) = self.0.accept().await {
                // A socket that is gone already is found out soon enough.
                let _ = tcp.set_nodelay(true);
                return (Socket { tcp, breaker: Breaker::default() }, addr);
            }
            // Out of descriptors, for one: others may close theirs.
            tokio::task::yield_now().await;
        }
    }

    fn local_addr(&self) -> io::Result<Addr> {
        self.0.local_addr()
    }
}

/// Given to the handler, to break the connection that it answers on.
#[derive(Clone, Default)]
pub(super) struct Breaker(Arc<AtomicBool>);

impl Breaker {
    /// The connection's end will be a reset.
    pub(super) fn reset(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Connected<IncomingStream<'_, Sockets>> for Breaker {
    fn connect_info(stream: IncomingStream<'_, Sockets>) -> Self {
        stream.io().breaker.clone()
    }
}

pub(super) struct Socket {
    tcp: TcpStream,
    breaker: Breaker,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.breaker.0.load(Ordering::SeqCst) {
            let _ = self.tcp.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.breaker.0.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
