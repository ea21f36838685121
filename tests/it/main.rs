//! The integration tests: one binary, one file per room.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

mod ground;
mod simulator;
mod units;
