//! What is wrong with the settings is told, all at once.

use std::path::Path;

use loom_core::config::Env;
use loom_notify::{Config, Tls};

fn load(vars: &[(&str, &str)]) -> (Config, Vec<String>) {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let env = &mut Env::new(vars);
    let config = Config::load(env, Path::new("/data"), false, "http://localhost");
    (config, env.problems().iter().map(|problem| problem.name.clone()).collect())
}

#[test]
fn every_setting_that_is_not_as_it_should_be_is_named() {
    let host = ("LOOM_SERVER_SMTP_HOST", "mail.example.com");
    let from = ("LOOM_SERVER_SMTP_FROM_ADDRESS", "loom@example.com");
    for (wrong, named) in [
        (vec![host], "LOOM_SERVER_SMTP_FROM_ADDRESS"),
        (vec![host, ("LOOM_SERVER_SMTP_FROM_ADDRESS", "loom")], "LOOM_SERVER_SMTP_FROM_ADDRESS"),
        (vec![host, from, ("LOOM_SERVER_SMTP_USERNAME", "loom")], "LOOM_SERVER_SMTP_USERNAME"),
        (vec![host, from, ("LOOM_SERVER_SMTP_PASSWORD", "secret")], "LOOM_SERVER_SMTP_USERNAME"),
        (vec![host, from, ("LOOM_SERVER_SMTP_PORT", "0")], "LOOM_SERVER_SMTP_PORT"),
        (vec![host, from, ("LOOM_SERVER_SMTP_TLS", "maybe")], "LOOM_SERVER_SMTP_TLS"),
        (vec![host, from, ("LOOM_SERVER_SMTP_CA_FILE", "/no/such")], "LOOM_SERVER_SMTP_CA_FILE"),
        (vec![host, from, ("LOOM_SERVER_SMTP_CA_FILE", file!())], "LOOM_SERVER_SMTP_CA_FILE"),
        (vec![host, from, ("LOOM_SERVER_SMTP_FROM_NAME", "a\nb")], "LOOM_SERVER_SMTP_FROM_NAME"),
        (vec![("LOOM_SERVER_ALERT_EMAILS", "ops@example.com,ops")], "LOOM_SERVER_ALERT_EMAILS"),
        (vec![("LOOM_SERVER_OUTBOUND_ALLOW", "10.0.0.1/99")], "LOOM_SERVER_OUTBOUND_ALLOW"),
    ] {
        assert!(load(&wrong).1.contains(&named.to_owned()), "{wrong:?}");
    }
}

#[test]
fn a_host_and_a_sender_are_enough_and_tls_is_what_one_gets() {
    let (config, problems) = load(&[
        ("LOOM_SERVER_SMTP_HOST", "mail.example.com"),
        ("LOOM_SERVER_SMTP_FROM_ADDRESS", "loom@example.com"),
        ("LOOM_SERVER_OUTBOUND_ALLOW", "10.1.0.0/16, fd00::/8"),
    ]);
    assert!(problems.is_empty(), "{problems:?}");
    let smtp = config.smtp.unwrap();
    assert_eq!((smtp.port, smtp.tls, smtp.from_name.as_str()), (587, Tls::Starttls, "Loom"));
    assert_eq!(config.outbound_allow.len(), 2);
    assert_eq!(config.outbox, Path::new("/data/outbox"));
    assert!(load(&[]).0.smtp.is_none());
}
