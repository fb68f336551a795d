//! The routes of the pages. They are for browsers, and not part of the API.

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use loom_core::{
    Path, Principal, Query, Result,
    id::SessionId,
    principal::{Authentication, RequestInfo, Via},
};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use super::{ACCOUNT, SIGN_IN, account, device, error_page, sign_in};
use crate::{
    Auth,
    path::only_users,
    sessions::{session_of, store as sessions},
    sign_in::{
        body::{self, FormOrJson},
        code,
        device::{allowed_to_answer, known},
        enter::go_on,
    },
};

const SESSIONS_SHOWN: usize = 100;

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .route(SIGN_IN, get(show_sign_in))
        .route("/auth/setup", get(show_set_up).post(set_up))
        .route("/device", get(show_device).post(look_at_device))
        .route(ACCOUNT, get(show_account))
        .route("/account/sign-out", post(sign_out))
        .route("/account/sessions/{id}/end", post(end_session))
        .route("/account/identities/{id}/disconnect", post(disconnect))
        .route("/account/connect/{provider}", post(connect))
}

#[derive(Deserialize)]
struct Onward {
    #[serde(default)]
    redirect: Option<String>,
}

async fn show_sign_in(State(auth): State<Auth>, Query(query): Query<Onward>) -> Response {
    let redirect = query.redirect.as_deref().and_then(|path| auth.site.own_path(path));
    sign_in::sign_in(&auth, redirect.as_deref()).await
}

#[derive(Deserialize)]
struct SetUp {
    #[serde(default)]
    token: String,
    #[serde(default)]
    email: String,
}

async fn show_set_up(
    State(auth): State<Auth>,
    info: RequestInfo,
    Query(query): Query<SetUp>,
) -> Response {
    match auth.look_at_setup(&query.token).await {
        Ok(()) => sign_in::set_up(&query.token, None),
        Err(error) => error_page(&auth, &info, error),
    }
}

async fn set_up(
    State(auth): State<Auth>,
    info: RequestInfo,
    headers: HeaderMap,
    body: Result<FormOrJson<SetUp>>,
) -> Response {
    let set_up = async {
        let SetUp { token, email } = body?.value;
        auth.only_own_pages(&headers, true)?;
        match body::email(&email) {
            Ok(email) => auth.set_up(&token, &email, &headers, &info).await,
            Err(error) => {
                auth.look_at_setup(&token).await?;
                Ok(sign_in::set_up(&token, Some(&error)))
            }
        }
    };
    set_up.await.unwrap_or_else(|error| {
        auth.note_failed_sign_in("set_up", &error, &info);
        error_page(&auth, &info, error)
    })
}

/// To the sign-in page, and back afterwards.
pub(crate) fn sign_in_first(path: &str) -> Response {
    let query = serde_urlencoded::to_string([("redirect", path)]).unwrap_or_default();
    Redirect::to(&format!("{SIGN_IN}?{query}")).into_response()
}

#[derive(Deserialize)]
struct UserCode {
    #[serde(default)]
    user_code: String,
}

async fn show_device(
    State(auth): State<Auth>,
    info: RequestInfo,
    Extension(authentication): Extension<Authentication>,
    headers: HeaderMap,
    Query(query): Query<UserCode>,
) -> Response {
    // Only what can be a code comes back on the page.
    let code = code::typed(&query.user_code).map(|code| code::shown(&code)).unwrap_or_default();
    match known(authentication) {
        Ok(Some(principal)) => match allowed_to_answer(&principal, &headers) {
            Ok(_) => device::ask(&code, &principal.name),
            Err(error) => error_page(&auth, &info, error),
        },
        Ok(None) if code.is_empty() => sign_in_first("/device"),
        Ok(None) => sign_in_first(&format!("/device?user_code={code}")),
        Err(error) => error_page(&auth, &info, error),
    }
}

async fn look_at_device(
    State(auth): State<Auth>,
    info: RequestInfo,
    Extension(authentication): Extension<Authentication>,
    headers: HeaderMap,
    body: Result<FormOrJson<UserCode>>,
) -> Response {
    let looked = async {
        let Some(principal) = known(authentication)? else { return Ok(sign_in_first("/device")) };
        let user = allowed_to_answer(&principal, &headers)?;
        let typed = body?.value.user_code;
        let grant = auth.waiting_device(user, &typed).await?;
        let code = code::typed(&typed).map(|code| code::shown(&code)).unwrap_or_default();
        Ok(device::confirm(&grant, &code, &principal.name))
    };
    looked.await.unwrap_or_else(|error| error_page(&auth, &info, error))
}

async fn show_account(
    State(auth): State<Auth>,
    info: RequestInfo,
    Extension(authentication): Extension<Authentication>,
) -> Response {
    let shown = async {
        let Some(principal) = known(authentication)? else { return Ok(sign_in_first(ACCOUNT)) };
        let user = only_users(&principal)?;
        let current = session_of(&principal);
        let now = auth.clock.now();
        let mut sessions =
            sessions::list(&auth.pool, user, current, None, SESSIONS_SHOWN + 1, now).await?;
        let more = sessions.len() > SESSIONS_SHOWN;
        sessions.truncate(SESSIONS_SHOWN);
        sessions.sort_by_key(|session| !session.current);
        let ways = auth.ways_in(user).await?;
        let account =
            account::Account { email: &principal.name, sessions: &sessions, more, ways: &ways };
        Ok(account::account(&auth, &account))
    };
    shown.await.unwrap_or_else(|error| error_page(&auth, &info, error))
}

/// Ends this browser's session, if there is still one.
async fn sign_out(
    State(auth): State<Auth>,
    info: RequestInfo,
    Extension(authentication): Extension<Authentication>,
) -> Response {
    let done = async {
        if let Some(principal) = known(authentication)?
            && let Via::Session(id) = principal.via
        {
            auth.revoke_own_session(&principal, &info, id).await?;
        }
        Ok(go_on(SIGN_IN, true, Some(auth.no_session_cookie())))
    };
    done.await.unwrap_or_else(|error| error_page(&auth, &info, error))
}

async fn end_session(
    State(auth): State<Auth>,
    principal: Result<Principal>,
    info: RequestInfo,
    Path(id): Path<SessionId>,
) -> Response {
    let done = async {
        auth.revoke_own_session(&principal?, &info, id).await?;
        Ok(go_on(ACCOUNT, true, None))
    };
    done.await.unwrap_or_else(|error| error_page(&auth, &info, error))
}

async fn disconnect(
    State(auth): State<Auth>,
    principal: Result<Principal>,
    info: RequestInfo,
    Path(id): Path<Uuid>,
) -> Response {
    let done = async {
        auth.disconnect(&principal?, &info, id).await?;
        Ok(go_on(ACCOUNT, true, None))
    };
    done.await.unwrap_or_else(|error| error_page(&auth, &info, error))
}

async fn connect(
    State(auth): State<Auth>,
    principal: Result<Principal>,
    info: RequestInfo,
    headers: HeaderMap,
    Path(provider): Path<String>,
) -> Response {
    let begun = async {
        let (url, cookie) =
            auth.begin_to_connect(&principal?, &provider, &headers, ACCOUNT).await?;
        let offered = auth.sign_in.offered();
        let name = offered.iter().find(|(id, _)| *id == provider).map(|(_, name)| name.as_str());
        let mut response = sign_in::onward(name.unwrap_or("the provider"), &url);
        response.headers_mut().append(header::SET_COOKIE, cookie);
        Ok(response)
    };
    begun.await.unwrap_or_else(|error| error_page(&auth, &info, error))
}
