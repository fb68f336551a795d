//! The command that fills an organisation with data, see crate `demo`.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use loom_core::{Clock, principal::Scopes};
use loom_db::Database;
use loom_demo::{Keys, Wish, World};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{self, Features},
    config::{self, Config},
    console::say,
    health::Health,
    logging::{self, Stream},
};

/// The user that development mode has.
const DEV_USER: &str = "dev@localhost";

pub(crate) async fn run(
    config: &Config,
    email: Option<String>,
    org: String,
    force: bool,
) -> anyhow::Result<ExitCode> {
    let log = config::Log { filter: "error".to_owned(), format: config.log.format };
    logging::start(&log, Stream::Error);
    let database = Database::join(&config.database, true).await?;
    let result = match viewer(&database, config, email).await {
        Ok(email) => {
            let wish = Wish { email, slug: org, force };
            Box::pin(fill(&database, config, &wish)).await
        }
        Err(error) => Err(error),
    };
    database.close().await;
    result?;
    Ok(ExitCode::SUCCESS)
}

/// Who is to see it: without a name the user of development mode, where there is one.
async fn viewer(
    database: &Database,
    config: &Config,
    email: Option<String>,
) -> anyhow::Result<String> {
    match email {
        Some(email) => Ok(email.trim().to_lowercase()),
        None if config.auth.dev_mode => Ok(DEV_USER.to_owned()),
        None if loom_demo::knows(database.pool(), DEV_USER).await? => Ok(DEV_USER.to_owned()),
        None => bail!("say who is to see it: loom-server demo-data --email you@example.com"),
    }
}

async fn fill(database: &Database, config: &Config, wish: &Wish) -> anyhow::Result<()> {
    let now = Clock::system().now();
    // What it does is done in the past: each thing at its time.
    let clock = Clock::manual(loom_demo::start(now));
    let mut config = config.clone();
    config.auth.dev_mode = false;
    // Pods of the real cluster are no business of a clock that was moved.
    config.weavers.enabled = false;
    let started = std::time::Instant::now();
    let features =
        Features::start(database, &config, clock.clone(), CancellationToken::new()).await?;
    let health = Health::new(clock.clone(), Vec::new());
    let (router, _) = app::routes(&features, &health, database, &config, clock.clone(), None);
    let world = World { pool: database.pool().clone(), router, clock, now };
    let made = Box::pin(loom_demo::fill(world, wish, &OfServer(&features))).await;
    features.close(Duration::from_secs(10)).await;
    let made = made?;
    let (name, slug) = (made.org_name, &wish.slug);
    if !made.is_new {
        say(&format!(
            "The organisation {name} (`{slug}`) has its demo data already; --org names another one."
        ));
        return Ok(());
    }
    let seconds = started.elapsed().as_secs_f64();
    let url = &config.http.base_url;
    let sign_in = if wish.email == DEV_USER {
        "Development mode signs you in.".to_owned()
    } else {
        format!("Sign in as {}.", wish.email)
    };
    say(&format!(
        "\n  The organisation {name} (`{slug}`, {}) has a month of data now; it took {seconds:.1} s.\n\n  \
         1. Run the server:  loom-server\n  2. Open {url} in a browser. {sign_in}\n  \
         3. Choose the organisation {name} at the top.\n\n  With a key: add the header  x-loom-org: {slug}\n",
        made.org
    ));
    Ok(())
}

/// What the demo data needs of the features.
struct OfServer<'a>(&'a Features);

impl Keys for OfServer<'_> {
    async fn key(&self, email: &str) -> anyhow::Result<String> {
        let auth = &self.0.auth;
        let key = match auth.key_for(email, Scopes::all(), None).await {
            Err(error) if error.status() == http::StatusCode::NOT_FOUND => {
                auth.create_admin(email).await?
            }
            key => key?,
        };
        Ok(key.secret.expose().to_owned())
    }

    async fn job(&self, id: &str) -> anyhow::Result<()> {
        let run = loop {
            match self.0.jobs.request(id).await {
                // A server beside this one runs it too, when its time comes.
                Err(error) if error.code() == "job_running" => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                run => break run?,
            }
        };
        let outcome = run.outcome().await?;
        match outcome.error {
            None => Ok(()),
            Some(error) => bail!("the job {id}: {error}"),
        }
    }
}
