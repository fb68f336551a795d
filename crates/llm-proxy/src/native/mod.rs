//! The native routes: one request and reply for every provider.

use utoipa_axum::router::OpenApiRouter;

use crate::LlmProxy;

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new().with_state(proxy)
}
