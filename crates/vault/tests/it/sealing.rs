//! Seal, unseal, and what must not open.

use loom_common_secret::SecretString;
use loom_core::config::Env;
use loom_vault::{BadKey, Config, MasterKey};

use crate::{key, vault};

const CONTEXT: &str = "llm_credentials/0192f0c1";

#[test]
fn what_was_sealed_opens() {
    let vault = vault(1, None);
    for text in ["", "sk-1", "ключ 🔑", &"x".repeat(100_000)] {
        let sealed = vault.seal(CONTEXT, &text.into()).unwrap();
        assert_eq!(vault.unseal(CONTEXT, &sealed).unwrap().expose(), text);
        assert!(!vault.needs_rewrap(&sealed));
    }
}

#[test]
fn bytes_that_are_no_text_open_as_they_were() {
    let vault = vault(1, None);
    let plain = [0, 0xff, b'a', 0x80].repeat(10_000);
    let sealed = vault.seal_bytes(CONTEXT, &plain).unwrap();
    assert_eq!(vault.unseal_bytes(CONTEXT, &sealed).unwrap(), plain);
    assert!(vault.unseal(CONTEXT, &sealed).is_err(), "no secret is anything but text");
    assert!(vault.unseal_bytes("elsewhere", &sealed).is_err());
}

#[test]
fn two_seals_of_one_secret_differ_and_do_not_show_it() {
    let vault = vault(1, None);
    let secret = SecretString::from("a-secret-that-is-long-enough");
    let (one, two) = (vault.seal(CONTEXT, &secret).unwrap(), vault.seal(CONTEXT, &secret).unwrap());
    assert_ne!(one, two);
    let needle = secret.expose().as_bytes();
    assert!(!one.windows(needle.len()).any(|window| window == needle));
}

#[test]
fn a_change_of_any_bit_is_noticed() {
    let vault = vault(1, Some(2));
    let sealed = vault.seal(CONTEXT, &"sk-ant-1".into()).unwrap();
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut altered = sealed.clone();
            altered[at] ^= 1 << bit;
            assert!(vault.unseal(CONTEXT, &altered).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn a_cut_or_longer_envelope_is_refused() {
    let vault = vault(1, None);
    let mut sealed = vault.seal(CONTEXT, &"sk-ant-1".into()).unwrap();
    for len in 0..sealed.len() {
        assert!(vault.unseal(CONTEXT, &sealed[..len]).is_err(), "{len} bytes");
        assert!(vault.rewrap(&sealed[..len.min(100)]).is_err());
    }
    sealed.push(0);
    assert!(vault.unseal(CONTEXT, &sealed).is_err());
}

#[test]
fn another_context_does_not_open_it() {
    let vault = vault(1, None);
    let sealed = vault.seal(CONTEXT, &"sk-ant-1".into()).unwrap();
    for context in ["", "llm_credentials/0192f0c2", "llm_credentials/0192f0c1 "] {
        let error = vault.unseal(context, &sealed).unwrap_err();
        assert_eq!(error.status(), 500);
        assert!(error.cause().unwrap().contains("another place"), "{error:?}");
    }
}

#[test]
fn the_halves_of_two_envelopes_do_not_mix() {
    let vault = vault(1, None);
    let one = vault.seal(CONTEXT, &"one".into()).unwrap();
    let two = vault.seal(CONTEXT, &"two".into()).unwrap();
    let mixed = [&one[..77], &two[77..]].concat();
    assert!(vault.unseal(CONTEXT, &mixed).is_err());
}

#[test]
fn a_rotation_opens_the_old_and_rewraps_it() {
    let before = vault(1, None);
    let sealed = before.seal(CONTEXT, &"sk-ant-1".into()).unwrap();

    let during = vault(2, Some(1));
    assert_eq!(during.unseal(CONTEXT, &sealed).unwrap().expose(), "sk-ant-1");
    assert!(during.needs_rewrap(&sealed));
    let rewrapped = during.rewrap(&sealed).unwrap();
    assert!(!during.needs_rewrap(&rewrapped));
    assert_eq!(&sealed[77..], &rewrapped[77..], "the secret itself is not touched");

    let after = vault(2, None);
    assert_eq!(after.unseal(CONTEXT, &rewrapped).unwrap().expose(), "sk-ant-1");
    assert!(after.unseal("elsewhere", &rewrapped).is_err());
    assert!(after.unseal(CONTEXT, &sealed).is_err());
}

#[test]
fn a_missing_key_is_named() {
    let sealed = vault(1, None).seal(CONTEXT, &"sk-ant-1".into()).unwrap();
    let vault = vault(2, Some(3));
    for error in [vault.unseal(CONTEXT, &sealed).unwrap_err(), vault.rewrap(&sealed).unwrap_err()] {
        let cause = error.cause().unwrap();
        for id in [key(1).id(), key(2).id(), key(3).id()] {
            assert!(cause.contains(&id.to_string()), "{cause}");
        }
        assert!(!error.detail().contains(&key(1).id().to_string()), "not for the client");
    }
}

#[test]
fn a_key_is_read_from_hex_and_base64() {
    let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";
    let id = hex.parse::<MasterKey>().unwrap().id();
    for text in [
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8\n",
    ] {
        assert_eq!(text.parse::<MasterKey>().unwrap().id(), id);
    }
    let standard = "+/8CAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let url_safe = "-_8CAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    assert_eq!(
        standard.parse::<MasterKey>().unwrap().id(),
        url_safe.parse::<MasterKey>().unwrap().id()
    );
    for text in ["", "secret", "AAECAwQFBgcICQoLDA0ODw", &hex[2..], &format!("{hex}00")] {
        assert_eq!(text.parse::<MasterKey>().unwrap_err(), BadKey::Form, "{text}");
    }
    assert_eq!("00".repeat(32).parse::<MasterKey>().unwrap_err(), BadKey::Placeholder);
}

#[test]
fn a_key_never_shows_itself() {
    let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";
    let vars = [("LOOM_SERVER_MASTER_KEY".to_owned(), hex.to_owned())];
    let mut env = Env::new(vars);
    let config = Config::load(&mut env);
    let key = config.master_key.clone().unwrap();
    let shown = format!("{config:?} {:?}", env.settings());
    assert!(!shown.contains("1d1eff") && shown.contains(&key.id().to_string()), "{shown}");
    assert_eq!(key.id().to_string().len(), 8);
}

#[test]
fn a_bad_key_is_a_problem_of_the_configuration() {
    let vars = [
        ("LOOM_SERVER_MASTER_KEY".to_owned(), "hunter2-is-not-a-key".to_owned()),
        ("LOOM_SERVER_MASTER_KEY_PREVIOUS_FILE".to_owned(), "/nonexistent".to_owned()),
    ];
    let mut env = Env::new(vars);
    Config::load(&mut env);
    let told: Vec<_> = env.problems().iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("32 random bytes") && !told[0].contains("hunter2"), "{told:?}");
    assert!(env.unknown(&["LOOM_SERVER_"]).is_empty());
}

#[test]
fn servers_with_one_master_key_derive_the_same_keys_one_for_each_purpose() {
    let derive = |seed, purpose| vault(seed, None).derive(purpose).unwrap();
    let key = derive(1, "replicas");
    assert_eq!(key.expose().len(), 64);
    assert!(key == derive(1, "replicas"));
    assert!(key == vault(2, Some(1)).derive_lasting("replicas").unwrap());
    assert!(key == vault(1, None).derive_lasting("replicas").unwrap());
    assert!(key != derive(1, "replica") && key != derive(2, "replicas"));
}
