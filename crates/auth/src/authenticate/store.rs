//! Looking a credential up, with all that is behind it, in one query.

use ipnet::IpNet;
use loom_core::{
    Result,
    id::{ApiKeyId, OrgId, UserId, WeaverId},
    principal::{Actor, Scopes, Via},
};
use sqlx::{PgPool, types::Json};

use super::holder::{Holder, Who};
use crate::users::model::{Membership, UserHolder};

/// What a look-up finds: whose it is, and that user.
pub(crate) type Found = (Holder, Option<UserHolder>);

/// The key with this digest, also one that was revoked.
pub(crate) async fn api_key(pool: &PgPool, digest: &[u8]) -> Result<Option<Found>> {
    let row = sqlx::query!(
        r#"SELECT k.id AS "id: ApiKeyId", k.name, k.org_id AS "org_id: OrgId", o.slug, k.scopes, k.networks,
                  k.expires_at, k.last_used_at, k.revoked_at IS NOT NULL AS "revoked!",
                  u.id AS "user_id?: UserId", u.email AS "email?", u.personal_org_id AS "personal_org_id?: OrgId",
                  u.is_system_admin AS "is_system_admin?", u.is_auditor AS "is_auditor?", u.disabled_at,
                  (SELECT jsonb_agg(jsonb_build_object('org', m.org_id, 'slug', mo.slug, 'role', m.role))
                     FROM organisation_members m JOIN organisations mo ON mo.id = m.org_id
                    WHERE m.user_id = k.user_id) AS "memberships: Json<Vec<Membership>>"
             FROM api_keys k
             JOIN organisations o ON o.id = k.org_id
             LEFT JOIN users u ON u.id = k.user_id
            WHERE k.secret_sha256 = $1"#,
        digest
    )
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let user = match (row.user_id, row.email, row.personal_org_id) {
        (Some(id), Some(email), Some(personal_org)) => Some(UserHolder {
            id,
            email: email.into(),
            personal_org,
            system_admin: row.is_system_admin.unwrap_or_default(),
            auditor: row.is_auditor.unwrap_or_default(),
            disabled: row.disabled_at.is_some(),
            memberships: row.memberships.map(|Json(list)| list).unwrap_or_default(),
        }),
        _ => None,
    };
    let who = match &user {
        Some(user) => Who::User(user.id),
        None => Who::Own {
            actor: Actor::Service(row.id),
            org: row.org_id,
            slug: row.slug.into(),
            name: row.name.into(),
            owner: None,
        },
    };
    let holder = Holder {
        via: Via::ApiKey(row.id),
        who,
        scopes: scopes(&row.scopes),
        networks: networks(&row.networks),
        expires_at: row.expires_at,
        revoked: row.revoked,
        last_used_at: row.last_used_at,
    };
    Ok(Some((holder, user)))
}

/// Of the secret of a key that is there still.
pub(crate) async fn digest_of_key(pool: &PgPool, id: ApiKeyId) -> Result<Option<Vec<u8>>> {
    let found = sqlx::query_scalar!("SELECT secret_sha256 FROM api_keys WHERE id = $1", id.0);
    Ok(found.fetch_optional(pool).await?)
}

/// Of the secret of a weaver that is there still.
pub(crate) async fn digest_of_weaver(pool: &PgPool, id: WeaverId) -> Result<Option<Vec<u8>>> {
    let found =
        sqlx::query_scalar!("SELECT secret_sha256 FROM weaver_tokens WHERE weaver_id = $1", id.0);
    Ok(found.fetch_optional(pool).await?)
}

/// The weaver token with this digest.
pub(crate) async fn weaver_token(pool: &PgPool, digest: &[u8]) -> Result<Option<Found>> {
    let row = sqlx::query!(
        r#"SELECT t.weaver_id AS "weaver_id: WeaverId", t.org_id AS "org_id: OrgId", o.slug,
                  t.owner_id AS "owner_id: UserId", t.scopes, t.expires_at
             FROM weaver_tokens t JOIN organisations o ON o.id = t.org_id
            WHERE t.secret_sha256 = $1"#,
        digest
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| {
        let holder = Holder {
            via: Via::WeaverToken(row.weaver_id),
            who: Who::Own {
                actor: Actor::Weaver(row.weaver_id),
                org: row.org_id,
                slug: row.slug.into(),
                name: format!("weaver {}", row.weaver_id).into(),
                owner: row.owner_id,
            },
            scopes: scopes(&row.scopes),
            networks: Vec::new(),
            expires_at: Some(row.expires_at),
            revoked: false,
            last_used_at: None,
        };
        (holder, None)
    }))
}

pub(crate) fn scopes(stored: &[String]) -> Scopes {
    stored.iter().filter_map(|scope| scope.parse().ok()).collect()
}

/// A network that could not be read would open the key to everywhere: it closes it instead.
fn networks(stored: &[String]) -> Vec<IpNet> {
    let nowhere = || IpNet::from(std::net::IpAddr::from([0, 0, 0, 0]));
    stored.iter().map(|text| text.parse().unwrap_or_else(|_| nowhere())).collect()
}
