//! Everything a test or the demo needs and a release must not have: a simulated Trezor, a private
//! Postgres, a local chain. Compiled only with the cargo feature `devkit`.

pub mod trezor;
