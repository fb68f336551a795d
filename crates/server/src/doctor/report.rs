//! What was found, for people and for programs.

use std::process::ExitCode;

use loom_core::health::{Component, Status};
use serde::Serialize;

use crate::{console::say, health};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// Not configured, or not looked at.
    Skipped,
    Ok,
    Warning,
    Problem,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    check: &'static str,
    status: Verdict,
    message: String,
    /// As in docs/operations.md, where a component of health says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn new(check: &'static str, status: Verdict, message: impl Into<String>) -> Self {
        Self { check, status, message: message.into(), code: None, advice: None }
    }

    pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, message)
    }

    pub(super) fn skipped(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skipped, message)
    }

    pub(super) fn warning(
        check: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(check, Verdict::Warning, message) }
    }

    pub(super) fn problem(
        check: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(check, Verdict::Problem, message) }
    }

    /// What a component of health says; `well` where it has nothing to say.
    pub(super) fn of(check: &'static str, component: Component, well: impl Into<String>) -> Self {
        let status = match component.status {
            Status::Disabled => Verdict::Skipped,
            Status::Healthy => Verdict::Ok,
            Status::Degraded => Verdict::Warning,
            Status::Unhealthy => Verdict::Problem,
        };
        let mut message = component.error.unwrap_or_else(|| well.into());
        let found = component.finding;
        if let Some(detail) = found.as_ref().and_then(|found| found.detail.as_ref()) {
            message = format!("{message}: {detail}");
        }
        let (code, advice) =
            (found.as_ref().map(|found| found.code), found.map(|found| found.advice.to_owned()));
        Self { check, status, message, code, advice }
    }

    pub(super) fn is_problem(&self) -> bool {
        self.status == Verdict::Problem
    }
}

#[derive(Default)]
pub(super) struct Report(Vec<Finding>);

impl Report {
    pub(super) fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.0.extend(findings);
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        if self.0.iter().any(Finding::is_problem) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.0.iter().filter(|finding| finding.status == verdict).count()
    }

    pub(super) fn print(&self, json: bool) {
        let text = if json { self.json() } else { self.text() };
        // What others answered may hold anything.
        say(&loom_redact::shared().redact(&text));
    }

    fn json(&self) -> String {
        let status = self.0.iter().map(|finding| finding.status).max().unwrap_or(Verdict::Ok);
        let report = serde_json::json!({
            "status": status,
            "version": health::version(),
            "checks": self.0,
        });
        serde_json::to_string_pretty(&report).unwrap_or_default()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let width = self.0.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
        for finding in &self.0 {
            let verdict = match finding.status {
                Verdict::Skipped => "-",
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Problem => "PROBLEM",
            };
            let (check, message) = (finding.check, &finding.message);
            text.push_str(&format!("{verdict:<8} {check:<width$}  {message}\n"));
            if let Some(advice) = &finding.advice {
                text.push_str(&format!("{:<8} {:<width$}  -> {advice}\n", "", ""));
            }
        }
        let (problems, warnings) = (self.count(Verdict::Problem), self.count(Verdict::Warning));
        let plural = |count: usize, one: &str| {
            if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
        };
        text.push_str(&match (problems, warnings) {
            (0, 0) => "\nall is well".to_owned(),
            _ => format!("\n{}, {}", plural(problems, "problem"), plural(warnings, "warning")),
        });
        text
    }
}
