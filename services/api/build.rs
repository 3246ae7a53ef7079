//! Generates the messages and the service from proto/, without protoc.

use std::{env, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let include = "../../proto";
    let file = "../../proto/callboard/catalog/v1/catalog.proto";
    println!("cargo:rerun-if-changed={file}");

    let descriptors = protox::compile([file], [include])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.binpb"), descriptors.encode_to_vec())?;

    // Ordered maps: the same entity is always encoded to the same bytes.
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors.clone())?;

    let ready = out.join("ready");
    fs::create_dir_all(&ready)?;
    tonic_prost_build::configure()
        .btree_map(".")
        .extern_path(".callboard.catalog.v1.Entity", "crate::EncodedEntity")
        .extern_path(".callboard.catalog.v1.TraverseRelationsResponse", "crate::EncodedTraversal")
        .codec_path("crate::ReadyCodec")
        .out_dir(ready)
        .compile_fds(descriptors)?;
    Ok(())
}
