//! Which names of fields say that the value is a secret.

use std::collections::HashSet;

/// Compared without case and without what is neither letter nor digit.
const EXACT: &[&str] = &[
    "auth",
    "xauth",
    "basicauth",
    "httpauth",
    "proxyauth",
    "authheader",
    "authkey",
    "pwd",
    "passphrase",
    "pin",
    "pincode",
    "otp",
    "totp",
    "mfacode",
    "cvv",
    "cvc",
    "cvv2",
    "ssn",
    "socialsecuritynumber",
    "signature",
    "sig",
    "jwt",
    "bearer",
    "sid",
    "connectsid",
    "dsnsecret",
    "iban",
    "encryptionkey",
];
const ANYWHERE: &[&str] = &[
    "password",
    "passwd",
    "passwort",
    "secret",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "token",
    "authorization",
    "csrf",
    "xsrf",
    "mysqlpwd",
    "pgpassword",
    "sessionid",
    "phpsessid",
    "cardnumber",
    "creditcard",
    "ccnumber",
];
/// Of `*token*` and others: what counts them, or speaks about them.
const HARMLESS: &[&str] = &[
    "tokens",
    "tokeniz",
    "tokenis",
    "tokencount",
    "tokentype",
    "tokenlimit",
    "tokenusage",
    "tokenprice",
    "tokenurl",
    "tokenendpoint",
    "tokenindex",
    "nexttoken",
    "pagetoken",
    "passwordless",
    "passwordpolicy",
    "secretary",
];
/// An id of a session is what it is told by, but in a request: there it is a key.
const IN_REQUEST: &[&str] = &["session", "sess", "code", "state", "key"];
/// Ids of Loom and of SDKs.
const PLAIN: &[&str] = &["sessionid", "sid"];
/// Longer names are compared as far.
const LONGEST: usize = 96;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Plain,
    Safe,
    Secret,
    Cookies,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(super) defaults: bool,
    pub(super) secret: Vec<String>,
    pub(super) safe: HashSet<String>,
}

impl Names {
    pub(super) fn of(&self, name: &str, request: bool) -> Verdict {
        let mut buffer = [0; LONGEST];
        let plain = plain(name, &mut buffer);
        if plain.is_empty() {
            return Verdict::Plain;
        }
        if self.safe.contains(plain) {
            return Verdict::Safe;
        }
        if self.secret.iter().any(|secret| plain.contains(secret.as_str())) {
            return Verdict::Secret;
        }
        if !self.defaults {
            return Verdict::Plain;
        }
        if matches!(plain, "cookies" | "cookie" | "setcookie" | "httpcookie") {
            return Verdict::Cookies;
        }
        if !request && PLAIN.contains(&plain) {
            return Verdict::Plain;
        }
        if EXACT.contains(&plain) || (request && IN_REQUEST.contains(&plain)) {
            return Verdict::Secret;
        }
        if !ANYWHERE.iter().any(|part| plain.contains(part)) {
            return Verdict::Plain;
        }
        let mut rest = plain.to_owned();
        for harmless in HARMLESS {
            if rest.contains(harmless) {
                rest = rest.replace(harmless, " ");
            }
        }
        if ANYWHERE.iter().any(|part| rest.contains(part)) {
            Verdict::Secret
        } else {
            Verdict::Plain
        }
    }

    pub(super) fn secret(&self, name: &str, request: bool) -> bool {
        matches!(self.of(name, request), Verdict::Secret | Verdict::Cookies)
    }
}

/// As names are compared.
pub(super) fn plain<'a>(name: &str, buffer: &'a mut [u8; LONGEST]) -> &'a str {
    let mut length = 0;
    let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
    for (to, from) in buffer.iter_mut().zip(letters) {
        *to = from.to_ascii_lowercase();
        length += 1;
    }
    buffer.get(..length).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
}

/// As names are compared, of the settings.
pub(super) fn owned(name: &str) -> String {
    plain(name, &mut [0; LONGEST]).to_owned()
}
