//! A server with a cluster, and weavers in it.

use loom_testkit::{Setup, TestApp, User, eventually, kubernetes::FakeKubernetes};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) struct World {
    pub(crate) cluster: FakeKubernetes,
    pub(crate) app: TestApp,
    pub(crate) user: User,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|setup| setup).await
    }

    pub(crate) async fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let cluster = FakeKubernetes::start();
        let app = change(Setup::default().weavers(&cluster)).start().await;
        let user = app.user("mara@example.com").await;
        Self { cluster, app, user }
    }

    /// A weaver with this image, as it is right after it was asked for.
    pub(crate) async fn weaver(&self, image: &str) -> String {
        self.weaver_with(json!({"image": image})).await
    }

    pub(crate) async fn weaver_with(&self, mut body: Value) -> String {
        body["wait"] = json!(false);
        let weaver = self.user.post("/api/weaver", &body).await.expect(202).json();
        weaver["id"].as_str().unwrap().to_owned()
    }

    /// The row behind it.
    pub(crate) async fn row(&self, id: &str) -> Value {
        let id: Uuid = id.parse().unwrap();
        let rows = self.app.rows(&format!("SELECT * FROM weavers WHERE id = '{id}'")).await;
        rows.into_iter().next().unwrap_or(Value::Null)
    }

    /// The row, once it is so.
    pub(crate) async fn row_when(&self, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(async || Some(self.row(id).await).filter(|row| is_so(row))).await
    }

    pub(crate) async fn row_in(&self, id: &str, status: &str) -> Value {
        self.row_when(id, |row| row["status"] == status).await
    }

    /// What happened, as `phase` or `phase:code`.
    pub(crate) async fn steps(&self, id: &str) -> Vec<String> {
        let id: Uuid = id.parse().unwrap();
        let query = format!("SELECT * FROM weaver_events WHERE weaver_id = '{id}' ORDER BY number");
        let step = |row: Value| {
            let phase = row["phase"].as_str().unwrap().to_owned();
            row["code"].as_str().map_or(phase.clone(), |code| format!("{phase}:{code}"))
        };
        self.app.rows(&query).await.into_iter().map(step).collect()
    }

    pub(crate) async fn delete(&self, id: &str) {
        self.user.delete(&format!("/api/weaver/{id}")).await.expect(204);
    }

    /// Nothing is left of it in the cluster.
    pub(crate) async fn is_gone(&self, id: &str) {
        let name = format!("weaver-{id}");
        eventually(async || {
            let secrets = self.cluster.objects("secrets");
            let has_secret = secrets.iter().any(|secret| secret["metadata"]["name"] == *name);
            (self.cluster.pod(&name).is_none() && !has_secret).then_some(())
        })
        .await;
    }
}

pub(crate) fn pod(id: &str) -> String {
    format!("weaver-{id}")
}
