//! The C library's `getrandom` is replaced in this package's programs (`src/entropy.rs`). Crates that
//! look the function up while they run find the replacement only if the program exports it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg=-Wl,--export-dynamic-symbol=getrandom");
}
