//! A query as conditions on crash_issues (`i`).

use loom_core::id::{OrgId, UserId};
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::{Assigned, Column, CountColumn, Match, Query, TimeColumn, What};

/// Where issues are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Within<'a> {
    pub(crate) org: OrgId,
    /// Projects of the organisation: what tags are looked for in.
    pub(crate) projects: &'a [Uuid],
    /// Who has the addresses that the query names; none for one that nobody has.
    pub(crate) people: &'a [Option<UserId>],
}

/// Adds ` AND …` for each term.
pub(crate) fn push(sql: &mut QueryBuilder<Postgres>, query: &Query, within: &Within<'_>) {
    for term in &query.terms {
        sql.push(" AND ");
        condition(sql, &term.what, term.negated, within);
    }
}

fn condition(sql: &mut QueryBuilder<Postgres>, what: &What, negated: bool, within: &Within<'_>) {
    // Of what may be null: not known is not true, and neither is its contrary.
    let not = if negated { " IS NOT TRUE" } else { "" };
    match what {
        What::Status(statuses) => {
            // Literals, so that every plan knows whether a partial index serves them.
            sql.push(if negated { "i.status NOT IN (" } else { "i.status IN (" });
            literals(sql, statuses.iter().map(|status| status.as_str()));
        }
        What::Priority(priorities) => {
            sql.push(if negated { "i.priority NOT IN (" } else { "i.priority IN (" });
            literals(sql, priorities.iter().map(|priority| priority.as_str()));
        }
        What::Assigned(to) => assigned(sql, *to, negated, within),
        What::Text(column, matching) => {
            sql.push("(").push(text_column(*column));
            push_match(sql, matching);
            sql.push(")").push(not);
        }
        What::Time(column, comparison, at) => {
            sql.push("(").push(time_column(*column)).push(" ").push(comparison.as_sql()).push(" ");
            sql.push_bind(*at).push(")").push(not);
        }
        What::Between(column, from, to) => {
            let column = time_column(*column);
            sql.push("(").push(column).push(" >= ").push_bind(*from);
            sql.push(" AND ").push(column).push(" < ").push_bind(*to).push(")").push(not);
        }
        What::Count(column, comparison, number) => {
            let column = match column {
                CountColumn::Events => "i.event_count",
                CountColumn::Users => "i.user_count",
                CountColumn::Regressed => "i.times_regressed",
            };
            sql.push("(").push(column).push(" ").push(comparison.as_sql()).push(" ");
            sql.push_bind(*number).push(")").push(not);
        }
        What::Has(key) => tag(sql, key, None, negated, within),
        What::Tag(key, matching) => tag(sql, key, Some(matching), negated, within),
        What::Word(word) => {
            sql.push("(i.tsv @@ to_tsquery('simple', ").push_bind(format!("{word}:*"));
            sql.push("))").push(not);
        }
        What::Phrase(words) => {
            sql.push("(i.tsv @@ phraseto_tsquery('simple', ").push_bind(words.clone());
            sql.push("))").push(not);
        }
    }
}

fn literals(sql: &mut QueryBuilder<Postgres>, words: impl Iterator<Item = &'static str>) {
    for (index, word) in words.enumerate() {
        sql.push(if index == 0 { "'" } else { ", '" }).push(word).push("'");
    }
    sql.push(")");
}

fn assigned(sql: &mut QueryBuilder<Postgres>, to: Assigned, negated: bool, within: &Within<'_>) {
    let person = match to {
        Assigned::Anybody | Assigned::Nobody => {
            let is_null = (to == Assigned::Nobody) != negated;
            sql.push(if is_null { "i.assigned_to IS NULL" } else { "i.assigned_to IS NOT NULL" });
            return;
        }
        Assigned::To(id) => Some(id),
        Assigned::Email(index) => within.people.get(index).copied().flatten(),
    };
    match person {
        Some(id) => {
            sql.push(if negated { "i.assigned_to IS DISTINCT FROM " } else { "i.assigned_to = " });
            sql.push_bind(id);
        }
        // Nobody has this address.
        None => {
            sql.push(if negated { "true" } else { "false" });
        }
    }
}

fn tag(
    sql: &mut QueryBuilder<Postgres>,
    key: &str,
    matching: Option<&Match>,
    negated: bool,
    within: &Within<'_>,
) {
    sql.push(if negated { "NOT EXISTS (" } else { "EXISTS (" });
    sql.push("SELECT FROM crash_issue_tags t WHERE t.issue_id = i.id AND t.org_id = ");
    sql.push_bind(within.org);
    match within.projects {
        [project] => sql.push(" AND t.project_id = ").push_bind(*project),
        projects => sql.push(" AND t.project_id = ANY(").push_bind(projects.to_vec()).push(")"),
    };
    sql.push(" AND t.key = ").push_bind(key.to_owned());
    match matching {
        // As its index is made, which finds a beginning.
        Some(Match::Like(pattern)) => {
            sql.push(" AND lower(t.value) LIKE lower(").push_bind(pattern.clone()).push(")");
        }
        Some(matching) => {
            sql.push(" AND t.value");
            push_match(sql, matching);
        }
        None => {}
    }
    sql.push(")");
}

fn push_match(sql: &mut QueryBuilder<Postgres>, matching: &Match) {
    match matching {
        Match::Any(values) => match values.as_slice() {
            [value] => sql.push(" = ").push_bind(value.clone()),
            values => sql.push(" = ANY(").push_bind(values.to_vec()).push(")"),
        },
        Match::Like(pattern) => sql.push(" ILIKE ").push_bind(pattern.clone()),
    };
}

fn text_column(column: Column) -> &'static str {
    match column {
        Column::Level => "i.level",
        Column::Title => "i.title",
        Column::Culprit => "i.culprit",
        Column::Kind => "i.kind",
        Column::Value => "i.value",
        Column::Platform => "i.platform",
        Column::FirstRelease => "i.first_release",
        Column::LastRelease => "i.last_release",
        Column::RegressedIn => "i.regressed_in_release",
        Column::ResolvedIn => "i.resolved_in_release",
    }
}

fn time_column(column: TimeColumn) -> &'static str {
    match column {
        TimeColumn::FirstSeen => "i.first_seen",
        TimeColumn::LastSeen => "i.last_seen",
    }
}
