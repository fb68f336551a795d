//! The sign-in provider of the tests on a fixed port, to try signing in by hand: whoever comes is signed
//! in there already. `cargo run -p loom-testkit --example fake_idp -- 9400 ada@example.com`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a tool for developers"
)]

use loom_core::Clock;
use loom_testkit::idp::{Idp, Person};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().map_or(0, |port| port.parse().expect("a port"));
    let email = arguments.next().unwrap_or_else(|| "ada@example.com".to_owned());
    let idp = Idp::on(port, Clock::system());
    idp.sign_in_as(Person::new("1815", &email));
    for (name, value) in ["github", "google", "oidc"].iter().flat_map(|name| idp.settings(name)) {
        println!("export {name}={value}");
    }
    loop {
        std::thread::park();
    }
}
