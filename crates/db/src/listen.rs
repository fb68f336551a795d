//! LISTEN on a connection of its own, for all who wait for word from other replicas.
//!
//! PostgreSQL forgets whoever was away: after each reconnect everybody is told to read again.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, stream};
use loom_common_secret::SecretString;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{
    sync::{Notify, broadcast, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{announce::READ_AGAIN, error::OpenError, pool};

/// Words that a slow subscriber may fall behind before it is told to read again.
const BACKLOG: usize = 1024;
const CONNECT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What [`Hub::probe`] says to itself.
const PROBE: &str = "loom_probe";

/// Something a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The payload of one NOTIFY.
    Said(Arc<str>),
    /// Words may have been missed: the truth is in the tables.
    ReadAgain,
}

/// All channels on one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    channels: HashMap<&'static str, broadcast::Sender<Signal>>,
    connected: watch::Sender<bool>,
    reconnect: Notify,
    stop: CancellationToken,
}

/// What comes in on one channel.
#[derive(Debug)]
pub struct Subscription(broadcast::Receiver<Signal>);

impl Subscription {
    /// The next signal; None when the hub has stopped.
    pub async fn next(&mut self) -> Option<Signal> {
        match self.0.recv().await {
            Ok(Signal::Said(word)) if *word == *READ_AGAIN => Some(Signal::ReadAgain),
            Ok(signal) => Some(signal),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Signal::ReadAgain),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// All signals from now on, until the hub stops.
    pub fn signals(self) -> impl Stream<Item = Signal> + Send {
        stream::unfold(self, |mut said| async move {
            let signal = said.next().await?;
            Some((signal, said))
        })
    }
}

impl Hub {
    /// Listens on `channels` until stopped; a database that is out of reach is tried again for ever.
    /// `direct_url` must not lead through a transaction pooler, which loses LISTEN.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn start(
        direct_url: &SecretString,
        channels: &[&'static str],
    ) -> Result<(Self, JoinHandle<()>), OpenError> {
        let options = pool::options(direct_url).map_err(OpenError::Url)?;
        let hub = Self::silent(channels);
        let task = tokio::spawn(run(hub.clone(), options));
        Ok((hub, task))
    }

    /// A hub that hears nothing, for what only needs the shape of things.
    pub fn silent(channels: &[&'static str]) -> Self {
        let sender = |&channel: &&'static str| (channel, broadcast::channel(BACKLOG).0);
        Self(Arc::new(Inner {
            channels: channels.iter().chain([&PROBE]).map(sender).collect(),
            connected: watch::Sender::new(false),
            reconnect: Notify::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// What is said on `channel` from now on. One that the hub was not started with stays silent.
    pub fn subscribe(&self, channel: &str) -> Subscription {
        let sender = self.0.channels.get(channel);
        debug_assert!(sender.is_some(), "the hub does not listen on {channel}");
        Subscription(sender.map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe))
    }

    /// Has `hear` hear what is said on `channel` from now on, until `stop`, or the hub itself stops.
    pub fn follow(
        &self,
        channel: &str,
        stop: CancellationToken,
        mut hear: impl FnMut(Signal) + Send + 'static,
    ) {
        let mut said = self.subscribe(channel);
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            while let Some(signal) = said.next().await {
                hear(signal);
            }
        }));
    }

    pub fn is_connected(&self) -> bool {
        *self.0.connected.borrow()
    }

    /// Waits until the hub listens.
    pub async fn connected(&self) {
        let _ = self.0.connected.subscribe().wait_for(|&connected| connected).await;
    }

    /// How long a word takes through PostgreSQL and back to us; None when it does not come within
    /// `limit`, as on a connection that is dead and does not know it: the hub makes a new one then.
    ///
    /// # Errors
    /// When it could not be said.
    pub async fn probe(&self, pool: &PgPool, limit: Duration) -> sqlx::Result<Option<Duration>> {
        let mut heard = self.subscribe(PROBE);
        let word = format!("{:032x}", rand::random::<u128>());
        let started = Instant::now();
        sqlx::query("SELECT pg_notify($1, $2)").bind(PROBE).bind(&word).execute(pool).await?;
        let back = async {
            loop {
                match heard.next().await {
                    Some(Signal::Said(said)) if *said == *word => return Some(started.elapsed()),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        let took = tokio::time::timeout(limit, back).await.unwrap_or_default();
        if took.is_none() {
            self.0.reconnect.notify_one();
        }
        Ok(took)
    }

    /// Ends the listening; what [`Hub::start`] gave beside the hub resolves soon after.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    fn tell_all(&self, signal: &Signal) {
        for sender in self.0.channels.values() {
            // Nobody may be listening.
            let _ = sender.send(signal.clone());
        }
    }
}

async fn run(hub: Hub, options: PgConnectOptions) {
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    let until_stopped = async {
        loop {
            match listen(&hub, &options).await {
                Ok(mut listener) => {
                    pause = FIRST_PAUSE;
                    told = false;
                    hub.0.connected.send_replace(true);
                    hub.tell_all(&Signal::ReadAgain);
                    tokio::select! {
                        () = pass_on(&hub, &mut listener) => {}
                        () = hub.0.reconnect.notified() => {}
                    }
                    hub.0.connected.send_replace(false);
                }
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(%error, "cannot listen for word from other replicas; trying again");
                }
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    hub.0.stop.run_until_cancelled(until_stopped).await;
    hub.0.connected.send_replace(false);
}

async fn listen(hub: &Hub, options: &PgConnectOptions) -> sqlx::Result<PgListener> {
    // The listener insists on a pool, and a dead connection would never come back to it: each has its own.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    // Everybody must hear of a gap, so that reconnecting is done here.
    listener.eager_reconnect(false);
    listener.listen_all(hub.0.channels.keys().copied()).await?;
    Ok(listener)
}

/// Until the connection is lost.
async fn pass_on(hub: &Hub, listener: &mut PgListener) {
    while let Ok(Some(said)) = listener.try_recv().await {
        if let Some(sender) = hub.0.channels.get(said.channel()) {
            let _ = sender.send(Signal::Said(said.payload().into()));
        }
    }
}
