//! The routes of signing in at a provider.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    error::Problem,
    id::UserId,
    principal::{Authentication, RequestInfo},
};
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Provider,
    browser::Browser,
    enter::{HOME, Shown, go_on},
    flow::{Callback, LIFE, stale},
    identity::{self},
    oauth::Bound,
    store::{self, StateRow},
};
use crate::{Auth, limit::Budget, pages, token};

/// Sign-ins begun, and as many finished, from one network: an office has one address.
const BEGUN: Budget = Budget::per_minute(60);
/// Sign-ins of one account, over all replicas.
const ENTERED: Budget = Budget::per_hour(60);

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(list_providers))
        .routes(routes!(log_in))
        .routes(routes!(call_back))
        .routes(routes!(call_back_too))
}

/// A way to sign in.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SignInProvider {
    /// `github`, `google`, `oidc` or `magic_link`.
    pub(crate) id: &'static str,
    pub(crate) name: String,
    /// False: asking for it answers 501.
    pub(crate) configured: bool,
    /// Where the browser goes; none for magic links, which begin with `POST /auth/magic-link`.
    pub(crate) login_url: Option<String>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SignInProviders {
    pub(crate) providers: Vec<SignInProvider>,
}

/// The ways to sign in, and which of them are configured
#[utoipa::path(get, path = "/auth/providers", tag = "auth", security(()),
    responses((status = 200, body = SignInProviders)))]
async fn list_providers(State(auth): State<Auth>) -> Json<SignInProviders> {
    let offered = auth.sign_in.offered();
    let mut providers: Vec<_> = super::PROVIDERS
        .into_iter()
        .map(|id| {
            let name = offered.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone());
            SignInProvider {
                id,
                configured: name.is_some(),
                name: name.unwrap_or_else(|| default_name(id).to_owned()),
                login_url: Some(format!("/auth/login/{id}")),
            }
        })
        .collect();
    providers.push(SignInProvider {
        id: "magic_link",
        name: "E-mail".to_owned(),
        configured: auth.magic_links_work(),
        login_url: None,
    });
    Json(SignInProviders { providers })
}

fn default_name(id: &str) -> &'static str {
    match id {
        "github" => "GitHub",
        "google" => "Google",
        _ => "OpenID Connect",
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct LogIn {
    /// A path of this server, to go on to afterwards.
    redirect: Option<String>,
}

/// Sign in at a provider
///
/// For browsers. Sets a cookie that binds the sign-in to this browser.
#[utoipa::path(get, path = "/auth/login/{provider}", tag = "auth", security(()),
    params(("provider" = String, Path, description = "`github`, `google` or `oidc`"), LogIn),
    responses((status = 302, description = "To the provider"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 501, description = "`provider_not_configured`", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "`upstream_error`", body = Problem, content_type = "application/problem+json")))]
async fn log_in(
    State(auth): State<Auth>,
    info: RequestInfo,
    headers: HeaderMap,
    Path(provider): Path<String>,
    Query(query): Query<LogIn>,
) -> Response {
    let begun = async {
        let configured = auth.sign_in.provider(&provider)?;
        auth.flood.take("sign-in", info.ip, BEGUN).await?;
        let redirect_to = query.redirect.as_deref().and_then(|path| auth.site.own_path(path));
        let redirect_to = redirect_to.unwrap_or_else(|| HOME.to_owned());
        auth.begin_at(&configured, &provider, &headers, redirect_to, None).await
    };
    match begun.await {
        Ok((url, cookie)) => {
            let headers = [
                (header::LOCATION, url),
                (header::CACHE_CONTROL, "no-store".to_owned()),
                (header::REFERRER_POLICY, "same-origin".to_owned()),
            ];
            (StatusCode::FOUND, headers, [(header::SET_COOKIE, cookie)]).into_response()
        }
        Err(error) => pages::error_for(&auth, &headers, &info, error),
    }
}

/// Comes back from a provider
#[utoipa::path(get, path = "/auth/{provider}/callback", tag = "auth", security(()),
    params(("provider" = String, Path), ("code" = Option<String>, Query), ("state" = Option<String>, Query)),
    responses((status = 303, description = "Signed in: the session's cookie, and on to where the sign-in was begun for"),
        (status = 400, description = "A page: the state is bad, used or expired")))]
async fn call_back(
    auth: State<Auth>,
    info: RequestInfo,
    authentication: axum::Extension<Authentication>,
    headers: HeaderMap,
    provider: Path<String>,
    query: Query<Callback>,
) -> Response {
    came_back(auth.0, info, authentication.0, headers, provider.0, query.0).await
}

/// Comes back from a provider, under the other of the two usual paths
#[utoipa::path(get, path = "/auth/callback/{provider}", tag = "auth", security(()),
    params(("provider" = String, Path), ("code" = Option<String>, Query), ("state" = Option<String>, Query)),
    responses((status = 303, description = "Signed in: the session's cookie, and on to where the sign-in was begun for"),
        (status = 400, description = "A page: the state is bad, used or expired")))]
async fn call_back_too(
    auth: State<Auth>,
    info: RequestInfo,
    authentication: axum::Extension<Authentication>,
    headers: HeaderMap,
    provider: Path<String>,
    query: Query<Callback>,
) -> Response {
    came_back(auth.0, info, authentication.0, headers, provider.0, query.0).await
}

async fn came_back(
    auth: Auth,
    info: RequestInfo,
    authentication: Authentication,
    headers: HeaderMap,
    provider: String,
    callback: Callback,
) -> Response {
    let signed_in = match &authentication {
        Authentication::Known(principal) => Some(principal),
        _ => None,
    };
    match auth.finish(&provider, &callback, signed_in, &headers, &info).await {
        Ok(response) => response,
        Err(error) => {
            let method = super::PROVIDERS.into_iter().find(|known| *known == provider);
            auth.note_failed_sign_in(method.unwrap_or("unknown"), &error, &info);
            pages::error_page(&auth, &info, error)
        }
    }
}

impl Auth {
    /// Where a browser goes to sign in, and the cookie that it takes along.
    pub(crate) async fn begin_at(
        &self,
        provider: &Provider,
        name: &str,
        headers: &HeaderMap,
        redirect_to: String,
        connecting: Option<UserId>,
    ) -> Result<(String, HeaderValue)> {
        let browser = Browser::of_or_new(&self.site, headers);
        let bound = Bound::new(&browser);
        let url = provider.authorise_url(&bound).await?;
        let row = StateRow {
            browser_sha256: browser.digest().to_vec(),
            provider: name.to_owned(),
            redirect_to,
            user: connecting,
            expires_at: self.clock.now() + LIFE,
        };
        store::insert_state(&self.pool, &token::digest(&bound.state), &row).await?;
        Ok((url.into(), browser.cookie(&self.site)))
    }

    async fn finish(
        &self,
        name: &str,
        callback: &Callback,
        signed_in: Option<&Principal>,
        headers: &HeaderMap,
        info: &RequestInfo,
    ) -> Result<Response> {
        let provider = self.sign_in.provider(name)?;
        self.flood.take("sign-in finished", info.ip, BEGUN).await?;
        let state = callback.state()?;
        let browser = Browser::of(&self.site, headers).ok_or_else(stale)?;
        // First of all, so that it is used up whatever follows.
        let row = store::take_state(&self.pool, &token::digest(state)).await?.ok_or_else(stale)?;
        let ours = row.browser_sha256 == browser.digest()
            && row.provider == name
            && row.expires_at > self.clock.now();
        if !ours {
            return Err(stale());
        }
        if callback.iss.as_deref().is_some_and(|issuer| !provider.may_be_issuer(issuer)) {
            return Err(super::oauth::bad_answer("the answer names another issuer"));
        }
        let bound = Bound::of(&browser, state.to_owned());
        let proven = provider.prove(callback.code()?, &bound).await?;
        let mut tx = loom_db::begin(&self.pool).await?;
        if let Some(user) = row.user {
            let who = signed_in
                .filter(|principal| principal.user_id() == Some(user))
                .ok_or_else(|| {
                    Error::conflict(
                        "signed_in_otherwise",
                        "you are no longer signed in as who began to connect this identity; sign in and begin again",
                    )
                })?;
            self.connect(&mut tx, user, &proven).await?;
            // What the session may do has not changed, what it opens has: a new secret for it.
            let (session, before) =
                self.begin_in_browser(&mut tx, user, proven.provider, headers, info).await?;
            tx.commit().await?;
            self.forget(before.as_slice()).await;
            let details = identity::details(&proven);
            self.done(who, None, info, "identity.connect", user, details).await?;
            return Ok(go_on(&row.redirect_to, true, Some(self.session_cookie(&session))));
        }
        let (user, entry) = self.user_of(&mut tx, &proven).await?;
        self.rare.take(&mut *tx, "sign-in of an account", &user.to_string(), ENTERED).await?;
        let shown = Shown {
            user,
            entry,
            method: proven.provider,
            details: identity::details(&proven),
            redirect_to: row.redirect_to,
            is_form: true,
        };
        self.enter(tx, shown, headers, info).await
    }
}
