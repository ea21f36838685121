//! The integration tests: one binary, one file per room.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

mod ground;
mod lease;
mod node;
mod requests;
mod scripted;
mod shutdown;
mod signing;
mod simulator;
mod station;
mod units;
mod watch;
mod watch_faults;
mod watching;
