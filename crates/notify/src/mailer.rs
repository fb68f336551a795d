//! Mail: over SMTP, or into a folder where there is none.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        PoolConfig,
        authentication::Credentials,
        client::{Certificate, Tls as LettreTls, TlsParameters},
    },
};
use loom_core::{Error, Result};
use tokio::time::timeout;

use crate::{
    Config, Smtp, Tls,
    dispatch::CONCURRENT_MAILS,
    outbox,
    outcome::{Outcome, Via},
    queue::{MailBody, address},
    store::Claimed,
};

/// One command of SMTP, or connecting.
const COMMAND_LIMIT: Duration = Duration::from_secs(15);
/// A mail as a whole; well below the lease.
const LIMIT: Duration = Duration::from_secs(60);
/// Not the mail's fault but that of our settings: somebody may mend it while the mail waits.
const SIGN_IN_NEEDED: &[u16] = &[530, 534, 535, 538];
/// Whom mail comes from where there is no mail server.
const LOCAL_SENDER: &str = "loom@localhost";

/// Sends mail.
pub(crate) struct Mailer {
    from: Mailbox,
    way: Way,
}

enum Way {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Outbox { folder: PathBuf, production: bool },
}

impl Mailer {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let Some(smtp) = &config.smtp else {
            let sender: Address = LOCAL_SENDER.parse().map_err(Error::internal)?;
            let way = Way::Outbox { folder: config.outbox.clone(), production: config.production };
            return Ok(Self { from: Mailbox::new(Some("Loom".to_owned()), sender), way });
        };
        let from = Mailbox::new(Some(smtp.from_name.clone()), smtp.from_address.clone());
        Ok(Self { from, way: Way::Smtp(transport(smtp)?) })
    }

    pub(crate) fn has_smtp(&self) -> bool {
        matches!(self.way, Way::Smtp(_))
    }

    /// Does the mail server answer, and take our sign-in? True where there is none.
    pub(crate) async fn probe(&self) -> Result<bool, lettre::transport::smtp::Error> {
        match &self.way {
            Way::Smtp(smtp) => smtp.test_connection().await,
            Way::Outbox { .. } => Ok(true),
        }
    }

    pub(crate) async fn send(&self, mail: &Claimed, body: MailBody, now: DateTime<Utc>) -> Outcome {
        let plain = body.text.clone();
        let message = match self.message(mail, body, now) {
            Ok(message) => message,
            Err(error) => return Outcome::fail(format!("the mail cannot be written: {error:?}")),
        };
        match &self.way {
            Way::Smtp(smtp) => match timeout(LIMIT, smtp.send(message)).await {
                Ok(Ok(response)) => {
                    Outcome::delivered(Via::Smtp, Some(i32::from(u16::from(response.code()))))
                }
                Ok(Err(error)) => failed(&error),
                Err(_) => Outcome::retry("the mail server took too long"),
            },
            Way::Outbox { folder, production } => {
                match outbox::write(folder, mail, now, &message.formatted()).await {
                    Ok(file) => {
                        outbox::tell(mail, &file, (!production).then_some(&plain));
                        Outcome::delivered(Via::Outbox, None)
                    }
                    Err(error) => Outcome::retry(format!("the outbox cannot be written: {error}")),
                }
            }
        }
    }

    fn message(&self, mail: &Claimed, body: MailBody, now: DateTime<Utc>) -> Result<Message> {
        let to = address(&mail.target).ok_or_else(|| Error::internal("no address to send to"))?;
        let domain = self.from.email.domain();
        let automatic = HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        );
        let builder = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(&mail.subject)
            .date(SystemTime::from(now))
            // The same at each attempt, so that a duplicate can be told.
            .message_id(Some(format!("<{}@{domain}>", mail.id)))
            .raw_header(automatic);
        let built = match body.html {
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(body.text, html)),
            None => builder.singlepart(SinglePart::plain(body.text)),
        };
        built.map_err(Error::internal)
    }
}

fn transport(smtp: &Smtp) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let tls = || {
        let mut parameters = TlsParameters::builder(smtp.host.clone());
        if let Some(pem) = &smtp.ca {
            let ca = Certificate::from_pem(pem).map_err(Error::internal)?;
            parameters = parameters.add_root_certificate(ca);
        }
        parameters.build_rustls().map_err(Error::internal)
    };
    let tls = match smtp.tls {
        Tls::Starttls => LettreTls::Required(tls()?),
        Tls::Implicit => LettreTls::Wrapper(tls()?),
        Tls::None => LettreTls::None,
    };
    let pool = PoolConfig::new().max_size(CONCURRENT_MAILS).idle_timeout(Duration::from_secs(30));
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .tls(tls)
        .timeout(Some(COMMAND_LIMIT))
        .pool_config(pool);
    if let (Some(username), Some(password)) = (&smtp.username, &smtp.password) {
        builder =
            builder.credentials(Credentials::new(username.clone(), password.expose().to_owned()));
    }
    Ok(builder.build())
}

fn failed(error: &lettre::transport::smtp::Error) -> Outcome {
    let status = error.status().map(u16::from);
    let text = chain(error);
    let outcome = match status {
        Some(code) if error.is_permanent() && !SIGN_IN_NEEDED.contains(&code) => {
            Outcome::fail(text)
        }
        _ => Outcome::retry(text),
    };
    outcome.with_status(status)
}

/// An error with all that is behind it.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    text
}
