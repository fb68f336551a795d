//! Derived files: made once, bounded, healed; and what was missing is asked for again after an upload.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use loom_symbolication::{Status, Symbolicator};

use crate::support::{
    Shelf, Workshop, crash_at, module, project, request, symbolicator, symbolicator_of,
};

/// A program of its own for each number, and the address of a function in it.
fn program(shop: &Workshop, number: usize) -> (PathBuf, u64) {
    let name = format!("p{number}");
    let source = format!(
        "int crash{number}(int x) {{ return x / {}; }}\nint main(void) {{ return crash{number}(1); }}\n",
        number + 2
    );
    shop.write(&format!("{name}.c"), source);
    shop.run("gcc", &["-g", "-O0", "-Wl,--build-id", "-o", &name, &format!("{name}.c")]);
    let listing = shop.run("nm", &[&name]);
    let line = listing.lines().find(|line| line.contains(" T crash")).unwrap();
    (shop.path(&name), u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap())
}

async fn status(symbolicator: &Symbolicator, (path, address): &(PathBuf, u64)) -> Status {
    let request = request(vec![module(path, 0x1000_0000)], vec![crash_at(0x1000_0000 + address)]);
    symbolicator.symbolicate(request).await.stacks[0][0].status.clone().unwrap()
}

fn derived(shop: &Workshop) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(shop.path("cache"))
        .into_iter()
        .flatten()
        .flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn good(status: &Status) -> bool {
    matches!(status, Status::Symbolicated { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_derived_file_is_made_once_however_many_ask() {
    let shop = Workshop::new();
    let program = program(&shop, 0);
    let shelf = Arc::new(Shelf::default());
    shelf.put(&program.0);
    let symbolicator = symbolicator(&shelf, &shop);
    let asking = (0..16).map(|_| {
        let (symbolicator, program) = (symbolicator.clone(), program.clone());
        tokio::spawn(async move { status(&symbolicator, &program).await })
    });
    for asked in asking.collect::<Vec<_>>() {
        assert!(good(&asked.await.unwrap()));
    }
    let files = derived(&shop);
    assert_eq!(files.len(), 1, "{files:?}");
    let written = fs::metadata(&files[0]).unwrap().modified().unwrap();

    // Another start finds it, without the file that it was made of.
    fs::rename(&program.0, shop.path("away")).unwrap();
    let request = request(vec![module(&shop.path("away"), 0)], vec![crash_at(program.1)]);
    let again = crate::support::symbolicator(&shelf, &shop).symbolicate(request).await;
    assert!(good(again.stacks[0][0].status.as_ref().unwrap()));
    assert_eq!(fs::metadata(&files[0]).unwrap().modified().unwrap(), written);
}

#[tokio::test]
async fn a_damaged_derived_file_is_made_anew() {
    let shop = Workshop::new();
    let program = program(&shop, 0);
    let shelf = Arc::new(Shelf::default());
    shelf.put(&program.0);
    assert!(good(&status(&symbolicator(&shelf, &shop), &program).await));
    let file = derived(&shop).remove(0);
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    for damaged in [&whole[..whole.len() / 2], b"", &flipped] {
        fs::write(&file, damaged).unwrap();
        assert!(good(&status(&symbolicator(&shelf, &shop), &program).await));
        assert_eq!(fs::read(&file).unwrap(), whole);
    }
}

#[tokio::test]
async fn the_least_used_files_go_when_there_are_too_many_bytes() {
    let shop = Workshop::new();
    let shelf = Arc::new(Shelf::default());
    let programs: Vec<_> = (0..5).map(|number| program(&shop, number)).collect();
    for program in &programs {
        shelf.put(&program.0);
    }
    assert!(good(&status(&symbolicator(&shelf, &shop), &programs[0]).await));
    let first = derived(&shop).remove(0);
    let one = fs::metadata(&first).unwrap().len();
    let room = one * 3 + one / 2;
    let symbolicator = symbolicator_of(&shelf, &shop, room);
    for (number, program) in programs.iter().enumerate().skip(1) {
        // The first was used long ago; a use of it now says so.
        let old = SystemTime::now() - Duration::from_hours(10 - number as u64);
        if number < 4 {
            for file in derived(&shop) {
                let file = fs::File::options().append(true).open(file).unwrap();
                file.set_modified(old).unwrap();
            }
        }
        if number == 3 {
            let fresh = symbolicator_of(&shelf, &shop, room);
            assert!(good(&status(&fresh, &programs[0]).await));
        }
        assert!(good(&status(&symbolicator, program).await));
        let bytes: u64 = derived(&shop).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(bytes <= room, "{bytes} of {room}");
    }
    let left = derived(&shop);
    assert_eq!(left.len(), 3);
    assert!(left.contains(&first), "it was used");
}

#[tokio::test]
async fn what_is_missing_is_asked_once_and_again_after_an_upload() {
    let shop = Workshop::new();
    let program = program(&shop, 0);
    let shelf = Arc::new(Shelf::default());
    let symbolicator = symbolicator(&shelf, &shop);
    for _ in 0..3 {
        assert!(matches!(status(&symbolicator, &program).await, Status::MissingFile { .. }));
    }
    assert_eq!(shelf.asked.load(Ordering::SeqCst), 1);
    shelf.put(&program.0);
    assert!(matches!(status(&symbolicator, &program).await, Status::MissingFile { .. }));
    symbolicator.uploaded(project());
    assert!(good(&status(&symbolicator, &program).await));
}

#[tokio::test]
async fn a_copy_that_has_gone_is_asked_for_again() {
    let shop = Workshop::new();
    let program = program(&shop, 0);
    let shelf = Arc::new(Shelf::default());
    shelf.put(&program.0);
    let symbolicator = symbolicator(&shelf, &shop);
    let there = module(&program.0, 0x1000_0000);
    fs::rename(&program.0, shop.path("away")).unwrap();
    let ask = || request(vec![there.clone()], vec![crash_at(0x1000_0000 + program.1)]);
    let gone = symbolicator.symbolicate(ask()).await;
    assert!(matches!(gone.stacks[0][0].status, Some(Status::Malformed { .. })));
    fs::rename(shop.path("away"), &program.0).unwrap();
    let back = symbolicator.symbolicate(ask()).await;
    assert!(good(back.stacks[0][0].status.as_ref().unwrap()), "a fault of the disk is not kept");
}
