//! Settings of mail and webhooks.

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use lettre::Address;
use loom_common_secret::SecretString;
use loom_core::{config::Env, text};

const ALERT_EMAILS: &str = "LOOM_SERVER_ALERT_EMAILS";
const MOST_ALERT_EMAILS: usize = 20;
const HOST: &str = "LOOM_SERVER_SMTP_HOST";
const USERNAME: &str = "LOOM_SERVER_SMTP_USERNAME";
const PASSWORD: &str = "LOOM_SERVER_SMTP_PASSWORD";
const TLS: &str = "LOOM_SERVER_SMTP_TLS";
const CA_FILE: &str = "LOOM_SERVER_SMTP_CA_FILE";
const FROM_ADDRESS: &str = "LOOM_SERVER_SMTP_FROM_ADDRESS";
const FROM_NAME: &str = "LOOM_SERVER_SMTP_FROM_NAME";
const OUTBOUND_ALLOW: &str = "LOOM_SERVER_OUTBOUND_ALLOW";

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Without it mail goes to the outbox.
    pub smtp: Option<Smtp>,
    /// Where people reach this server: links to the dashboard begin with it.
    pub base_url: String,
    /// Where mail is written when there is no SMTP.
    pub outbox: PathBuf,
    /// Without SMTP: no text of a mail in the log, and health says so.
    pub production: bool,
    /// Who hears of alerts; empty: the admins.
    pub alert_emails: Vec<String>,
    /// Networks that requests may go to although they are not public.
    pub outbound_allow: Vec<IpNet>,
}

#[derive(Clone, Debug)]
pub struct Smtp {
    pub host: String,
    pub port: u16,
    pub username: Option<String>,
    pub password: Option<SecretString>,
    pub tls: Tls,
    /// A certificate authority that is trusted beside those of the system, in PEM.
    pub ca: Option<Vec<u8>>,
    pub from_address: Address,
    pub from_name: String,
}

/// How the connection to the mail server is secured. Never by chance: what is asked for is had, or no
/// mail is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    Starttls,
    Implicit,
    None,
}

impl Config {
    pub fn load(env: &mut Env, data_dir: &Path, production: bool, base_url: &str) -> Self {
        let smtp = Smtp::load(env);
        let alert_emails = env.list(ALERT_EMAILS);
        if alert_emails.len() > MOST_ALERT_EMAILS {
            env.problem(ALERT_EMAILS, format!("must be at most {MOST_ALERT_EMAILS} addresses"));
        }
        for address in &alert_emails {
            if address.parse::<Address>().is_err() {
                env.problem(ALERT_EMAILS, format!("`{address}` is not an e-mail address"));
            }
        }
        let mut outbound_allow = Vec::new();
        for network in env.list(OUTBOUND_ALLOW) {
            match network.parse() {
                Ok(network) => outbound_allow.push(network),
                Err(_) => env.problem(
                    OUTBOUND_ALLOW,
                    format!("`{network}` is not a network, as 10.1.0.0/16 or fd00:1::/64"),
                ),
            }
        }
        let (base_url, outbox) = (base_url.to_owned(), data_dir.join("outbox"));
        Self { smtp, base_url, outbox, production, alert_emails, outbound_allow }
    }
}

impl Smtp {
    fn load(env: &mut Env) -> Option<Self> {
        let host = env.optional::<String>(HOST, "a host name");
        let port = env.number("LOOM_SERVER_SMTP_PORT", 587_u16, 1, u16::MAX);
        let username = env.optional::<String>(USERNAME, "a user name");
        let password = env.secret(PASSWORD);
        let tls = env
            .choice(
                TLS,
                "starttls",
                &[("starttls", Tls::Starttls), ("implicit", Tls::Implicit), ("none", Tls::None)],
            )
            .unwrap_or(Tls::Starttls);
        let ca_file = env.path(CA_FILE);
        let from_address = env.optional::<Address>(FROM_ADDRESS, "an e-mail address");
        let from_name = env.get(FROM_NAME, "Loom".to_owned(), "a name");
        if !text::is_plain_line(&from_name, 100) {
            env.problem(FROM_NAME, "must be one line of at most 100 bytes");
        }
        let ca = ca_file.and_then(|path| match std::fs::read_to_string(&path) {
            Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => Some(pem.into_bytes()),
            Ok(_) => {
                env.problem(CA_FILE, "the file holds no certificate in PEM");
                None
            }
            Err(error) => {
                env.problem(CA_FILE, format!("the file cannot be read: {error}"));
                None
            }
        });
        let host = host?;
        if username.is_some() != password.is_some() {
            env.problem(USERNAME, format!("{USERNAME} and {PASSWORD} belong together"));
        }
        let Some(from_address) = from_address else {
            env.problem(FROM_ADDRESS, format!("is needed with {HOST}: whom mail comes from"));
            return None;
        };
        Some(Self { host, port, username, password, tls, ca, from_address, from_name })
    }
}
