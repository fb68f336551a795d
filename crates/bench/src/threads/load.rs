//! Fills the tables of a running server with COPY, the index of the search included.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use uuid::Uuid;

use super::corpus::{Numbers, Vocabulary, column, id, indexed, json};
use loom_threads::Role;

const OWNERS: usize = 200;
const PIECE: usize = 4 << 20;
const DAY: u64 = 86_400_000;
/// So that a run on another day measures the same; threads are from the year before.
const NOW: u64 = 1_780_000_000_000;

pub(super) struct Loader {
    pub(super) db: PgConnection,
    pub(super) org: Uuid,
    owners: Vec<Uuid>,
    pub(super) words: Vocabulary,
    numbers: Numbers,
}

/// Rows of the three tables.
#[derive(Default)]
struct Rows {
    threads: String,
    messages: String,
    search: String,
}

fn role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

impl Loader {
    pub(super) async fn new(url: &str, email: &str, seed: u64) -> Result<Self> {
        let mut db = PgConnection::connect(url).await?;
        db.execute("SET statement_timeout = 0; SET maintenance_work_mem = '1GB'; SET synchronous_commit = off").await?;
        let row = sqlx::query("SELECT id, personal_org_id FROM users WHERE email = $1");
        let row = row.bind(email).fetch_one(&mut db).await?;
        let (user, org): (Uuid, Uuid) = (row.get(0), row.get(1));
        let mut numbers = Numbers(seed);
        let mut owners = vec![user];
        for index in 1..OWNERS {
            let owner = id(&mut numbers, NOW);
            sqlx::query("INSERT INTO users (id, email, personal_org_id, created_at) VALUES ($1, $2, $3, now())")
                .bind(owner)
                .bind(format!("owner{index}@example.com"))
                .bind(org)
                .execute(&mut db)
                .await?;
            owners.push(owner);
        }
        Ok(Self { db, org, owners, words: Vocabulary::new(), numbers })
    }

    /// More threads of 50 messages, half of them private, of the owners by turns.
    pub(super) async fn add(&mut self, messages: u64) -> Result<()> {
        const EACH: u64 = 50;
        let rebuild = messages > 200_000;
        let indexes = if rebuild { self.drop_indexes().await? } else { Vec::new() };
        let mut rows = Rows::default();
        for index in 0..messages / EACH {
            let at = NOW - self.numbers.below(365 * DAY);
            let owner = usize::try_from(index)? % OWNERS;
            let visibility = if self.numbers.below(2) == 0 { "private" } else { "organization" };
            self.thread(&mut rows, at, owner, visibility, EACH, false);
            if rows.messages.len() + rows.search.len() > PIECE {
                self.copy(std::mem::take(&mut rows)).await?;
            }
        }
        self.copy(rows).await?;
        for definition in indexes {
            let started = std::time::Instant::now();
            self.db.execute(AssertSqlSafe(definition.clone())).await?;
            crate::note(&format!("{:.0} s: {definition}", started.elapsed().as_secs_f64()));
        }
        self.db.execute("VACUUM ANALYZE threads; ").await?;
        self.db.execute("VACUUM ANALYZE thread_messages").await?;
        self.db.execute("VACUUM ANALYZE thread_search").await?;
        Ok(())
    }

    /// A thread of short messages, of the first owner; for appends.
    pub(super) async fn long_thread(&mut self, length: u64) -> Result<Uuid> {
        let mut rows = Rows::default();
        let thread = self.thread(&mut rows, NOW, 0, "private", length, true);
        self.copy(rows).await?;
        Ok(thread)
    }

    fn thread(
        &mut self,
        rows: &mut Rows,
        at: u64,
        owner: usize,
        visibility: &str,
        length: u64,
        short: bool,
    ) -> Uuid {
        let (org, thread) = (self.org, id(&mut self.numbers, at));
        let owner = self.owners.get(owner).copied().unwrap_or_default();
        let time = |millis: u64| {
            chrono::DateTime::from_timestamp_millis(i64::try_from(millis).unwrap_or_default())
                .unwrap_or_default()
                .to_rfc3339()
        };
        let mut bytes = 0;
        for seq in 1..=length {
            let (by, text) = if short {
                (Role::User, self.words.prose(&mut self.numbers, 10))
            } else {
                self.words.message(&mut self.numbers, seq - 1)
            };
            let (json, made) = (json(&text), time(at + seq));
            let (tsv, names) = indexed(by, &json);
            let digest: String = (0..4).map(|_| format!("{:016x}", self.numbers.next())).collect();
            bytes += json.len();
            let role = role(by);
            rows.messages.push_str(&format!("{org}\t{thread}\t{seq}\tm{seq}\t{role}\t"));
            column(&mut rows.messages, &json);
            rows.messages.push_str(&format!("\t{made}\t{}\t\\\\x{digest}\n", json.len()));
            let start = digest.get(..16).unwrap_or_default();
            rows.search
                .push_str(&format!("{org}\t{thread}\t{seq}\t{role}\t{made}\t\\\\x{start}\t"));
            column(&mut rows.search, &tsv);
            rows.search.push('\t');
            match names {
                Some(names) => column(&mut rows.search, &names),
                None => rows.search.push_str("\\N"),
            }
            rows.search.push('\n');
        }
        let title = self.words.prose(&mut self.numbers, 6);
        let (tsv, _) = indexed(Role::User, &json(&title));
        rows.search.push_str(&format!("{org}\t{thread}\t0\t\\N\t{}\t\\\\x00\t", time(at)));
        column(&mut rows.search, &tsv.replace('B', "A"));
        rows.search.push_str(&format!("\t{title}\n"));
        let repo = self.numbers.below(40);
        rows.threads.push_str(&format!(
            "{thread}\t{org}\t{owner}\t1\t{length}\t{length}\t{bytes}\t{title}\t{{}}\tf\t{visibility}\t\
             {{\"branch\":\"main\",\"remote_url\":\"git.example.com/team/repo{repo}\"}}\t\
             {{\"kind\":\"waiting_for_user_input\"}}\t{{}}\t{made}\t{last}\t{last}\t1\n",
            made = time(at),
            last = time(at + length),
        ));
        thread
    }

    async fn copy(&mut self, rows: Rows) -> Result<()> {
        for (into, rows) in [
            (
                "threads (id, org_id, owner_user_id, version, last_seq, message_count, message_bytes, title, tags,
                 is_pinned, visibility, git, agent_state, extra, created_at, updated_at, last_activity_at,
                 search_preparation)",
                rows.threads,
            ),
            (
                "thread_messages (org_id, thread_id, seq, id, role, content, created_at, bytes, digest)",
                rows.messages,
            ),
            ("thread_search (org_id, thread_id, seq, role, at, digest, tsv, names)", rows.search),
        ] {
            let mut copy = self.db.copy_in_raw(&format!("COPY {into} FROM STDIN")).await?;
            for piece in rows.into_bytes().chunks(PIECE) {
                copy.send(piece).await?;
            }
            copy.finish().await?;
        }
        Ok(())
    }

    /// Large indexes are made quicker after the rows than with each.
    async fn drop_indexes(&mut self) -> Result<Vec<String>> {
        let names = ["thread_search_tsv_idx", "thread_search_names_idx", "thread_search_at_idx"];
        let mut definitions = Vec::new();
        for name in names {
            let definition =
                sqlx::query_scalar("SELECT indexdef FROM pg_indexes WHERE indexname = $1");
            definitions.push(definition.bind(name).fetch_one(&mut self.db).await?);
            self.db.execute(AssertSqlSafe(format!("DROP INDEX {name}"))).await?;
        }
        Ok(definitions)
    }
}
