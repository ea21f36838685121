//! Everything a test or the demo needs and a release must not have: a simulated Trezor, a private
//! Postgres, a local chain. Compiled only with the cargo feature `devkit`.

pub mod chain;
pub mod child;
pub mod contracts;
pub mod demo;
pub mod postgres;
pub mod schema;
pub mod soak;
pub mod stage;
pub mod trezor;
pub mod workload;
