//! Turns `THRONG_PLANTED=NAME` into `cfg(planted)` and `cfg(planted = "NAME")`: a deliberate mistake
//! that the suites must notice. A build without the variable holds none.

fn main() {
    println!("cargo:rerun-if-env-changed=THRONG_PLANTED");
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(name) = std::env::var("THRONG_PLANTED")
        && !name.is_empty()
    {
        println!("cargo:rustc-cfg=planted");
        println!("cargo:rustc-cfg=planted=\"{name}\"");
        println!("cargo:rustc-env=THRONG_PLANTED_NAME={name}");
    }
}
