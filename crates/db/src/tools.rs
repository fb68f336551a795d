//! PostgreSQL's own programs that copy a database out and in.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use loom_common_secret::SecretString;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::{Database, embedded::binaries};

#[derive(Debug, thiserror::Error)]
pub enum ToolsError {
    #[error(
        "no pg_dump and pg_restore of PostgreSQL {wanted} or newer are installed (found: {found}). \
         Install the client programs (Debian, Ubuntu: apt-get install postgresql-client-{wanted}), or \
         name their directory in LOOM_SERVER_PG_BIN"
    )]
    NotInstalled { wanted: u32, found: String },

    #[error("{program} failed: {output}")]
    Failed { program: &'static str, output: String },

    #[error("{program} cannot be run: {cause}")]
    Run { program: &'static str, cause: io::Error },

    #[error("the database cannot be looked at: {0}")]
    Database(#[from] sqlx::Error),
}

/// `pg_dump` and `pg_restore`, fit for one server.
#[derive(Clone, Debug)]
pub struct Tools {
    dir: PathBuf,
    major: u32,
}

impl Tools {
    /// Those of the server's own version, else the next newer ones: an older one refuses the server.
    pub fn find(given: Option<&Path>, wanted: u32) -> Result<Self, ToolsError> {
        let dirs = match given {
            Some(dir) => vec![dir.to_owned()],
            // The usual places come last, and there each version has its own; on PATH is often one for all.
            None => binaries::candidates().into_iter().rev().collect(),
        };
        let mut found: Vec<Self> = dirs.into_iter().filter_map(probe).collect();
        found.sort_by_key(|tools| tools.major);
        let majors: Vec<_> = found.iter().map(|tools| tools.major.to_string()).collect();
        found.into_iter().find(|tools| tools.major >= wanted).ok_or_else(|| {
            let found = if majors.is_empty() { "none".to_owned() } else { majors.join(", ") };
            ToolsError::NotInstalled { wanted, found }
        })
    }

    /// The whole database at one moment into `file`, while others work on it.
    pub async fn dump(&self, url: &SecretString, file: &Path) -> Result<(), ToolsError> {
        let options =
            ["--format=custom", "--no-owner", "--no-privileges", "--lock-wait-timeout=30s"];
        self.run("pg_dump", url, &options, Some(("--file", file))).await
    }

    /// What [`Tools::dump`] wrote into an empty database: all of it, or nothing.
    pub async fn restore(&self, url: &SecretString, file: &Path) -> Result<(), ToolsError> {
        let options = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"];
        self.run("pg_restore", url, &options, Some(("--", file))).await
    }

    async fn run(
        &self,
        program: &'static str,
        url: &SecretString,
        options: &[&str],
        file: Option<(&str, &Path)>,
    ) -> Result<(), ToolsError> {
        let (shown, password) = without_password(url);
        let mut command = tokio::process::Command::new(self.dir.join(program));
        command.args(options).arg("--dbname").arg(shown);
        if let Some((option, file)) = file {
            command.arg(option).arg(file);
        }
        // Arguments can be read by everybody on the machine, the environment cannot.
        if let Some(password) = password {
            command.env("PGPASSWORD", password.expose());
        }
        command.env("PGAPPNAME", program).stdin(Stdio::null()).stdout(Stdio::null());
        let output = command.stderr(Stdio::piped()).kill_on_drop(true).output().await;
        let output = output.map_err(|cause| ToolsError::Run { program, cause })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let output = said.trim().chars().take(2000).collect();
        Err(ToolsError::Failed { program, output })
    }
}

impl Database {
    /// The major version of PostgreSQL.
    pub async fn major(&self) -> Result<u32, ToolsError> {
        let number: String = sqlx::query_scalar("SELECT current_setting('server_version_num')")
            .fetch_one(self.pool())
            .await?;
        Ok(number.parse::<u32>().unwrap_or_default() / 10_000)
    }

    /// Is there nothing of anybody's in it?
    pub async fn is_empty(&self) -> Result<bool, ToolsError> {
        let relations = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'
               AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')";
        let count: i64 = sqlx::query_scalar(relations).fetch_one(self.pool()).await?;
        Ok(count == 0)
    }

    /// Whether this user may make tables, and what the schema needs of extensions; empty when all is well.
    pub async fn lacking(&self) -> Result<Vec<String>, ToolsError> {
        let (create, owner): (bool, bool) = sqlx::query_as(
            "SELECT has_schema_privilege(current_schema(), 'CREATE'),
                    has_database_privilege(current_database(), 'CREATE')",
        )
        .fetch_one(self.pool())
        .await?;
        let missing: Vec<(String, bool)> = sqlx::query_as(
            "SELECT wanted.name, available.name IS NOT NULL
               FROM unnest(ARRAY['btree_gin', 'pg_trgm']) AS wanted (name)
               LEFT JOIN pg_available_extensions available ON available.name = wanted.name
               LEFT JOIN pg_extension made ON made.extname = wanted.name
              WHERE made.extname IS NULL",
        )
        .fetch_all(self.pool())
        .await?;
        let mut lacking = Vec::new();
        if !create {
            lacking.push("the right to make tables (GRANT CREATE ON SCHEMA public)".to_owned());
        }
        for (name, available) in missing {
            if !available {
                lacking.push(format!("the extension {name} (the package postgresql-contrib)"));
            } else if !owner {
                lacking.push(format!(
                    "the right to make the extension {name} (CREATE on the database)"
                ));
            }
        }
        Ok(lacking)
    }
}

fn probe(dir: PathBuf) -> Option<Tools> {
    let version = |program: &str| {
        let path = dir.join(program);
        if !path.is_file() {
            return None;
        }
        let output = Command::new(path).arg("--version").stdin(Stdio::null()).output().ok()?;
        binaries::major(&String::from_utf8_lossy(&output.stdout))
    };
    let major = version("pg_dump")?;
    (version("pg_restore")? == major).then_some(Tools { dir, major })
}

/// The URL as libpq reads it, and what must not stand in it.
fn without_password(url: &SecretString) -> (String, Option<SecretString>) {
    let Ok(mut url) = Url::parse(url.expose()) else {
        return (String::new(), None);
    };
    let decoded =
        |text: &str| SecretString::from(percent_decode_str(text).decode_utf8_lossy().into_owned());
    let mut password = url.password().map(decoded);
    if password.is_some() {
        let _ = url.set_password(None);
    }
    let mut kept = Vec::new();
    for pair in url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "password" => password = Some(decoded(value)),
            // Ours alone, and other spellings of what libpq knows.
            "statement-cache-capacity" => {}
            "ssl-ca" => kept.push(format!("sslrootcert={value}")),
            name if name.starts_with("ssl-") => {
                kept.push(format!("{}={value}", name.replace('-', "")));
            }
            _ => kept.push(pair.to_owned()),
        }
    }
    let query = kept.join("&");
    url.set_query((!query.is_empty()).then_some(query.as_str()));
    (url.into(), password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_stands_in_no_argument() {
        for (url, shown, password) in [
            ("postgres://u:p%40ss@h/d", "postgres://u@h/d", Some("p@ss")),
            (
                "postgres://u@h/d?password=a%20b&sslmode=require",
                "postgres://u@h/d?sslmode=require",
                Some("a b"),
            ),
            (
                "postgres://u@h/d?ssl-root-cert=/ca&statement-cache-capacity=0",
                "postgres://u@h/d?sslrootcert=/ca",
                None,
            ),
            (
                "postgres://loom@localhost/loom?host=/run/a%20b",
                "postgres://loom@localhost/loom?host=/run/a%20b",
                None,
            ),
        ] {
            let (text, secret) = without_password(&url.into());
            assert_eq!(
                (text.as_str(), secret.as_ref().map(SecretString::expose)),
                (shown, password)
            );
        }
    }
}
