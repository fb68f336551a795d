//! Whether word from other replicas arrives.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use loom_core::health::{Component, Status};
use sqlx::PgPool;

use crate::Hub;

const PROBE_EVERY: Duration = Duration::from_secs(15);
pub(super) const HEARD: Duration = Duration::from_secs(1);
/// After it came to nothing, which also made the hub connect anew.
const PROBE_AGAIN: Duration = Duration::from_secs(5);
const HEARD_LATE: Duration = Duration::from_millis(500);

/// When a word to ourselves was last said, and how that went.
pub(super) type Last = Option<(Instant, Heard)>;

/// How the last word to ourselves went; None: it did not come.
pub(super) type Heard = Option<Duration>;

fn kept_for(heard: Heard) -> Duration {
    if heard.is_some() { PROBE_EVERY } else { PROBE_AGAIN }
}

pub(super) async fn probe(hub: &Hub, probes: &PgPool, last: &Mutex<Last>) -> Component {
    if !hub.is_connected() {
        *last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        return Component::new(Status::Degraded)
            .with("connected", false)
            .error("not listening for word from other replicas")
            .code(
                "LISTENER_DISCONNECTED",
                "What other replicas change is seen late. See that LOOM_SERVER_DATABASE_DIRECT_URL (or \
                 DATABASE_URL) leads to PostgreSQL itself and that it has a connection free; the server \
                 connects again by itself.",
            );
    }
    let kept = *last.lock().unwrap_or_else(PoisonError::into_inner);
    let heard = match kept {
        Some((at, heard)) if at.elapsed() < kept_for(heard) => heard,
        _ => match hub.probe(probes, HEARD).await {
            Ok(heard) => {
                *last.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((Instant::now(), heard));
                heard
            }
            Err(error) => {
                return Component::new(Status::Degraded)
                    .with("connected", true)
                    .error("the listener cannot be tried")
                    .code("LISTENER_UNKNOWN", "The database does not answer; see its component.")
                    .detail(error.to_string());
            }
        },
    };
    let component = match heard {
        None => Component::new(Status::Degraded)
            .error("word from other replicas does not arrive")
            .code(
                "LISTENER_DEAF",
                "The connection is there and hears nothing, as through a transaction pooler: set \
                 LOOM_SERVER_DATABASE_DIRECT_URL. Else a connection died silently, and the server has \
                 made a new one: look again.",
            ),
        Some(lag) if lag > HEARD_LATE => Component::new(Status::Degraded)
            .error("word from other replicas arrives late")
            .code(
                "LISTENER_SLOW",
                "Look at PostgreSQL's load, and at the server's own CPU.",
            ),
        Some(_) => Component::new(Status::Healthy),
    };
    let component = component.with("connected", true);
    match heard {
        Some(lag) => {
            metrics::gauge!("loom_hub_lag_seconds").set(lag.as_secs_f64());
            component.inside("lag_ms", lag.as_secs_f64() * 1e3)
        }
        None => component,
    }
}
