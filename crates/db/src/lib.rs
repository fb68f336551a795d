//! The PostgreSQL pool, migrations, and a private PostgreSQL.

mod announce;
pub mod config;
pub mod embedded;
mod error;
pub mod health;
pub mod listen;
pub mod migrate;
pub mod partitions;
pub mod pool;
mod tools;

use std::time::Duration;

use loom_common_secret::SecretString;
use sqlx::{
    PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub use announce::{Announcer, READ_AGAIN};
pub use config::Config;
use embedded::{PrivateError, PrivatePostgres};
pub use error::OpenError;
pub use listen::{Hub, Signal, Subscription};
pub use pool::{begin, connect, for_writer};
pub use tools::{Tools, ToolsError};

/// Connections that a private PostgreSQL has room for beyond the pool: LISTEN, migrations, psql.
const SPARE_CONNECTIONS: u32 = 20;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The migrated database, and the PostgreSQL under it when that is ours.
#[derive(Debug)]
pub struct Database {
    pool: PgPool,
    probes: PgPool,
    direct_url: SecretString,
    /// No way past a pooler was given.
    direct_url_is_url: bool,
    private: Option<PrivatePostgres>,
}

impl Database {
    /// Starts the private PostgreSQL when no URL is given, waits for the database, and migrates it.
    pub async fn open(config: &Config) -> Result<Self, OpenError> {
        let (private, url) = Self::start(config).await?;
        Self::connect(config, private, url, true).await
    }

    /// As [`Database::open`], but a private PostgreSQL that a running server holds is used beside
    /// it: for commands. `migrate` false leaves the schema as it is.
    pub async fn join(config: &Config, migrate: bool) -> Result<Self, OpenError> {
        let (private, url) = match Self::start(config).await {
            Err(OpenError::Private(locked @ PrivateError::Locked { .. })) => {
                let url = embedded::find_running(&config.data_dir).await?.ok_or(locked)?;
                (None, url)
            }
            result => result?,
        };
        Self::connect(config, private, url, migrate).await
    }

    /// A handle whose pool leads nowhere, for what only needs the shape of things.
    pub fn disconnected() -> Self {
        let options = PgConnectOptions::new_without_pgpass().host("database.invalid");
        let pool = PgPoolOptions::new().connect_lazy_with(options);
        Self {
            probes: pool.clone(),
            pool,
            direct_url: SecretString::default(),
            direct_url_is_url: true,
            private: None,
        }
    }

    async fn start(config: &Config) -> Result<(Option<PrivatePostgres>, SecretString), OpenError> {
        if let Some(url) = &config.url {
            return Ok((None, url.clone()));
        }
        let options = embedded::Options {
            bin: config.pg_bin.clone(),
            max_connections: config.max_connections + SPARE_CONNECTIONS,
            ..embedded::Options::new(&config.data_dir)
        };
        let private = PrivatePostgres::start(options).await?;
        let url = private.url();
        Ok((Some(private), url))
    }

    async fn connect(
        config: &Config,
        private: Option<PrivatePostgres>,
        url: SecretString,
        migrate: bool,
    ) -> Result<Self, OpenError> {
        let direct_url = config.direct_url.clone().unwrap_or_else(|| url.clone());
        let pool = async {
            if migrate {
                migrate::run(&direct_url, config.wait).await?;
            }
            connect(&url, &config.limits()).await
        };
        match pool.await {
            Ok(pool) => {
                let probes = pool::for_probes(&pool);
                let direct_url_is_url = config.direct_url.is_none();
                Ok(Self { pool, probes, direct_url, direct_url_is_url, private })
            }
            Err(error) => {
                if let Some(private) = private {
                    private.stop().await;
                }
                Err(error)
            }
        }
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A URL that does not lead through a pooler, for what belongs to a session, as LISTEN does.
    pub fn direct_url(&self) -> &SecretString {
        &self.direct_url
    }

    /// Connections for health probes only, which must not wait behind requests; there are none while
    /// nobody asks.
    pub fn probes(&self) -> &PgPool {
        &self.probes
    }

    /// Whether the server runs this PostgreSQL itself.
    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// See [`pool::begin`].
    pub async fn begin(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        begin(&self.pool).await
    }

    /// Waits a while for every connection to come back, then stops the private PostgreSQL. Call it
    /// last, when the server has drained.
    pub async fn close(self) {
        self.probes.close().await;
        if tokio::time::timeout(CLOSE_TIMEOUT, self.pool.close()).await.is_err() {
            tracing::warn!("some database connections are still in use; closing without them");
        }
        if let Some(private) = self.private {
            private.stop().await;
        }
    }
}
