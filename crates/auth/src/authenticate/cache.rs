//! What was looked up is believed for ten seconds, unless word comes that it no longer holds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use loom_core::{Result, id::UserId};
use loom_db::{Signal, Subscription};
use moka::future::Cache;
use sqlx::PgExecutor;

use super::holder::Holder;
use crate::{Auth, users::model::UserHolder};

/// Here replicas say which credentials and users are no longer what they were: the SHA-256 of a
/// credential in hex, or `user:<id>`.
pub const REVOKED: &str = "loom_auth_revoked";

const BELIEVED: Duration = Duration::from_secs(10);
const CREDENTIALS: u64 = 100_000;
const USERS: u64 = 50_000;

pub(crate) type TokenDigest = [u8; 32];

/// Something that is no longer what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    /// A key, a token or a session, by its digest.
    Credential(TokenDigest),
    /// Roles, memberships, or whether the user is let in at all.
    User(UserId),
}

impl Revoked {
    /// By the digest as the database gives it.
    pub(crate) fn digest(bytes: &[u8]) -> Option<Self> {
        TokenDigest::try_from(bytes).ok().map(Self::Credential)
    }

    fn say(&self) -> String {
        match self {
            Self::Credential(digest) => hex::encode(digest),
            Self::User(user) => format!("user:{user}"),
        }
    }

    fn hear(text: &str) -> Option<Self> {
        match text.strip_prefix("user:") {
            Some(user) => user.parse().ok().map(Self::User),
            None => Self::digest(&hex::decode(text).ok()?),
        }
    }
}

pub(crate) struct Cached {
    /// By digest; `None` for a token that does not exist, so that showing it again costs no query.
    credentials: Cache<TokenDigest, Option<Arc<Holder>>>,
    users: Cache<UserId, Arc<UserHolder>>,
    /// Counted up by each word, so that a look-up under way knows of it.
    words: AtomicU64,
}

impl Cached {
    pub(crate) fn new() -> Self {
        Self {
            credentials: Cache::builder().max_capacity(CREDENTIALS).time_to_live(BELIEVED).build(),
            users: Cache::builder().max_capacity(USERS).time_to_live(BELIEVED).build(),
            words: AtomicU64::new(0),
        }
    }

    pub(super) async fn credential(&self, digest: &TokenDigest) -> Option<Option<Arc<Holder>>> {
        self.credentials.get(digest).await
    }

    pub(super) async fn user(&self, user: UserId) -> Option<Arc<UserHolder>> {
        self.users.get(&user).await
    }

    /// To be asked before a look-up, and handed to what keeps its result.
    pub(super) fn words(&self) -> u64 {
        self.words.load(Ordering::SeqCst)
    }

    pub(super) async fn keep_credential(
        &self,
        digest: TokenDigest,
        holder: Option<Arc<Holder>>,
        words_before: u64,
    ) {
        self.credentials.insert(digest, holder).await;
        // It may be this one that was revoked while we asked.
        if self.words() != words_before {
            self.credentials.invalidate(&digest).await;
        }
    }

    pub(super) async fn keep_user(&self, user: Arc<UserHolder>, words_before: u64) {
        let id = user.id;
        self.users.insert(id, user).await;
        if self.words() != words_before {
            self.users.invalidate(&id).await;
        }
    }

    async fn forget(&self, what: &Revoked) {
        self.words.fetch_add(1, Ordering::SeqCst);
        match what {
            Revoked::Credential(digest) => self.credentials.invalidate(digest).await,
            Revoked::User(user) => self.users.invalidate(user).await,
        }
    }

    fn forget_all(&self) {
        self.words.fetch_add(1, Ordering::SeqCst);
        self.credentials.invalidate_all();
        self.users.invalidate_all();
    }
}

/// Tells every replica, when the transaction commits.
pub(crate) async fn tell(db: impl PgExecutor<'_>, what: &[Revoked]) -> Result<()> {
    if what.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = what.iter().map(Revoked::say).collect();
    sqlx::query!(
        r#"SELECT count(pg_notify($1, word)) AS "told!" FROM unnest($2::text[]) AS word"#,
        REVOKED,
        &words
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

impl Auth {
    /// Forgets them at once in this process. To be called after the commit of what [`tell`] was part of;
    /// our own word comes back to us too, but the answer does not wait for it.
    pub(crate) async fn forget(&self, what: &[Revoked]) {
        for one in what {
            self.cached.forget(one).await;
        }
    }

    /// Hears what other replicas say, until the hub is gone.
    pub(crate) async fn listen(self, mut heard: Subscription) {
        while let Some(signal) = heard.next().await {
            match signal {
                Signal::Said(text) => match Revoked::hear(&text) {
                    Some(what) => self.cached.forget(&what).await,
                    None => self.cached.forget_all(),
                },
                Signal::ReadAgain => self.cached.forget_all(),
            }
        }
    }
}
