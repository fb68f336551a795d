//! A page that was built anew is to be in the next binary.

fn main() {
    println!("cargo:rerun-if-changed=ui/dist");
}
