//! What tokens cost: tables in the binary (`prices.json` and `price_classes.json`, with their dates and
//! sources), and what an organisation has put in their place. A model that is in neither has tokens and
//! no cost: we do not guess.

mod http;
mod overrides;
mod store;

pub(crate) use http::routes;
pub(crate) use overrides::Overrides;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Serialize};

use crate::usage::{Tier, Usage};

/// US dollars per million tokens, by class.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, utoipa::ToSchema)]
pub(crate) struct Rates {
    pub(crate) input: f64,
    pub(crate) output: f64,
    /// A class without a price of its own costs what input does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_read: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_write_5m: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_write_1h: Option<f64>,
}

/// What another tier, or a longer prompt, costs.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Class {
    pub(crate) tier: Tier,
    /// For requests with more input than this; for all of their tokens.
    #[serde(default)]
    pub(crate) above: u64,
    #[serde(flatten)]
    pub(crate) rates: Rates,
}

/// All that a model's tokens can cost.
#[derive(Clone, Debug)]
pub(crate) struct Price {
    pub(crate) standard: Rates,
    pub(crate) classes: Vec<Class>,
    /// US dollars per thousand.
    pub(crate) web_searches: Option<f64>,
    multipliers: Multipliers,
    /// An organisation's own: the same for every tier and length.
    flat: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Multipliers {
    fast: Option<f64>,
    us: Option<f64>,
}

/// What a model takes and gives, in tokens.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Size {
    pub(crate) context: u64,
    pub(crate) max_output: u64,
}

type ByModel<T> = HashMap<String, HashMap<String, T>>;

#[derive(Deserialize)]
struct Standard {
    providers: ByModel<Rates>,
    models: ByModel<Size>,
}

/// What a model is taken to answer at most when the table does not know it.
pub(crate) const DEFAULT_MAX_OUTPUT: u64 = 32_768;

#[derive(Deserialize)]
struct Classes {
    rates: ByModel<Vec<Class>>,
    web_searches: ByModel<f64>,
    multipliers: ByModel<Multipliers>,
    capabilities: ByModel<Vec<String>>,
}

struct Table {
    prices: ByModel<Arc<Price>>,
    sizes: ByModel<Size>,
    capabilities: ByModel<Vec<String>>,
}

#[expect(clippy::expect_used, reason = "the files are part of the binary, and a test reads them")]
static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let standard: Standard = serde_json::from_str(include_str!("prices.json"))
        .expect("prices.json has the form of a price table");
    let classes: Classes = serde_json::from_str(include_str!("price_classes.json"))
        .expect("price_classes.json has the form of such a table");
    let Classes { rates, web_searches, multipliers, capabilities } = classes;
    let prices = standard.providers.into_iter().map(|(provider, models)| {
        let priced = models.into_iter().map(|(model, standard)| {
            let price = Price {
                standard,
                classes: found(&rates, &provider, &model).cloned().unwrap_or_default(),
                web_searches: found(&web_searches, &provider, &model).copied(),
                multipliers: found(&multipliers, &provider, &model).copied().unwrap_or_default(),
                flat: false,
            };
            (model, Arc::new(price))
        });
        let priced = priced.collect();
        (provider, priced)
    });
    Table { prices: prices.collect(), sizes: standard.models, capabilities }
});

fn found<'t, T>(table: &'t ByModel<T>, provider: &str, model: &str) -> Option<&'t T> {
    table.get(provider)?.get(model)
}

/// The price of a provider's model. A dated or `-latest` name has the price of its undated one.
pub(crate) fn of(provider: &str, model: &str) -> Option<Arc<Price>> {
    let models = TABLE.prices.get(provider)?;
    models.get(model).or_else(|| models.get(undated(model))).cloned()
}

/// The models of a provider that have a price, in the order of their names.
pub(crate) fn models(provider: &str) -> Vec<(&'static str, &'static Arc<Price>)> {
    let mut all: Vec<_> = TABLE
        .prices
        .get(provider)
        .into_iter()
        .flatten()
        .map(|(model, price)| (model.as_str(), price))
        .collect();
    all.sort_unstable_by_key(|(model, _)| *model);
    all
}

/// What a model takes and gives, where that is known.
pub(crate) fn size(provider: &str, model: &str) -> Option<Size> {
    let models = TABLE.sizes.get(provider)?;
    models.get(model).or_else(|| models.get(undated(model))).copied()
}

/// The most tokens that a provider's model answers with. Never more than its context has room for.
pub(crate) fn max_output(provider: &str, model: &str) -> Option<u64> {
    size(provider, model).map(|size| size.max_output.min(size.context))
}

/// What a model can do, as far as that is known.
pub(crate) fn capabilities(provider: &str, model: &str) -> &'static [String] {
    let of = TABLE.capabilities.get(provider);
    let known = of.and_then(|models| models.get(model).or_else(|| models.get(undated(model))));
    known.map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn undated(model: &str) -> &str {
    if let Some(name) = model.strip_suffix("-latest") {
        return name;
    }
    // Vertex: claude-sonnet-4-5@20250929
    if let Some((name, _)) = model.split_once('@') {
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
    /// Of an organisation's own.
    pub(crate) fn flat(standard: Rates, web_searches: Option<f64>) -> Self {
        let multipliers = Multipliers::default();
        Self { standard, classes: Vec::new(), web_searches, multipliers, flat: true }
    }

    /// The rates of a request of this tier and so much input. None: they are not known.
    fn rates(&self, tier: Tier, input: u64) -> Option<&Rates> {
        if self.flat {
            return Some(&self.standard);
        }
        let of = |tier: Tier| {
            let of_tier = self.classes.iter().filter(move |class| class.tier == tier);
            of_tier.filter(move |class| class.above == 0 || class.above < input)
        };
        let best = of(tier).max_by_key(|class| class.above);
        match (tier, best) {
            (Tier::Standard, None) => Some(&self.standard),
            (_, None) => None,
            // Long prompts cost more, but how much more on this tier is not said.
            (_, Some(class)) if class.above == 0 && of(Tier::Standard).any(|c| c.above > 0) => None,
            (_, Some(class)) => Some(&class.rates),
        }
    }

    /// Billionths of a dollar. None when neither input nor output is known, or something was used
    /// whose price is not.
    pub(crate) fn cost_nanousd(&self, usage: &Usage) -> Option<i64> {
        if usage.input.is_none() && usage.output.is_none() {
            return None;
        }
        let rates = self.rates(usage.tier.unwrap_or(Tier::Standard), usage.total_input())?;
        let classes = [
            (usage.input, rates.input),
            (usage.output, rates.output),
            // A class without a price of its own is input that was seen before or will be again.
            (usage.cache_read, rates.cache_read.unwrap_or(rates.input)),
            (usage.cache_write_5m, rates.cache_write_5m.unwrap_or(rates.input)),
            (usage.cache_write_1h, rates.cache_write_1h.unwrap_or(rates.input)),
        ];
        // In trillionths, so that a fraction of a billionth a token is not lost before the sum.
        let mut pico: u128 = classes
            .into_iter()
            .map(|(tokens, price)| u128::from(tokens.unwrap_or_default()) * pico_per_token(price))
            .sum();
        let dearer = [(usage.fast, self.multipliers.fast), (usage.in_us, self.multipliers.us)];
        for (applies, factor) in dearer {
            if applies && !self.flat {
                // A model that has no such price is not served so.
                pico = pico * thousandths(factor.unwrap_or(1.0)) / 1000;
            }
        }
        let searches = usage.web_searches.unwrap_or_default();
        if searches > 0 {
            // Dollars per thousand: a million times the trillionths of one per million.
            pico += u128::from(searches) * pico_per_token(self.web_searches?) * 1000;
        }
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

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "factors are small and positive"
)]
fn thousandths(factor: f64) -> u128 {
    (factor * 1e3).round() as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(input: u64, output: u64) -> Usage {
        Usage { input: Some(input), output: Some(output), ..Usage::default() }
    }

    #[test]
    fn each_class_has_its_price_and_nothing_is_rounded_away() {
        let price = of("anthropic", "claude-sonnet-4-5-20250929").unwrap();
        let usage = Usage {
            cache_read: Some(100_000),
            cache_write_5m: Some(2_000),
            cache_write_1h: Some(1_000),
            reasoning: Some(5),
            ..tokens(1_000, 10)
        };
        // 1000 × 3 + 10 × 15 + 100000 × 0.30 + 2000 × 3.75 + 1000 × 6, in millionths of a dollar
        assert_eq!(price.cost_nanousd(&usage), Some(46_650_000));
    }

    #[test]
    fn web_searches_cost_by_the_piece_and_nothing_is_told_where_their_price_is_not_known() {
        let usage = Usage { web_searches: Some(3), ..tokens(1_000, 10) };
        let price = of("anthropic", "claude-sonnet-4-5").unwrap();
        // 3 of 10 dollars a thousand
        assert_eq!(price.cost_nanousd(&usage), Some(3_150_000 + 30_000_000));
        assert_eq!(of("openai", "gpt-5.4").unwrap().cost_nanousd(&usage), None);
    }

    #[test]
    fn tiers_and_long_prompts_have_their_own_prices() {
        let price = of("openai", "gpt-5.4").unwrap();
        let cost =
            |tier, input| price.cost_nanousd(&Usage { tier: Some(tier), ..tokens(input, 100) });
        // 2.5 and 15; 5 and 22.5 above 272,000; 5 and 30 at once, of which no long price is told
        assert_eq!(cost(Tier::Standard, 272_000), Some(681_500_000));
        assert_eq!(cost(Tier::Standard, 272_001), Some(1_362_255_000));
        assert_eq!(cost(Tier::Flex, 1_000), Some(2_000_000));
        assert_eq!(cost(Tier::Flex, 272_001), Some(681_127_500));
        assert_eq!(cost(Tier::Priority, 1_000), Some(8_000_000));
        assert_eq!(cost(Tier::Priority, 272_001), None);
        assert_eq!(cost(Tier::Other, 1_000), None);
        // Cached input counts for the length.
        let long = Usage { cache_read: Some(150_000), ..tokens(60_000, 0) };
        let vertex = of("vertex", "claude-sonnet-4-5@20250929").unwrap();
        assert_eq!(vertex.cost_nanousd(&long), Some(60_000 * 6_000 + 150_000 * 600));
    }

    #[test]
    fn fast_and_local_inference_cost_more() {
        let price = of("anthropic", "claude-opus-5").unwrap();
        let usage = Usage { fast: true, in_us: true, ..tokens(1_000, 0) };
        // 5 × 2 × 1.1
        assert_eq!(price.cost_nanousd(&usage), Some(11_000_000));
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
        assert_eq!(undated("claude-sonnet-4-5@20250929"), "claude-sonnet-4-5");
        assert_eq!(undated("gpt-4o-2024-08-06"), "gpt-4o");
        assert_eq!(undated("claude-3-5-haiku-latest"), "claude-3-5-haiku");
        assert_eq!(undated("o3"), "o3");
        assert_eq!(undated("größtes-ä"), "größtes-ä");
    }
}
