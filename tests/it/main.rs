//! Everything that needs more than one room, in one binary.

#[cfg(feature = "devkit")]
mod signing;
