//! What the team did over the month, beside what the API has noted by itself.

use serde_json::json;

use crate::{Demo, rows, text};

const ACTS: [(&str, &str); 9] = [
    ("session.create", "session"),
    ("session.create", "session"),
    ("api_key.create", "api_key"),
    ("api_key.revoke", "api_key"),
    ("weaver.create", "weaver"),
    ("weaver.exec", "weaver"),
    ("weaver.delete", "weaver"),
    ("thread.share", "thread"),
    ("access.deny", "GET /api/admin/users"),
];
const COUNT: u32 = 140;

pub(crate) async fn write(demo: &mut Demo) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for n in 0..COUNT {
        let shift = demo.chance.between(0.0, 0.15);
        let at = demo.days_ago((30.0 - f64::from(n) * 30.0 / f64::from(COUNT) - shift).max(0.0));
        let (action, target) = demo.chance.one(&ACTS);
        let person = demo.team.nth(usize::try_from(demo.chance.number(0, 5))?)?.clone();
        let id = demo.chance.id(at);
        let outcome = if action == "access.deny" { "denied" } else { "success" };
        all.push(json!({
            "id": id, "at": text(at), "org_id": demo.team.org, "actor_kind": "user", "actor_id": person.id,
            "actor_name": person.email, "via": if action == "session.create" { "session" } else { "api_key" },
            "action": action, "target": if target.contains(' ') { target.to_owned() } else { demo.chance.id(at).to_string() },
            "outcome": outcome, "ip": format!("192.0.2.{}", demo.chance.number(2, 60)),
            "request_id": demo.chance.id(at).to_string(), "details": {},
        }));
    }
    rows::insert(&demo.pool, "audit_log", &all).await
}
