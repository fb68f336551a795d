//! Requests and replies of organisations that want them kept: masked, sealed, for their admins.

use std::borrow::Cow;

use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use loom_core::{Error, Result, id::LlmRequestId};

use super::{call::Call, noted::Opened, store, tee::Heard};
use crate::LlmProxy;

/// Of a request, and of a reply, no more than this is kept.
pub(super) const MAX_BODY: usize = 4 << 20;

/// A request and its reply, as their admins read them.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = LlmCapture)]
pub(crate) struct Capture {
    pub(crate) request_id: LlmRequestId,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) captured_at: chrono::DateTime<chrono::Utc>,
    /// Secrets in it were masked before it was stored.
    pub(crate) is_redacted: bool,
    pub(crate) request: Part,
    pub(crate) reply: ReplyPart,
}

#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = LlmCapturedBody)]
pub(crate) struct Part {
    /// The body, as text.
    pub(crate) body: String,
    /// There was more of it than is kept (4 MiB).
    pub(crate) truncated: bool,
}

#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = LlmCapturedReply)]
pub(crate) struct ReplyPart {
    pub(crate) status: i32,
    pub(crate) content_type: Option<String>,
    /// False: the client left, or the provider broke off.
    pub(crate) is_whole: bool,
    #[serde(flatten)]
    pub(crate) part: Part,
}

impl LlmProxy {
    /// Stores them; takes a while for a large one, so that nobody waits for it.
    pub(super) async fn put_capture(
        &self,
        call: &Call,
        opened: &Opened,
        (status, headers): (StatusCode, &HeaderMap),
        heard: &Heard,
    ) -> Result<()> {
        let (org, id) = (call.principal.org, opened.id);
        let redact = call.settings.capture.redact;
        let request = call.body.slice(..call.body.len().min(MAX_BODY));
        let reply = super::kept::concat(&heard.pieces);
        let proxy = self.clone();
        let sealing = move || {
            let seal = |part: &str, body: Bytes| {
                let text = String::from_utf8_lossy(&body);
                let text = if redact {
                    Cow::Owned(loom_redact::shared().redact(&text).into_owned())
                } else {
                    text
                };
                proxy.vault.seal_bytes(&context(id, part), text.as_bytes())
            };
            Ok::<_, Error>((seal("request", request)?, seal("reply", reply)?))
        };
        let (sealed_request, sealed_reply) =
            tokio::task::spawn_blocking(sealing).await.map_err(Error::internal)??;
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let row = store::CaptureRow {
            request_id: id.0,
            captured_at: self.clock.now(),
            status: status.as_u16().into(),
            content_type: kind.map(|kind| loom_core::text::cut(kind, 200).to_owned()),
            is_whole: heard.ended,
            is_redacted: redact,
            request_truncated: call.body.len() > MAX_BODY,
            reply_truncated: heard.truncated,
            sealed_request,
            sealed_reply,
        };
        store::put_capture(&self.pool, org, &row).await
    }

    /// # Errors
    /// 404; 500 when it was sealed with a master key that is gone.
    pub(super) async fn capture(
        &self,
        org: loom_core::id::OrgId,
        id: LlmRequestId,
    ) -> Result<Capture> {
        let row = store::capture(&self.pool, org, id.0, self.clock.now())
            .await?
            .ok_or_else(|| Error::not_found("captured request"))?;
        let open = |part: &str, sealed: &[u8]| {
            let plain = self.vault.unseal_bytes(&context(id, part), sealed)?;
            Ok::<_, Error>(String::from_utf8_lossy(&plain).into_owned())
        };
        let request = open("request", &row.sealed_request)?;
        let reply = open("reply", &row.sealed_reply)?;
        Ok(Capture {
            request_id: LlmRequestId(row.request_id),
            captured_at: row.captured_at,
            is_redacted: row.is_redacted,
            request: Part { body: request, truncated: row.request_truncated },
            reply: ReplyPart {
                status: row.status,
                content_type: row.content_type,
                is_whole: row.is_whole,
                part: Part { body: reply, truncated: row.reply_truncated },
            },
        })
    }
}

fn context(id: LlmRequestId, part: &str) -> String {
    format!("llm_captures/{part}/{id}")
}
