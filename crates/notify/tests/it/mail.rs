//! Mail: what arrives, what is tried again, what is given up, and what is left of it.

use std::os::unix::fs::PermissionsExt;

use loom_notify::Mail;
use loom_testkit::{
    Setup,
    smtp::{Answer, Options, Security, SmtpServer},
};

use crate::{MINUTE, SECRET, after_attempt, in_state, later, mail, send, setup};

#[tokio::test]
async fn a_mail_arrives_as_it_was_written_in_text_and_html() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    let text = "Grüße, Ada!\n.a line that begins with a dot\nhttps://loom.example.com/in/abc\n";
    let html = "<p>Grüße, <b>Ada</b>!</p>";
    let mail = Mail {
        subject: "Willkommen – schön, dass Sie da sind".to_owned(),
        text: text.to_owned(),
        html: Some(html.to_owned()),
        ..mail("ada@example.com")
    };
    send(&app, &mail).await;
    let received = smtp.mail(1).await;
    assert_eq!(received.from, "loom@example.com");
    assert_eq!(received.to, ["ada@example.com"]);
    assert_eq!(received.subject(), mail.subject);
    assert_eq!(received.text().trim_end(), text.trim_end());
    assert_eq!(received.html().unwrap().trim_end(), html);
    assert_eq!(received.header("Auto-Submitted").as_deref(), Some("auto-generated"));
    assert!(received.header("From").unwrap().contains("Loom"));
    assert!(received.header("Content-Type").unwrap().starts_with("multipart/alternative"));
    assert!(!received.over_tls);
    let row = in_state(&app, "delivered").await;
    assert_eq!(row["via"], "smtp");
    assert_eq!(row["status_code"], 250);
    let id = row["id"].as_str().unwrap();
    assert!(received.header("Message-ID").unwrap().contains(id));
}

#[tokio::test]
async fn a_mail_goes_through_tls_of_either_kind_to_a_server_that_wants_a_sign_in() {
    for security in [Security::Starttls, Security::Implicit] {
        let login = Some(("loom".to_owned(), "a long password".to_owned()));
        let smtp = SmtpServer::with(Options { security, login });
        let app = setup(&smtp).start().await;
        send(&app, &mail("ada@example.com")).await;
        let received = smtp.mail(1).await;
        assert!(received.over_tls);
        assert_eq!(received.user.as_deref(), Some("loom"));
        assert!(received.text().contains(SECRET));
        assert_eq!(received.html(), None);
    }
}

#[tokio::test]
async fn a_queue_that_is_full_says_so_and_takes_more_when_there_is_room() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    let notify = &app.running.features.notify;
    let mut db = loom_db::begin(app.database.pool()).await.unwrap();
    sqlx::query(
        "INSERT INTO deliveries (id, kind, channel, target, subject, due_at, created_at)
         SELECT gen_random_uuid(), 'many', 'mail', 'x@example.com', 'Many', '2100-01-01', now()
           FROM generate_series(1, 10000)",
    )
    .execute(&mut *db)
    .await
    .unwrap();
    let refused = notify.mail(&mut db, &mail("ada@example.com")).await.unwrap_err();
    assert_eq!((refused.status().as_u16(), refused.code()), (429, "overloaded"));
    // An alert gives way: it must not undo what it is about.
    notify.alert(&mut db, &crate::alerts::alert()).await.unwrap();
    sqlx::query("DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries LIMIT 1)")
        .execute(&mut *db)
        .await
        .unwrap();
    notify.mail(&mut db, &mail("ada@example.com")).await.unwrap();
}

#[tokio::test]
async fn no_mail_leaves_in_clear_when_tls_was_asked_for_and_is_not_offered() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).set("LOOM_SERVER_SMTP_TLS", "starttls").start().await;
    send(&app, &mail("ada@example.com")).await;
    let row = after_attempt(&app, 1).await;
    assert!(row["last_error"].as_str().unwrap().contains("STARTTLS"), "{row}");
    assert_eq!(smtp.seen(), 0);
}

#[tokio::test]
async fn no_mail_goes_to_a_server_whose_certificate_nobody_vouches_for() {
    let smtp = SmtpServer::with(Options { security: Security::Starttls, login: None });
    let app = setup(&smtp).set("LOOM_SERVER_SMTP_CA_FILE", "").start().await;
    send(&app, &mail("ada@example.com")).await;
    let row = after_attempt(&app, 1).await;
    assert!(row["last_error"].as_str().unwrap().to_lowercase().contains("certificate"), "{row}");
    assert_eq!(smtp.seen(), 0);
}

#[tokio::test]
async fn what_is_refused_for_the_time_being_is_tried_again() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    smtp.enqueue(Answer::AtRecipient("451 4.7.1 come again later".to_owned()));
    smtp.enqueue(Answer::Close);
    send(&app, &mail("ada@example.com")).await;
    let row = after_attempt(&app, 1).await;
    assert_eq!(row["status_code"], 451);
    assert!(row["last_error"].as_str().unwrap().contains("come again later"), "{row}");
    later(&app, MINUTE).await;
    after_attempt(&app, 2).await;
    later(&app, 5 * MINUTE).await;
    let row = in_state(&app, "delivered").await;
    assert_eq!(row["attempt"], 3);
    assert_eq!(row["last_error"], serde_json::Value::Null);
    assert_eq!(smtp.mails().len(), 1);
}

#[tokio::test]
async fn what_is_refused_for_good_is_given_up_at_once() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    smtp.enqueue(Answer::AtRecipient("550 5.1.1 no such mailbox".to_owned()));
    send(&app, &mail("ada@example.com")).await;
    let row = in_state(&app, "failed").await;
    assert_eq!(row["attempt"], 1);
    assert_eq!(row["status_code"], 550);
    assert!(row["last_error"].as_str().unwrap().contains("no such mailbox"));
}

#[tokio::test]
async fn a_wrong_password_is_a_fault_of_ours_and_the_mail_waits_until_it_is_mended() {
    let login = Some(("loom".to_owned(), "right".to_owned()));
    let smtp = SmtpServer::with(Options { login, ..Options::default() });
    let app = setup(&smtp).set("LOOM_SERVER_SMTP_PASSWORD", "wrong-password").start().await;
    send(&app, &mail("ada@example.com")).await;
    let row = after_attempt(&app, 1).await;
    assert_eq!(row["status_code"], 535);
}

#[tokio::test]
async fn a_mail_is_given_up_after_five_attempts_within_the_hour_or_two() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    for _ in 0..5 {
        smtp.enqueue(Answer::AtEnd("452 no room".to_owned()));
    }
    send(&app, &mail("ada@example.com")).await;
    for attempt in 1..5 {
        after_attempt(&app, attempt).await;
        later(&app, 50 * MINUTE).await;
    }
    assert_eq!(in_state(&app, "failed").await["attempt"], 5);
    assert_eq!(smtp.seen(), 5);
}

#[tokio::test]
async fn a_mail_server_that_is_down_gets_its_mail_when_it_is_back() {
    let smtp = SmtpServer::start();
    let (setup, addr) = (setup(&smtp), smtp.addr());
    let app = setup.start().await;
    drop(smtp);
    send(&app, &mail("ada@example.com")).await;
    after_attempt(&app, 1).await;
    let smtp = SmtpServer::start_on(addr, Options::default());
    later(&app, MINUTE).await;
    assert!(smtp.mail(1).await.text().contains(SECRET));
    in_state(&app, "delivered").await;
}

#[tokio::test]
async fn what_was_in_a_mail_is_never_in_clear_in_the_database_and_gone_once_it_is_sent() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    smtp.enqueue(Answer::AtEnd("451 later".to_owned()));
    send(&app, &mail("ada@example.com")).await;
    after_attempt(&app, 1).await;
    let sealed: Vec<u8> = sqlx::query_scalar("SELECT sealed_payload FROM deliveries")
        .fetch_one(app.database.pool())
        .await
        .unwrap();
    let secret = SECRET.as_bytes();
    assert!(sealed.len() > secret.len());
    assert!(!sealed.windows(secret.len()).any(|bytes| bytes == secret));
    let row = app.rows("SELECT t::text AS row FROM deliveries t").await;
    assert!(!row[0].to_string().contains(SECRET));
    later(&app, MINUTE).await;
    assert_eq!(in_state(&app, "delivered").await["sealed_payload"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_mail_that_expires_is_not_sent_afterwards_and_what_it_held_is_gone_however_it_ends() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    let expires_at = Some(app.clock.now() + 2 * MINUTE);
    smtp.enqueue(Answer::AtEnd("451 later".to_owned()));
    smtp.enqueue(Answer::AtEnd("451 later".to_owned()));
    send(&app, &Mail { expires_at, ..mail("ada@example.com") }).await;
    after_attempt(&app, 1).await;
    later(&app, MINUTE).await;
    after_attempt(&app, 2).await;
    // Before the third attempt would be due.
    later(&app, MINUTE).await;
    let row = in_state(&app, "expired").await;
    assert_eq!(row["sealed_payload"], serde_json::Value::Null);
    assert_eq!(smtp.seen(), 2);
    assert_eq!(smtp.mails().len(), 0);

    smtp.enqueue(Answer::AtEnd("554 no".to_owned()));
    let expires_at = Some(app.clock.now() + MINUTE);
    sqlx::query("DELETE FROM deliveries").execute(app.database.pool()).await.unwrap();
    send(&app, &Mail { expires_at, ..mail("ada@example.com") }).await;
    assert_eq!(in_state(&app, "failed").await["sealed_payload"], serde_json::Value::Null);
}

#[tokio::test]
async fn neither_address_nor_subject_can_bring_a_header_of_their_own() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    let notify = &app.running.features.notify;
    let mut db = loom_db::begin(app.database.pool()).await.unwrap();
    let good = mail("ada@example.com");
    for to in [
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com, eve@example.com",
        "Ada <ada@example.com>",
        "ada@example.com\n",
        "ada",
        "",
        "@example.com",
        &format!("{}@example.com", "a".repeat(300)),
    ] {
        let bad = Mail { to: to.to_owned(), ..good.clone() };
        assert_eq!(notify.mail(&mut db, &bad).await.unwrap_err().status(), 422, "{to:?}");
    }
    for subject in ["", "a\r\nBcc: eve@example.com", "a\nb", &"x".repeat(300)] {
        let bad = Mail { subject: subject.to_owned(), ..good.clone() };
        assert_eq!(notify.mail(&mut db, &bad).await.unwrap_err().status(), 422, "{subject:?}");
    }
    let large = Mail { text: "x".repeat(300_000), ..good };
    assert_eq!(notify.mail(&mut db, &large).await.unwrap_err().status(), 413);
}

#[tokio::test]
async fn a_mail_of_a_transaction_that_was_rolled_back_is_not_sent() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    let mut db = loom_db::begin(app.database.pool()).await.unwrap();
    app.running.features.notify.mail(&mut db, &mail("gone@example.com")).await.unwrap();
    db.rollback().await.unwrap();
    send(&app, &mail("ada@example.com")).await;
    assert_eq!(smtp.mail(1).await.to, ["ada@example.com"]);
    in_state(&app, "delivered").await;
}

#[tokio::test]
async fn without_a_mail_server_mail_becomes_a_file_that_only_we_can_read() {
    let data = tempfile::tempdir().unwrap();
    let setup = Setup::default().set("LOOM_SERVER_DATA_DIR", data.path().display().to_string());
    let app = setup.manual_clock().start().await;
    send(&app, &mail("ada@example.com")).await;
    assert_eq!(in_state(&app, "delivered").await["via"], "outbox");
    let files: Vec<_> =
        std::fs::read_dir(data.path().join("outbox")).unwrap().map(|f| f.unwrap()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let name = file.file_name().into_string().unwrap();
    assert_eq!(name, "20270115T080000000Z-magic_link-ada@example.com.eml");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let folder = std::fs::metadata(data.path().join("outbox")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert!(text.contains("Subject: Sign in") && text.contains(SECRET), "{text}");
}
