//! A sign-in provider on loopback that plays GitHub, Google and any OpenID issuer: discovery,
//! authorisation, tokens, keys, user info, and the part of GitHub's API that signing in asks. It is
//! strict about what a good client does, and can be told to attack a client that is not.

mod keys;
mod serve;

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
};

use chrono::{DateTime, Utc};
use loom_core::Clock;

use crate::background::Background;
use keys::Signer;

pub const CLIENT_ID: &str = "loom-test-client";
pub const CLIENT_SECRET: &str = "client-secret-0d9f3c51";

/// Who is signed in at the provider in the browser that comes.
#[derive(Clone, Debug)]
pub struct Person {
    /// The subject; for GitHub a number.
    pub id: String,
    pub login: String,
    pub name: String,
    pub email: Option<String>,
    pub email_verified: bool,
    /// Google's word on the organisation.
    pub hosted_domain: Option<String>,
}

impl Person {
    pub fn new(id: &str, email: &str) -> Self {
        Self {
            id: id.to_owned(),
            login: email.split('@').next().unwrap_or_default().to_owned(),
            name: "Ada Lovelace".to_owned(),
            email: Some(email.to_owned()),
            email_verified: true,
            hosted_domain: None,
        }
    }
}

/// What is wrong with the ID tokens that it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    WrongNonce,
    NoNonce,
    WrongAudience,
    WrongIssuer,
    Expired,
    /// `alg: none`, no signature.
    AlgNone,
    /// HMAC with the public key, as the keys document has it.
    HmacWithPublicKey,
    /// HMAC with the client's secret.
    HmacWithClientSecret,
    /// The right key id, another key.
    WrongKey,
    /// A key id that is in no keys document.
    UnknownKey,
    /// One letter of the claims changed after signing.
    Tampered,
    NoIdToken,
    /// The ID token has no address, and the user info speaks of somebody else.
    ForeignUserInfo,
    /// Endless bytes instead of tokens.
    Flood,
    /// The token endpoint sends the client elsewhere.
    Redirect,
}

/// A code that was given and not yet traded.
#[derive(Clone, Debug)]
struct Grant {
    client_id: String,
    redirect_uri: String,
    nonce: Option<String>,
    challenge: String,
    person: Person,
}

#[derive(Default)]
struct State {
    person: Option<Person>,
    attack: Option<Attack>,
    /// Sent along as `iss`.
    announced_issuer: Option<String>,
    codes: HashMap<String, Grant>,
    tokens: HashMap<String, Person>,
    /// Everything secret that was handed out.
    secrets: Vec<String>,
    /// How often each path was asked.
    asked: BTreeMap<String, usize>,
    signers: Vec<Signer>,
    down: bool,
}

struct Shared {
    addr: SocketAddr,
    clock: Clock,
    state: Mutex<State>,
}

/// A running provider; it stops when this is dropped.
pub struct Idp {
    shared: Arc<Shared>,
    _background: Background,
}

impl Idp {
    /// On a free port, with the machine's clock.
    pub fn start() -> Self {
        Self::with_clock(Clock::system())
    }

    /// Its tokens are of the time that `clock` says.
    pub fn with_clock(clock: Clock) -> Self {
        Self::on(0, clock)
    }

    pub fn on(port: u16, clock: Clock) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let state = State { signers: vec![Signer::new("key-1")], ..State::default() };
        let shared = Arc::new(Shared { addr, clock, state: Mutex::new(state) });
        let background = Background::start("idp");
        let router = serve::router(Arc::clone(&shared));
        background.spawn(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let _ = axum::serve(listener, router).await;
        });
        Self { shared, _background: background }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.shared.addr)
    }

    /// The settings with which a server of ours knows this as its provider of that name.
    pub fn settings(&self, provider: &str) -> Vec<(String, String)> {
        let upper = provider.to_uppercase();
        let mut settings = vec![
            (format!("LOOM_SERVER_{upper}_CLIENT_ID"), CLIENT_ID.to_owned()),
            (format!("LOOM_SERVER_{upper}_CLIENT_SECRET"), CLIENT_SECRET.to_owned()),
        ];
        if provider == "github" {
            settings.push(("LOOM_SERVER_GITHUB_BASE_URL".to_owned(), self.url()));
            settings.push(("LOOM_SERVER_GITHUB_API_URL".to_owned(), self.url()));
        } else {
            settings.push((format!("LOOM_SERVER_{upper}_ISSUER_URL"), self.url()));
        }
        settings
    }

    /// From now on this person is signed in here.
    pub fn sign_in_as(&self, person: Person) {
        self.state().person = Some(person);
    }

    pub fn attack(&self, attack: impl Into<Option<Attack>>) {
        self.state().attack = attack.into();
    }

    /// What it calls itself in `iss` of its answers (RFC 9207).
    pub fn announce(&self, issuer: Option<&str>) {
        self.state().announced_issuer = issuer.map(str::to_owned);
    }

    /// Signs with a new key from now on; the old one is no longer told.
    pub fn rotate_key(&self) {
        let mut state = self.state();
        let id = format!("key-{}", state.signers.len() + 1);
        state.signers.push(Signer::new(&id));
    }

    /// As [`Idp::rotate_key`], to a key as Google has.
    pub fn rotate_to_rsa(&self) {
        let signer = Signer::rsa("rsa-key");
        self.state().signers.push(signer);
    }

    /// Answers everything with 503.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// How often a path was asked.
    pub fn asked(&self, path: &str) -> usize {
        self.state().asked.get(path).copied().unwrap_or_default()
    }

    /// Every code and token that it gave.
    pub fn secrets(&self) -> Vec<String> {
        self.state().secrets.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Shared {
    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}
