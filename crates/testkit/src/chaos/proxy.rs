//! A TCP proxy that is slow, cuts, refuses or swallows when told to.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UnixStream},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::background::Background;

/// What the proxy leads to.
#[derive(Clone, Debug)]
pub enum Upstream {
    Tcp(SocketAddr),
    /// As PostgreSQL's `.s.PGSQL.5432`.
    Unix(PathBuf),
}

impl From<SocketAddr> for Upstream {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

impl From<PathBuf> for Upstream {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path)
    }
}

/// A running proxy on a port of 127.0.0.1 that it keeps; dropping it cuts everything.
pub struct TcpProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    refusing: Mutex<Option<CancellationToken>>,
    background: Background,
    /// Bound and not listening: nobody else gets the port while new connections are refused.
    _reserved: TcpSocket,
}

struct Shared {
    upstream: Upstream,
    weather: watch::Sender<Weather>,
    /// Cancelled, and replaced, to cut the connections that hold it.
    cut: Mutex<CancellationToken>,
    open: watch::Sender<usize>,
}

#[derive(Clone, Copy, Default)]
struct Weather {
    delay: Duration,
    frozen: bool,
}

impl TcpProxy {
    pub fn start(upstream: impl Into<Upstream>) -> io::Result<Self> {
        let background = Background::start("tcp-proxy");
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            weather: watch::Sender::default(),
            cut: Mutex::default(),
            open: watch::Sender::new(0),
        });
        let reserved = {
            let _in_runtime = background.handle().enter();
            socket(([127, 0, 0, 1], 0).into())?
        };
        let addr = reserved.local_addr()?;
        let proxy =
            Self { addr, shared, refusing: Mutex::new(None), background, _reserved: reserved };
        proxy.resume()?;
        Ok(proxy)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        *self.shared.open.borrow()
    }

    /// From now on every byte arrives so much later, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.shared.weather.send_modify(|weather| weather.delay = delay);
    }

    /// From now on nothing gets through, and nothing is lost: all is sent after [`Self::thaw`].
    pub fn freeze(&self) {
        self.shared.weather.send_modify(|weather| weather.frozen = true);
    }

    pub fn thaw(&self) {
        self.shared.weather.send_modify(|weather| weather.frozen = false);
    }

    /// Resets all connections; new ones are still accepted.
    pub fn cut(&self) {
        std::mem::take(&mut *self.shared.cut.lock().unwrap()).cancel();
    }

    /// New connections are refused from the moment this returns; the open ones stay.
    pub async fn refuse(&self) {
        let Some(stop) = self.refusing.lock().unwrap().take() else { return };
        stop.cancel();
        // The kernel refuses once the listener is gone, not when it has been told to go.
        while TcpStream::connect(self.addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    /// New connections are accepted again.
    pub fn resume(&self) -> io::Result<()> {
        let mut stop = self.refusing.lock().unwrap();
        if stop.is_some() {
            return Ok(());
        }
        let listener = {
            let _in_runtime = self.background.handle().enter();
            socket(self.addr)?.listen(1024)?
        };
        let token = CancellationToken::new();
        let shared = self.shared.clone();
        self.background.spawn({
            let token = token.clone();
            async move {
                tokio::select! {
                    () = accept(listener, shared) => {}
                    () = token.cancelled() => {}
                }
            }
        });
        *stop = Some(token);
        Ok(())
    }
}

fn socket(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        // Taken here: a cut that comes after this accept is meant for this connection too.
        let cut = shared.cut.lock().unwrap().clone();
        let shared = shared.clone();
        tokio::spawn(async move {
            shared.open.send_modify(|open| *open += 1);
            let _ = connection(client, &shared, &cut).await;
            shared.open.send_modify(|open| *open -= 1);
        });
    }
}

async fn connection(
    mut client: TcpStream,
    shared: &Shared,
    cut: &CancellationToken,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (from, to) = client.split();
    let weather = &shared.weather;
    let both_ways = async {
        match &shared.upstream {
            Upstream::Tcp(addr) => {
                let mut upstream = TcpStream::connect(addr).await?;
                upstream.set_nodelay(true)?;
                let (up_from, up_to) = upstream.split();
                tokio::try_join!(carry(from, up_to, weather), carry(up_from, to, weather))
            }
            Upstream::Unix(path) => {
                let mut upstream = UnixStream::connect(path).await?;
                let (up_from, up_to) = upstream.split();
                tokio::try_join!(carry(from, up_to, weather), carry(up_from, to, weather))
            }
        }
    };
    let result = tokio::select! {
        result = both_ways => result.map(|_| ()),
        () = cut.cancelled() => Err(io::ErrorKind::ConnectionReset.into()),
    };
    if result.is_err() {
        client.set_zero_linger()?;
    }
    result
}

/// One direction. What arrives is stamped, so that a delay adds latency but takes no throughput.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    weather: &watch::Sender<Weather>,
) -> io::Result<()> {
    let (queue, mut arrivals) = mpsc::channel::<(Instant, Bytes)>(64);
    let read = async move {
        let mut buffer = BytesMut::with_capacity(64 * 1024);
        while from.read_buf(&mut buffer).await? > 0 {
            if queue.send((Instant::now(), buffer.split().freeze())).await.is_err() {
                break;
            }
            buffer.reserve(64 * 1024);
        }
        io::Result::Ok(())
    };
    let write = async {
        let mut weather = weather.subscribe();
        while let Some((at, bytes)) = arrivals.recv().await {
            let delay = weather.borrow().delay;
            if !delay.is_zero() {
                sleep_until(at + delay).await;
            }
            let thawed = weather.wait_for(|weather| !weather.frozen).await;
            drop(thawed.map_err(io::Error::other)?);
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}
