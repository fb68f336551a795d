//! A new migration alone must rebuild this crate: the files are compiled in.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
