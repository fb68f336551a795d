//! Writing sessions: one transaction for many updates, keys in one order, whatever was told before.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::id::{OrgId, ProjectId};
use metrics::counter;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::names::{Admitted, Names};
use crate::session::{Class, Key, Session};

/// The same counts within this are a repeat, not more of the same.
const REPEAT: TimeDelta = TimeDelta::minutes(2);

/// What is to be written.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Update(Session),
    /// Counted where they ran; `hash` is of what was sent.
    Counted {
        project: ProjectId,
        hash: Uuid,
        received_at: DateTime<Utc>,
        sessions: Vec<Session>,
    },
}

/// What happened to the sessions of a project.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) started: i64,
    pub(crate) ended: i64,
    pub(crate) crashed: i64,
}

pub(crate) type ChangesByProject = BTreeMap<(OrgId, ProjectId), Changes>;

/// Writes a batch, all or nothing; again with the same it changes nothing.
pub(crate) async fn write(
    pool: &PgPool,
    names: &Names,
    items: &[Item],
) -> sqlx::Result<ChangesByProject> {
    let mut tx = loom_db::begin(pool).await?;
    let admitted = admit(&mut tx, names, items).await?;
    let fresh = fresh_batches(&mut tx, items).await?;
    let mut sessions: BTreeMap<Key, Session> = BTreeMap::new();
    for item in items {
        let told = match item {
            Item::Update(session) => std::slice::from_ref(session),
            Item::Counted { project, hash, received_at, sessions }
                if fresh.get(&(*project, *hash)) == Some(received_at) =>
            {
                sessions
            }
            Item::Counted { .. } => &[],
        };
        for session in told {
            let session = folded(session, &admitted);
            match sessions.entry(session.key()) {
                Entry::Occupied(mut known) => {
                    known.get_mut().merge(&session);
                }
                Entry::Vacant(place) => {
                    place.insert(session.into_owned());
                }
            }
        }
    }
    let changes = upsert(&mut tx, sessions).await?;
    tx.commit().await?;
    names.remember(admitted).await;
    Ok(changes)
}

/// Which names of the batch count as themselves.
async fn admit(db: &mut PgConnection, names: &Names, items: &[Item]) -> sqlx::Result<Admitted> {
    let mut told = BTreeSet::new();
    let mut now = DateTime::UNIX_EPOCH;
    for item in items {
        let sessions = match item {
            Item::Update(session) => std::slice::from_ref(session),
            Item::Counted { sessions, .. } => sessions,
        };
        for session in sessions {
            now = now.max(session.updated_at);
            told.insert(session.name());
        }
    }
    names.admit(db, told, now).await
}

/// A session under the names that it is counted by.
fn folded<'a>(session: &'a Session, admitted: &Admitted) -> Cow<'a, Session> {
    let Some((release, environment)) = admitted.folded(&session.name()) else {
        return Cow::Borrowed(session);
    };
    let count = u64::try_from(session.count).unwrap_or_default();
    counter!("loom_app_session_folded_total").increment(count);
    let (release, environment) = (Arc::clone(release), Arc::clone(environment));
    Cow::Owned(Session { release, environment, ..session.clone() })
}

/// Which counts are no repeats, with the time they came first.
async fn fresh_batches(
    db: &mut PgConnection,
    items: &[Item],
) -> sqlx::Result<HashMap<(ProjectId, Uuid), DateTime<Utc>>> {
    let mut first: BTreeMap<(ProjectId, Uuid), DateTime<Utc>> = BTreeMap::new();
    for item in items {
        if let Item::Counted { project, hash, received_at, .. } = item {
            let at = first.entry((*project, *hash)).or_insert(*received_at);
            *at = (*at).min(*received_at);
        }
    }
    if first.is_empty() {
        return Ok(HashMap::new());
    }
    let projects: Vec<_> = first.keys().map(|(project, _)| project.0).collect();
    let hashes: Vec<_> = first.keys().map(|(_, hash)| *hash).collect();
    let times: Vec<_> = first.values().copied().collect();
    let fresh = sqlx::query!(
        r#"INSERT INTO app_session_batches AS b (project_id, hash, received_at)
           SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[])
           ON CONFLICT (project_id, hash) DO UPDATE SET received_at = EXCLUDED.received_at
                 WHERE b.received_at < EXCLUDED.received_at - make_interval(secs => $4)
           RETURNING project_id AS "project_id: ProjectId", hash, received_at"#,
        &projects,
        &hashes,
        &times,
        REPEAT.as_seconds_f64(),
    )
    .fetch_all(db)
    .await?;
    Ok(fresh.into_iter().map(|row| ((row.project_id, row.hash), row.received_at)).collect())
}

/// `sessions` in the order of their keys: who writes takes their locks in it.
async fn upsert(
    db: &mut PgConnection,
    sessions: BTreeMap<Key, Session>,
) -> sqlx::Result<ChangesByProject> {
    let mut changes = ChangesByProject::new();
    if sessions.is_empty() {
        return Ok(changes);
    }
    let known = known(db, &sessions).await?;
    let mut write: Vec<Session> = Vec::with_capacity(sessions.len());
    let mut moved: Vec<(Key, DateTime<Utc>)> = Vec::new();
    let mut placed = false;
    let mut slots: BTreeSet<(OrgId, ProjectId, DateTime<Utc>)> = BTreeSet::new();
    for (key, told) in sessions {
        let change = changes.entry((told.org, told.project)).or_default();
        let count = i64::from(told.count);
        let now = match known.get(&key) {
            None => {
                change.started += count;
                change.ended += if told.ended { count } else { 0 };
                change.crashed += if told.class == Class::Crashed { count } else { 0 };
                told
            }
            Some(before) => {
                let mut now = before.clone();
                if !now.merge(&told) {
                    continue;
                }
                change.ended += i64::from(now.ended && !before.ended);
                let crashes = now.class == Class::Crashed && before.class != Class::Crashed;
                change.crashed += i64::from(crashes);
                placed |= (now.started, now.guessed) != (before.started, before.guessed);
                if now.started != before.started {
                    moved.push((key, before.started));
                }
                slots.insert((before.org, before.project, before.slot()));
                now
            }
        };
        slots.insert((now.org, now.project, now.slot()));
        write.push(now);
    }
    changes.retain(|_, change| *change != Changes::default());
    if !moved.is_empty() {
        forget(db, &moved).await?;
    }
    if !write.is_empty() {
        if placed {
            place(db, &write).await?;
        }
        put(db, &write, &slots).await?;
    }
    Ok(changes)
}

/// The sessions that are there already, each locked until the end of the transaction; those that are not
/// are made known, so that nobody else makes them.
async fn known(
    db: &mut PgConnection,
    sessions: &BTreeMap<Key, Session>,
) -> sqlx::Result<HashMap<Key, Session>> {
    let projects: Vec<_> = sessions.keys().map(|(project, _)| project.0).collect();
    let sids: Vec<_> = sessions.keys().map(|(_, sid)| *sid).collect();
    let started: Vec<_> = sessions.values().map(|session| session.started).collect();
    let guessed: Vec<_> = sessions.values().map(|session| session.guessed).collect();
    // One that is there already is locked by this, and stays as it is.
    let added = sqlx::query!(
        "INSERT INTO app_session_ids AS i (project_id, sid, started, guessed)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::boolean[])
         ON CONFLICT (project_id, sid) DO UPDATE SET guessed = i.guessed WHERE false",
        &projects,
        &sids,
        &started,
        &guessed,
    )
    .execute(&mut *db)
    .await?
    .rows_affected();
    if added == sessions.len() as u64 {
        return Ok(HashMap::new());
    }
    // A second statement: what a session came to is read when nobody else can change it any more.
    let rows = sqlx::query!(
        r#"SELECT s.org_id AS "org_id: OrgId", s.project_id AS "project_id: ProjectId", s.sid, s.started,
                  i.guessed, s.release, s.environment, s.class, s.ended, s.errors, s.duration_ms,
                  s.user_hash, s.count, s.weight, s.updated_at
             FROM unnest($1::uuid[], $2::uuid[]) AS k (project_id, sid)
             JOIN app_session_ids i ON i.project_id = k.project_id AND i.sid = k.sid
             JOIN app_sessions s ON s.project_id = i.project_id AND s.sid = i.sid AND s.started = i.started"#,
        &projects,
        &sids,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let session = Session {
                org: row.org_id,
                project: row.project_id,
                sid: row.sid,
                started: row.started,
                guessed: row.guessed,
                release: row.release.into(),
                environment: row.environment.into(),
                class: Class::of_row(row.class),
                ended: row.ended,
                errors: row.errors,
                duration_ms: row.duration_ms,
                user: row.user_hash,
                count: row.count,
                weight: row.weight,
                updated_at: row.updated_at,
            };
            (session.key(), session)
        })
        .collect())
}

/// Takes sessions from where they stood before it was known when they began.
async fn forget(db: &mut PgConnection, moved: &[(Key, DateTime<Utc>)]) -> sqlx::Result<()> {
    let projects: Vec<_> = moved.iter().map(|((project, _), _)| project.0).collect();
    let sids: Vec<_> = moved.iter().map(|((_, sid), _)| *sid).collect();
    let started: Vec<_> = moved.iter().map(|(_, started)| *started).collect();
    sqlx::query!(
        "DELETE FROM app_sessions s
          USING unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS k (project_id, sid, started)
          WHERE s.project_id = k.project_id AND s.sid = k.sid AND s.started = k.started",
        &projects,
        &sids,
        &started,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Says when sessions began, of which it was not known or known otherwise.
async fn place(db: &mut PgConnection, sessions: &[Session]) -> sqlx::Result<()> {
    let projects: Vec<_> = sessions.iter().map(|session| session.project.0).collect();
    let sids: Vec<_> = sessions.iter().map(|session| session.sid).collect();
    let started: Vec<_> = sessions.iter().map(|session| session.started).collect();
    let guessed: Vec<_> = sessions.iter().map(|session| session.guessed).collect();
    sqlx::query!(
        "UPDATE app_session_ids i SET started = k.started, guessed = k.guessed
           FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::boolean[])
                AS k (project_id, sid, started, guessed)
          WHERE i.project_id = k.project_id AND i.sid = k.sid
            AND (i.started, i.guessed) IS DISTINCT FROM (k.started, k.guessed)",
        &projects,
        &sids,
        &started,
        &guessed,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Writes sessions, and says of half hours that their sums are not right any more.
async fn put(
    db: &mut PgConnection,
    sessions: &[Session],
    slots: &BTreeSet<(OrgId, ProjectId, DateTime<Utc>)>,
) -> sqlx::Result<()> {
    let now = sessions.iter().map(|session| session.updated_at).max();
    let slot_orgs: Vec<_> = slots.iter().map(|(org, _, _)| org.0).collect();
    let slot_projects: Vec<_> = slots.iter().map(|(_, project, _)| project.0).collect();
    let slot_times: Vec<_> = slots.iter().map(|(_, _, at)| *at).collect();
    let orgs: Vec<_> = sessions.iter().map(|session| session.org.0).collect();
    let projects: Vec<_> = sessions.iter().map(|session| session.project.0).collect();
    let sids: Vec<_> = sessions.iter().map(|session| session.sid).collect();
    let started: Vec<_> = sessions.iter().map(|session| session.started).collect();
    let releases: Vec<String> =
        sessions.iter().map(|session| session.release.as_ref().to_owned()).collect();
    let environments: Vec<String> =
        sessions.iter().map(|session| session.environment.as_ref().to_owned()).collect();
    let classes: Vec<_> = sessions.iter().map(|session| session.class.row()).collect();
    let ended: Vec<_> = sessions.iter().map(|session| session.ended).collect();
    let errors: Vec<_> = sessions.iter().map(|session| session.errors).collect();
    let durations: Vec<_> = sessions.iter().map(|session| session.duration_ms).collect();
    let buckets: Vec<_> = sessions.iter().map(Session::duration_bucket).collect();
    let users: Vec<_> = sessions.iter().map(|session| session.user).collect();
    let counts: Vec<_> = sessions.iter().map(|session| session.count).collect();
    let weights: Vec<_> = sessions.iter().map(|session| session.weight).collect();
    let updated: Vec<_> = sessions.iter().map(|session| session.updated_at).collect();
    sqlx::query!(
        "WITH marks AS (
             INSERT INTO app_session_marks (org_id, project_id, at, marked_at)
             SELECT *, coalesce($19::timestamptz, now())
               FROM unnest($16::uuid[], $17::uuid[], $18::timestamptz[])
         )
         INSERT INTO app_sessions
             (org_id, project_id, sid, started, release, environment, class, ended, errors,
              duration_ms, duration_bucket, user_hash, count, weight, updated_at)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::text[],
              $6::text[], $7::smallint[], $8::boolean[], $9::integer[], $10::bigint[],
              $11::smallint[], $12::bigint[], $13::integer[], $14::double precision[],
              $15::timestamptz[])
         ON CONFLICT (project_id, sid, started) DO UPDATE SET
             release = EXCLUDED.release, environment = EXCLUDED.environment, class = EXCLUDED.class,
             ended = EXCLUDED.ended, errors = EXCLUDED.errors, duration_ms = EXCLUDED.duration_ms,
             duration_bucket = EXCLUDED.duration_bucket, user_hash = EXCLUDED.user_hash,
             weight = EXCLUDED.weight, updated_at = EXCLUDED.updated_at",
        &orgs,
        &projects,
        &sids,
        &started,
        &releases,
        &environments,
        &classes,
        &ended,
        &errors,
        &durations as &[Option<i64>],
        &buckets as &[Option<i16>],
        &users as &[Option<i64>],
        &counts,
        &weights,
        &updated,
        &slot_orgs,
        &slot_projects,
        &slot_times,
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Release and environment of a session that is known.
pub(crate) async fn find(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    sid: Uuid,
) -> sqlx::Result<Option<(Arc<str>, Arc<str>)>> {
    let row = sqlx::query!(
        "SELECT s.release, s.environment FROM app_session_ids i
           JOIN app_sessions s USING (project_id, sid, started)
          WHERE s.org_id = $1 AND i.project_id = $2 AND i.sid = $3",
        org.0,
        project.0,
        sid,
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| (row.release.into(), row.environment.into())))
}
