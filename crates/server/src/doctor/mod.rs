//! `doctor`: looks at everything that the server needs, as the server itself would, and says what to do.
//! It changes nothing, starts nothing that works by itself, and gives up on what does not answer.

mod database;
mod machine;
mod outside;
mod report;

use std::{process::ExitCode, time::Duration};

use loom_db::Database;
use loom_vault::Vault;

use crate::{
    app::Features,
    config::{Config, Loaded},
};
use report::{Finding, Report};

/// For one part; they are looked at side by side.
const LIMIT: Duration = Duration::from_secs(20);

/// Exit code 0 when there is no problem; warnings are none.
pub(crate) async fn run(
    loaded: &Loaded,
    send_test_mail: Option<&str>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    report.add(machine::settings(loaded));
    if loaded.problems.is_empty() {
        Box::pin(look(&loaded.config, send_test_mail, &mut report)).await?;
    } else {
        report.add([Finding::skipped(
            "everything else",
            "not looked at: with these settings the server does not start",
        )]);
    }
    report.print(json);
    Ok(report.exit_code())
}

async fn look(
    config: &Config,
    send_test_mail: Option<&str>,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.add(limited("data directory", machine::data(config)).await);
    report.add(limited("programs", machine::programs(config)).await);
    report.add(machine::server(config).await);
    let (database, findings) = database::look(config).await;
    let is_usable = database.is_some() && !findings.iter().any(Finding::is_problem);
    report.add(findings);
    let database = database.unwrap_or_else(Database::disconnected);
    // Only looked for: a key that is not there is the server's to make.
    let vault = match Vault::key_in_force(&config.vault, &config.data_dir) {
        Ok(Some(_)) => Vault::open(config.vault.clone(), &config.data_dir)?,
        _ => Vault::ephemeral()?,
    };
    let features = Features::at_rest(&database, config, vault)?;
    let (disk, mail, sign_in, models, weavers) = tokio::join!(
        limited("disk", outside::storage(config, &features)),
        limited("mail", outside::mail(config, &features, send_test_mail)),
        limited("sign-in", outside::sign_in(config, &features)),
        limited("models", outside::models(&features, is_usable)),
        limited("weavers", outside::weavers(&features)),
    );
    for findings in [disk, mail, sign_in, models, weavers] {
        report.add(findings);
    }
    database.close().await;
    Ok(())
}

async fn limited(check: &'static str, look: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    tokio::time::timeout(LIMIT, look).await.unwrap_or_else(|_| {
        let said = format!("no answer within {} s", LIMIT.as_secs());
        vec![Finding::problem(
            check,
            said,
            "Look at the network between this machine and that part.",
        )]
    })
}
