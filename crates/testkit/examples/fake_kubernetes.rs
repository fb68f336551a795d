//! The fake cluster of the tests, to try weavers by hand: it prints the path of its kubeconfig.
//! `cargo run -p loom-testkit --example fake_kubernetes`

#![allow(clippy::print_stdout, reason = "a tool for developers")]

use loom_testkit::kubernetes::FakeKubernetes;

fn main() {
    let cluster = FakeKubernetes::start();
    println!("{}", cluster.kubeconfig().display());
    loop {
        std::thread::park();
    }
}
