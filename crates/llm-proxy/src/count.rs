//! Anthropic's counting of tokens for a model of another wire, where its provider counts, too.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use loom_core::{Error, Result};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{
    LlmProxy,
    dialect::{Dialect, Operation},
    exchange::{Answer, wire},
    forward::read_to,
    http::{Incoming, bad_request},
    ledger::{Opening, Outcome},
    provider::{Provider, Target},
    translate::{anthropic, object::Faults},
    translated::refusal,
};

const MAX_REPLY: usize = 64 << 10;

/// What OpenAI and Gemini answer.
#[derive(Deserialize)]
struct Counted {
    #[serde(alias = "totalTokens")]
    input_tokens: u64,
}

/// By what a provider is asked to count; None: it does not.
fn asked_by(provider: &Provider) -> Option<Operation> {
    match provider.dialect {
        Dialect::Anthropic => Some(Operation::CountTokens),
        Dialect::OpenAi => provider.is_openai().then_some(Operation::CountInput),
        Dialect::Gemini => Some(Operation::CountContents),
    }
}

impl LlmProxy {
    /// # Errors
    /// 422 for what cannot be told to the provider, or when it does not count, and as [`LlmProxy::send`].
    pub(crate) async fn counted(&self, incoming: Incoming, target: Target) -> Result<Response> {
        let Incoming { principal, info, headers, uri: _, body } = incoming;
        let provider = &target.provider;
        let request_bytes = body.len();
        let (operation, asked, sent) = {
            let raw: &RawValue = serde_json::from_slice(&body)
                .map_err(|error| bad_request(format!("the body is not valid JSON: {error}")))?;
            let mut faults = Faults::default();
            let mut request = anthropic::request_in::read(raw, &mut faults);
            let operation = asked_by(provider);
            if operation.is_none() {
                let name = &provider.name;
                faults.add("model", format!("the provider `{name}` has no way to count tokens"));
            }
            faults.finish()?;
            let asked = request.model.clone().into_owned();
            if let Some(name) = target.rename {
                request.model = name.into();
            }
            let operation = operation.unwrap_or(Operation::CountTokens);
            (operation, asked, wire(provider, operation, &request)?)
        };
        drop(body);
        let mut meter = self
            .open_account(&Opening {
                principal: &principal,
                info: &info,
                headers: &headers,
                operation,
                provider,
                model: &asked,
                streamed: false,
                request_bytes,
            })
            .await?;
        let answer = match self.ask(provider, operation, &headers, sent, &mut meter).await {
            Ok(Answer::Reply(answer)) => answer,
            Ok(Answer::Refusal(parts, told)) => {
                let surface = Operation::CountTokens;
                return Ok(refusal(surface, provider, &parts, &told, meter, &info));
            }
            Err(error) => {
                meter.fail(error.status(), error.code());
                return Err(error);
            }
        };
        let told = read_to(answer.into_body(), MAX_REPLY).await;
        let input_tokens = match serde_json::from_slice(&told) {
            Ok(Counted { input_tokens }) => input_tokens,
            Err(error) => {
                meter.fail(StatusCode::BAD_GATEWAY, "upstream_error");
                let detail = format!("the provider `{}` sent no count of tokens", provider.name);
                let broken = Error::new(StatusCode::BAD_GATEWAY, "upstream_error", detail);
                return Err(broken.because(error));
            }
        };
        let told = json!({"input_tokens": input_tokens});
        meter.passed(told.to_string().len());
        let mut response = axum::Json(told).into_response();
        meter.tell(response.headers_mut());
        meter.end(Outcome::Succeeded, None);
        Ok(response)
    }
}
