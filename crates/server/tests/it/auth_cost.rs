//! What it costs to find out who is asking.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{Request, request::Parts};
use loom_auth::{Auth, Config};
use loom_core::principal::Authentication;
use loom_notify::Notify;
use loom_testkit::smtp::SmtpServer;
use serde_json::json;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::sign_in::{open, signed_in_by_mail, with};

/// Counts what is read, of the statements that sqlx tells of. The last use of a credential is noted
/// beside the request, and connections are tidied up when they like.
struct Counter(Arc<AtomicU64>);

struct Reads<'a>(&'a AtomicU64);

impl Visit for Reads<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "summary" && value.starts_with("SELECT") {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

impl Subscriber for Counter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Reads(&self.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn showing(name: &str, value: &str) -> Parts {
    Request::get("/").header(name, value).body(()).unwrap().into_parts().0
}

#[tokio::test]
async fn who_is_asking_costs_one_query_at_first_and_none_from_then_on() {
    let smtp = SmtpServer::start();
    let app = with(open(), smtp.settings()).start().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let session = format!("loom_session={}", browser.cookie("loom_session").unwrap());
    let bob = app.user("bob@example.com").await;
    let new = json!({"name": "k", "kind": "service", "scopes": ["threads:read"]});
    let made = bob.post(&format!("/api/orgs/{}/api-keys", bob.org), &new).await.expect(201).json();
    let requests = [
        ("a session", showing("cookie", &session)),
        ("a personal key", showing("x-api-key", bob.key.as_ref().unwrap())),
        ("a service key", showing("x-api-key", made["secret"].as_str().unwrap())),
    ];
    // Nobody but us sends statements from this thread.
    let (pool, clock) = (app.database.pool().clone(), app.clock.clone());
    app.running.shut_down().await;
    let seen = Arc::<AtomicU64>::default();
    let _counting = tracing::subscriber::set_default(Counter(Arc::clone(&seen)));
    let notify = Notify::silent(pool.clone(), clock.clone(), &[]).unwrap();
    for (what, request) in requests {
        // One that has seen nobody yet.
        let config = Config { base_url: "http://localhost:8080".to_owned(), ..Default::default() };
        let auth = Auth::new(pool.clone(), clock.clone(), notify.clone(), config).unwrap();
        for (statements, when) in [(1, "cold"), (0, "warm")] {
            let before = seen.load(Ordering::SeqCst);
            let known = auth.authenticate(&request).await;
            assert!(matches!(known, Authentication::Known(_)), "{what}");
            assert_eq!(seen.load(Ordering::SeqCst) - before, statements, "{what}, {when}");
        }
    }
}
