//! What sentry-cli 2 and 3 ask for, under `/api/0`: its routes, names and errors. What they do is done by
//! `artifacts` and `releases`.

mod chunks;
mod issues;
mod releases;
mod who;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, get, post},
};
use http::{HeaderValue, StatusCode, header};
use loom_core::{
    Error, Principal, Result,
    authorize::{Action, authorize},
    extract::BodyLimit,
    port::{Project, ProjectDirectory},
    principal::{self, Scope},
};
use serde_json::json;

use crate::Crashes;

/// Commits of a release with all the files that they touch.
const BODY: usize = 32 << 20;

impl Crashes {
    /// `/api/0/…`, but for `monitors`. They need an `Authentication` in each request.
    pub fn cli_routes(&self) -> Router {
        let release = get(releases::read).put(releases::change).delete(releases::delete);
        let all = get(releases::list).post(releases::create);
        let deploys = get(releases::deploys).post(releases::deploy);
        let mut router = Router::new();
        for (path, methods) in [
            ("/api/0", get(who::info)),
            ("/api/0/organizations", get(who::organizations)),
            ("/api/0/users/me/regions", get(who::regions)),
            ("/api/0/organizations/{org}/projects", get(who::projects)),
            ("/api/0/organizations/{org}/repos", get(who::none)),
            ("/api/0/organizations/{org}/chunk-upload", get(chunks::options).post(chunks::upload)),
            ("/api/0/organizations/{org}/artifactbundle/assemble", post(chunks::assemble_bundle)),
            ("/api/0/organizations/{org}/releases", all.clone()),
            ("/api/0/organizations/{org}/releases/{version}", release.clone()),
            ("/api/0/organizations/{org}/releases/{version}/deploys", deploys.clone()),
            (
                "/api/0/organizations/{org}/releases/{version}/previous-with-commits",
                get(releases::previous),
            ),
            ("/api/0/projects/{org}/{project}/releases", all),
            ("/api/0/projects/{org}/{project}/releases/{version}", release),
            ("/api/0/projects/{org}/{project}/releases/{version}/deploys", deploys),
            (
                "/api/0/projects/{org}/{project}/releases/{version}/previous-with-commits",
                get(releases::previous),
            ),
            ("/api/0/projects/{org}/{project}/files/difs/assemble", post(chunks::assemble_files)),
            ("/api/0/projects/{org}/{project}/reprocessing", post(chunks::reprocess)),
            ("/api/0/projects/{org}/{project}/issues", get(issues::list).put(issues::change)),
        ] {
            router = both(router, path, methods);
        }
        router
            .route("/api/0/{*rest}", any(unknown))
            .layer(Extension(BodyLimit(BODY)))
            .layer(DefaultBodyLimit::disable())
            .layer(middleware::from_fn(surface))
            .with_state(self.clone())
    }

    /// The principal in the organisation that a path names.
    async fn acting(&self, principal: &Principal, org: &str, action: Action) -> Result<Principal> {
        let acting = self.deps.orgs.acting_in(principal, org).await?;
        authorize(&acting, action)?;
        Ok(acting)
    }

    async fn reader(&self, principal: &Principal, org: &str) -> Result<Principal> {
        self.acting(principal, org, Action::Use(Scope::CrashesRead)).await
    }

    async fn writer(&self, principal: &Principal, org: &str) -> Result<Principal> {
        self.acting(principal, org, Action::Use(Scope::CrashesWrite)).await
    }

    /// Projects by slug or number, as a command names them; all must be there.
    async fn projects_named(
        &self,
        principal: &Principal,
        names: &[String],
    ) -> Result<Vec<Arc<Project>>> {
        let mut projects = Vec::new();
        for name in names.iter().take(100) {
            let found = self.deps.directory.find(principal.org, name).await?;
            projects.push(found.ok_or_else(|| Error::not_found("project"))?);
        }
        Ok(projects)
    }
}

/// A route with and without the slash at its end.
fn both(router: Router<Crashes>, path: &str, methods: MethodRouter<Crashes>) -> Router<Crashes> {
    router.route(path, methods.clone()).route(&format!("{path}/"), methods)
}

async fn unknown() -> Error {
    Error::new(StatusCode::NOT_FOUND, "not_found", "this server has no such route for sentry-cli")
}

/// A layer: nobody in without a principal, and errors in the shape that sentry-cli reads.
async fn surface(request: Request, next: Next) -> Response {
    let response = match principal::of(&request) {
        Ok(_) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let Some(error) = response.extensions().get::<Error>().cloned() else { return response };
    let mut told = error.detail().to_owned();
    let faults = error.problem("").errors;
    if faults.len() > 1 {
        let all: Vec<_> = faults.iter().map(|f| format!("{}: {}", f.path, f.message)).collect();
        told = all.join("; ");
    }
    // It knows 400 where we say 422.
    let status = match error.status() {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status => status,
    };
    let mut shaped = (status, axum::Json(json!({"detail": told}))).into_response();
    for name in [header::WWW_AUTHENTICATE, header::RETRY_AFTER] {
        if let Some(value) = response.headers().get(&name) {
            shaped.headers_mut().insert(name, value.clone());
        }
    }
    shaped.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    shaped.extensions_mut().insert(error);
    shaped
}
