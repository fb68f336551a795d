//! Issues, over tables that were filled as the pipeline fills them.

mod actions;
mod events;
mod list;
mod merge;
mod stream;

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::id::new_uuid;
use loom_testkit::{Setup, TestApp, app::User};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) struct World {
    pub(crate) app: TestApp,
    pub(crate) ada: User,
    pub(crate) project: Uuid,
    /// `/api/crash/projects/{project}`
    pub(crate) path: String,
}

/// An issue to be put in.
pub(crate) struct New<'a> {
    pub(crate) title: &'a str,
    pub(crate) level: &'a str,
    pub(crate) status: &'a str,
    /// How many minutes ago its events came.
    pub(crate) events: &'a [i64],
    pub(crate) tags: &'a [(&'a str, &'a str)],
    pub(crate) users: &'a [&'a str],
}

impl Default for New<'_> {
    fn default() -> Self {
        Self {
            title: "TypeError: x is undefined",
            level: "error",
            status: "unresolved",
            events: &[10],
            tags: &[],
            users: &[],
        }
    }
}

/// An issue that was put in.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) short_id: String,
    pub(crate) hash: String,
    /// The oldest first.
    pub(crate) events: Vec<String>,
}

pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

impl World {
    pub(crate) async fn new() -> Self {
        let app = Setup::default().manual_clock().start().await;
        let ada = app.user("ada@example.com").await;
        let new = json!({ "name": "Web" });
        let project = ada.post("/api/crash/projects", &new).await.expect(201).json();
        let project: Uuid = project["id"].as_str().unwrap().parse().unwrap();
        Self { app, ada, project, path: "/api/crash/projects/web".to_owned() }
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.app.clock.now()
    }

    /// Puts an issue with its events in; user n of `users` has event n.
    pub(crate) async fn issue(&self, new: New<'_>) -> Made {
        let pool = self.app.database.pool();
        let (now, org) = (self.now(), self.ada.org.0);
        let id = new_uuid(now);
        let hash: [u8; 16] = *new_uuid(now).as_bytes();
        let mut times: Vec<_> =
            new.events.iter().map(|ago| now - TimeDelta::minutes(*ago)).collect();
        times.sort();
        let (first, last) = (times[0], times[times.len() - 1]);
        let release = new.tags.iter().find(|(key, _)| *key == "release").map(|(_, value)| *value);
        let environment = new.tags.iter().find(|(key, _)| *key == "environment");
        let environment = environment.map(|(_, value)| *value);
        let number: i64 = sqlx::query_scalar(
            "UPDATE crash_projects SET last_issue_number = last_issue_number + 1 WHERE id = $1
             RETURNING last_issue_number",
        )
        .bind(self.project)
        .fetch_one(pool)
        .await
        .unwrap();
        // The exact form of a sketch: 1, and the hashes of the users in their order.
        let mut hashes: Vec<[u8; 8]> = new.users.iter().map(|user| user_hash(user)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let sketch: Vec<u8> = std::iter::once(1).chain(hashes.iter().flatten().copied()).collect();
        sqlx::query(
            "INSERT INTO crash_issues (id, org_id, project_id, number, title, level, status, first_seen, last_seen,
                 first_release, last_release, event_count, user_count, users, tsv, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11, $12, $13,
                 to_tsvector('simple', regexp_replace($5, '[^[:alnum:]]+', ' ', 'g')), $14, $14)",
        )
        .bind(id)
        .bind(org)
        .bind(self.project)
        .bind(number)
        .bind(new.title)
        .bind(new.level)
        .bind(new.status)
        .bind(first)
        .bind(last)
        .bind(release)
        .bind(times.len() as i64)
        .bind(hashes.len() as i64)
        .bind(sketch)
        .bind(now)
        .execute(pool)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO crash_grouping_hashes
                 (org_id, project_id, hash, issue_id, own_issue_id, algorithm, components, created_at)
             VALUES ($1, $2, $3, $4, $4, 'loom-1', $5, $6)",
        )
        .bind(org)
        .bind(self.project)
        .bind(&hash[..])
        .bind(id)
        .bind(json!({ "exceptions": [{ "type": new.title }] }))
        .bind(now)
        .execute(pool)
        .await
        .unwrap();
        let mut events = Vec::new();
        for (n, at) in times.iter().enumerate() {
            let event = new_uuid(now);
            let user = new.users.get(n % new.users.len().max(1)).copied();
            let mut tags: serde_json::Map<String, Value> =
                new.tags.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
            tags.extend(user.map(|user| ("user".to_owned(), json!(user))));
            self.event(org, id, &hash, event, *at, &new, release, environment, user, &tags).await;
            events.push(event.to_string());
        }
        Made { id: id.to_string(), short_id: format!("WEB-{number}"), hash: hex(&hash), events }
    }

    #[allow(clippy::too_many_arguments, reason = "the columns of a row")]
    async fn event(
        &self,
        org: Uuid,
        issue: Uuid,
        hash: &[u8],
        event: Uuid,
        at: DateTime<Utc>,
        new: &New<'_>,
        release: Option<&str>,
        environment: Option<&str>,
        user: Option<&str>,
        tags: &serde_json::Map<String, Value>,
    ) {
        let pool = self.app.database.pool();
        let packed = |json: Value| zstd::bulk::compress(json.to_string().as_bytes(), 3).unwrap();
        let processed = packed(json!({
            "exceptions": [[{ "function": "pay", "filename": "shop.ts", "lineno": 7 }]], "threads": [],
        }));
        sqlx::query(
            "INSERT INTO crash_events (org_id, project_id, event_id, received_at, issue_id, hash, at, level, title,
                 release, environment, user_label, tags, processed, session_id, thread_id)
             VALUES ($1, $2, $3, $4, $5, $6, $4, $7, $8, $9, $10, $11, $12, $13, 's1', $14)",
        )
        .bind(org)
        .bind(self.project)
        .bind(event)
        .bind(at)
        .bind(issue)
        .bind(hash)
        .bind(new.level)
        .bind(new.title)
        .bind(release)
        .bind(environment)
        .bind(user)
        .bind(Value::Object(tags.clone()))
        .bind(processed)
        .bind(Option::<Uuid>::None)
        .execute(pool)
        .await
        .unwrap();
        let payload = packed(json!({
            "event_id": event, "level": new.level, "breadcrumbs": { "values": [{ "message": "clicked" }] },
            "contexts": { "os": { "name": "Linux" } }, "user": { "id": "7" },
            "exception": { "values": [{
                "type": "TypeError", "value": "x is undefined",
                "stacktrace": { "frames": [{ "function": "a", "filename": "min.js", "lineno": 1 }] },
            }] },
        }));
        sqlx::query(
            "INSERT INTO crash_raw (org_id, project_id, event_id, received_at, payload, delivery)
             VALUES ($1, $2, $3, $4, $5, '{}')",
        )
        .bind(org)
        .bind(self.project)
        .bind(event)
        .bind(at)
        .bind(payload)
        .execute(pool)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO crash_issue_hours (org_id, project_id, issue_id, hour, environment, events)
             VALUES ($1, $2, $3, date_trunc('hour', $4::timestamptz, 'UTC'), coalesce($5, ''), 1)
             ON CONFLICT (issue_id, hour, environment) DO UPDATE SET events = crash_issue_hours.events + 1",
        )
        .bind(org)
        .bind(self.project)
        .bind(issue)
        .bind(at)
        .bind(environment)
        .execute(pool)
        .await
        .unwrap();
        for (key, value) in tags {
            sqlx::query(
                "INSERT INTO crash_issue_tags (org_id, project_id, issue_id, key, value, events, last_seen)
                 VALUES ($1, $2, $3, $4, $5, 1, $6)
                 ON CONFLICT (issue_id, key, value) DO UPDATE SET events = crash_issue_tags.events + 1",
            )
            .bind(org)
            .bind(self.project)
            .bind(issue)
            .bind(key)
            .bind(value.as_str())
            .bind(at)
            .execute(pool)
            .await
            .unwrap();
        }
    }

    pub(crate) async fn release(&self, version: &str) {
        sqlx::query(
            "INSERT INTO crash_releases (id, org_id, project_id, version, created_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(new_uuid(self.now()))
        .bind(self.ada.org.0)
        .bind(self.project)
        .bind(version)
        .bind(self.now())
        .execute(self.app.database.pool())
        .await
        .unwrap();
    }

    /// The titles that a query finds.
    pub(crate) async fn find(&self, query: &str) -> Vec<String> {
        let path = format!("{}/issues?query={}", self.path, encode(query));
        let page = self.ada.get(&path).await.expect(200).json();
        let titles = page["issues"].as_array().unwrap().iter();
        titles.map(|issue| issue["title"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn get(&self, issue: &Made) -> Value {
        self.ada.get(&format!("{}/issues/{}", self.path, issue.id)).await.expect(200).json()
    }

    /// The ids of an issue's events as they are listed.
    pub(crate) async fn events_of(&self, issue: &Made) -> Vec<String> {
        let path = format!("{}/issues/{}/events", self.path, issue.id);
        let page = self.ada.get(&path).await.expect(200).json();
        let events = page["events"].as_array().unwrap().iter();
        events.map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn act(&self, issue: &Made, verb: &str, body: &Value) -> Value {
        let path = format!("{}/issues/{}/{verb}", self.path, issue.id);
        self.ada.post(&path, body).await.expect(200).json()
    }

    pub(crate) async fn upkeep(&self) {
        self.app.running.features.jobs.run_now("crash-issue-upkeep").await.unwrap();
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A user's place in a sketch: the first 8 bytes of SHA-256.
fn user_hash(user: &str) -> [u8; 8] {
    use sha2::Digest;
    sha2::Sha256::digest(user.as_bytes())[..8].try_into().unwrap()
}
