//! How much a model of Anthropic's may think.
//! <https://platform.claude.com/docs/en/build-with-claude/extended-thinking>

use serde::Serialize;

use super::{
    check::Faults,
    model::{Effort, Request, Thinking, ThinkingKind},
};

/// The wire wants a limit.
const DEFAULT_MAX_TOKENS: u32 = 4096;
const LEAST_BUDGET: u32 = 1024;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Think {
    Enabled { budget_tokens: u32 },
    Adaptive,
    Disabled,
}

pub(super) fn effort_name(effort: Effort) -> &'static str {
    match effort {
        Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
    }
}

/// What is for thinking, and the limit of all output, which on this wire includes it.
pub(super) fn budget(faults: &mut Faults, request: &Request) -> (Option<Think>, u32) {
    let given = request.max_tokens;
    let plain = given.unwrap_or(DEFAULT_MAX_TOKENS);
    match &request.thinking {
        None => (None, plain),
        Some(Thinking { kind: ThinkingKind::Disabled, .. }) => (Some(Think::Disabled), plain),
        Some(Thinking { kind: ThinkingKind::Adaptive, .. }) => (Some(Think::Adaptive), plain),
        Some(Thinking { kind: ThinkingKind::Enabled, budget_tokens: Some(budget), .. }) => {
            let limit = given.unwrap_or_else(|| DEFAULT_MAX_TOKENS.saturating_add(*budget));
            if *budget < LEAST_BUDGET || *budget >= limit {
                faults.add(
                    "thinking.budget_tokens",
                    format!("must be at least {LEAST_BUDGET} and less than `max_tokens`"),
                );
            }
            (Some(Think::Enabled { budget_tokens: *budget }), limit)
        }
        Some(Thinking { kind: ThinkingKind::Enabled, effort, .. }) => {
            let wanted = match effort.unwrap_or(Effort::Medium) {
                Effort::Minimal => LEAST_BUDGET,
                Effort::Low => 4096,
                Effort::Medium => 8192,
                Effort::High => 16_384,
            };
            let limit = given.unwrap_or(DEFAULT_MAX_TOKENS + wanted);
            let budget = wanted.min(limit.saturating_sub(1));
            if budget < LEAST_BUDGET {
                faults.add(
                    "max_tokens",
                    format!("must be more than {LEAST_BUDGET}: towards this provider it includes the thinking"),
                );
            }
            (Some(Think::Enabled { budget_tokens: budget }), limit)
        }
    }
}
