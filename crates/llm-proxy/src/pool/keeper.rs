//! What becomes of credentials between requests: new tokens, and states that are written down.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::Ordering},
    time::Duration,
};

use axum::http::StatusCode;
use loom_common_secret::SecretString;
use loom_core::{Clock, Error, Result, id::CredentialId, id::new_uuid};
use loom_notify::{Alert, Notify, outbound};
use loom_vault::Vault;
use sqlx::PgPool;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    grant::{Grant, Granted, OAuthSecret, Refusal},
    member::{Change, Member, Token, Tokens},
    store::{self, CredentialRow},
};

/// Whoever waits for another replica's renewal waits so long: longer than one may take.
const PATIENCE: Duration = Duration::from_secs(45);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A token that cannot be stored is kept in memory for so long while that is tried again.
const KEEP_STORING: Duration = Duration::from_secs(60);
/// The end of the server waits so long for them.
const LAST_RENEWALS: Duration = Duration::from_secs(5);
/// Changes of state that wait to be written. More than there are credentials.
const MOST_WAITING: usize = 4_096;

/// Whose state has changed, and how.
type Told = (Arc<Member>, Change);

pub(crate) struct Keeper {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) vault: Arc<Vault>,
    pub(crate) notify: Notify,
    /// Made when it is first needed.
    client: OnceLock<outbound::Client>,
    changes: mpsc::Sender<Told>,
    waiting: Mutex<Option<mpsc::Receiver<Told>>>,
    /// Renewals, which no client's leaving may cut off.
    tasks: TaskTracker,
    ending: CancellationToken,
}

pub(crate) fn secret_context(id: CredentialId) -> String {
    format!("llm_credentials/{id}")
}

pub(crate) fn token_context(id: CredentialId) -> String {
    format!("llm_credentials/token/{id}")
}

impl Keeper {
    pub(crate) fn new(db: PgPool, clock: Clock, vault: Arc<Vault>, notify: Notify) -> Self {
        let (changes, waiting) = mpsc::channel(MOST_WAITING);
        Self {
            db,
            clock,
            vault,
            notify,
            client: OnceLock::new(),
            changes,
            waiting: Mutex::new(Some(waiting)),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        }
    }

    /// Has a change of state written, without waiting for it.
    pub(crate) fn tell(&self, member: &Arc<Member>, change: Change) {
        if let Change::Refused { reason, .. } = &change {
            tracing::error!(
                credential = member.name,
                reason,
                "the provider refuses this credential"
            );
        }
        if member.id().is_none() {
            return;
        }
        member.unwritten.fetch_add(1, Ordering::AcqRel);
        if self.changes.try_send((Arc::clone(member), change)).is_err() {
            member.unwritten.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(credential = member.name, "a change of its state is not written down");
        }
    }

    /// Lets renewals end that are under way: a rotated token that is not stored is lost.
    pub(crate) async fn close(&self) {
        self.ending.cancel();
        self.tasks.close();
        if tokio::time::timeout(LAST_RENEWALS, self.tasks.wait()).await.is_err() {
            tracing::warn!("a renewal of a token was cut off by the end of the server");
        }
    }

    /// Has the states written that [`Keeper::tell`] is given, up to the last one.
    pub(crate) fn start_writing(self: &Arc<Self>) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = waiting else { return };
        let keeper = Arc::clone(self);
        self.tasks.spawn(async move {
            while let Some(Some((member, change))) =
                keeper.ending.run_until_cancelled(waiting.recv()).await
            {
                keeper.write(&member, change).await;
            }
            while let Ok((member, change)) = waiting.try_recv() {
                keeper.write(&member, change).await;
            }
        });
    }

    async fn write(&self, member: &Member, change: Change) {
        let Some(id) = member.id() else { return };
        let now = self.clock.now();
        let written = match change {
            Change::Cooling { until, reason } => {
                store::cool(&self.db, id, member.version, until, &reason, now).await
            }
            Change::Refused { generation, reason } => {
                // A key has no tokens, and its row's count of them may have moved with its changes.
                let generation = member.tokens().map(|_| generation);
                self.disable(member, id, generation, "provider", &reason).await.map(|_| ())
            }
        };
        member.unwritten.fetch_sub(1, Ordering::AcqRel);
        if let Err(error) = written {
            tracing::warn!(credential = member.name, ?error, "its state could not be written down");
        }
    }

    /// Disables what is refused, and tells those who can mend it.
    async fn disable(
        &self,
        member: &Member,
        id: CredentialId,
        generation: Option<i64>,
        by: &str,
        reason: &str,
    ) -> Result<bool> {
        let mut db = loom_db::begin(&self.db).await?;
        let of = (member.version, generation);
        let done = store::disable_refused(&mut db, id, of, by, reason, self.clock.now()).await?;
        if done {
            let alert = Alert {
                kind: "llm.credential_disabled",
                key: id.to_string(),
                title: format!("The LLM credential {} is disabled", member.name),
                text: format!(
                    "The credential {} ({id}) was refused and is not used any more: {reason}\n\nGive it a new \
                     secret, or enable it again, with `loom-server llm credential` or here:",
                    member.name
                ),
                page: "/llm/providers".to_owned(),
            };
            self.notify.alert(&mut db, &alert).await?;
        }
        db.commit().await?;
        if done {
            self.notify.wake();
        }
        Ok(done)
    }

    fn client(&self) -> Result<&outbound::Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let configure = |builder: reqwest::ClientBuilder| {
            builder.connect_timeout(Duration::from_secs(10)).retry(reqwest::retry::never())
        };
        let made = self.notify.outbound().client(configure).map_err(Error::internal)?;
        Ok(self.client.get_or_init(|| made))
    }

    /// A token that lasts for `margin`. However many ask for it at once, here and on other replicas, one
    /// renewal is made; it goes on when whoever asked has left.
    ///
    /// # Errors
    /// 502 `upstream_error`, 503 `credentials_disabled`.
    pub(crate) async fn renew(
        self: &Arc<Self>,
        member: &Arc<Member>,
        margin: Duration,
    ) -> Result<Arc<Token>> {
        let (keeper, of) = (Arc::clone(self), Arc::clone(member));
        let renewal = async move {
            let tokens = of.tokens().ok_or_else(|| Error::internal("a key is not renewed"))?;
            let _flight = tokens.flight.lock().await;
            if let Some(token) = tokens.usable(margin, keeper.clock.now()) {
                return Ok(token);
            }
            let renewed = match (&tokens.own, of.id()) {
                (Some(grant), _) => keeper.own(tokens, grant).await,
                (None, Some(id)) => keeper.shared(&of, tokens, id, margin).await,
                (None, None) => Err(Error::internal("a token without a row")),
            };
            match renewed {
                // It was early: the one that is there still lasts.
                Err(error) => match tokens.usable(Duration::ZERO, keeper.clock.now()) {
                    Some(token) => {
                        tracing::warn!(credential = of.name, %error, "no new token yet");
                        Ok(token)
                    }
                    None => Err(error),
                },
                renewed => renewed,
            }
        };
        self.tasks.spawn(renewal).await.map_err(Error::internal)?
    }

    async fn own(&self, tokens: &Tokens, grant: &Grant) -> Result<Arc<Token>> {
        let granted = grant.ask(self.client()?, self.clock.now()).await.map_err(no_token)?;
        let next = tokens.generation() + 1;
        let token = tokens.install(&granted.access_token, granted.expires_at, next);
        token.ok_or_else(unusable)
    }

    async fn shared(
        &self,
        member: &Member,
        tokens: &Tokens,
        id: CredentialId,
        margin: Duration,
    ) -> Result<Arc<Token>> {
        let by = new_uuid(self.clock.now());
        let until = Instant::now() + PATIENCE;
        loop {
            let row = self.row(id).await?;
            if row.generation != tokens.generation() {
                self.install_stored(tokens, &row)?;
            }
            // Another one was quicker.
            if let Some(token) = tokens.usable(margin, self.clock.now()) {
                return Ok(token);
            }
            if row.disabled_at.is_some() {
                let reason = row.disabled_reason.unwrap_or_default();
                return Err(disabled(&reason));
            }
            if store::begin_refresh(&self.db, id, row.generation, by).await? {
                return self.refresh(member, tokens, &row, by).await;
            }
            if Instant::now() > until {
                return Err(no_token(Refusal::Passing(
                    "another replica's renewal of the token takes too long".to_owned(),
                )));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn row(&self, id: CredentialId) -> Result<CredentialRow> {
        let row = store::read(&self.db, Some(id)).await?.pop();
        row.ok_or_else(|| disabled("it was deleted"))
    }

    /// The token that is stored, put into force here.
    pub(crate) fn install_stored(
        &self,
        tokens: &Tokens,
        row: &CredentialRow,
    ) -> Result<Option<Arc<Token>>> {
        let (Some(sealed), Some(expires_at)) = (&row.sealed_token, row.token_expires_at) else {
            return Ok(None);
        };
        let token = self.vault.unseal(&token_context(row.id), sealed)?;
        Ok(tokens.install(&token, expires_at, row.generation))
    }

    async fn refresh(
        &self,
        member: &Member,
        tokens: &Tokens,
        row: &CredentialRow,
        by: uuid::Uuid,
    ) -> Result<Arc<Token>> {
        let id = row.id;
        // Read after the right to refresh was had, as whoever had it before may have rotated it.
        let row = self.row(id).await?;
        match self.ask(&row).await {
            Ok(granted) => self.keep(tokens, &row, granted).await,
            Err(refusal) => {
                let reason = match &refusal {
                    Refusal::Final(reason) | Refusal::Passing(reason) => reason.clone(),
                };
                let now = self.clock.now();
                if matches!(refusal, Refusal::Final(_)) {
                    // Somebody may have used the refresh token before us, and have a new one.
                    let again = self.row(id).await?;
                    if again.generation != row.generation || again.version != row.version {
                        if let Some(token) = self.install_stored(tokens, &again)? {
                            return Ok(token);
                        }
                    } else {
                        tracing::error!(
                            credential = row.name,
                            reason,
                            "no token is given for this credential"
                        );
                        let of = Some(row.generation);
                        if self.disable(member, id, of, "token_endpoint", &reason).await? {
                            member.disable(&reason);
                        }
                        return Err(disabled(&reason));
                    }
                }
                store::give_up_refresh(&self.db, id, by, &reason, now).await?;
                Err(no_token(refusal))
            }
        }
    }

    async fn ask(&self, row: &CredentialRow) -> Result<Granted, Refusal> {
        let internal = |error: Error| {
            tracing::error!(credential = row.name, ?error, "a token cannot be asked for");
            Refusal::Passing("a token cannot be asked for; the log says why".to_owned())
        };
        let secret =
            self.vault.unseal(&secret_context(row.id), &row.sealed_secret).map_err(internal)?;
        let grant = Grant::of(&row.kind, &row.config, &secret).map_err(internal)?;
        learn(&grant);
        grant.ask(self.client().map_err(internal)?, self.clock.now()).await
    }

    /// Stored first, then used: what is lost in between is lost for ever.
    async fn keep(
        &self,
        tokens: &Tokens,
        row: &CredentialRow,
        granted: Granted,
    ) -> Result<Arc<Token>> {
        let id = row.id;
        let secret = match &granted.secret {
            Some(secret) => Some(self.vault.seal(&secret_context(id), secret)?),
            None => None,
        };
        let token = self.vault.seal(&token_context(id), &granted.access_token)?;
        let until = Instant::now() + KEEP_STORING;
        let stored = loop {
            let stored = store::finish_refresh(
                &self.db,
                id,
                row.generation,
                secret.as_deref(),
                &token,
                granted.expires_at,
            );
            match stored.await {
                Ok(stored) => break stored,
                Err(error) if Instant::now() < until => {
                    tracing::error!(
                        credential = row.name,
                        ?error,
                        "a new token could not be stored; trying again"
                    );
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(error) => return Err(error),
            }
        };
        if stored {
            let next = row.generation + 1;
            return tokens
                .install(&granted.access_token, granted.expires_at, next)
                .ok_or_else(unusable);
        }
        // An admin gave it another secret meanwhile, or it is gone.
        let row = self.row(id).await?;
        self.install_stored(tokens, &row)?.ok_or_else(unusable)
    }
}

fn learn(grant: &Grant) {
    if let Grant::OAuth { secret: OAuthSecret { refresh_token, client_secret }, .. } = grant {
        let client_secret = client_secret.as_deref().map(SecretString::from);
        loom_redact::learn(client_secret.into_iter().chain([refresh_token.as_str().into()]));
    }
}

fn disabled(reason: &str) -> Error {
    Error::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "credentials_disabled",
        format!("the credential is disabled: {reason}"),
    )
}

fn unusable() -> Error {
    no_token(Refusal::Passing("the token cannot be sent in a header".to_owned()))
}

fn no_token(refusal: Refusal) -> Error {
    let (Refusal::Final(reason) | Refusal::Passing(reason)) = refusal;
    Error::new(
        StatusCode::BAD_GATEWAY,
        "upstream_error",
        format!("there is no token for the provider: {reason}"),
    )
}
