//! The dispatcher: takes what is due under a lease, sends it outside any transaction, and records what
//! became of it. One in each process; a replica that dies is taken over when its leases end.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{Error, Result, text};
use loom_db::{Hub, Subscription};
use metrics::{counter, gauge};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::{
    CHANNEL, Channel, DeliveryState, Notify, caller,
    outcome::{Fate, Outcome},
    queue::{MailBody, context},
    retry,
    store::{self, Claimed, Recorded, webhooks},
};

pub(crate) const CONCURRENT_MAILS: u32 = 4;
const CONCURRENT_CALLS: u32 = 8;
/// Longer than any attempt may take.
const LEASE: TimeDelta = TimeDelta::minutes(2);
/// For words that were lost.
const SAFETY: Duration = Duration::from_secs(60);
const DATABASE_PAUSE: Duration = Duration::from_secs(5);
/// What was sent is said so until it is heard: an attempt that is not recorded is made again.
const RECORD_ATTEMPTS: u32 = 20;
const RECORD_PAUSE: Duration = Duration::from_secs(1);
/// Those who are told to give back what they hold get this long for it.
const LAST_WRITES: Duration = Duration::from_secs(5);
const ERROR_MAX: usize = 500;

/// How many are sent at once.
pub(crate) struct Slots {
    mail: Arc<Semaphore>,
    webhook: Arc<Semaphore>,
}

impl Default for Slots {
    fn default() -> Self {
        let slots = |n: u32| Arc::new(Semaphore::new(n as usize));
        Self { mail: slots(CONCURRENT_MAILS), webhook: slots(CONCURRENT_CALLS) }
    }
}

impl Slots {
    fn of(&self, channel: Channel) -> &Arc<Semaphore> {
        match channel {
            Channel::Mail => &self.mail,
            Channel::Webhook => &self.webhook,
        }
    }
}

impl Notify {
    /// Begins to send, woken by what the hub hears on [`CHANNEL`].
    pub fn start(&self, hub: &Hub) {
        let words = hub.subscribe(CHANNEL);
        let notify = self.clone();
        self.tasks.spawn(async move { notify.dispatch(words).await });
    }

    /// Takes nothing more and waits for what is being sent; gives back what has not ended within
    /// `grace`.
    pub async fn close(&self, grace: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(grace, self.tasks.wait()).await.is_err() {
            self.give_up.cancel();
            if timeout(LAST_WRITES, self.tasks.wait()).await.is_err() {
                tracing::error!(left = self.tasks.len(), "deliveries could not be given back");
            }
        }
    }

    async fn dispatch(&self, mut words: Subscription) {
        while let Err(error) = self.seal_hooks().await {
            tracing::warn!(?error, "the URLs of webhooks cannot be sealed; trying again");
            if self.stop.run_until_cancelled(sleep(DATABASE_PAUSE)).await.is_none() {
                return;
            }
        }
        let mut hears = true;
        while !self.stop.is_cancelled() {
            let pause = match self.look().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(?error, "could not look what is to be sent; trying again");
                    DATABASE_PAUSE
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.bell.notified() => {}
                word = words.next(), if hears => hears = word.is_some(),
                () = sleep(pause) => {}
            }
        }
    }

    /// Begins what is due; gives the time until something else is.
    async fn look(&self) -> Result<Duration> {
        loop {
            let now = self.clock.now();
            let queues = store::queues(&self.pool).await?;
            let mut next: Option<DateTime<Utc>> = None;
            let mut begun = false;
            for channel in Channel::ALL {
                let queue = queues.iter().find(|queue| queue.channel == channel);
                let waiting = queue.map_or(0, |queue| queue.waiting);
                #[expect(clippy::cast_precision_loss, reason = "nobody queues that many")]
                gauge!("loom_deliveries_pending", "channel" => channel.as_str())
                    .set(waiting as f64);
                let Some(queue) = queue else { continue };
                if queue.due_at > now {
                    next = Some(next.map_or(queue.due_at, |next| next.min(queue.due_at)));
                } else {
                    begun |= self.begin(channel, now).await?;
                }
            }
            if !begun {
                let pause = next.and_then(|next| (next - now).to_std().ok());
                return Ok(pause.map_or(SAFETY, |pause| pause.min(SAFETY)));
            }
        }
    }

    /// Takes as many as there is room for. False: there is none (whoever ends rings), or others were
    /// faster.
    async fn begin(&self, channel: Channel, now: DateTime<Utc>) -> Result<bool> {
        let slots = self.slots.of(channel);
        let room = u32::try_from(slots.available_permits()).unwrap_or_default();
        if room == 0 {
            return Ok(false);
        }
        let taken = store::claim(&self.pool, channel, room, now, now + LEASE).await?;
        let begun = !taken.is_empty();
        for delivery in taken {
            // Only this task takes permits, so that there are as many as there were.
            let permit = Arc::clone(slots).acquire_owned().await.map_err(Error::internal)?;
            let notify = self.clone();
            self.tasks.spawn(async move { notify.deliver(delivery, permit).await });
        }
        Ok(begun)
    }

    async fn deliver(&self, delivery: Claimed, permit: OwnedSemaphorePermit) {
        let outcome = tokio::select! {
            outcome = self.attempt(&delivery) => Some(outcome),
            () = self.give_up.cancelled() => None,
        };
        let Some(outcome) = outcome else {
            if let Err(error) = store::give_back(&self.pool, &delivery, self.clock.now()).await {
                tracing::warn!(id = %delivery.id, ?error, "a delivery could not be given back");
            }
            return;
        };
        self.record(&delivery, outcome).await;
        drop(permit);
        self.wake();
    }

    async fn attempt(&self, delivery: &Claimed) -> Outcome {
        let now = self.clock.now();
        if delivery.expires_at.is_some_and(|at| at <= now) {
            return Outcome::new(Fate::Expired, None);
        }
        if delivery.attempt > retry::max_attempts(delivery.channel) {
            return Outcome::fail("the server went away during the last attempt");
        }
        match self.send(delivery, now).await {
            Ok(outcome) => outcome,
            // Most likely the master key is another one on this replica.
            Err(error) => {
                tracing::error!(id = %delivery.id, ?error, "a delivery cannot be sent");
                Outcome::retry(error.cause().unwrap_or_else(|| error.to_string()))
            }
        }
    }

    async fn send(&self, delivery: &Claimed, now: DateTime<Utc>) -> Result<Outcome> {
        let Some(sealed) = &delivery.sealed_payload else {
            return Ok(Outcome::fail("what was to be sent is gone"));
        };
        let payload = self.vault.unseal(&context(delivery.id), sealed)?;
        match delivery.channel {
            Channel::Mail => {
                let body: MailBody =
                    serde_json::from_str(payload.expose()).map_err(Error::internal)?;
                Ok(self.mailer.send(delivery, body, now).await)
            }
            Channel::Webhook => {
                let webhook = match delivery.webhook_id {
                    Some(id) => webhooks::by_id(&self.pool, id).await?,
                    None => None,
                };
                let Some(webhook) = webhook else {
                    return Ok(Outcome::fail("the webhook was deleted"));
                };
                if !webhook.view.enabled {
                    return Ok(Outcome::fail("the webhook is switched off"));
                }
                let receiver = self.receiver(&webhook)?;
                let body = payload.expose().to_owned();
                let client = match self.client.get() {
                    Some(client) => client,
                    None => {
                        let made = caller::client(&self.guard)?;
                        self.client.get_or_init(|| made)
                    }
                };
                caller::call(client, delivery, &receiver, body, now).await
            }
        }
    }

    async fn record(&self, delivery: &Claimed, outcome: Outcome) {
        let result = self.result(delivery, &outcome);
        let (channel, id) = (delivery.channel.as_str(), delivery.id);
        let word = match (&outcome.fate, result.state) {
            (Fate::Retry { .. }, DeliveryState::Pending) => "retried",
            (_, state) => state.as_str(),
        };
        counter!("loom_deliveries_total", "channel" => channel, "outcome" => word).increment(1);
        let (kind, attempt) = (&delivery.kind, delivery.attempt);
        if let Some(error) = &result.last_error {
            tracing::warn!(%id, channel, kind, attempt, outcome = word, error, "not delivered");
        } else {
            tracing::debug!(%id, channel, kind, attempt, outcome = word, "sent");
        }
        for _ in 0..RECORD_ATTEMPTS {
            match store::record(&self.pool, delivery, &result).await {
                Ok(ours) => {
                    if ours {
                        self.count(delivery, &outcome.fate, result.state).await;
                    }
                    return;
                }
                Err(error) => tracing::warn!(%id, ?error, "a delivery is not recorded yet"),
            }
            if self.give_up.run_until_cancelled(sleep(RECORD_PAUSE)).await.is_none() {
                break;
            }
        }
        tracing::error!(%id, "a delivery was not recorded; it is tried again when its lease ends");
    }

    fn result(&self, delivery: &Claimed, outcome: &Outcome) -> Recorded {
        let now = self.clock.now();
        let last_error = outcome.error.as_ref().map(|error| {
            // NUL is the one character that PostgreSQL does not hold.
            let error = loom_redact::shared().redact(error).replace('\0', " ");
            text::cut(&error, ERROR_MAX).to_owned()
        });
        let (state, via, retry) = match &outcome.fate {
            Fate::Delivered(via) => (DeliveryState::Delivered, Some(via.as_str()), None),
            Fate::Failed | Fate::Gone => (DeliveryState::Failed, None, None),
            Fate::Expired => (DeliveryState::Expired, None, None),
            Fate::Retry { asked } => {
                match retry::pause(delivery.channel, delivery.attempt, *asked) {
                    Some(pause) => (DeliveryState::Pending, None, Some(now + pause)),
                    None => (DeliveryState::Failed, None, None),
                }
            }
        };
        // Looked at when it expires, so that the secret in it is gone then.
        let due_at = retry.map(|at| delivery.expires_at.map_or(at, |expires| at.min(expires)));
        Recorded {
            state,
            due_at: due_at.unwrap_or(now),
            finished_at: due_at.is_none().then_some(now),
            via,
            status_code: outcome.status,
            last_error,
            // What failed can be tried again by hand, unless it holds a secret.
            keeps_payload: state == DeliveryState::Pending
                || (state == DeliveryState::Failed && delivery.expires_at.is_none()),
        }
    }

    /// A webhook's own account of what became of its deliveries.
    async fn count(&self, delivery: &Claimed, fate: &Fate, state: DeliveryState) {
        let Some(webhook) = delivery.webhook_id else { return };
        let now = self.clock.now();
        let counted = match (fate, state) {
            (Fate::Gone, _) => webhooks::gone(&self.pool, webhook, now).await,
            (_, DeliveryState::Delivered) => webhooks::succeeded(&self.pool, webhook).await,
            (_, DeliveryState::Failed) => webhooks::failed(&self.pool, webhook).await,
            _ => Ok(()),
        };
        if let Err(error) = counted {
            tracing::warn!(%webhook, ?error, "a webhook's failures are not counted");
        }
    }
}
