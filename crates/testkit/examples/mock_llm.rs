//! Runs the mock LLM upstream on a port: `mock_llm <address> <provider key>`, until stdin ends.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use std::io::{Read, stdin};

use loom_testkit::llm::MockLlm;

fn main() {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let key = args.next().unwrap_or_else(|| "sk-test-provider".to_owned());
    let Ok(addr) = addr.parse() else {
        eprintln!("not an address: {addr}");
        return;
    };
    let mock = MockLlm::start_on(addr, &key);
    println!("{}", mock.url());
    let _ = stdin().read_to_end(&mut Vec::new());
}
