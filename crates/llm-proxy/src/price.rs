//! What tokens cost: a table in the binary (`prices.json`, with its date and sources). A model that is
//! not in it has tokens and no cost: we do not guess.

use std::{collections::HashMap, sync::LazyLock};

use serde::Deserialize;

use crate::usage::Usage;

/// US dollars per million tokens, by class.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Price {
    input: f64,
    output: f64,
    cache_read: Option<f64>,
    cache_write_5m: Option<f64>,
    cache_write_1h: Option<f64>,
}

/// What a model takes and gives, in tokens.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Size {
    context: u64,
    max_output: u64,
}

/// What a model is taken to answer at most when the table does not know it.
pub(crate) const DEFAULT_MAX_OUTPUT: u64 = 32_768;

#[derive(Deserialize)]
struct Table {
    providers: HashMap<String, HashMap<String, Price>>,
    models: HashMap<String, HashMap<String, Size>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the file is part of the binary, and a test reads it")]
    serde_json::from_str(include_str!("prices.json"))
        .expect("prices.json has the form of a price table")
});

/// The price of a provider's model. A dated or `-latest` name has the price of its undated one.
pub(crate) fn of(provider: &str, model: &str) -> Option<Price> {
    let models = TABLE.providers.get(provider)?;
    models.get(model).or_else(|| models.get(undated(model))).copied()
}

/// The most tokens that a provider's model answers with. Never more than its context has room for.
pub(crate) fn max_output(provider: &str, model: &str) -> Option<u64> {
    let models = TABLE.models.get(provider)?;
    let size = models.get(model).or_else(|| models.get(undated(model)))?;
    Some(size.max_output.min(size.context))
}

fn undated(model: &str) -> &str {
    if let Some(name) = model.strip_suffix("-latest") {
        return name;
    }
    // -20250929 or -2025-09-29
    for digits in [9, 11] {
        let Some(at) = model.len().checked_sub(digits) else { continue };
        let Some((name, date)) = model.split_at_checked(at) else { continue };
        if date.starts_with('-') && date.bytes().filter(u8::is_ascii_digit).count() == 8 {
            return name;
        }
    }
    model
}

impl Price {
    /// Billionths of a dollar. None when neither input nor output is known.
    pub(crate) fn cost_nanousd(&self, usage: &Usage) -> Option<i64> {
        if usage.input.is_none() && usage.output.is_none() {
            return None;
        }
        let classes = [
            (usage.input, self.input),
            (usage.output, self.output),
            // A class without a price of its own is input that was seen before or will be again.
            (usage.cache_read, self.cache_read.unwrap_or(self.input)),
            (usage.cache_write_5m, self.cache_write_5m.unwrap_or(self.input)),
            (usage.cache_write_1h, self.cache_write_1h.unwrap_or(self.input)),
        ];
        // In trillionths, so that a fraction of a billionth a token is not lost before the sum.
        let pico: u128 = classes
            .into_iter()
            .map(|(tokens, price)| u128::from(tokens.unwrap_or_default()) * pico_per_token(price))
            .sum();
        i64::try_from((pico + 500) / 1000).ok()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "prices are small and positive"
)]
fn pico_per_token(usd_per_million: f64) -> u128 {
    (usd_per_million * 1e6).round() as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_price_and_nothing_is_rounded_away() {
        let price = of("anthropic", "claude-sonnet-4-5-20250929").unwrap();
        let usage = Usage {
            input: Some(1_000),
            output: Some(10),
            cache_read: Some(100_000),
            cache_write_5m: Some(2_000),
            cache_write_1h: Some(1_000),
            reasoning: Some(5),
        };
        // 1000 × 3 + 10 × 15 + 100000 × 0.30 + 2000 × 3.75 + 1000 × 6, in millionths of a dollar
        assert_eq!(price.cost_nanousd(&usage), Some(46_650_000));
    }

    #[test]
    fn an_unknown_model_and_unknown_tokens_have_no_cost() {
        assert!(of("openai", "gpt-of-tomorrow").is_none());
        assert!(of("nobody", "gpt-4o").is_none());
        assert_eq!(of("openai", "gpt-4o").unwrap().cost_nanousd(&Usage::default()), None);
    }

    #[test]
    fn a_model_has_its_longest_answer_under_each_of_its_names() {
        assert_eq!(max_output("anthropic", "claude-sonnet-4-5-20250929"), Some(64_000));
        assert_eq!(max_output("openai", "gpt-4o"), Some(16_384));
        assert_eq!(max_output("openai", "text-embedding-3-small"), Some(0));
        assert_eq!(max_output("openai", "gpt-of-tomorrow"), None);
    }

    #[test]
    fn dates_and_latest_are_left_away() {
        assert_eq!(undated("claude-sonnet-4-5-20250929"), "claude-sonnet-4-5");
        assert_eq!(undated("gpt-4o-2024-08-06"), "gpt-4o");
        assert_eq!(undated("claude-3-5-haiku-latest"), "claude-3-5-haiku");
        assert_eq!(undated("o3"), "o3");
        assert_eq!(undated("größtes-ä"), "größtes-ä");
    }
}
