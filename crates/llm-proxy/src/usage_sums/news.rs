//! That requests were recorded, told to all servers: of an organisation at once after a quiet while, and then
//! once a second.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use loom_db::Announcer;
use sqlx::PgPool;
use uuid::Uuid;

use super::sum::Whose;
use crate::ledger::Row;

/// On which servers tell each other: one organisation a word.
pub const USAGE_CHANNEL: &str = "loom_llm_usage";

pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Users in one word: a NOTIFY holds no more than 8,000 bytes.
const MOST_USERS: usize = 200;
/// In place of a user, for requests that are nobody's own.
const NOBODY: &str = "-";

/// Whose requests were recorded; None: nobody's own.
type Users = BTreeSet<Option<Uuid>>;

/// What is to be told; cheap to clone.
#[derive(Clone)]
pub(crate) struct News(Arc<Inner>);

struct Inner {
    announcer: Announcer,
    /// The organisations that something was told of within the last second, with what came in since.
    waiting: Mutex<HashMap<Uuid, Users>>,
}

impl News {
    pub(crate) fn new(pool: PgPool) -> Self {
        let announcer = Announcer::new(pool, USAGE_CHANNEL);
        Self(Arc::new(Inner { announcer, waiting: Mutex::default() }))
    }

    pub(crate) fn start(&self) {
        self.0.announcer.start();
    }

    pub(crate) async fn close(&self) {
        let orgs: Vec<Uuid> = self.waiting().keys().copied().collect();
        for org in orgs {
            self.say(org);
        }
        self.0.announcer.stop().await;
    }

    /// To be called after the commit.
    pub(crate) fn recorded(&self, rows: &[Row]) {
        let mut waiting = self.waiting();
        let mut quiet = BTreeSet::new();
        for row in rows {
            let users = waiting.entry(row.org_id).or_insert_with(|| {
                quiet.insert(row.org_id);
                Users::new()
            });
            users.insert(row.user_id);
        }
        drop(waiting);
        for org in quiet {
            let news = self.clone();
            tokio::spawn(async move {
                while news.say(org) {
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
    }

    /// False when there was nothing to say: the organisation is quiet again.
    fn say(&self, org: Uuid) -> bool {
        let mut waiting = self.waiting();
        let users = waiting.get_mut(&org).map(std::mem::take).unwrap_or_default();
        if users.is_empty() {
            waiting.remove(&org);
            return false;
        }
        drop(waiting);
        for word in words(org, &users) {
            self.0.announcer.say(word);
        }
        true
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Users>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An organisation and those whose requests they were, with spaces between.
fn words(org: Uuid, users: &Users) -> Vec<String> {
    let users: Vec<_> = users.iter().collect();
    let word = |users: &[&Option<Uuid>]| {
        let mut word = org.to_string();
        for user in users {
            // Writing into a string does not fail.
            let _ = match user {
                Some(user) => write!(word, " {user}"),
                None => write!(word, " {NOBODY}"),
            };
        }
        word
    };
    users.chunks(MOST_USERS).map(word).collect()
}

/// What of the words on the channel somebody is to hear.
pub(super) struct Concern {
    org: String,
    /// None: everybody's.
    whose: Option<String>,
}

impl Concern {
    pub(super) fn new(org: Uuid, whose: Whose) -> Self {
        let whose = match whose {
            Whose::Everybodys => None,
            Whose::Of(user) => Some(user.to_string()),
            Whose::Nobodys => Some(NOBODY.to_owned()),
        };
        Self { org: org.to_string(), whose }
    }

    pub(super) fn has(&self, word: &str) -> bool {
        let mut words = word.split(' ');
        words.next() == Some(&self.org)
            && self.whose.as_deref().is_none_or(|whose| words.any(|user| user == whose))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hears_of_their_own_however_many_there_are_and_admins_of_all() {
        let org = Uuid::from_u128(1);
        let mut users: Users = (10..510).map(|user| Some(Uuid::from_u128(user))).collect();
        users.insert(None);
        let words = words(org, &users);
        assert!(words.iter().all(|word| word.len() < 7900), "they fit into a NOTIFY");
        let hears = |org: u128, whose| {
            let concern = Concern::new(Uuid::from_u128(org), whose);
            words.iter().any(|word| concern.has(word))
        };
        for whose in [10, 300, 509].map(|user| Whose::Of(Uuid::from_u128(user))) {
            assert!(hears(1, whose), "{whose:?}");
        }
        assert!(hears(1, Whose::Everybodys) && hears(1, Whose::Nobodys));
        assert!(!hears(1, Whose::Of(Uuid::from_u128(510))));
        // The organisation is no user.
        assert!(!hears(1, Whose::Of(org)));
        for whose in [Whose::Everybodys, Whose::Nobodys, Whose::Of(Uuid::from_u128(10))] {
            assert!(!hears(2, whose), "{whose:?}");
        }
    }
}
