//! What the server works with besides its database: storage and git, mail, sign-in, models, the cluster.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use loom_core::{Clock, health::Status};
use loom_crashes::ArtifactPlace;

use super::{machine::is_anothers, report::Finding};
use crate::{app::Features, config::Config};

/// A provider's time goes by whole seconds, and its answer was on its way.
const SKEW: TimeDelta = TimeDelta::seconds(30);
const MODELS: Duration = Duration::from_secs(15);

/// Where repositories and artifacts lie. What is not there yet is left for the server to make.
pub(super) async fn storage(config: &Config, features: &Features) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_there = config.data_dir.is_dir() && !is_anothers(&config.data_dir);
    if is_there {
        let component = (features.scm.health().probe)().await;
        let version = component.facts.get("git_version").and_then(|value| value.as_str());
        let well = format!("version {}", version.unwrap_or("unknown"));
        findings.push(Finding::of("git", component, well));
    }
    let (place, is_there) = match config.crashes.artifact_place() {
        ArtifactPlace::Directory(path) => (path.display().to_string(), is_there && path.is_dir()),
        ArtifactPlace::Bucket(bucket) => (format!("the bucket {bucket}"), true),
    };
    if is_there {
        findings.push(match features.crashes.try_artifacts().await {
            Ok(()) => Finding::ok("artifacts", format!("{place} takes and gives")),
            Err(error) => Finding::problem(
                "artifacts",
                format!("{place}: {error}"),
                "Check the LOOM_SERVER_ARTIFACTS_* settings, the rights of the key or the user, and the room.",
            ),
        });
    }
    findings
}

pub(super) async fn mail(
    config: &Config,
    features: &Features,
    send_test_mail: Option<&str>,
) -> Vec<Finding> {
    let check = "mail";
    let Some(smtp) = &config.notify.smtp else {
        let text = "no mail server is configured: mail is written to files only";
        let advice = "Set LOOM_SERVER_SMTP_HOST; without it nobody gets invitations, sign-in links or alerts.";
        let finding = if send_test_mail.is_some() {
            Finding::problem(check, text, advice)
        } else if config.production {
            Finding::warning(check, text, advice)
        } else {
            Finding::skipped(check, text)
        };
        return vec![finding];
    };
    let place = format!("{}:{}", smtp.host, smtp.port);
    if let Some(Err(error)) = features.notify.ask_now().await {
        return vec![Finding::problem(
            check,
            format!("{place}: {error}"),
            "Check LOOM_SERVER_SMTP_HOST, _PORT and _TLS (465 wants `implicit`, 587 `starttls`), and the \
             user and password.",
        )];
    }
    let mut findings = vec![Finding::ok(check, format!("{place} answers and takes the sign-in"))];
    if let Some(to) = send_test_mail {
        findings.push(match features.notify.send_test_mail(to).await {
            Ok(()) => Finding::ok(check, format!("{place} took a test mail to {to}")),
            Err(error) => Finding::problem(
                check,
                format!("{place} did not take a mail to {to}: {error}"),
                "May LOOM_SERVER_SMTP_FROM_ADDRESS send by this server, and does the address exist?",
            ),
        });
    }
    findings
}

pub(super) async fn sign_in(config: &Config, features: &Features) -> Vec<Finding> {
    let check = "sign-in";
    let reached = features.auth.reach_providers().await;
    if reached.is_empty() {
        return vec![Finding::skipped(check, "no provider is configured: links by mail alone")];
    }
    let mut findings = Vec::new();
    for provider in reached {
        let name = provider.provider;
        let base = &config.http.base_url;
        if !provider.redirect_uri.starts_with(&format!("{base}/")) {
            findings.push(Finding::warning(
                check,
                format!("{name} sends people back to {}, and this server is {base}", provider.redirect_uri),
                format!(
                    "Set LOOM_SERVER_BASE_URL to where people reach it, or take LOOM_SERVER_{}_REDIRECT_URI away.",
                    name.to_uppercase()
                ),
            ));
        }
        findings.push(match provider.answer {
            Ok(()) => Finding::ok(
                check,
                format!("{name} answers; its callback URL must be {}", provider.redirect_uri),
            ),
            Err(error) => Finding::problem(
                check,
                format!("{name}: {error}"),
                "Nobody new gets in this way; who is signed in stays so. Check its URL, and the way there.",
            ),
        });
    }
    findings
}

/// Asks each provider for its models with each key, as `llm credential test` does.
pub(super) async fn models(features: &Features, stored: bool) -> Vec<Finding> {
    let check = "models";
    let llm = &features.llm;
    let mut findings = Vec::new();
    let read = if stored { llm.read_credentials().await } else { Ok(Vec::new()) };
    match read {
        Ok(closed) => findings.extend(closed.into_iter().map(|(provider, name)| {
            Finding::problem(
                check,
                format!("{provider}, key `{name}`: what is stored cannot be opened"),
                "Most often it was sealed with another master key: put that one back, or give it as \
                 LOOM_SERVER_MASTER_KEY_PREVIOUS. The log says which one it needs.",
            )
        })),
        Err(error) => findings.push(Finding::problem(
            check,
            format!("stored keys cannot be read: {error}"),
            "See `database`.",
        )),
    }
    let providers = llm.configured();
    let asked = join_all(providers.iter().map(async |name| {
        let tested = llm.test_credentials(Some(name));
        (name, tokio::time::timeout(MODELS, tested).await, Clock::system().now())
    }));
    let mut clocks = Vec::new();
    for (name, tested, at) in asked.await {
        let Ok(tested) = tested else {
            let text = format!("{name}: no answer within {} s", MODELS.as_secs());
            let advice =
                "Look at the network between this machine and the provider, and at its URL.";
            findings.push(Finding::problem(check, text, advice));
            continue;
        };
        for test in tested {
            clocks.extend(test.date.map(|date| (test.provider.clone(), date, at)));
            let who = format!("{}, key `{}`", test.provider, test.name);
            findings.push(if test.ok {
                Finding::ok(check, format!("{who}: good ({} ms)", test.latency_ms))
            } else {
                Finding::problem(
                    check,
                    format!("{who}: {}", test.message),
                    "401 and 403: the key is not good (any more), put a new one in its place. No answer: the \
                     provider's URL, and the way there.",
                )
            });
        }
    }
    if findings.is_empty() {
        findings.push(Finding::skipped(check, "no provider has a key"));
    }
    findings.extend(clock(&clocks));
    findings
}

fn clock(clocks: &[(String, DateTime<Utc>, DateTime<Utc>)]) -> Option<Finding> {
    let off = |here: &DateTime<Utc>, there: &DateTime<Utc>| (*here - *there).abs();
    let (name, there, here) = clocks.iter().min_by_key(|(_, there, here)| off(here, there))?;
    let skew = off(here, there);
    Some(if skew <= SKEW {
        Finding::ok("clock", format!("agrees with that of {name}"))
    } else {
        Finding::problem(
            "clock",
            format!("differs by {} s from that of {name}", skew.num_seconds()),
            "Synchronise this machine's clock (NTP): sign-ins, tokens and signatures fail.",
        )
    })
}

pub(super) async fn weavers(features: &Features) -> Vec<Finding> {
    let component = features.weavers.inspect().await;
    let namespace = component.inside.get("namespace").and_then(|value| value.as_str());
    let well = match (component.status, namespace) {
        (Status::Disabled, _) => "off".to_owned(),
        (_, namespace) => format!(
            "the cluster answers, and all is allowed in the namespace {}",
            namespace.unwrap_or("?")
        ),
    };
    vec![Finding::of("weavers", component, well)]
}
