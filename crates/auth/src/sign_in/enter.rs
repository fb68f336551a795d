//! The last step of every way in: the session, the record of it, and where to go.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use loom_core::{
    Error, Json, Principal, Result,
    id::UserId,
    port::{Act, Outcome},
    principal::{Actor, OrgRole, RequestInfo, Scopes, Via},
};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, Postgres, Transaction};

use super::identity::{Entry, disabled};
use crate::{Auth, pages::ACCOUNT, users};

/// Where somebody goes who was sent nowhere: the dashboard.
pub(crate) const HOME: &str = "/";

/// How somebody has shown who they are.
pub(crate) struct Shown {
    pub(crate) user: UserId,
    pub(crate) entry: Entry,
    pub(crate) method: &'static str,
    pub(crate) details: Value,
    pub(crate) redirect_to: String,
    pub(crate) is_form: bool,
}

impl Auth {
    /// Signs a browser in, and commits. What is wrong with the account is found here, whatever the way.
    pub(crate) async fn enter(
        &self,
        mut tx: Transaction<'static, Postgres>,
        shown: Shown,
        headers: &HeaderMap,
        info: &RequestInfo,
    ) -> Result<Response> {
        let (session, before) =
            self.begin_in_browser(&mut tx, shown.user, shown.method, headers, info).await?;
        let who = self.signed_in(&mut tx, shown.user, Via::Session(session.id)).await?;
        if shown.entry == Entry::Linked && self.config.mail {
            self.tell_of_link(&mut tx, &who.name, shown.method).await?;
        }
        tx.commit().await?;
        self.forget(before.as_slice()).await;
        self.notify.wake();
        if shown.entry == Entry::SignedUp {
            self.done(&who, None, info, "user.create", shown.user, json!({})).await?;
        }
        if shown.entry == Entry::Linked {
            let details = shown.details.clone();
            self.done(&who, None, info, "identity.connect", shown.user, details).await?;
        }
        let mut details = shown.details;
        if let Value::Object(members) = &mut details {
            members.insert("method".to_owned(), shown.method.into());
        }
        self.done(&who, None, info, "session.create", session.id, details).await?;
        let cookie = self.session_cookie(&session);
        Ok(go_on(&shown.redirect_to, shown.is_form, Some(cookie)))
    }

    /// The principal that a user becomes by signing in.
    pub(crate) async fn signed_in(
        &self,
        db: &mut PgConnection,
        user: UserId,
        via: Via,
    ) -> Result<Principal> {
        let holder = users::store::user_holder(&mut *db, user)
            .await?
            .ok_or_else(|| Error::not_found("user"))?;
        if holder.disabled {
            return Err(disabled());
        }
        Ok(Principal {
            actor: Actor::User(user),
            via,
            org: holder.personal_org,
            role: OrgRole::Owner,
            scopes: Scopes::all(),
            system_admin: holder.system_admin,
            auditor: holder.auditor,
            name: holder.email,
        })
    }

    /// A sign-in that came to nothing, for the audit log.
    pub(crate) fn note_failed_sign_in(
        &self,
        method: &'static str,
        error: &Error,
        info: &RequestInfo,
    ) {
        let act = Act {
            action: "session.create",
            target: String::new(),
            outcome: Outcome::Failed,
            details: json!({"method": method, "reason": error.code()}),
        };
        self.note(None, None, info.clone(), act);
    }

    async fn tell_of_link(&self, db: &mut PgConnection, to: &str, provider: &str) -> Result<()> {
        let base_url = &self.site.base_url;
        let mail = loom_notify::Mail {
            kind: "identity_connected",
            to: to.to_owned(),
            subject: "A new way to sign in to Loom".to_owned(),
            text: format!(
                "Your Loom account at {base_url} can now be entered with {provider}: somebody signed in there \
                 with this e-mail address, which both {provider} and Loom have verified.\n\n\
                 If it was not you, disconnect it at {base_url}{ACCOUNT} and end the sessions that you do not know.\n"
            ),
            html: None,
            expires_at: None,
        };
        self.notify.mail(db, &mail).await
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SignedIn {
    /// The path that the sign-in was begun for.
    redirect: String,
}

/// To a page of ours: a redirect for a form, the path for a program.
pub(crate) fn go_on(path: &str, is_form: bool, cookie: Option<HeaderValue>) -> Response {
    let mut response = if is_form {
        let to = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static(HOME));
        (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
    } else {
        Json(SignedIn { redirect: path.to_owned() }).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if let Some(cookie) = cookie {
        headers.append(header::SET_COOKIE, cookie);
    }
    response
}
