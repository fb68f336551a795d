//! A server with a project, and what its sessions come to.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use loom_core::{
    id::OrgId,
    port::{Delivery, Project, SessionSink, Taken},
};
use loom_sessions::Sessions;
use loom_testkit::{Setup, TestApp, User};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) struct Rig {
    pub(crate) app: TestApp,
    pub(crate) ada: User,
    pub(crate) project: Arc<Project>,
    /// Of its DSN.
    pub(crate) key: String,
}

pub(crate) fn rfc(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default().manual_clock()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        Self::on(setup.start().await).await
    }

    pub(crate) async fn on(app: TestApp) -> Self {
        let ada = app.user("ada@example.com").await;
        let made =
            ada.post("/api/crash/projects", &json!({"name": "Shop"})).await.expect(201).json();
        let key = made["dsn"].as_str().unwrap().split_once("://").unwrap().1[..32].to_owned();
        let project = of_json(ada.org, &made);
        Self { app, ada, project, key }
    }

    /// A further project of the same user.
    pub(crate) async fn project(&self, name: &str) -> Arc<Project> {
        let new = json!({"name": name, "slug": name});
        of_json(self.ada.org, &self.ada.post("/api/crash/projects", &new).await.expect(201).json())
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.app.running.features.sessions
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.app.clock.now()
    }

    pub(crate) fn delivery(&self) -> Delivery {
        self.delivery_of(&self.project)
    }

    pub(crate) fn delivery_of(&self, project: &Arc<Project>) -> Delivery {
        Delivery {
            project: Arc::clone(project),
            key: None,
            received_at: self.now(),
            sent_at: None,
            client: None,
            user_agent: None,
            sdk: None,
        }
    }

    pub(crate) async fn send(&self, payload: &Value) -> Taken {
        let payload = Bytes::from(payload.to_string());
        self.sessions().session(&self.delivery(), payload).await.unwrap()
    }

    pub(crate) async fn send_counts(&self, payload: &Value) -> Taken {
        let payload = Bytes::from(payload.to_string());
        self.sessions().aggregates(&self.delivery(), payload).await.unwrap()
    }

    /// A session of a release with a state, by a new user.
    pub(crate) async fn one(&self, release: &str, status: &str) {
        let sid = Uuid::from_u128(rand::random());
        let taken = self
            .send(&json!({"sid": sid, "did": sid, "init": true, "started": rfc(self.now()),
                "status": status, "attrs": {"release": release, "environment": "production"}}))
            .await;
        assert_eq!(taken, Taken::Stored);
    }

    pub(crate) async fn run(&self, job: &str) {
        let outcome = self.app.running.features.jobs.run_now(job).await.unwrap();
        assert_eq!(outcome.error, None);
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ada.get(path).await.expect(200).json()
    }

    /// Healthy, errored, unhandled, abnormal, crashed.
    pub(crate) async fn counts(&self, release: &str) -> [i64; 5] {
        let list =
            self.get(&format!("/api/app-sessions/releases?project=shop&release={release}")).await;
        let Some(found) = list["releases"].get(0) else { return [0; 5] };
        ["healthy", "errored", "unhandled", "abnormal", "crashed"]
            .map(|class| found[class].as_i64().unwrap())
    }
}

fn of_json(org: OrgId, made: &Value) -> Arc<Project> {
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    Arc::new(Project {
        id: text("id").parse().unwrap(),
        number: made["number"].as_i64().unwrap(),
        org,
        slug: text("slug"),
        name: text("name"),
        allowed_origins: vec!["*".to_owned()],
    })
}
