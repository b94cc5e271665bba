//! The messages of Shoal's APIs and of its replicated log, and the small types that go with
//! them: ids, states, units. No I/O, no clock, no randomness.

#![allow(clippy::unwrap_used)] // only in code that the protobuf compiler writes

pub mod bytesize;
pub mod duration;
pub mod id;
pub mod time;

mod state;

/// Everything in the protobuf package `shoal.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, rust_2018_idioms)]
pub mod v1 {
    tonic::include_proto!("shoal.v1");
    include!(concat!(env!("OUT_DIR"), "/shoal.v1.serde.rs"));
}

/// The encoded file descriptors, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Version of the protocol between nodes. It goes up with a change that agents and managers of the
/// version before don't understand.
pub const PROTOCOL: u32 = 1;

pub use bytesize::ByteSize;
pub use id::{ContainerId, IdError, NetworkId, NodeId, PayloadId, ServiceId, StackId, TaskId};
pub use pbjson_types::{Duration as ProtoDuration, Timestamp};
