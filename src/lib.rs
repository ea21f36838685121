//! amanatd: payment watcher and custody daemon.
//!
//! The rooms below are listed in the order in which money moves. **Data flows forward, imports
//! point backward:** a room may import only rooms listed above it, reads what they wrote, and
//! writes its own tables. `tests/tidy.rs` checks the order.

// Words: pure, no I/O, no clock.
pub mod units;
pub mod chains;

// Ground.
pub mod db;
pub mod metrics;
pub mod event;
pub mod officer;
pub mod rpc;

// Money comes in.
pub mod settings;
pub mod account;
pub mod quote;
pub mod payment;
pub mod deposit;
pub mod scan;
pub mod confirm;
pub mod screen;
pub mod ledger;
pub mod escrow;

// Money goes out.
pub mod policy;
pub mod intent;
pub mod approval;
pub mod signing;
pub mod broadcast;
pub mod settle;
pub mod reconcile;

// Machines and people look in.
pub mod webhook;
pub mod api;
pub mod console;

// Wiring. `devkit` never reaches a release.
pub mod config;
pub mod daemon;
pub mod cli;
#[cfg(feature = "devkit")]
pub mod devkit;
