//! Projects and keys, as they are stored and as they are sent.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    error::FieldError,
    id::{OrgId, ProjectId, ProjectKeyId},
    text,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{grouping, scrub};

const MAX_NAME: usize = 200;
const MAX_SLUG: usize = 63;
const MAX_PLATFORM: usize = 64;
const MAX_ORIGINS: usize = 50;
const MAX_ORIGIN: usize = 300;
/// Bytes of the rules of one kind.
const MAX_RULES: usize = 64 << 10;
const RETENTION: std::ops::RangeInclusive<i32> = 1..=3650;
const NEW_ISSUES: std::ops::RangeInclusive<i32> = 1..=100_000;

/// A project: what events, sessions and check-ins of an application belong to.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ProjectRow {
    pub id: ProjectId,
    /// Its number in DSNs.
    pub number: i64,
    pub org_id: OrgId,
    /// Unique in its organisation.
    pub slug: String,
    pub name: String,
    /// As SDKs name it: `python`, `javascript`, `native`…
    pub platform: Option<String>,
    /// Short ids of its issues are this and a number, as `WEB-123`.
    pub short_prefix: String,
    /// Events are kept so long.
    pub retention_days: i32,
    /// Origins whose pages may send, as `https://example.com` or `https://*.example.com`; `*` is all.
    pub allowed_origins: Vec<String>,
    /// What of its events is taken for the same fault, beside the algorithm; a list of rules.
    pub grouping_rules: Value,
    /// What is masked in its events before they are stored, beside the default rules.
    pub scrubbing: Value,
    /// More new issues than this in an hour are folded into one; their events are kept.
    pub new_issues_per_hour: i32,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub updated_at: DateTime<Utc>,
}

/// A project with what applications send with.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ProjectView {
    #[serde(flatten)]
    pub project: ProjectRow,
    /// What an SDK is given: of the oldest key that is enabled. Null when none is.
    pub dsn: Option<String>,
}

/// A page of projects, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProjectPage {
    pub projects: Vec<ProjectView>,
    /// Null at the end.
    pub next_cursor: Option<String>,
}

/// A project to create.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct NewProject {
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// Made of the name when absent: a-z, digits, `-` and `_`, not all of digits.
    #[schema(max_length = 63)]
    pub slug: Option<String>,
    #[serde(flatten)]
    #[schema(inline)]
    pub settings: Settings,
}

/// What of a project is to change.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct ProjectPatch {
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    /// DSNs have the number: they stay good.
    #[schema(max_length = 63)]
    pub slug: Option<String>,
    #[serde(flatten)]
    #[schema(inline)]
    pub settings: Settings,
}

/// What can be set of a project, when it is created and later.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct Settings {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 64)]
    pub platform: Option<Option<String>>,
    /// 90 when never given.
    #[schema(minimum = 1, maximum = 3650)]
    pub retention_days: Option<i32>,
    /// `["*"]` when never given.
    pub allowed_origins: Option<Vec<String>>,
    pub grouping_rules: Option<Value>,
    pub scrubbing: Option<Value>,
    /// 100 when never given.
    #[schema(minimum = 1, maximum = 100_000)]
    pub new_issues_per_hour: Option<i32>,
}

/// Tells `null` from what is not there.
fn given<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

struct Faults(Vec<FieldError>);

impl Faults {
    fn unless(&mut self, holds: bool, path: &str, message: &str) {
        if !holds {
            self.0.push(FieldError { path: path.to_owned(), message: message.to_owned() });
        }
    }

    /// Those of a part, which knows its own paths.
    fn below(&mut self, path: &str, faults: Vec<FieldError>) {
        self.0.extend(faults.into_iter().map(|fault| FieldError {
            path: match fault.path.as_str() {
                "" => path.to_owned(),
                at if at.starts_with('[') => format!("{path}{at}"),
                at => format!("{path}.{at}"),
            },
            message: fault.message,
        }));
    }

    fn done(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::invalid_fields(self.0)) }
    }
}

impl NewProject {
    /// The project, checked; without its number yet.
    ///
    /// # Errors
    /// 422 with every field that is wrong.
    pub(crate) fn into_row(self, org: OrgId, now: DateTime<Utc>) -> Result<ProjectRow> {
        let slug = self.slug.unwrap_or_else(|| slug_of(&self.name));
        let mut row = ProjectRow {
            id: ProjectId::new(now),
            number: 0,
            org_id: org,
            short_prefix: slug.to_ascii_uppercase(),
            slug: String::new(),
            name: String::new(),
            platform: None,
            retention_days: 90,
            allowed_origins: vec!["*".to_owned()],
            grouping_rules: Value::Array(Vec::new()),
            scrubbing: Value::Object(serde_json::Map::new()),
            new_issues_per_hour: 100,
            created_at: now,
            updated_at: now,
        };
        let patch =
            ProjectPatch { name: Some(self.name), slug: Some(slug), settings: self.settings };
        patch.check()?;
        patch.apply(&mut row);
        Ok(row)
    }
}

impl ProjectPatch {
    /// # Errors
    /// 422 with every field that is wrong.
    pub(crate) fn check(&self) -> Result<()> {
        let mut faults = Faults(Vec::new());
        if let Some(name) = &self.name {
            faults.unless(
                text::is_plain_line(name, MAX_NAME),
                "name",
                "is one line of 1 to 200 bytes",
            );
        }
        if let Some(slug) = &self.slug {
            faults.unless(
                is_slug(slug),
                "slug",
                "is 1 to 63 of a-z, 0-9, `-` and `_`, with a letter or digit at both ends, not all digits, \
                 and not a UUID",
            );
        }
        self.settings.check(&mut faults);
        faults.done()
    }

    pub(crate) fn apply(self, row: &mut ProjectRow) {
        let Settings {
            platform,
            retention_days,
            allowed_origins,
            grouping_rules,
            scrubbing,
            new_issues_per_hour,
        } = self.settings;
        set(&mut row.name, self.name);
        set(&mut row.slug, self.slug);
        set(&mut row.platform, platform);
        set(&mut row.retention_days, retention_days);
        set(&mut row.allowed_origins, allowed_origins);
        set(&mut row.grouping_rules, grouping_rules);
        set(&mut row.scrubbing, scrubbing);
        set(&mut row.new_issues_per_hour, new_issues_per_hour);
    }
}

fn set<T>(field: &mut T, to: Option<T>) {
    if let Some(to) = to {
        *field = to;
    }
}

impl Settings {
    fn check(&self, faults: &mut Faults) {
        if let Some(Some(platform)) = &self.platform {
            faults.unless(
                text::is_plain_line(platform, MAX_PLATFORM),
                "platform",
                "is one line of 1 to 64 bytes",
            );
        }
        if let Some(days) = self.retention_days {
            faults.unless(RETENTION.contains(&days), "retention_days", "is 1 to 3650");
        }
        if let Some(count) = self.new_issues_per_hour {
            faults.unless(NEW_ISSUES.contains(&count), "new_issues_per_hour", "is 1 to 100000");
        }
        if let Some(origins) = &self.allowed_origins {
            faults.unless(origins.len() <= MAX_ORIGINS, "allowed_origins", "has at most 50");
            for (n, origin) in origins.iter().enumerate() {
                faults.unless(
                    is_origin(origin),
                    &format!("allowed_origins[{n}]"),
                    "is `*`, a host, `*.host`, or scheme and host, as `https://example.com`",
                );
            }
        }
        if let Some(rules) = &self.grouping_rules {
            check_rules(rules, faults);
        }
        if let Some(scrubbing) = &self.scrubbing {
            if let Err(wrong) = scrub::Settings::parse(scrubbing) {
                faults.below("scrubbing", wrong);
            }
            faults.unless(is_small(scrubbing), "scrubbing", "is at most 64 KiB");
        }
    }
}

fn check_rules(rules: &Value, faults: &mut Faults) {
    if let Err(wrong) = grouping::Rules::parse(rules) {
        faults.below("grouping_rules", wrong);
    }
    faults.unless(is_small(rules), "grouping_rules", "is at most 64 KiB");
}

fn is_small(rules: &Value) -> bool {
    serde_json::to_vec(rules).is_ok_and(|json| json.len() <= MAX_RULES)
}

/// `*`, `example.com`, `*.example.com`, `https://example.com:8443`, `https://*.example.com`.
fn is_origin(origin: &str) -> bool {
    if origin == "*" {
        return true;
    }
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    origin.len() <= MAX_ORIGIN
        && !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:*[]_".contains(&byte))
        && host.strip_prefix("*.").unwrap_or(host).bytes().all(|byte| byte != b'*')
}

fn is_slug(slug: &str) -> bool {
    let at_ends = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let bytes = slug.as_bytes();
    bytes.len() <= MAX_SLUG
        && at_ends(bytes.first())
        && at_ends(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte))
        && !bytes.iter().all(u8::is_ascii_digit)
        && slug.parse::<uuid::Uuid>().is_err()
}

/// `Web shop (EU)` is `web-shop-eu`.
fn slug_of(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() {
            slug.push(letter.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = text::cut(&slug, MAX_SLUG).trim_end_matches('-');
    if slug.is_empty() || slug.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("project{}{slug}", if slug.is_empty() { "" } else { "-" })
    } else {
        slug.to_owned()
    }
}

/// A key that applications send with. It is no secret: whoever has it can send, and read nothing.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct KeyRow {
    pub id: ProjectKeyId,
    pub project_id: ProjectId,
    pub name: String,
    /// 32 hexadecimal digits.
    pub public_key: String,
    /// What is sent with one that is not is refused.
    pub enabled: bool,
    /// Null: no limit of its own.
    pub limit: Option<KeyLimit>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
}

/// So many items in each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct KeyLimit {
    #[schema(minimum = 1)]
    pub count: i32,
    #[schema(minimum = 1, maximum = 86_400)]
    pub window_secs: i32,
}

/// A key with its DSN.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct KeyView {
    #[serde(flatten)]
    pub key: KeyRow,
    /// What an SDK is given.
    pub dsn: String,
}

/// The keys of a project, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyPage {
    pub keys: Vec<KeyView>,
    /// Null at the end.
    pub next_cursor: Option<String>,
}

/// A key to create.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct NewKey {
    /// `Default` when absent.
    #[schema(max_length = 200)]
    pub name: Option<String>,
    pub limit: Option<KeyLimit>,
}

/// What of a key is to change.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct KeyPatch {
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    pub enabled: Option<bool>,
    /// `null` takes the limit away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<KeyLimit>)]
    pub limit: Option<Option<KeyLimit>>,
}

impl NewKey {
    /// # Errors
    /// 422 with every field that is wrong.
    pub(crate) fn into_row(self, project: ProjectId, now: DateTime<Utc>) -> Result<KeyRow> {
        let mut row = KeyRow {
            id: ProjectKeyId::new(now),
            project_id: project,
            name: "Default".to_owned(),
            public_key: hex::encode(rand::random::<[u8; 16]>()),
            enabled: true,
            limit: None,
            created_at: now,
        };
        let patch = KeyPatch { name: self.name, enabled: None, limit: Some(self.limit) };
        patch.check()?;
        patch.apply(&mut row);
        Ok(row)
    }
}

impl KeyPatch {
    /// # Errors
    /// 422 with every field that is wrong.
    pub(crate) fn check(&self) -> Result<()> {
        let mut faults = Faults(Vec::new());
        if let Some(name) = &self.name {
            faults.unless(
                text::is_plain_line(name, MAX_NAME),
                "name",
                "is one line of 1 to 200 bytes",
            );
        }
        if let Some(Some(limit)) = self.limit {
            faults.unless(limit.count > 0, "limit.count", "is at least 1");
            faults.unless(
                (1..=86_400).contains(&limit.window_secs),
                "limit.window_secs",
                "is 1 to 86400",
            );
        }
        faults.done()
    }

    pub(crate) fn apply(self, row: &mut KeyRow) {
        set(&mut row.name, self.name);
        set(&mut row.enabled, self.enabled);
        set(&mut row.limit, self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::{is_origin, is_slug, slug_of};

    #[test]
    fn a_slug_is_made_of_any_name() {
        for (name, slug) in [
            ("Web shop (EU)", "web-shop-eu"),
            ("  API  ", "api"),
            ("42", "project-42"),
            ("日本", "project"),
            ("Übersicht", "bersicht"),
        ] {
            assert_eq!(slug_of(name), slug, "{name}");
            assert!(is_slug(&slug_of(name)), "{name}");
        }
        assert!(is_slug(&slug_of(&"a ".repeat(200))));
    }

    #[test]
    fn an_origin_is_all_a_host_or_a_scheme_and_a_host() {
        for good in
            ["*", "example.com", "*.example.com", "https://example.com:8443", "https://*.a.b"]
        {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["", "https://", "https://a/b", "a*b", "*.*.a", "https://a b"] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
