//! How the demo talks: numbered steps, facts in columns, the device's screens as they appear.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::trezor::{Awaits, SimulatedTrezor};

/// Writes to standard output; clones share the step counter.
#[derive(Clone, Debug)]
pub(super) struct Narrator {
    step: Arc<AtomicU32>,
}

impl Narrator {
    pub(super) fn new() -> Self {
        Self { step: Arc::new(AtomicU32::new(0)) }
    }

    pub(super) fn title(&self, text: &str) {
        line(&format!("\n{text}\n{}", "=".repeat(text.chars().count())));
    }

    pub(super) fn step(&self, text: &str) {
        let number = self.step.fetch_add(1, Ordering::Relaxed) + 1;
        line(&format!("\n{number:>2}. {text}"));
    }

    pub(super) fn plain(&self, text: &str) {
        line(&format!("    {text}"));
    }

    pub(super) fn command(&self, text: &str) {
        line(&format!("    $ {text}"));
    }

    pub(super) fn fact(&self, name: &str, value: &str) {
        line(&format!("    {name:<12} {value}"));
    }

    pub(super) fn rows(&self, rows: &[String]) {
        for row in rows {
            line(&format!("    {row}"));
        }
    }

    /// Shows each screen of the device when it appears, and has the officer press.
    pub(super) fn show_device(&self, trezor: &SimulatedTrezor) {
        let officer = trezor.officer();
        let screens = officer.watch();
        officer.confirm_all();
        // Ends when the device is dropped.
        std::thread::spawn(move || {
            while let Ok(screen) = screens.recv() {
                let pressed = if matches!(screen.awaits, Awaits::Button(_)) { "  [confirmed]" } else { "" };
                line(&format!("        Trezor | {}{pressed}", screen.text()));
            }
        });
    }
}

fn line(text: &str) {
    // A reader that went away is no reason to stop half-way.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
