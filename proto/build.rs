//! Compiles the `.proto` files with a compiler written in Rust: no `protoc` on the host.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 8] = [
    "shoal/v1/ca.proto",
    "shoal/v1/types.proto",
    "shoal/v1/store.proto",
    "shoal/v1/raft.proto",
    "shoal/v1/session.proto",
    "shoal/v1/control.proto",
    "shoal/v1/node.proto",
    "shoal/v1/container.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let encoded = descriptors.encode_to_vec();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), &encoded)?;

    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .bytes(".shoal.v1.ImportImageRequest")
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new().register_descriptors(&encoded)?.build(&[".shoal.v1"])?;
    Ok(())
}
