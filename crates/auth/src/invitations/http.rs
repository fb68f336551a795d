//! The routes of invitations.

use std::time::Duration;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::{InvitationId, UserId},
    page::{PageQuery, cut},
    principal::{RequestInfo, Scope},
};
use loom_notify::Mail;
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{CreatedInvitation, Invitation, InvitationToken, Invitations, Joined, NewInvitation},
    page::PATH,
    store::{self, Open},
};
use crate::{
    Auth,
    authenticate::{Revoked, tell},
    bootstrap::normalise_email,
    limit::Budget,
    members::{
        http::{as_of_now, management_of},
        store as members,
    },
    organisations::store as organisations,
    path::only_users,
    token, users,
};

const GOOD_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Mails that one organisation sends, that one person sends (who can make any number of organisations),
/// and that one address gets from all of them.
const OF_ORG: Budget = Budget::per_hour(50);
const OF_SENDER: Budget = Budget::per_hour(100);
const TO_ADDRESS: Budget = Budget::per_hour(5);
pub(super) const TRIES: Budget = Budget::per_minute(20);

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(list_invitations, invite))
        .routes(routes!(revoke_invitation))
        .routes(routes!(accept_invitation))
}

/// The open invitations of an organisation, newest first
#[utoipa::path(get, path = "/api/orgs/{org}/invitations", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), PageQuery),
    responses((status = 200, body = Invitations),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn list_invitations(
    State(auth): State<Auth>,
    principal: Principal,
    Path(org): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Invitations>> {
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminRead))?;
    let kind = format!("invitations:{}", here.org);
    let limit = page.limit()?;
    let open = store::open(&auth.pool, here.org, page.after_time(&kind)?, limit + 1).await?;
    let (invitations, next_cursor) = cut(open, limit, &kind, |one| (one.created_at, one.id));
    Ok(Json(Invitations { invitations, next_cursor }))
}

/// Invite somebody by mail
///
/// The invitation is for this address, good once and for seven days. One that is open for the address
/// becomes void: so it is sent anew.
#[utoipa::path(post, path = "/api/orgs/{org}/invitations", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug")), request_body = NewInvitation,
    responses((status = 201, body = CreatedInvitation),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`already_member`, `personal_organisation`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json")))]
async fn invite(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path(org): Path<String>,
    Json(new): Json<NewInvitation>,
) -> Result<Response> {
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, management_of(new.role))?;
    let invited_by = only_users(&here)?;
    let email = normalise_email(&new.email)?;
    auth.rare.take(&auth.pool, "invitations of org", &here.org.to_string(), OF_ORG).await?;
    let sender = invited_by.to_string();
    auth.rare.take(&auth.pool, "invitations of sender", &sender, OF_SENDER).await?;
    auth.rare.take(&auth.pool, "invitations to address", &email, TO_ADDRESS).await?;
    let now = auth.clock.now();
    let token = token::one_time();
    let invitation = Invitation {
        id: InvitationId::new(now),
        email,
        role: new.role,
        invited_by,
        created_at: now,
        expires_at: now + GOOD_FOR,
    };
    let mut tx = loom_db::begin(&auth.pool).await?;
    members::lock(&mut tx, here.org).await?;
    let here = as_of_now(&mut tx, &here).await?;
    authorize(&here, management_of(new.role))?;
    if store::is_member(&mut *tx, here.org, &invitation.email).await? {
        return Err(Error::conflict("already_member", "somebody with this address is a member"));
    }
    store::revoke_for(&mut *tx, here.org, &invitation.email, now).await?;
    store::insert(&mut *tx, here.org, &invitation, &token::digest(token.expose())).await?;
    let name = organisations::name(&mut *tx, here.org).await?;
    let link = format!("{}{PATH}?token={}", auth.config.base_url, token.expose());
    auth.notify.mail(&mut tx, &mail(&invitation, &name, &here.name, &link)).await?;
    tx.commit().await?;
    auth.notify.wake();
    let details = json!({"email": invitation.email, "role": invitation.role});
    auth.done(&here, None, &info, "invitation.create", invitation.id, details).await?;
    let location = format!("/api/orgs/{}/invitations/{}", here.org, invitation.id);
    let headers = [(header::LOCATION, location), (header::CACHE_CONTROL, "no-store".to_owned())];
    Ok((StatusCode::CREATED, headers, Json(CreatedInvitation { invitation, link })).into_response())
}

fn mail(invitation: &Invitation, org: &str, from: &str, link: &str) -> Mail {
    let text = format!(
        "{from} invites you to the organisation \"{org}\" on Loom.\n\n\
         Sign in as {} and open this link within seven days:\n\n{link}\n\n\
         If you do not know what this is about, do nothing: without the link nothing happens.\n",
        invitation.email
    );
    Mail {
        kind: "invitation",
        to: invitation.email.clone(),
        subject: format!("You are invited to {}", subject_part(org)),
        text,
        html: None,
        expires_at: Some(invitation.expires_at),
    }
}

/// A subject is short.
fn subject_part(org: &str) -> String {
    org.chars().take(60).collect()
}

/// Void an open invitation
#[utoipa::path(delete, path = "/api/orgs/{org}/invitations/{id}", tag = "auth", security(("api_key" = [])),
    params(("org" = String, Path, description = "Id or slug"), ("id" = InvitationId, Path)),
    responses((status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn revoke_invitation(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Path((org, id)): Path<(String, InvitationId)>,
) -> Result<StatusCode> {
    let here = auth.acting_in(&principal, &org).await?;
    authorize(&here, Action::ManageOrg(Scope::AdminWrite))?;
    let email = store::revoke(&auth.pool, here.org, id, auth.clock.now())
        .await?
        .ok_or_else(|| Error::not_found("invitation"))?;
    auth.done(&here, None, &info, "invitation.revoke", id, json!({"email": email})).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Accept an invitation, as the user whose address it was sent to
#[utoipa::path(post, path = "/api/orgs/invitations/accept", tag = "auth", security(("api_key" = [])),
    request_body = InvitationToken,
    responses((status = 200, body = Joined),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`wrong_address`: it was sent to somebody else", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Not known, used, expired or revoked", body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json")))]
async fn accept_invitation(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    Json(body): Json<InvitationToken>,
) -> Result<Json<Joined>> {
    authorize(&principal, Action::Use(Scope::AdminWrite))?;
    auth.flood.take("invitation tries", info.ip, TRIES).await?;
    auth.join_by_invitation(&principal, &info, body.token.trim()).await.map(Json)
}

impl Auth {
    /// The invitation of this token, which must be for the user who shows it.
    pub(crate) async fn invitation_for(
        &self,
        principal: &Principal,
        token: &str,
    ) -> Result<(UserId, Open)> {
        let user = only_users(principal)?;
        let open = store::by_token(&self.pool, &token::digest(token), self.clock.now())
            .await?
            .ok_or_else(|| Error::not_found("invitation"))?;
        if users::store::user(&self.pool, user).await?.email != open.email {
            return Err(Error::new(
                StatusCode::FORBIDDEN,
                "wrong_address",
                "this invitation was sent to another address: sign in with that one",
            ));
        }
        Ok((user, open))
    }

    pub(crate) async fn join_by_invitation(
        &self,
        principal: &Principal,
        info: &RequestInfo,
        token: &str,
    ) -> Result<Joined> {
        let not_found = || Error::not_found("invitation");
        let (user, found) = self.invitation_for(principal, token).await?;
        let (digest, now) = (token::digest(token), self.clock.now());
        let mut tx = loom_db::begin(&self.pool).await?;
        members::lock(&mut tx, found.org).await?;
        // Under the lock its sender cannot lose the right to it.
        let open = store::by_token(&mut *tx, &digest, now).await?.ok_or_else(not_found)?;
        if !store::accept(&mut *tx, open.org, open.id, user, now).await? {
            return Err(not_found());
        }
        if members::role(&mut *tx, open.org, user).await?.is_none() {
            organisations::insert_member(&mut tx, open.org, user, open.role, now).await?;
        }
        let role = members::role(&mut *tx, open.org, user).await?.unwrap_or(open.role);
        let changed = [Revoked::User(user)];
        tell(&mut *tx, &changed).await?;
        tx.commit().await?;
        self.forget(&changed).await;
        let details = json!({"role": role, "invited_by": open.invited_by});
        self.done(principal, Some(open.org), info, "invitation.accept", open.id, details).await?;
        Ok(Joined { org_id: open.org, role })
    }
}
