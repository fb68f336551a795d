//! Minidumps of a program that really crashed.
#![cfg(target_arch = "x86_64")]

use std::{fs, path::PathBuf, sync::Arc};

use loom_symbolication::{Dump, Frame, Module, Stack, Symbolicator};

use crate::support::{Shelf, Workshop, project, request, symbolicator, walk};

const PROGRAM: &str = include_str!("../fixtures/crash.c");

/// The program, and the dump that it left.
pub(crate) fn crashed(shop: &Workshop) -> (PathBuf, Vec<u8>) {
    shop.write("crash.c", PROGRAM);
    let args =
        "-O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -Wl,--build-id -o crash crash.c";
    shop.run("gcc", &args.split(' ').collect::<Vec<_>>());
    shop.run(shop.path("crash"), &["dump"]);
    (shop.path("crash"), fs::read(shop.path("dump")).unwrap())
}

/// Function and trust of the calls of the thread that crashed, newest first, as far as `main`.
async fn calls(symbols: &Symbolicator, dump: &Dump) -> Vec<(String, &'static str)> {
    let thread = dump.threads.iter().find(|thread| thread.crashed).unwrap();
    let frame = |address| Frame { instruction_addr: Some(address), ..Frame::default() };
    let frames = thread.frames.iter().rev().map(|found| frame(found.address)).collect();
    let modules = dump.modules.iter().map(|module| Module {
        debug_id: module.debug_id.clone(),
        code_file: Some(module.code_file.clone()),
        address: module.address,
        size: Some(module.size),
        ..Module::default()
    });
    let stack = Stack { frames, ..Stack::default() };
    let answer = symbols.symbolicate(request(modules.collect(), vec![stack])).await;
    let mut calls = Vec::new();
    for (found, outcome) in thread.frames.iter().zip(answer.stacks[0].iter().rev()) {
        let name = outcome.frames.last().and_then(|frame| frame.function.clone());
        let name = name.unwrap_or_default();
        let is_main = name == "main";
        calls.push((name, found.trust));
        if is_main {
            break;
        }
    }
    calls
}

#[tokio::test]
async fn a_stack_without_frame_pointers_is_walked_by_what_the_debug_file_says() {
    let shop = Workshop::new();
    let (program, dump) = crashed(&shop);
    let shelf = Arc::new(Shelf::default());
    let symbols = symbolicator(&shelf, &shop);

    // Without the file it is guessed, and led astray by what lies on the stack.
    let guessed = walk(&symbols, dump.clone()).await.unwrap();
    let guess = &guessed.threads[0].frames[1];
    assert_eq!(guess.trust, "scan");

    shelf.put(&program);
    symbols.uploaded(project());
    let walked = walk(&symbols, dump).await.unwrap();
    assert_eq!(walked.reason.as_deref(), Some("SIGSEGV / SEGV_MAPERR"));
    assert_eq!((walked.address, walked.arch.as_str()), (Some(16), "x86_64"));
    assert_eq!((walked.os_name.as_str(), walked.image_kind), ("Linux", "elf"));
    assert!(!walked.is_cut);
    let expected = ["crash_here", "middle", "outer", "main"];
    let trusts = ["context", "cfi", "cfi", "cfi"];
    let expected: Vec<_> = expected.map(str::to_owned).into_iter().zip(trusts).collect();
    assert_eq!(calls(&symbols, &walked).await, expected);
    assert_ne!(walked.threads[0].frames[1].address, guess.address);
    let module = walked.modules.iter().find(|module| module.code_file.ends_with("/crash")).unwrap();
    assert!(module.debug_id.is_some() && module.code_id.is_some(), "{module:?}");
}

#[tokio::test]
async fn what_unwinds_is_in_the_program_when_its_debug_information_was_split_off() {
    let shop = Workshop::new();
    let (program, dump) = crashed(&shop);
    shop.run("objcopy", &["--strip-debug", "crash", "stripped"]);
    let shelf = Arc::new(Shelf::default());
    let symbols = symbolicator(&shelf, &shop);
    shelf.put(&shop.path("stripped"));
    let walked = walk(&symbols, dump).await.unwrap();
    let trusts: Vec<_> = walked.threads[0].frames.iter().map(|frame| frame.trust).collect();
    assert_eq!(trusts[..4], ["context", "cfi", "cfi", "cfi"], "{}", program.display());
}

#[tokio::test]
async fn a_dump_that_would_become_far_larger_than_it_is_is_refused() {
    let shop = Workshop::new();
    let symbols = symbolicator(&Arc::default(), &shop);
    let refused = async |dump: Vec<u8>| walk(&symbols, dump).await.unwrap_err();
    assert_eq!(refused(b"PK\x03\x04".to_vec()).await.reason, "not a minidump");
    assert_eq!(refused(b"MDMP\x93\xa7\0\0".to_vec()).await.reason, "the minidump ends early");

    let mut many = b"MDMP\x93\xa7\0\0\xff\xff\xff\0\x20\0\0\0".to_vec();
    many.resize(4096, 0);
    assert!(refused(many).await.reason.contains("parts"));

    // 8,000 modules whose names are all the same megabytes.
    let mut names = b"MDMP\x93\xa7\0\0\x01\0\0\0\x20\0\0\0".to_vec();
    names.resize(32, 0);
    let list: u32 = 44;
    let name = list + 4 + 8000 * 108;
    for number in [4, 4 + 8000 * 108, list, 8000] {
        names.extend(u32::to_le_bytes(number));
    }
    for _ in 0..8000 {
        let mut module = [0; 108];
        module[20..24].copy_from_slice(&name.to_le_bytes());
        names.extend(module);
    }
    names.extend(u32::to_le_bytes(4 << 20));
    names.resize(names.len() + (4 << 20), b'a');
    assert_eq!(refused(names).await.reason, "the names in the minidump are too long");
}
