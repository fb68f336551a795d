//! During an upgrade the release before works on the new schema: a migration adds, and one that takes
//! something away says so in its name, with the migration that a server must know to do without it
//! (`060_contract_052_drop_titles.sql`).

use std::{collections::BTreeSet, fs};

const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
/// Before there was a release, migrations did as they liked.
const BASELINE: i64 = 41;

/// Statements without comments, in capitals, with single blanks.
fn statements(sql: &str) -> Vec<String> {
    let code = |line: &str| line.split("--").next().unwrap_or_default().to_uppercase();
    let text: Vec<_> = sql.lines().map(code).collect();
    text.join("\n")
        .split(';')
        .map(|statement| statement.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|statement| !statement.is_empty())
        .collect()
}

/// Why the release before would stumble.
fn breaks(statement: &str, made_here: &BTreeSet<String>) -> Option<&'static str> {
    let altered = statement.strip_prefix("ALTER TABLE ").map(|rest| {
        let rest = rest.trim_start_matches("IF EXISTS ").trim_start_matches("ONLY ");
        rest.split(' ').next().unwrap_or_default().to_owned()
    });
    if altered.is_some_and(|table| made_here.contains(&table)) {
        return None;
    }
    for (words, why) in [
        ("DROP TABLE", "drops a table"),
        ("DROP COLUMN", "drops a column"),
        ("DROP VIEW", "drops a view"),
        ("RENAME ", "renames"),
        ("SET NOT NULL", "takes no NULL any more"),
        ("DROP DEFAULT", "takes a default away"),
        ("SET DATA TYPE", "changes a type"),
    ] {
        if statement.contains(words) {
            return Some(why);
        }
    }
    let alters = statement.starts_with("ALTER TABLE");
    if alters && statement.contains("ALTER COLUMN") && statement.contains(" TYPE ") {
        return Some("changes a type");
    }
    let adds = statement.split("ADD COLUMN").skip(1);
    let blind = |column: &str| {
        let column = column.split(", ").next().unwrap_or_default();
        column.contains("NOT NULL") && !column.contains("DEFAULT") && !column.contains("GENERATED")
    };
    (alters && adds.into_iter().any(blind))
        .then_some("adds a column that the old server does not fill")
}

fn faults(name: &str, sql: &str, known: &BTreeSet<i64>) -> Vec<String> {
    let (number, rest) = name.split_once('_').unwrap();
    let number: i64 = number.parse().unwrap();
    if let Some(rest) = rest.strip_prefix("contract_") {
        let needed = rest.split('_').next().and_then(|needed| needed.parse().ok());
        return match needed {
            Some(needed) if needed < number && known.contains(&needed) => Vec::new(),
            _ => vec![format!("{name}: name it NNN_contract_<the migration to be known>_what.sql")],
        };
    }
    let statements = statements(sql);
    let made = statements.iter().filter_map(|statement| {
        let rest = statement.strip_prefix("CREATE TABLE ")?;
        let rest = rest.trim_start_matches("IF NOT EXISTS ");
        Some(rest.split([' ', '(']).next()?.to_owned())
    });
    let made = made.collect();
    let fault =
        |statement: &String| Some(format!("{name} {}: {statement}", breaks(statement, &made)?));
    statements.iter().filter_map(fault).collect()
}

#[test]
fn migrations_since_the_first_release_only_add() {
    let mut files = Vec::new();
    for entry in fs::read_dir(MIGRATIONS).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".sql") {
            files.push((name.to_owned(), fs::read_to_string(entry.path()).unwrap()));
        }
    }
    let number = |name: &str| name.split('_').next().unwrap().parse::<i64>().unwrap();
    let known: BTreeSet<i64> = files.iter().map(|(name, _)| number(name)).collect();
    let new = files.iter().filter(|(name, _)| number(name) > BASELINE);
    let found: Vec<_> = new.flat_map(|(name, sql)| faults(name, sql, &known)).collect();
    assert!(found.is_empty(), "{found:#?}\nsee migrations/README.md");
}

#[test]
fn what_the_release_before_would_stumble_over_is_found() {
    let known = BTreeSet::from([52, 53]);
    for sql in [
        "ALTER TABLE threads DROP COLUMN title;",
        "alter table threads\n  rename column title to name;",
        "DROP TABLE threads;",
        "ALTER TABLE threads ADD COLUMN a int, ADD COLUMN b int NOT NULL;",
        "ALTER TABLE threads ALTER COLUMN n TYPE bigint;",
        "ALTER TABLE threads ALTER COLUMN n SET NOT NULL;",
    ] {
        assert_eq!(faults("060_more", sql, &known).len(), 1, "{sql}");
        assert!(faults("060_contract_052_less", sql, &known).is_empty(), "{sql}");
        for wrong in ["060_contract_less", "060_contract_059_less", "060_contract_061_less"] {
            assert_eq!(faults(wrong, sql, &known).len(), 1, "{wrong}");
        }
    }
    for sql in [
        "ALTER TABLE threads ADD COLUMN b int NOT NULL DEFAULT 0; -- no DROP TABLE",
        "CREATE TABLE new (a int NOT NULL); ALTER TABLE new ALTER COLUMN a SET NOT NULL;",
        "ALTER TABLE threads DROP CONSTRAINT c; ALTER TABLE threads ADD CONSTRAINT c CHECK (a > 0);",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON threads (a);",
    ] {
        assert!(faults("060_more", sql, &known).is_empty(), "{sql}");
    }
}
