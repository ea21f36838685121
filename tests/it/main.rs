//! The integration tests: one binary, one file per room.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

mod accounts;
mod alerting;
mod api;
mod audit;
mod batches;
mod catching_up;
mod console;
mod contract;
mod db;
mod escrow;
mod doctor;
mod ground;
mod doors;
mod gates;
mod growth;
mod house;
mod issuing;
mod lease;
mod kill;
mod ledger;
mod node;
mod officers;
mod package;
mod process;
mod quoting;
mod requests;
mod rescan;
mod schema;
mod seals;
mod scripted;
mod shutdown;
mod signing;
mod sim;
mod simulator;
mod statements;
mod station;
mod unit;
mod units;
mod watch;
mod webhooks;
mod watch_faults;
mod watching;
mod way;
mod workload;
