//! The key file of a first start.

use std::{fs, os::unix::fs::PermissionsExt, sync::Barrier, thread};

use loom_vault::{Config, OpenError, Vault};

use crate::{TempDir, key};

fn open(dir: &TempDir) -> Result<Vault, OpenError> {
    Vault::open(Config::default(), &dir.0.join("data"))
}

#[test]
fn the_first_start_makes_a_key_and_the_next_finds_it() {
    let dir = TempDir::new();
    let sealed = open(&dir).unwrap().seal("a", &"secret".into()).unwrap();
    assert_eq!(open(&dir).unwrap().unseal("a", &sealed).unwrap().expose(), "secret");

    let names: Vec<_> = fs::read_dir(dir.0.join("data")).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing is left over: {names:?}");
    let mode = fs::metadata(dir.0.join("data/master.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_key_that_others_could_read_is_closed_to_them() {
    let dir = TempDir::new();
    let id = open(&dir).unwrap().key_id();
    let path = dir.0.join("data/master.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
    assert_eq!(open(&dir).unwrap().key_id(), id);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn first_starts_at_the_same_time_end_with_one_key() {
    for _ in 0..20 {
        let dir = TempDir::new();
        let barrier = Barrier::new(8);
        let ids: Vec<_> = thread::scope(|scope| {
            let start = || {
                barrier.wait();
                open(&dir).unwrap().key_id()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(open(&dir).unwrap().key_id(), ids[0]);
        assert_eq!(fs::read_dir(dir.0.join("data")).unwrap().count(), 1);
    }
}

#[test]
fn a_spoilt_file_is_never_overwritten() {
    let dir = TempDir::new();
    fs::create_dir(dir.0.join("data")).unwrap();
    let path = dir.0.join("data/master.key");
    fs::write(&path, "half a k").unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, OpenError::NotAKey { .. }), "{error:?}");
    assert!(error.to_string().contains("master.key"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "half a k");
}

#[test]
fn a_configured_key_needs_no_file() {
    let dir = TempDir::new();
    let config = Config { master_key: Some(key(1)), previous_key: None };
    assert_eq!(Vault::open(config, &dir.0.join("data")).unwrap().key_id(), key(1).id());
    assert!(!dir.0.join("data").exists());
}

#[test]
fn a_directory_that_cannot_be_made_is_told() {
    let dir = TempDir::new();
    fs::write(dir.0.join("data"), "").unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, OpenError::File { .. }), "{error:?}");
}
