//! Tells systemd, or whoever started us with `NOTIFY_SOCKET`, that the server is ready, alive and going down
//! (sd_notify(3)), and takes the socket that it listens on for us (sd_listen_fds(3)). Without a manager there is
//! nobody to tell, and nothing to take.

use std::{
    env,
    ffi::OsStr,
    io,
    net::TcpListener,
    os::unix::{
        ffi::OsStrExt,
        net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::health::Health;

/// Between two looks while a server that listens is not ready.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub(crate) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear that we are alive.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names.
    pub(crate) fn from_env() -> Self {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, socket = %name.display(), "the service manager cannot be told anything");
                None
            }
        });
        let number = |name: &str| env::var_os(name)?.to_str()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let period = number("WATCHDOG_USEC").filter(|period| ours && *period > 0);
        // Half of it, as systemd advises: one that comes late is no death.
        let watchdog = period.map(|period| Duration::from_micros(period) / 2);
        Self { socket, watchdog }
    }

    /// Says that the server is ready once it is, and from then on that it is alive. That is so whenever this
    /// task is run: a database that is down is nothing that a restart would mend.
    pub(crate) fn follow(&self, health: Health) {
        let Some(socket) = self.socket.as_ref().and_then(|socket| socket.try_clone().ok()) else {
            return;
        };
        let watchdog = self.watchdog;
        tokio::spawn(async move {
            while let Err(error) = health.ready().await {
                tell(&socket, &format!("STATUS={}", error.detail().replace('\n', " ")));
                sleep(LOOK_AGAIN).await;
            }
            tell(&socket, "READY=1\nSTATUS=ready");
            let Some(period) = watchdog else { return };
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                tell(&socket, "WATCHDOG=1");
            }
        });
    }

    /// Says that the server is going down.
    pub(crate) fn stopping(&self) {
        if let Some(socket) = &self.socket {
            tell(socket, "STOPPING=1\nSTATUS=going down");
        }
    }
}

/// The socket of who started us, if it listens for us: while one server is replaced by the next, connections wait
/// there instead of being refused.
///
/// # Errors
/// When what was given is no TCP socket that listens.
pub(crate) fn listener() -> io::Result<Option<TcpListener>> {
    let listener = listenfd::ListenFd::from_env().take_tcp_listener(0)?;
    if let Some(listener) = &listener {
        listener.set_nonblocking(true)?;
    }
    Ok(listener)
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // It is there to be told; should its queue be full, nothing of ours waits for it.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address(name)?)?;
    Ok(socket)
}

/// A path, or with `@` before it a name in the abstract namespace.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', rest @ ..] => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(rest)
        }
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
    }
}

fn tell(socket: &UnixDatagram, state: &str) {
    if let Err(error) = socket.send(state.as_bytes()) {
        tracing::warn!(%error, state, "the service manager was not told");
    }
}
