//! Several replicas on one database: each delivery once, none lost with the one who had it.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use chrono::DateTime;
use loom_core::{
    Clock, Result,
    config::Env,
    port::{AdminDirectory, BoxFuture},
};
use loom_db::Hub;
use loom_notify::{CHANNEL, Config, Notify};
use loom_testkit::{
    TestDatabase, eventually,
    smtp::{Answer, SmtpServer},
};
use loom_vault::Vault;
use sqlx::PgPool;
use tokio::runtime::Runtime;

use crate::{MINUTE, mail, queue};

struct Nobody;

impl AdminDirectory for Nobody {
    fn admin_addresses(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// What replicas share.
struct World {
    smtp: SmtpServer,
    database: TestDatabase,
    clock: Clock,
    vault: Arc<Vault>,
}

impl World {
    async fn new() -> Self {
        Self {
            smtp: SmtpServer::start(),
            database: TestDatabase::new().await,
            clock: Clock::manual(DateTime::from_timestamp(1_800_000_000, 0).unwrap()),
            vault: Arc::new(Vault::ephemeral().unwrap()),
        }
    }

    fn replica(&self) -> Notify {
        self.replica_on(self.database.pool().clone())
    }

    fn replica_on(&self, pool: PgPool) -> Notify {
        let settings = self.smtp.settings();
        let vars = settings.into_iter().map(|(name, value)| (name.to_owned(), value));
        let config =
            Config::load(&mut Env::new(vars), Path::new("/nowhere"), false, "http://localhost");
        Notify::new(pool, self.clock.clone(), Arc::clone(&self.vault), Arc::new(Nobody), &config)
            .unwrap()
    }

    async fn states(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT state FROM deliveries ORDER BY id")
            .fetch_all(self.database.pool())
            .await
            .unwrap()
    }

    async fn all_delivered(&self) {
        eventually(async || {
            self.states().await.iter().all(|state| state == "delivered").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn two_replicas_send_each_mail_once() {
    let world = World::new().await;
    let replicas = [world.replica(), world.replica()];
    for n in 0..60 {
        let mail = mail(&format!("user{n}@example.com"));
        queue(&replicas[0], world.database.pool(), &mail).await;
    }
    for replica in &replicas {
        replica.start(&Hub::silent(&[CHANNEL]));
    }
    world.all_delivered().await;
    let sent: Vec<_> = world.smtp.mails().into_iter().flat_map(|mail| mail.to).collect();
    assert_eq!(sent.len(), 60);
    assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), 60);
    for replica in &replicas {
        replica.close(Duration::from_secs(10)).await;
    }
}

#[tokio::test]
async fn another_replica_hears_at_once_of_what_was_queued_here() {
    let world = World::new().await;
    let (hub, _) = Hub::start(world.database.url(), &[CHANNEL]).unwrap();
    hub.connected().await;
    let (here, there) = (world.replica(), world.replica());
    there.start(&hub);
    // This one only queues, and wakes nobody but itself.
    queue(&here, world.database.pool(), &mail("ada@example.com")).await;
    world.smtp.mail(1).await;
    world.all_delivered().await;
    there.close(Duration::from_secs(10)).await;
    hub.stop();
}

#[tokio::test]
async fn what_a_replica_was_sending_when_it_died_is_sent_by_another_with_the_same_id() {
    let world = World::new().await;
    world.smtp.enqueue(Answer::Hang);
    let first = Runtime::new().unwrap();
    let dying = {
        let _inside = first.enter();
        // Of its own: what is connected in there ends with it.
        let dying = world.replica_on(PgPool::connect_lazy(world.database.url().expose()).unwrap());
        dying.start(&Hub::silent(&[CHANNEL]));
        dying
    };
    queue(&dying, world.database.pool(), &mail("ada@example.com")).await;
    eventually(async || (world.smtp.seen() == 1).then_some(())).await;
    first.shutdown_background();
    let second = world.replica();
    second.start(&Hub::silent(&[CHANNEL]));
    // Within the lease it stays with the dead.
    world.clock.advance(MINUTE);
    queue(&second, world.database.pool(), &mail("bob@example.com")).await;
    assert_eq!(world.smtp.mail(1).await.to, ["bob@example.com"]);
    eventually(async || (world.states().await == ["delivering", "delivered"]).then_some(())).await;
    world.clock.advance(2 * MINUTE);
    second.wake();
    let mail = world.smtp.mail(2).await;
    assert_eq!(mail.to, ["ada@example.com"]);
    let id: String = sqlx::query_scalar("SELECT id::text FROM deliveries WHERE target LIKE 'ada%'")
        .fetch_one(world.database.pool())
        .await
        .unwrap();
    assert!(mail.header("Message-ID").unwrap().contains(&id));
    world.all_delivered().await;
    second.close(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_replica_that_goes_down_gives_back_what_does_not_end_in_time() {
    let world = World::new().await;
    world.smtp.enqueue(Answer::Hang);
    let first = world.replica();
    first.start(&Hub::silent(&[CHANNEL]));
    queue(&first, world.database.pool(), &mail("ada@example.com")).await;
    eventually(async || (world.smtp.seen() == 1).then_some(())).await;
    first.close(Duration::ZERO).await;
    assert_eq!(world.states().await, ["pending"]);
    let second = world.replica();
    second.start(&Hub::silent(&[CHANNEL]));
    world.all_delivered().await;
    second.close(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn one_that_is_silent_needs_nothing_but_a_database_and_sends_nothing() {
    let database = TestDatabase::new().await;
    let silent = Notify::silent(database.pool().clone(), Clock::system(), &["ops@example.com"]);
    let alert = loom_notify::Alert {
        kind: "job.failing",
        key: "session-cleanup".to_owned(),
        title: String::new(),
        text: String::new(),
        page: String::new(),
    };
    let mut db = loom_db::begin(database.pool()).await.unwrap();
    silent.unwrap().alert(&mut db, &alert).await.unwrap();
    db.commit().await.unwrap();
    let queued: Vec<(String, String, String)> =
        sqlx::query_as("SELECT target, subject, state FROM deliveries")
            .fetch_all(database.pool())
            .await
            .unwrap();
    let expected = ["ops@example.com", "Alert", "pending"].map(str::to_owned);
    assert_eq!(queued, [expected.into()]);
}
