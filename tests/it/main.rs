//! The integration tests: one binary, one file per room.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

mod api;
mod ground;
mod growth;
mod house;
mod ledger;
mod node;
mod process;
mod scripted;
mod signing;
mod simulator;
mod units;
mod watch;
mod watch_faults;
mod watching;
mod way;
