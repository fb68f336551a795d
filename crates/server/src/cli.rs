//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use loom_core::{id::CredentialId, principal::Scope};

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("LOOM_GIT_SHA"), ")");

/// A self-hosted server for teams that run coding agents: LLM proxy, threads, and what belongs to them.
///
/// Settings come from the environment, then from `.env` in the working directory; `.env.example` lists
/// them. Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.
#[derive(Debug, Parser)]
#[command(name = "loom-server", version = VERSION, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server (also when no command is given). Needs a database: DATABASE_URL, or a PostgreSQL
    /// installation for a private one
    Serve {
        /// Try it without any key: development mode on 127.0.0.1, and a built-in model `loom-demo`
        #[arg(long)]
        demo: bool,
    },
    /// Bring the database's schema to this version. Needs the database
    Migrate {
        /// Change nothing; fail when there is something to do
        #[arg(long)]
        check: bool,
    },
    /// Look at the configuration. Needs nothing
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at everything that the server needs, and say what to do. Needs nothing; the server may run or not
    Doctor {
        /// Also send a mail, to this address
        #[arg(long, value_name = "ADDRESS")]
        send_test_mail: Option<String>,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Back everything up into a new directory. The server may run meanwhile. Needs the database
    Backup {
        directory: PathBuf,
        /// Leave the master key out, where the data directory has it. A restore asks for it
        #[arg(long)]
        without_key: bool,
    },
    /// Put a backup back to where nothing is. Needs an empty database and data directory
    Restore { directory: PathBuf },
    /// Print the OpenAPI document. Needs nothing
    Openapi,
    /// Ask a running server whether it is ready; the exit code says so. Needs the server
    Healthcheck {
        /// Its address; by default the one that the configuration names, on this machine
        #[arg(long)]
        url: Option<String>,
    },
    /// People and keys, from the command line of the server's machine. Needs the database
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Keys of LLM providers, kept encrypted in the database. Needs the database and the master key
    #[command(subcommand)]
    Llm(LlmCommand),
    /// Background jobs. Needs the database
    #[command(subcommand)]
    Job(JobCommand),
    /// Fill an organisation with a month of made-up data, to see what every page is for. Needs the database
    DemoData {
        /// Who is to see it, a user or a system admin to be; in development mode its own user
        #[arg(long)]
        email: Option<String>,
        /// The short name of the organisation; made when it is not there
        #[arg(long, default_value = "acme-shop")]
        org: String,
        /// Also into an organisation that has data of its own
        #[arg(long)]
        force: bool,
    },
    /// Monitored jobs. Needs the server to be reached; what it cannot be told is kept for the next time
    #[command(subcommand)]
    Cron(CronCommand),
}

#[derive(Debug, Subcommand)]
pub enum CronCommand {
    /// Run a command and check in before and after it. Signals are passed on, and its exit status is ours
    Exec {
        /// The ping URL; or what follows `/ping/` in it, with the server's address in LOOM_URL
        monitor: String,
        /// Where check-ins wait that could not be sent; by default in the user's state directory
        #[arg(long)]
        queue: Option<PathBuf>,
        /// The command, behind `--`
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check it and tell all that is wrong
    Check,
    /// Print what is in force, secrets redacted
    Show,
}

#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Make a system admin, or make one of a user who is there, and print an API key once
    Create { email: String },
    /// Print a new API key of a user once
    Key {
        email: String,
        /// What the key may be used for; may be given several times. All scopes when absent
        #[arg(long = "scope")]
        scopes: Vec<Scope>,
        /// When it ends, as 12h, 30d
        #[arg(long, value_parser = parse_duration)]
        expires: Option<Duration>,
    },
}

#[derive(Debug, Subcommand)]
pub enum LlmCommand {
    /// Stored keys of providers
    #[command(subcommand)]
    Credential(CredentialCommand),
}

#[derive(Debug, Subcommand)]
pub enum CredentialCommand {
    /// Store a key, read from standard input or a file. A running server uses it within seconds
    Add {
        /// `anthropic`, `openai` or a configured name
        provider: String,
        /// To tell several keys of one provider apart
        #[arg(long, default_value = "default")]
        name: String,
        /// The file that holds the key; standard input when absent
        #[arg(long)]
        file: Option<PathBuf>,
        /// What is stored: a key, OAuth's refresh token, or the key file of a Google service account
        #[arg(long, value_enum, default_value_t)]
        kind: SecretKind,
        /// Where OAuth's tokens come from
        #[arg(long)]
        token_url: Option<String>,
        /// OAuth's client
        #[arg(long)]
        client_id: Option<String>,
    },
    /// List the credentials and their state, without their secrets
    List,
    /// Use a credential again, whatever disabled it
    Enable { id: CredentialId },
    /// Do not use a credential any more, on any server
    Disable {
        id: CredentialId,
        #[arg(long)]
        reason: Option<String>,
    },
    /// Delete a credential
    Delete { id: CredentialId },
    /// Ask the providers whether the keys are good
    Test {
        /// Only this provider
        provider: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum SecretKind {
    #[default]
    ApiKey,
    Oauth,
    GoogleServiceAccount,
}

#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Run a job now, and wait for its end
    Run { id: String },
}

/// A number with s, m, h or d behind it.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || "must be a number with s, m, h or d behind it, as 30d".to_owned();
    let unit = text.chars().last().ok_or_else(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(bad()),
    };
    let number: u64 =
        text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(bad)?;
    number
        .checked_mul(seconds)
        .filter(|secs| (1..=10 * 366 * 24 * 3600).contains(secs))
        .map(Duration::from_secs)
        .ok_or_else(|| "must be between a second and ten years".to_owned())
}
