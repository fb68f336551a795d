//! One connection of the mail server.

use std::{io, net::TcpListener, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use super::{Answer, Received, Security, Shared};

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((socket, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // A client may leave whenever it likes.
            let _ = serve(Box::new(socket), &shared).await;
        });
    }
}

async fn serve(socket: Box<dyn Stream>, shared: &Shared) -> io::Result<()> {
    let tls = shared.options.security == Security::Implicit;
    let socket = if tls { secure(socket, shared).await? } else { socket };
    let mut session = Session { stream: BufReader::new(socket), shared, tls, user: None };
    session.say("220 mail.test ESMTP").await?;
    if session.run().await? == Next::StartTls {
        let secured = secure(session.stream.into_inner(), shared).await?;
        let mut session =
            Session { stream: BufReader::new(secured), shared, tls: true, user: None };
        session.run().await?;
    }
    Ok(())
}

async fn secure(socket: Box<dyn Stream>, shared: &Shared) -> io::Result<Box<dyn Stream>> {
    Ok(Box::new(shared.tls.accept(socket).await?))
}

#[derive(PartialEq)]
enum Next {
    StartTls,
    Close,
}

struct Session<'a> {
    stream: BufReader<Box<dyn Stream>>,
    shared: &'a Shared,
    tls: bool,
    user: Option<String>,
}

impl Session<'_> {
    async fn say(&mut self, line: &str) -> io::Result<()> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.stream.flush().await
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    async fn run(&mut self) -> io::Result<Next> {
        let (mut from, mut to) = (String::new(), Vec::new());
        let mut answer = None;
        loop {
            let line = self.line().await?;
            let upper = line.to_ascii_uppercase();
            let word = upper.split_whitespace().next().unwrap_or_default();
            match word {
                "EHLO" => self.hello().await?,
                "STARTTLS" => {
                    self.say("220 go on").await?;
                    return Ok(Next::StartTls);
                }
                "AUTH" => self.sign_in(&line).await?,
                "NOOP" | "RSET" => self.say("250 ok").await?,
                "QUIT" => {
                    self.say("221 bye").await?;
                    return Ok(Next::Close);
                }
                "MAIL" if self.shared.options.security == Security::Starttls && !self.tls => {
                    self.say("530 5.7.0 STARTTLS first").await?;
                }
                "MAIL" if self.shared.options.login.is_some() && self.user.is_none() => {
                    self.say("530 5.7.0 sign in first").await?;
                }
                "MAIL" => {
                    from = address(&line);
                    to = Vec::new();
                    answer = self.shared.script.lock().unwrap().pop_front();
                    self.say("250 ok").await?;
                }
                "RCPT" => {
                    if let Some(Answer::AtRecipient(line)) = answer.take_if(is_at_recipient) {
                        self.say(&line).await?;
                        continue;
                    }
                    to.push(address(&line));
                    self.say("250 ok").await?;
                }
                "DATA" => {
                    self.say("354 go on").await?;
                    let raw = data(&mut self.stream).await?;
                    *self.shared.seen.lock().unwrap() += 1;
                    match answer.take() {
                        Some(Answer::AtEnd(line)) => {
                            self.say(&line).await?;
                            continue;
                        }
                        Some(Answer::Close) => return Ok(Next::Close),
                        Some(Answer::Hang) => std::future::pending().await,
                        Some(Answer::AtRecipient(_)) | None => {}
                    }
                    let (from, to) = (std::mem::take(&mut from), std::mem::take(&mut to));
                    let user = self.user.clone();
                    let received = Received { from, to, raw, over_tls: self.tls, user };
                    self.shared.taken.lock().unwrap().push(received);
                    self.say("250 taken").await?;
                }
                _ => self.say("500 what?").await?,
            }
        }
    }

    async fn hello(&mut self) -> io::Result<()> {
        let options = &self.shared.options;
        let mut lines = vec!["mail.test"];
        if options.security == Security::Starttls && !self.tls {
            lines.push("STARTTLS");
        }
        if options.login.is_some() {
            lines.push("AUTH PLAIN LOGIN");
        }
        lines.push("8BITMIME");
        let last = lines.len() - 1;
        for (index, line) in lines.into_iter().enumerate() {
            let dash = if index == last { ' ' } else { '-' };
            self.say(&format!("250{dash}{line}")).await?;
        }
        Ok(())
    }

    async fn sign_in(&mut self, line: &str) -> io::Result<()> {
        let mut words = line.split_whitespace().skip(1);
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        let mut first = words.next().map(str::to_owned);
        let (user, password) = if mechanism == "LOGIN" {
            let user = self.asked(first.take(), "VXNlcm5hbWU6").await?;
            (user, self.asked(None, "UGFzc3dvcmQ6").await?)
        } else {
            let both = self.asked(first.take(), "").await?;
            let mut parts = both.split('\0').skip(1).map(str::to_owned);
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        };
        if self.shared.options.login == Some((user.clone(), password)) {
            self.user = Some(user);
            self.say("235 2.7.0 welcome").await
        } else {
            self.say("535 5.7.8 these credentials are not good").await
        }
    }

    async fn asked(&mut self, given: Option<String>, question: &str) -> io::Result<String> {
        let answer = match given {
            Some(given) => given,
            None => {
                self.say(&format!("334 {question}")).await?;
                self.line().await?
            }
        };
        let bytes = STANDARD.decode(answer).unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn is_at_recipient(answer: &mut Answer) -> bool {
    matches!(answer, Answer::AtRecipient(_))
}

/// What stands in angle brackets.
fn address(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map(|(address, _)| address.to_owned()).unwrap_or_default()
}

/// A text up to its lone dot, its doubled dots made single.
async fn data(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut raw = Vec::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(raw);
        }
        raw.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}
