//! Mail and signed webhooks, delivered durably: whoever sends writes a row in its own transaction, a
//! dispatcher in every process sends what is due. At least once: whoever receives drops duplicates by
//! the id, which stays the same.

mod caller;
mod cleanup;
mod config;
mod dispatch;
pub mod health;
mod hooks;
mod http;
mod mailer;
mod model;
pub mod outbound;
mod outbox;
mod outcome;
mod queue;
mod recipients;
mod retry;
mod signature;
mod store;
mod webhooks;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use loom_core::{
    Clock, Error, Result,
    port::{AdminDirectory, BoxFuture},
};
use loom_vault::Vault;
use sqlx::PgPool;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{Config, Smtp, Tls};
pub use hooks::{Call, Hook};
pub use model::{Alert, Channel, DeliveryState, DeliveryView, Mail, WebhookView};
pub use recipients::{check_recipients, recipients};

/// What a dispatcher listens to, so that it hears at once of what another replica queued.
pub const CHANNEL: &str = "loom_notify";

/// The handle; cheap to clone.
#[derive(Clone)]
pub struct Notify(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    pool: PgPool,
    clock: Clock,
    vault: Arc<Vault>,
    admins: Arc<dyn AdminDirectory>,
    alert_emails: Vec<String>,
    base_url: String,
    production: bool,
    outbox: PathBuf,
    mailer: mailer::Mailer,
    guard: outbound::Guard,
    /// Made when it is first needed: one that only queues needs no TLS.
    client: OnceLock<outbound::Client>,
    probe: health::Probe,
    /// Rings when something may be due.
    bell: tokio::sync::Notify,
    slots: dispatch::Slots,
    tasks: TaskTracker,
    /// Nothing more is taken.
    stop: CancellationToken,
    /// What is being sent is given back.
    give_up: CancellationToken,
}

impl std::ops::Deref for Notify {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Notify {
    /// Queues; sends nothing before [`Notify::start`].
    pub fn new(
        pool: PgPool,
        clock: Clock,
        vault: Arc<Vault>,
        admins: Arc<dyn AdminDirectory>,
        config: &Config,
    ) -> Result<Self> {
        let guard = outbound::Guard::new(config.outbound_allow.iter().copied());
        Ok(Self(Arc::new(Inner {
            pool,
            clock,
            vault,
            admins,
            alert_emails: config.alert_emails.clone(),
            base_url: config.base_url.clone(),
            production: config.production,
            outbox: config.outbox.clone(),
            mailer: mailer::Mailer::new(config)?,
            guard,
            client: OnceLock::new(),
            probe: health::Probe::default(),
            bell: tokio::sync::Notify::new(),
            slots: dispatch::Slots::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
        })))
    }

    /// One that queues and never sends, for what only needs the shape of things; alerts go to
    /// `admins`.
    pub fn silent(pool: PgPool, clock: Clock, admins: &[&str]) -> Result<Self> {
        let admins = Listed(admins.iter().map(|&address| address.to_owned()).collect());
        let vault = Arc::new(Vault::ephemeral()?);
        Self::new(pool, clock, vault, Arc::new(admins), &Config::default())
    }

    /// Which addresses the operator lets requests go to that somebody else named.
    pub fn outbound(&self) -> &outbound::Guard {
        &self.guard
    }

    /// Says that something was queued and committed. Other replicas hear of it by themselves.
    pub fn wake(&self) {
        self.bell.notify_one();
    }
}

/// A fixed list of admins.
struct Listed(Vec<String>);

impl AdminDirectory for Listed {
    fn admin_addresses(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async { Ok::<_, Error>(self.0.clone()) })
    }
}

/// Is it an e-mail address that can be sent to?
pub fn is_address(text: &str) -> bool {
    queue::address(text).is_some()
}
