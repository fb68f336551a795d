//! The team, and what it may do.

use anyhow::{Context as _, bail};
use loom_core::Clock;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Demo, Keys, Wish, api::Who, chance::Chance, rows, text};

pub(crate) const NAME: &str = "Acme Shop";

/// Name, address, role; the first is who asked.
const PEOPLE: [(&str, &str, &str); 5] = [
    ("Ada Okafor", "ada.okafor@example.com", "owner"),
    ("Bruno Lima", "bruno.lima@example.com", "admin"),
    ("Chiara Rossi", "chiara.rossi@example.com", "member"),
    ("Deniz Kaya", "deniz.kaya@example.com", "member"),
    ("Emil Berg", "emil.berg@example.com", "member"),
];

#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) who: Who,
}

pub(crate) struct Team {
    pub(crate) org: Uuid,
    pub(crate) slug: String,
    /// The first is who asked.
    pub(crate) people: Vec<Person>,
}

impl Team {
    /// Who administers it.
    pub(crate) fn admin(&self) -> anyhow::Result<&Person> {
        self.people.first().context("the team has nobody")
    }

    pub(crate) fn nth(&self, n: usize) -> anyhow::Result<&Person> {
        self.people.get(n % self.people.len().max(1)).context("the team has nobody")
    }
}

pub(crate) async fn organisation(pool: &PgPool, slug: &str) -> anyhow::Result<Option<Uuid>> {
    let found = sqlx::query_scalar("SELECT id FROM organisations WHERE slug = $1");
    Ok(found.bind(slug).fetch_optional(pool).await?)
}

/// The organisation with its people; None when all this was done before.
pub(crate) async fn gather(
    pool: &PgPool,
    clock: &Clock,
    wish: &Wish,
    keys: &impl Keys,
) -> anyhow::Result<Option<Team>> {
    let now = clock.now();
    let mut chance = Chance::new(1);
    let org = match organisation(pool, &wish.slug).await? {
        Some(org) => {
            if is_filled(pool, org).await? {
                return Ok(None);
            }
            if !wish.force && has_data(pool, org).await? {
                bail!(
                    "the organisation `{}` has data of its own: name another one with --org, or add --force",
                    wish.slug
                );
            }
            org
        }
        None => {
            let org = chance.id(now);
            let row = json!({"id": org, "slug": wish.slug, "name": NAME, "is_personal": false, "created_at": text(now)});
            rows::insert(pool, "organisations", &[row]).await?;
            org
        }
    };
    let mut people = Vec::new();
    let first = [("", wish.email.as_str(), "owner")];
    for (name, email, role) in first.into_iter().chain(PEOPLE) {
        let id = user(pool, &mut chance, now, name, email).await?;
        sqlx::query(
            "INSERT INTO organisation_members (org_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (org_id, user_id) DO NOTHING",
        )
        .bind(org)
        .bind(id)
        .bind(role)
        .bind(now)
        .execute(pool)
        .await?;
        let name = sqlx::query_scalar("SELECT name FROM users WHERE id = $1");
        let name: String = name.bind(id).fetch_one(pool).await?;
        let name = if name.is_empty() { email.to_owned() } else { name };
        let who = Who { key: keys.key(email).await?, org: org.to_string() };
        people.push(Person { id, name, email: email.to_owned(), who });
    }
    Ok(Some(Team { org, slug: wish.slug.clone(), people }))
}

pub(crate) async fn find(pool: &PgPool, email: &str) -> anyhow::Result<Option<Uuid>> {
    let found = sqlx::query_scalar("SELECT id FROM users WHERE email = $1");
    Ok(found.bind(email).fetch_optional(pool).await?)
}

async fn user(
    pool: &PgPool,
    chance: &mut Chance,
    now: chrono::DateTime<chrono::Utc>,
    name: &str,
    email: &str,
) -> anyhow::Result<Uuid> {
    if let Some(id) = find(pool, email).await? {
        return Ok(id);
    }
    let (id, personal) = (chance.id(now), chance.id(now));
    let slug = format!("u-{}", id.simple());
    let org = json!({"id": personal, "slug": slug, "name": email, "is_personal": true, "created_at": text(now)});
    rows::insert(pool, "organisations", &[org]).await?;
    let user = json!({"id": id, "email": email, "name": name, "personal_org_id": personal,
                      "is_system_admin": false, "is_auditor": false, "created_at": text(now),
                      "email_verified_at": text(now)});
    rows::insert(pool, "users", &[user]).await?;
    let member =
        json!({"org_id": personal, "user_id": id, "role": "owner", "created_at": text(now)});
    rows::insert(pool, "organisation_members", &[member]).await?;
    Ok(id)
}

/// The last thing that is written says that all is there.
async fn is_filled(pool: &PgPool, org: Uuid) -> anyhow::Result<bool> {
    let found = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM audit_log WHERE org_id = $1 AND action = 'demo_data.create')",
    );
    Ok(found.bind(org).fetch_one(pool).await?)
}

async fn has_data(pool: &PgPool, org: Uuid) -> anyhow::Result<bool> {
    let found = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM crash_projects WHERE org_id = $1)
             OR EXISTS (SELECT FROM threads WHERE org_id = $1)
             OR EXISTS (SELECT FROM cron_monitors WHERE org_id = $1)
             OR EXISTS (SELECT FROM llm_requests WHERE org_id = $1)
             OR EXISTS (SELECT FROM weavers WHERE org_id = $1)",
    );
    Ok(found.bind(org).fetch_one(pool).await?)
}

/// The keys that all this was done with go, and a note stays that it was done.
pub(crate) async fn leave(demo: &Demo) -> anyhow::Result<()> {
    let ids: Vec<Uuid> = demo.team.people.iter().map(|person| person.id).collect();
    sqlx::query(
        "UPDATE api_keys SET revoked_at = $2, revoked_because = 'revoked'
          WHERE user_id = ANY($1) AND revoked_at IS NULL AND created_at = $3",
    )
    .bind(&ids)
    .bind(demo.now)
    .bind(crate::start(demo.now))
    .execute(&demo.pool)
    .await?;
    let mut chance = Chance::new(2);
    let asked = demo.days_ago(1.3);
    let invitation = json!({"id": chance.id(asked), "org_id": demo.team.org, "email": "farah.haddad@example.com",
        "role": "member", "token_sha256": format!("\\x{}", chance.hex(64)), "invited_by": demo.team.admin()?.id,
        "created_at": text(asked), "expires_at": text(demo.now + chrono::TimeDelta::days(6))});
    rows::insert(&demo.pool, "organisation_invitations", &[invitation]).await?;
    let row = json!({"id": chance.id(demo.now), "at": text(demo.now), "org_id": demo.team.org,
                     "actor_kind": "system", "actor_name": "loom-server demo-data", "via": "system",
                     "action": "demo_data.create", "target": demo.team.slug, "outcome": "success", "details": {}});
    rows::insert(&demo.pool, "audit_log", &[row]).await
}
