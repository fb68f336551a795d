//! The routes of the device flow.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use loom_core::{
    Error, Json, Principal, Result,
    error::Problem,
    principal::{Authentication, RequestInfo},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::model::{
    DeviceAnswer, DeviceAnswered, DevicePending, DevicePoll, DeviceStart, DeviceStarted,
    DeviceToken,
};
use crate::{Auth, pages, sign_in::body::FormOrJson};

pub(crate) fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(start_device)).routes(routes!(poll_device))
}

pub(crate) fn routes_of_users() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(complete_device))
}

/// A client without a browser begins to sign in (RFC 8628)
///
/// It shows the user code and where to type it, and polls. Also takes a form.
#[utoipa::path(post, path = "/auth/device/start", tag = "auth", security(()), request_body = DeviceStart,
    responses((status = 200, body = DeviceStarted), (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json")))]
async fn start_device(
    State(auth): State<Auth>,
    info: RequestInfo,
    headers: HeaderMap,
    body: FormOrJson<DeviceStart>,
) -> Result<Response> {
    let client = body.value.client_name;
    let started = auth.start_device(client.as_deref(), &headers, &info).await?;
    Ok(no_store(Json(started)))
}

/// Has somebody let the client in? (RFC 8628)
#[utoipa::path(post, path = "/auth/device/poll", tag = "auth", security(()), request_body = DevicePoll,
    responses((status = 200, body = DeviceToken),
        (status = 400, description = "In the shape of RFC 8628", body = DevicePending),
        (status = 429, body = Problem, content_type = "application/problem+json")))]
async fn poll_device(
    State(auth): State<Auth>,
    info: RequestInfo,
    body: FormOrJson<DevicePoll>,
) -> Result<Response> {
    Ok(match auth.poll_device(&body.value.device_code, &info).await? {
        Ok(token) => no_store(Json(token)),
        Err(error) => no_store((StatusCode::BAD_REQUEST, Json(error.document()))),
    })
}

/// Let a client in, or refuse it
///
/// By somebody who is signed in; the page `/device` shows who asks. Also takes a form.
#[utoipa::path(post, path = "/auth/device/complete", tag = "auth", security(("session" = [])), request_body = DeviceAnswer,
    responses((status = 200, body = DeviceAnswered),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`no_such_code`", body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json")))]
async fn complete_device(
    State(auth): State<Auth>,
    principal: Principal,
    info: RequestInfo,
    headers: HeaderMap,
    body: Result<FormOrJson<DeviceAnswer>>,
) -> Response {
    let FormOrJson { value, is_form } = match body {
        Ok(body) => body,
        Err(error) => return pages::error_for(&auth, &headers, &info, error),
    };
    let answered =
        auth.answer_device(&principal, &headers, &info, &value.user_code, value.approve).await;
    match answered {
        Ok(grant) if is_form => pages::device_answered(&auth, &grant, value.approve),
        Ok(grant) => {
            no_store(Json(DeviceAnswered { approved: value.approve, client_name: grant.client }))
        }
        Err(error) if is_form => pages::error_page(&auth, &info, error),
        Err(error) => error.into_response(),
    }
}

fn no_store(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Who is signed in, for pages that are there for others too.
pub(crate) fn known(authentication: Authentication) -> Result<Option<Principal>, Error> {
    match authentication {
        Authentication::Known(principal) => Ok(Some(principal)),
        Authentication::Anonymous => Ok(None),
        // A cookie of a session that has ended is as good as none; one that a foreign page sent is not.
        Authentication::Refused(error) if error.status() == StatusCode::UNAUTHORIZED => Ok(None),
        Authentication::Refused(error) => Err(error),
    }
}
