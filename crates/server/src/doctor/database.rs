//! The database: there, let in, of a version that fits, with a schema that fits, and with what it takes.

use std::time::Duration;

use loom_core::{
    Clock,
    health::{Check, Component, Status},
};
use loom_db::{Database, health::Thresholds, migrate};

use super::report::Finding;
use crate::config::Config;

const CHECK: &str = "database";
/// A server waits at its start; who asks what is wrong does not.
const WAIT: Duration = Duration::ZERO;
/// To connect, to start a private one.
const LIMIT: Duration = Duration::from_secs(30);
const LOOKS: usize = 4;

/// The database, when it can be used, and what was found.
pub(super) async fn look(config: &Config) -> (Option<Database>, Vec<Finding>) {
    let mut wanted = config.database.clone();
    wanted.wait = WAIT;
    if wanted.url.is_none() && !loom_db::embedded::is_there(&config.data_dir) {
        let text = "a private one is made at the first start";
        return (None, vec![Finding::ok(CHECK, text)]);
    }
    let opened = tokio::time::timeout(LIMIT, Database::join(&wanted, false)).await;
    let database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(error)) => {
            let advice = if wanted.url.is_some() {
                "Nothing works without it. What each message means is in docs/troubleshooting.md."
            } else {
                "Nothing works without it. Its log is postgres.log in the data directory."
            };
            return (None, vec![Finding::problem(CHECK, error.to_string(), advice)]);
        }
        Err(_) => {
            let said = format!("no answer within {} s", LIMIT.as_secs());
            let advice = "Look at the network between this machine and the database.";
            return (None, vec![Finding::problem(CHECK, said, advice)]);
        }
    };
    let mut findings = Vec::new();
    let migrated = schema(&database, &mut findings).await;
    privileges(&database, &mut findings).await;
    if migrated {
        let thresholds = Thresholds { transaction: config.health.transaction };
        let component = look_again(&database.health(thresholds)).await;
        let version = component.inside.get("server_version").and_then(|value| value.as_str());
        let trip = component.inside.get("round_trip_ms").and_then(serde_json::Value::as_f64);
        let well = format!(
            "PostgreSQL {}, {:.1} ms away",
            version.unwrap_or("of an unknown version"),
            trip.unwrap_or_default()
        );
        findings.insert(0, Finding::of(CHECK, component, well));
    } else if let Ok(major) = database.major().await {
        findings.insert(0, Finding::ok(CHECK, format!("PostgreSQL {major}")));
    }
    let component = look_again(&database.clock_health(&Clock::system())).await;
    findings.push(Finding::of("clock", component, "agrees with the database's"));
    (migrated.then_some(database), findings)
}

/// A probe is made for a server that has its connections already: the first look may be too short for a
/// database that is far away.
async fn look_again(check: &Check) -> Component {
    let mut component = (check.probe)().await;
    for _ in 1..LOOKS {
        if component.status < Status::Unhealthy {
            break;
        }
        component = (check.probe)().await;
    }
    component
}

/// Whether features can work on it.
async fn schema(database: &Database, findings: &mut Vec<Finding>) -> bool {
    let check = "schema";
    let status = match migrate::status(database.pool()).await {
        Ok(status) => status,
        Err(error) => {
            findings.push(Finding::problem(check, error.to_string(), "See the database's log."));
            return false;
        }
    };
    if let Some(problem) = &status.problem {
        let advice = "The server does not start on this database.";
        findings.push(Finding::problem(check, problem.to_string(), advice));
        return false;
    }
    let (applied, pending) = (status.applied.len(), status.pending.len());
    if applied == 0 {
        findings.push(Finding::ok(check, "empty; the first start fills it"));
        return false;
    }
    if pending > 0 {
        let text = format!("{pending} migrations are to be applied, which the next start does");
        findings.push(Finding::ok(check, text));
        return false;
    }
    findings.push(if status.newer.is_empty() {
        Finding::ok(check, format!("that of this version, {applied} migrations"))
    } else {
        Finding::warning(
            check,
            "a newer version has been here; this one can work with it",
            "In the middle of an upgrade all is well; else replace this program by the newer one.",
        )
    });
    true
}

async fn privileges(database: &Database, findings: &mut Vec<Finding>) {
    let check = "privileges";
    match database.lacking().await {
        Ok(lacking) if lacking.is_empty() => {
            findings.push(Finding::ok(check, "all that is needed"));
        }
        Ok(lacking) => findings.push(Finding::problem(
            check,
            format!("lacking: {}", lacking.join(", ")),
            "Make the server's user the owner of the database: ALTER DATABASE … OWNER TO …",
        )),
        Err(error) => {
            findings.push(Finding::problem(check, error.to_string(), "See the database's log."));
        }
    }
}
