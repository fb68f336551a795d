//! Rules of alerts, as people write and see them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    error::FieldError,
    id::{AlertRuleId, IssueId, ProjectId, UserId, WebhookId},
    text,
};
use loom_notify::DeliveryView;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::Level;

const NAME: usize = 100;
const MOST_ACTIONS: usize = 10;
const MOST_VALUES: usize = 50;
const VALUE: usize = 250;
const DAY: i32 = 1440;
const WEEK: i32 = 7 * DAY;

/// When an alert is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum CrashAlertCondition {
    /// An issue is seen for the first time.
    NewIssue,
    /// A resolved issue is back.
    Regression,
    /// So many events within so many minutes.
    Frequency {
        /// 1 to 1,000,000.
        events: i64,
        /// 1 to 1440.
        minutes: i32,
        /// Of one issue (the default), or of the whole project.
        #[serde(default)]
        of: CrashAlertOf,
    },
    /// More events than this share of the sessions that began within so many minutes.
    SessionShare {
        /// Above 0.
        percent: f64,
        /// 5 to 1440.
        minutes: i32,
        /// With fewer sessions than this it says nothing; 20 when absent.
        #[serde(default = "few_sessions")]
        min_sessions: i64,
    },
}

fn few_sessions() -> i64 {
    20
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CrashAlertOf {
    #[default]
    Issue,
    Project,
}

impl CrashAlertCondition {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::NewIssue => "new_issue",
            Self::Regression => "regression",
            Self::Frequency { .. } => "frequency",
            Self::SessionShare { .. } => "session_share",
        }
    }

    /// What repeats is told of again after half an hour, unless the rule says otherwise.
    fn interval(&self) -> i32 {
        if matches!(self, Self::NewIssue | Self::Regression) { 0 } else { 30 }
    }
}

/// Which events count: all that are named must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CrashAlertFilters {
    /// Any of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub(crate) levels: Vec<Level>,
    /// Any of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) environments: Vec<String>,
    /// Any of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) releases: Vec<String>,
    /// All of these.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) tags: BTreeMap<String, String>,
}

/// To whom, as it is asked for.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum NewCrashAlertAction {
    /// A mail to members of the organisation.
    Email {
        /// Absent or empty: to all.
        #[serde(default)]
        users: Vec<UserId>,
    },
    /// A signed call; its secret is told when it is made.
    Webhook {
        /// http or https; it must lead to a public address.
        url: Option<String>,
        /// In a change: this one of the rule stays.
        webhook_id: Option<WebhookId>,
    },
    /// A message as Slack's incoming webhooks take it.
    Slack { url: Option<String>, webhook_id: Option<WebhookId> },
}

/// To whom, as it is stored and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum CrashAlertAction {
    Email {
        /// Empty: to all.
        users: Vec<UserId>,
    },
    Webhook {
        url: String,
        webhook_id: WebhookId,
    },
    Slack {
        /// Only scheme and host: its path is a secret.
        host: String,
        webhook_id: WebhookId,
    },
}

impl CrashAlertAction {
    pub(crate) fn webhook(&self) -> Option<WebhookId> {
        match self {
            Self::Email { .. } => None,
            Self::Webhook { webhook_id, .. } | Self::Slack { webhook_id, .. } => Some(*webhook_id),
        }
    }
}

/// A rule to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCrashAlertRule {
    /// One line of 1 to 100 bytes.
    pub(crate) name: String,
    pub(crate) condition: CrashAlertCondition,
    #[serde(default)]
    pub(crate) filters: CrashAlertFilters,
    /// 1 to 10.
    pub(crate) actions: Vec<NewCrashAlertAction>,
    /// So long it does not speak again of the same; 0 to 10080. When absent 30, and 0 for new issues and
    /// regressions.
    pub(crate) min_interval_minutes: Option<i32>,
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
}

fn yes() -> bool {
    true
}

/// What is to change of a rule; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CrashAlertRuleChange {
    pub(crate) name: Option<String>,
    pub(crate) condition: Option<CrashAlertCondition>,
    pub(crate) filters: Option<CrashAlertFilters>,
    /// All of them; a webhook that is to stay by its `webhook_id`.
    pub(crate) actions: Option<Vec<NewCrashAlertAction>>,
    pub(crate) min_interval_minutes: Option<i32>,
    pub(crate) enabled: Option<bool>,
}

/// A rule of a project.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CrashAlertRule {
    pub(crate) id: AlertRuleId,
    pub(crate) project_id: ProjectId,
    pub(crate) name: String,
    pub(crate) condition: CrashAlertCondition,
    pub(crate) filters: CrashAlertFilters,
    pub(crate) actions: Vec<CrashAlertAction>,
    pub(crate) min_interval_minutes: i32,
    pub(crate) enabled: bool,
    /// Until then it says nothing.
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub(crate) snoozed_until: Option<DateTime<Utc>>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) updated_at: DateTime<Utc>,
}

/// A rule, with the secrets of webhooks that were just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct CrashAlertRuleWithSecrets {
    #[serde(flatten)]
    pub(crate) rule: CrashAlertRule,
    /// By webhook, `whsec_…`: signs what is sent. Shown this once.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) secrets: BTreeMap<String, String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CrashAlertRules {
    pub(crate) alerts: Vec<CrashAlertRule>,
}

/// For how long a rule is to say nothing.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CrashAlertSnooze {
    /// 1 to 43200 (30 days); 0 ends it.
    pub(crate) minutes: i32,
}

/// An alert that was sent, or held back.
#[derive(Serialize, ToSchema)]
pub(crate) struct CrashAlertTold {
    pub(crate) id: uuid::Uuid,
    pub(crate) rule_id: AlertRuleId,
    pub(crate) issue_id: Option<IssueId>,
    pub(crate) title: String,
    /// `sent`, `test`, or `held_back`: the project had as many in this hour as it may.
    pub(crate) outcome: String,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) at: DateTime<Utc>,
    /// What became of each mail and call, for as long as that is kept.
    pub(crate) deliveries: Vec<DeliveryView>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CrashAlertToldPage {
    pub(crate) deliveries: Vec<CrashAlertTold>,
    pub(crate) next_cursor: Option<String>,
}

/// What is wrong with a rule; `check_url` says what with a URL.
pub(crate) struct Check<'a> {
    pub(crate) name: &'a str,
    pub(crate) condition: &'a CrashAlertCondition,
    pub(crate) filters: &'a CrashAlertFilters,
    pub(crate) actions: Option<&'a [NewCrashAlertAction]>,
    pub(crate) min_interval_minutes: i32,
}

pub(crate) fn interval(given: Option<i32>, condition: &CrashAlertCondition) -> i32 {
    given.unwrap_or_else(|| condition.interval())
}

impl Check<'_> {
    pub(crate) fn run(&self, check_url: impl Fn(&str) -> Result<(), String>) -> Result<()> {
        let mut errors = Vec::new();
        let mut unless = |holds: bool, path: &str, message: &str| {
            if !holds {
                errors.push(FieldError { path: path.to_owned(), message: message.to_owned() });
            }
        };
        unless(text::is_plain_line(self.name, NAME), "name", "is one line of 1 to 100 bytes");
        match self.condition {
            CrashAlertCondition::NewIssue | CrashAlertCondition::Regression => {}
            CrashAlertCondition::Frequency { events, minutes, .. } => {
                unless((1..=1_000_000).contains(events), "condition.events", "is 1 to 1000000");
                unless((1..=DAY).contains(minutes), "condition.minutes", "is 1 to 1440");
            }
            CrashAlertCondition::SessionShare { percent, minutes, min_sessions } => {
                unless(
                    *percent > 0.0 && *percent <= 10_000.0,
                    "condition.percent",
                    "is above 0, to 10000",
                );
                unless((5..=DAY).contains(minutes), "condition.minutes", "is 5 to 1440");
                unless(
                    (1..=1_000_000).contains(min_sessions),
                    "condition.min_sessions",
                    "is 1 to 1000000",
                );
            }
        }
        for (path, values) in [
            ("filters.environments", &self.filters.environments),
            ("filters.releases", &self.filters.releases),
        ] {
            let fits = values.iter().all(|value| text::is_plain_line(value, VALUE));
            unless(
                fits && values.len() <= MOST_VALUES,
                path,
                "are at most 50 lines of 1 to 250 bytes",
            );
        }
        let tags = &self.filters.tags;
        let fits = tags.iter().all(|(key, value)| {
            text::is_plain_line(key, VALUE) && text::is_plain_line(value, VALUE)
        });
        unless(
            fits && tags.len() <= MOST_VALUES,
            "filters.tags",
            "are at most 50 lines of 1 to 250 bytes",
        );
        unless(
            (0..=WEEK).contains(&self.min_interval_minutes),
            "min_interval_minutes",
            "is 0 to 10080",
        );
        if let Some(actions) = self.actions {
            unless((1..=MOST_ACTIONS).contains(&actions.len()), "actions", "are 1 to 10");
            for (at, action) in actions.iter().enumerate() {
                let path = format!("actions[{at}]");
                match action {
                    NewCrashAlertAction::Email { users } => {
                        unless(users.len() <= 100, &format!("{path}.users"), "are at most 100");
                    }
                    NewCrashAlertAction::Webhook { url, webhook_id }
                    | NewCrashAlertAction::Slack { url, webhook_id } => {
                        let wrong = match (url, webhook_id) {
                            (Some(url), None) => check_url(url).err(),
                            (None, Some(_)) => None,
                            _ => Some(
                                "or `webhook_id` of this rule is needed, one of them".to_owned(),
                            ),
                        };
                        if let Some(message) = wrong {
                            unless(false, &format!("{path}.url"), &message);
                        }
                    }
                }
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::invalid_fields(errors)) }
    }
}
