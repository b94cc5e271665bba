//! Links the daemon at a fixed address: shims are copies of it, and what a position-independent
//! program relocates at its start would be private memory of every one of them.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-no-pie");
}
