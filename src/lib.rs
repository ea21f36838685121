//! amanatd: payment watcher and custody daemon.
//!
//! The rooms below are listed in the order in which money moves. A room may import only rooms
//! listed above it; `tests/tidy.rs` checks that.

#[cfg(feature = "devkit")]
pub mod devkit;
