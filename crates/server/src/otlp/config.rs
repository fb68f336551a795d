//! Where traces and metrics are sent, in the variables that OpenTelemetry names for everybody.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use loom_common_secret::SecretString;
use loom_core::{config::Env, telemetry::SpanContext};
use reqwest::Url;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";

#[derive(Clone, Debug)]
pub struct Config {
    /// None: nothing is sent.
    pub endpoint: Option<Url>,
    pub headers: Vec<(HeaderName, SecretString)>,
    pub service_name: String,
    pub resource: Vec<(String, String)>,
    pub sampler: Sampler,
    pub interval: Duration,
}

/// Which requests are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// What the caller decided holds.
    by_parent: bool,
    /// Of those that nobody decided about, 0 to 1.
    ratio: f64,
}

impl Sampler {
    pub(crate) fn samples(self, parent: Option<SpanContext>, trace_id: u128) -> bool {
        if let Some(parent) = parent.filter(|_| self.by_parent) {
            return parent.sampled;
        }
        // By the lower half of the id, as all who sample by ratio do: the same trace, the same answer.
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
        let drawn = (trace_id as u64) >> 1;
        #[expect(clippy::cast_precision_loss, reason = "a draw")]
        let drawn = drawn as f64 / (1_u64 << 63) as f64;
        drawn < self.ratio
    }
}

impl Config {
    pub(crate) fn load(env: &mut Env) -> Self {
        let endpoint = env.optional::<String>(ENDPOINT, "a URL").and_then(|text| {
            let url = text.parse::<Url>().ok();
            let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if url.is_none() {
                env.problem(
                    ENDPOINT,
                    "must be the http(s) URL of a collector, as http://localhost:4318",
                );
            }
            url
        });
        let headers = env.secret(HEADERS).map(|secret| headers(&secret));
        let headers = headers.unwrap_or_else(|| Some(Vec::new())).unwrap_or_else(|| {
            env.problem(HEADERS, "must be a list as name=value,other=value");
            Vec::new()
        });
        let listed = env.list(RESOURCE);
        let resource: Vec<_> = listed.iter().filter_map(|pair| pair_of(pair)).collect();
        if resource.len() < listed.len() {
            env.problem(RESOURCE, "must be a list as name=value,other=value");
        }
        let sampler = env
            .choice(
                "OTEL_TRACES_SAMPLER",
                "parentbased_always_on",
                &[
                    ("always_on", (false, Some(1.0))),
                    ("always_off", (false, Some(0.0))),
                    ("traceidratio", (false, None)),
                    ("parentbased_always_on", (true, Some(1.0))),
                    ("parentbased_always_off", (true, Some(0.0))),
                    ("parentbased_traceidratio", (true, None)),
                ],
            )
            .unwrap_or((true, Some(1.0)));
        let ratio = env.number("OTEL_TRACES_SAMPLER_ARG", 1.0, 0.0, 1.0);
        let ms = env.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000_u64, 100, 3_600_000);
        Self {
            endpoint,
            headers,
            service_name: env.get("OTEL_SERVICE_NAME", "loom-server".to_owned(), "a name"),
            resource,
            sampler: Sampler { by_parent: sampler.0, ratio: sampler.1.unwrap_or(ratio) },
            interval: Duration::from_millis(ms),
        }
    }
}

fn pair_of(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    (!name.is_empty()).then(|| (name.to_owned(), percent_decoded(value)))
}

/// Values may hold what the list could not, as `%2C` for a comma.
fn percent_decoded(text: &str) -> String {
    let form = format!("v={}", text.replace('+', "%2B"));
    let url = Url::parse(&format!("http://localhost/?{form}"));
    let value = url.ok().and_then(|url| Some(url.query_pairs().next()?.1.into_owned()));
    value.unwrap_or_else(|| text.to_owned())
}

fn headers(secret: &SecretString) -> Option<Vec<(HeaderName, SecretString)>> {
    let pairs = secret.expose().split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair_of(pair)?;
            HeaderValue::from_str(&value).ok()?;
            Some((name.parse().ok()?, SecretString::from(value)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(vars: &[(&str, &str)]) -> (Config, usize) {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut env = Env::new(vars);
        let config = Config::load(&mut env);
        (config, env.problems().len())
    }

    #[test]
    fn the_variables_of_opentelemetry_are_read() {
        let (config, problems) = load(&[
            (ENDPOINT, "https://collector.example.com/otlp"),
            (HEADERS, "authorization=Bearer%20a%2Cb, x-tenant=loom"),
            (RESOURCE, "deployment.environment.name=prod,host.name=a"),
        ]);
        assert_eq!(problems, 0);
        let shown: Vec<_> =
            config.headers.iter().map(|(name, v)| (name.as_str(), v.expose())).collect();
        assert_eq!(shown, [("authorization", "Bearer a,b"), ("x-tenant", "loom")]);
        assert_eq!(config.resource[0].0, "deployment.environment.name");
        for wrong in [(ENDPOINT, "collector:4318"), (HEADERS, "nothing"), (RESOURCE, "nothing")] {
            assert_eq!(load(&[wrong]).1, 1, "{wrong:?}");
        }
    }

    #[test]
    fn sampling_follows_the_caller_or_the_ratio() {
        let parent = |sampled| Some(SpanContext { trace_id: 7, span_id: 1, sampled });
        let of = |name: &str, arg: &str| {
            load(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", arg)]).0.sampler
        };
        assert!(!of("parentbased_always_on", "1").samples(parent(false), 7));
        assert!(of("parentbased_always_off", "1").samples(parent(true), 7));
        assert!(of("always_on", "0").samples(parent(false), 7));
        assert!(!of("always_off", "1").samples(parent(true), 7));
        let half = of("traceidratio", "0.5");
        let sampled = (0..1000).filter(|_| half.samples(None, rand::random())).count();
        assert!((400..600).contains(&sampled), "{sampled}");
    }
}
