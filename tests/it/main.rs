//! The integration tests: one binary, one file per room.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

mod accounts;
mod api;
mod catching_up;
mod db;
mod ground;
mod gates;
mod growth;
mod house;
mod issuing;
mod lease;
mod ledger;
mod node;
mod process;
mod quoting;
mod requests;
mod rescan;
mod schema;
mod scripted;
mod shutdown;
mod signing;
mod sim;
mod simulator;
mod station;
mod units;
mod watch;
mod webhooks;
mod watch_faults;
mod watching;
mod way;
mod workload;
