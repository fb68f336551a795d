//! Many rows in one statement.

use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, PgPool};

/// Of one statement.
const AT_ONCE: usize = 5000;

/// Rows of one table, all with the members of the first.
pub(crate) async fn insert(pool: &PgPool, table: &str, rows: &[Value]) -> anyhow::Result<()> {
    let Some(columns) = rows.first().and_then(Value::as_object) else { return Ok(()) };
    let columns = names(columns);
    let statement = format!(
        "INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_recordset(null::{table}, $1)"
    );
    for some in rows.chunks(AT_ONCE) {
        sqlx::query(AssertSqlSafe(statement.clone()))
            .bind(sqlx::types::Json(some))
            .execute(pool)
            .await?;
    }
    Ok(())
}

fn names(columns: &Map<String, Value>) -> String {
    columns.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}
