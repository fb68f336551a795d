//! What each command does.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Read},
    net::{IpAddr, SocketAddr},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use loom_common_secret::SecretString;
use loom_core::{Clock, principal::Scopes};
use loom_db::Database;
use loom_llm_proxy::{CredentialKind, NewCredential, SecretJson};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{self, Features, Running},
    backup,
    cli::{
        AdminCommand, Cli, Command, ConfigCommand, CredentialCommand, CronCommand, JobCommand,
        LlmCommand, SecretKind,
    },
    config::{self, Config, Loaded, Overrides},
    console::{complain, say},
    cron_exec, demo_data, doctor,
    health::Health,
    logging::{self, Stream},
    service_manager::ServiceManager,
};

const WRONG_CONFIGURATION: u8 = 78;

/// Does what the command line says.
pub fn run(cli: Cli) -> ExitCode {
    let command = cli.command.unwrap_or(Command::Serve { demo: false });
    // Beside any job, whatever there is of a configuration.
    if let Command::Cron(CronCommand::Exec { monitor, queue, command }) = command {
        return cron_exec::run(&monitor, queue, &command);
    }
    let demo = matches!(command, Command::Serve { demo: true });
    let overrides = Overrides { demo, stdout_is_terminal: std::io::stdout().is_terminal() };
    let vars = match config::variables() {
        Ok(vars) => vars,
        Err(message) => {
            complain(&message);
            return WRONG_CONFIGURATION.into();
        }
    };
    // The document is the same under every configuration, also under a wrong one.
    let needs_no_config = matches!(command, Command::Openapi);
    let loaded = config::load(if needs_no_config { BTreeMap::new() } else { vars }, overrides);
    if let Command::Config(command) = &command {
        return look_at_config(command, &loaded);
    }
    // It tells the same problems, in its own form.
    let is_doctor = matches!(command, Command::Doctor { .. });
    if !loaded.problems.is_empty() && !is_doctor {
        tell_problems(&loaded);
        return WRONG_CONFIGURATION.into();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the runtime could not be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(Box::pin(execute(command, &loaded)));
    // What hangs in the kernel, as on a network file system that is gone, is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(5));
    logging::flush();
    match result {
        Ok(code) => code,
        Err(error) => {
            complain(&loom_redact::shared().redact(&format!("loom-server: {error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command, loaded: &Loaded) -> anyhow::Result<ExitCode> {
    let config = &loaded.config;
    loom_redact::learn(config.secrets.iter().cloned());
    match command {
        Command::Serve { demo } => serve(loaded, demo).await,
        Command::Migrate { check } => migrate(config, check).await,
        Command::Doctor { send_test_mail, json } => {
            logging::start(&quiet(config), Stream::Error);
            Box::pin(doctor::run(loaded, send_test_mail.as_deref(), json)).await
        }
        Command::Backup { directory, without_key } => {
            logging::start(&quiet(config), Stream::Error);
            backup::backup(config, &directory, !without_key).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Restore { directory } => {
            logging::start(&quiet(config), Stream::Error);
            backup::restore(config, &directory).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Openapi => print_openapi(config).await,
        Command::Healthcheck { url } => healthcheck(config, url).await,
        // Answered before the runtime was started.
        Command::Config(_) | Command::Cron(_) => Ok(ExitCode::SUCCESS),
        Command::Admin(command) => {
            on_database(config, async |features| admin(features, command).await).await
        }
        Command::Llm(LlmCommand::Credential(command)) => {
            on_database(config, async |features| credential(features, command).await).await
        }
        Command::Job(JobCommand::Run { id }) => {
            on_database(config, async |features| job(features, &id).await).await
        }
        Command::DemoData { email, org, force } => demo_data::run(config, email, org, force).await,
    }
}

fn tell_problems(loaded: &Loaded) {
    let count = loaded.problems.len();
    complain(&format!(
        "loom-server: the configuration has {count} {}:",
        if count == 1 { "problem" } else { "problems" }
    ));
    for problem in &loaded.problems {
        complain(&format!("  {problem}"));
    }
    complain(
        "`.env.example` lists every setting with its default; `loom-server config check` looks again.",
    );
}

fn look_at_config(command: &ConfigCommand, loaded: &Loaded) -> ExitCode {
    if matches!(command, ConfigCommand::Show) {
        for setting in &loaded.settings {
            let from = if setting.value == setting.default { "  (default)" } else { "" };
            say(&format!("{}={}{from}", setting.name, setting.value));
        }
    }
    for name in &loaded.unknown {
        complain(&format!("{name}: nothing reads this; is it misspelt?"));
    }
    if !loaded.problems.is_empty() {
        tell_problems(loaded);
        return WRONG_CONFIGURATION.into();
    }
    if matches!(command, ConfigCommand::Check) {
        if !loaded.unknown.is_empty() {
            return WRONG_CONFIGURATION.into();
        }
        say("the configuration is sound");
    }
    ExitCode::SUCCESS
}

async fn serve(loaded: &Loaded, demo: bool) -> anyhow::Result<ExitCode> {
    let config = &loaded.config;
    logging::start(&config.log, Stream::Out);
    for name in &loaded.unknown {
        tracing::warn!(name, "nothing reads this setting; is it misspelt?");
    }
    // From the first moment on: a signal during the start ends it in good order too.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let manager = ServiceManager::from_env();
    let running = tokio::select! {
        started = app::start(config, Clock::system()) => started?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    manager.follow(running.health.clone());
    greet(&running, config, demo).await;
    if !config.auth.dev_mode {
        offer_set_up(&running).await;
    }
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: going down"),
        _ = interrupt.recv() => tracing::info!("SIGINT: going down; a second one ends it at once"),
    }
    manager.stopping();
    tokio::select! {
        () = running.shut_down() => tracing::info!("all is written; good-bye"),
        _ = interrupt.recv() => bail!("ended at once; what was not written is lost"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells a newcomer where the server is and what to do next. Only for people, so not into a log.
async fn greet(running: &Running, config: &Config, demo: bool) {
    let address = running.address;
    tracing::info!(%address, data = %config.data_dir.display(), "ready");
    if !(demo || std::io::stdout().is_terminal()) {
        return;
    }
    let host =
        if address.ip().is_unspecified() { "localhost".to_owned() } else { host_of(address.ip()) };
    let url = format!("http://{host}:{}", address.port());
    let data = config.data_dir.canonicalize().unwrap_or_else(|_| config.data_dir.clone());
    let database = if running.database().is_private() {
        format!("a private PostgreSQL in {}", data.display())
    } else {
        "the PostgreSQL that DATABASE_URL names".to_owned()
    };
    let (key, first) = if config.auth.dev_mode {
        (String::new(), "It answers requests from this machine without a key.".to_owned())
    } else {
        (" \\\n       -H \"authorization: Bearer $LOOM_KEY\"".to_owned(), "A key:  loom-server admin create you@example.com   (prints it once: export LOOM_KEY=…)".to_owned())
    };
    let configured = running.features.llm.configured();
    let model = if config.llm.demo {
        "loom-demo"
    } else if configured.iter().any(|name| name == "openai") {
        "gpt-5.4-mini"
    } else {
        "your-model"
    };
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hello"}}]}}"#);
    let request = if configured.first().is_some_and(|name| name == "anthropic")
        && model == "your-model"
    {
        let body = r#"{"model":"claude-haiku-5-5","max_tokens":200,"messages":[{"role":"user","content":"Hello"}]}"#;
        format!(
            "  curl {url}/v1/messages -H 'content-type: application/json'{key} \\\n       -d '{body}'"
        )
    } else {
        format!(
            "  curl {url}/v1/chat/completions -H 'content-type: application/json'{key} \\\n       -d '{body}'"
        )
    };
    let providers = if configured.is_empty() {
        "  No LLM provider yet: set LOOM_SERVER_ANTHROPIC_API_KEY or LOOM_SERVER_OPENAI_API_KEY, or start with --demo.\n".to_owned()
    } else {
        format!("  Providers: {}\n", configured.join(", "))
    };
    logging::flush();
    say(&format!(
        "\n  Loom is ready at {url}\n\n{providers}  {first}\n  The first request:\n\n{request}\n\n  \
         The API, to browse: {url}/api\n  Data: {database}\n  Ctrl-C stops it; the data stays.\n"
    ));
}

/// While nobody administers this server: a link that makes the first admin. On standard error, also
/// where no terminal is, and not in the log, which is kept and shown.
async fn offer_set_up(running: &Running) {
    match running.features.auth.setup_link().await {
        Ok(None) => {}
        Ok(Some(link)) => {
            logging::flush();
            complain(&format!(
                "\n  Nobody administers this server yet. Whoever opens this link within a day does, once:\n\n    {link}\n"
            ));
        }
        Err(error) => {
            tracing::error!(%error, cause = error.cause(), "no set-up link could be made");
        }
    }
}

fn host_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

async fn migrate(config: &Config, check: bool) -> anyhow::Result<ExitCode> {
    logging::start(&config.log, Stream::Error);
    if !check {
        Database::join(&config.database, true).await?.close().await;
        say("the schema is that of this version");
        return Ok(ExitCode::SUCCESS);
    }
    let database = Database::join(&config.database, false).await?;
    let status = loom_db::migrate::status(database.pool()).await;
    database.close().await;
    let status = status?;
    if let Some(problem) = &status.problem {
        bail!("{problem}");
    }
    if !status.newer.is_empty() {
        let count = status.newer.len();
        complain(&format!(
            "{count} of the migrations there are of a newer version; this one can work with them"
        ));
    }
    if status.pending.is_empty() {
        say(&format!("nothing to do: all {} migrations are applied", status.applied.len()));
        return Ok(ExitCode::SUCCESS);
    }
    for pending in &status.pending {
        say(&format!("to be applied: {:03} {}", pending.version, pending.description));
    }
    Ok(ExitCode::FAILURE)
}

/// The document is made from the routes, which need features, which need a pool; none of it is used.
async fn print_openapi(config: &Config) -> anyhow::Result<ExitCode> {
    let document = openapi_document(config).await?;
    say(&document);
    Ok(ExitCode::SUCCESS)
}

/// The OpenAPI document, as pretty JSON. Needs no database.
///
/// # Errors
/// When the features cannot be built at all.
pub async fn openapi_document(config: &Config) -> anyhow::Result<String> {
    let clock = Clock::system();
    let database = Database::disconnected();
    let features = Features::disconnected(&database, config, clock.clone())?;
    let health = Health::new(clock.clone(), Vec::new());
    let (_, document) = app::routes(&features, &health, &database, config, clock, None);
    Ok(document.to_pretty_json()?)
}

async fn healthcheck(config: &Config, url: Option<String>) -> anyhow::Result<ExitCode> {
    let base = url.unwrap_or_else(|| {
        let ip = match config.http.host {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, config.http.port))
    });
    let url = format!("{}/health/ready", base.trim_end_matches('/'));
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
    let answer = client.get(&url).send().await.with_context(|| format!("{url} does not answer"))?;
    let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
    if status.is_success() {
        say(&format!("ready: {text}"));
        return Ok(ExitCode::SUCCESS);
    }
    bail!("{url} answers {status}: {text}")
}

/// What a command has to say itself, and warnings.
fn quiet(config: &Config) -> config::Log {
    config::Log { filter: "warn".to_owned(), format: config.log.format }
}

/// Runs a command on the features, on the database that the server uses too.
async fn on_database(
    config: &Config,
    work: impl AsyncFnOnce(&Features) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    logging::start(&quiet(config), Stream::Error);
    // The development user is the server's business.
    let mut config = config.clone();
    config.auth.dev_mode = false;
    let database = Database::join(&config.database, true).await?;
    let result = match Features::start(
        &database,
        &config,
        Clock::system(),
        CancellationToken::new(),
    )
    .await
    {
        Ok(features) => {
            let result = work(&features).await;
            features.close(Duration::from_secs(5)).await;
            result
        }
        Err(error) => Err(error),
    };
    database.close().await;
    result
}

async fn admin(features: &Features, command: AdminCommand) -> anyhow::Result<ExitCode> {
    let (email, key) = match command {
        AdminCommand::Create { email } => {
            let key = features.auth.create_admin(&email).await?;
            (email, key)
        }
        AdminCommand::Key { email, scopes, expires } => {
            let scopes =
                if scopes.is_empty() { Scopes::all() } else { scopes.into_iter().collect() };
            let key = features.auth.key_for(&email, scopes, expires).await?;
            (email, key)
        }
    };
    complain(&format!("An API key of {email}; it is shown this once:"));
    say(key.secret.expose());
    Ok(ExitCode::SUCCESS)
}

async fn credential(features: &Features, command: CredentialCommand) -> anyhow::Result<ExitCode> {
    match command {
        CredentialCommand::Add { provider, name, file, kind, token_url, client_id } => {
            let secret = read_secret(file.as_deref())?;
            let mut new = NewCredential {
                name: Some(name.clone()),
                token_url,
                client_id,
                ..NewCredential::default()
            };
            match kind {
                SecretKind::ApiKey => new.secret = Some(secret),
                SecretKind::Oauth => {
                    new.kind = CredentialKind::Oauth;
                    new.refresh_token = Some(secret);
                }
                SecretKind::GoogleServiceAccount => {
                    new.kind = CredentialKind::GoogleServiceAccount;
                    new.service_account = Some(SecretJson(secret));
                }
            }
            features.llm.add_credential(&provider, &new).await?;
            say(&format!(
                "stored the credential `{name}` of `{provider}`; running servers use it at once"
            ));
        }
        CredentialCommand::List => {
            let all = features.llm.list_credentials(None).await?;
            if !all.iter().any(|credential| credential.id.is_some()) {
                say(
                    "no credential is stored; `loom-server llm credential add <provider>` stores one",
                );
            }
            for credential in all {
                let Some(id) = credential.id else { continue };
                let reason = credential.disabled_reason.or(credential.last_error);
                say(&format!(
                    "{id}  {:<12} {:<20} …{:<4}  {}  since {}  {}",
                    credential.provider,
                    credential.name,
                    credential.last_four,
                    credential.state,
                    credential.created_at.unwrap_or_default().format("%Y-%m-%d"),
                    reason.unwrap_or_default()
                ));
            }
        }
        CredentialCommand::Enable { id } => {
            features.llm.switch_credential(id, true, None).await?;
            say(&format!("enabled the credential {id}"));
        }
        CredentialCommand::Disable { id, reason } => {
            features.llm.switch_credential(id, false, reason.as_deref()).await?;
            say(&format!("disabled the credential {id}"));
        }
        CredentialCommand::Delete { id } => {
            features.llm.delete_credential(id).await?;
            say(&format!("deleted the credential {id}"));
        }
        CredentialCommand::Test { provider } => {
            let results = features.llm.test_credentials(provider.as_deref()).await;
            if results.is_empty() {
                bail!(
                    "there is no credential to test; set a provider's key or run `loom-server llm credential add`"
                );
            }
            for result in &results {
                let verdict = if result.ok { "ok    " } else { "FAILED" };
                say(&format!(
                    "{verdict}  {:<12} {:<20} {} ms  {}",
                    result.provider, result.name, result.latency_ms, result.message
                ));
            }
            if results.iter().any(|result| !result.ok) {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read_secret(file: Option<&Path>) -> anyhow::Result<SecretString> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?,
        None => {
            if std::io::stdin().is_terminal() {
                complain("Paste the key, then press Enter and Ctrl-D:");
            }
            let mut text = String::new();
            std::io::stdin()
                .take(64 << 10)
                .read_to_string(&mut text)
                .context("standard input cannot be read")?;
            text
        }
    };
    if text.trim().is_empty() {
        bail!("the key is empty");
    }
    Ok(SecretString::from(text.trim()))
}

/// Ctrl-C cancels the run and waits for what comes of it.
async fn job(features: &Features, id: &str) -> anyhow::Result<ExitCode> {
    let jobs = &features.jobs;
    let run = match jobs.request(id).await {
        Err(error) if error.status() == http::StatusCode::NOT_FOUND => {
            let ids: Vec<_> = jobs.jobs().map(|job| job.id).collect();
            bail!("there is no job {id:?}; there are {}", ids.join(", "));
        }
        run => run?,
    };
    complain(&format!("{id}: run {} has begun; Ctrl-C cancels it", run.id));
    let mut outcome = std::pin::pin!(run.outcome());
    let outcome = tokio::select! {
        outcome = &mut outcome => outcome,
        Ok(()) = tokio::signal::ctrl_c() => {
            complain(&format!("{id}: cancelling"));
            // It may have ended this moment.
            let _ = jobs.cancel(id).await;
            outcome.await
        }
    }?;
    let items = outcome.items_handled;
    let ms = outcome.duration.as_millis();
    let status = outcome.status.as_str();
    if let Some(at) = outcome.retry_at {
        let at = at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        complain(&format!("{id}: a server tries it again at {at}"));
    }
    match outcome.error {
        None => {
            say(&format!("{id}: {status}, {items} items, {ms} ms"));
            Ok(ExitCode::SUCCESS)
        }
        Some(error) => bail!("{id}: {status} after {ms} ms: {error}"),
    }
}
