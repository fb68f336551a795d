//! A small real SMTP server on loopback: plain, STARTTLS or TLS with a certificate made for it, sign-in,
//! answers by script. It keeps what it took.

mod session;

use std::{
    collections::VecDeque,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
};

use mail_parser::{Message, MessageParser};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

use crate::{background::Background, eventually};

/// How a test wants its mail server.
#[derive(Clone, Default)]
pub struct Options {
    pub security: Security,
    /// Takes no mail before this user has signed in with this password.
    pub login: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    #[default]
    Plain,
    /// Offers STARTTLS, and takes no mail before it.
    Starttls,
    /// TLS from the first byte on.
    Implicit,
}

/// What becomes of the next mail instead of being taken.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This line in answer to RCPT, as `550 no such mailbox`.
    AtRecipient(String),
    /// This line once the text was sent.
    AtEnd(String),
    /// The connection is closed once the text was sent.
    Close,
    /// The text is taken, and nothing is ever said.
    Hang,
}

/// A mail as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub from: String,
    pub to: Vec<String>,
    pub raw: Vec<u8>,
    pub over_tls: bool,
    /// Who had signed in.
    pub user: Option<String>,
}

impl Received {
    pub fn message(&self) -> Message<'_> {
        MessageParser::default().parse(&self.raw).expect("it is a mail")
    }

    pub fn subject(&self) -> String {
        self.message().subject().unwrap_or_default().to_owned()
    }

    /// Its plain text, with line feeds only.
    pub fn text(&self) -> String {
        self.message().body_text(0).unwrap_or_default().replace("\r\n", "\n")
    }

    /// The HTML part that it was sent with.
    pub fn html(&self) -> Option<String> {
        let message = self.message();
        let part = message.html_bodies().find(|part| part.is_text_html())?;
        part.text_contents().map(str::to_owned)
    }

    /// The raw value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.message().header_raw(name.to_owned()).map(|value| value.trim().to_owned())
    }
}

pub(crate) struct Shared {
    options: Options,
    tls: TlsAcceptor,
    script: Mutex<VecDeque<Answer>>,
    taken: Mutex<Vec<Received>>,
    /// Texts that came whole, taken or not.
    seen: Mutex<usize>,
}

/// A running mail server; it stops, and drops its connections, when this is dropped.
pub struct SmtpServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    ca: NamedTempFile,
    _background: Background,
}

impl SmtpServer {
    /// Plain, for everybody, on a free port.
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        Self::start_on(([127, 0, 0, 1], 0).into(), options)
    }

    /// The same at a given address, as for one that comes back.
    pub fn start_on(addr: SocketAddr, options: Options) -> Self {
        crate::app::install_crypto();
        let listener = TcpListener::bind(addr).expect("the address is free");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("the certificate is sound");
        let ca = NamedTempFile::new().expect("a file can be made");
        std::fs::write(ca.path(), made.cert.pem()).expect("the file can be written");
        let shared = Arc::new(Shared {
            options,
            tls: TlsAcceptor::from(Arc::new(tls)),
            script: Mutex::default(),
            taken: Mutex::default(),
            seen: Mutex::default(),
        });
        let background = Background::start("smtp");
        background.spawn(session::accept(listener, Arc::clone(&shared)));
        Self { addr, shared, ca, _background: background }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The settings with which a server of ours sends through this one.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let tls = match self.shared.options.security {
            Security::Plain => "none",
            Security::Starttls => "starttls",
            Security::Implicit => "implicit",
        };
        let mut settings = vec![
            ("LOOM_SERVER_SMTP_HOST", "localhost".to_owned()),
            ("LOOM_SERVER_SMTP_PORT", self.addr.port().to_string()),
            ("LOOM_SERVER_SMTP_TLS", tls.to_owned()),
            ("LOOM_SERVER_SMTP_CA_FILE", self.ca.path().display().to_string()),
            ("LOOM_SERVER_SMTP_FROM_ADDRESS", "loom@example.com".to_owned()),
        ];
        if let Some((user, password)) = &self.shared.options.login {
            settings.push(("LOOM_SERVER_SMTP_USERNAME", user.clone()));
            settings.push(("LOOM_SERVER_SMTP_PASSWORD", password.clone()));
        }
        settings
    }

    /// The next mail that has nothing of the kind yet is answered by this.
    pub fn enqueue(&self, answer: Answer) {
        self.shared.script.lock().unwrap().push_back(answer);
    }

    /// Everything that was taken, in this order.
    pub fn mails(&self) -> Vec<Received> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// How many texts came whole, also those that were then refused.
    pub fn seen(&self) -> usize {
        *self.shared.seen.lock().unwrap()
    }

    /// The `n`th mail that was taken (from 1), as soon as it is there.
    pub async fn mail(&self, n: usize) -> Received {
        eventually(async || self.mails().into_iter().nth(n - 1)).await
    }
}
