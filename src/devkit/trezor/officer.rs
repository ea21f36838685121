//! The person at the device: sees its screens and presses its two buttons.
//!
//! In-process calls, not a second port: on the real device a debug packet between the packets of
//! a long message spoils it. A press counts only after the host's ButtonAck; one made earlier is
//! held until then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::Duration;

use super::shared::Shared;

/// The log of screens keeps this many; older ones are forgotten.
const SCREENS_MAX: usize = 10_000;

/// Screens that a watcher has not read yet.
const UNREAD_MAX: usize = 1_000;

/// What a screen waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    /// One of the two buttons; the number is the `code` of the ButtonRequest.
    Button(u32),
    /// The PIN, typed at the host as positions in the grid that is shown.
    Pin,
    /// The passphrase, typed at the host.
    Passphrase,
}

/// Something the device showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screen {
    /// Counts from 1 since the simulator was started.
    pub number: usize,
    /// What it waits for.
    pub awaits: Awaits,
    /// Its lines, whole: the real display is 128 pixels wide and cuts long amounts.
    pub lines: Vec<String>,
}

impl Screen {
    /// The lines as one sentence, for assertions and logs.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// The button code, when the screen waits for a button.
    #[must_use]
    pub fn button(&self) -> Option<u32> {
        match self.awaits {
            Awaits::Button(code) => Some(code),
            Awaits::Pin | Awaits::Passphrase => None,
        }
    }
}

/// What the officer does with one screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Press {
    /// The right button.
    Confirm,
    /// The left button.
    Reject,
    /// The right button, after a while.
    ConfirmAfter(Duration),
    /// The left button, after a while.
    RejectAfter(Duration),
    /// Nothing: the screen stays until the host cancels or somebody presses by hand.
    Never,
}

/// The desk where the officer sits: what is planned and what was seen.
#[derive(Debug)]
pub(super) struct Desk {
    script: VecDeque<Press>,
    usual: Press,
    /// The plan was changed since the open screen asked for it.
    replanned: bool,
    /// The screen that waits for a button, and what was pressed on it by hand.
    open: Option<(usize, Option<Press>)>,
    shown: usize,
    screens: VecDeque<Screen>,
    watchers: Vec<SyncSender<Screen>>,
    matrix: Option<String>,
    next_matrix: Option<String>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            script: VecDeque::new(),
            usual: Press::Never,
            replanned: false,
            open: None,
            shown: 0,
            screens: VecDeque::new(),
            watchers: Vec::new(),
            matrix: None,
            next_matrix: None,
        }
    }
}

impl Desk {
    pub(super) fn show(&mut self, awaits: Awaits, lines: Vec<String>) {
        self.shown += 1;
        let screen = Screen { number: self.shown, awaits, lines };
        self.open = screen.button().map(|_| (screen.number, None));
        self.watchers.retain(|watcher| !matches!(watcher.try_send(screen.clone()), Err(TrySendError::Disconnected(_))));
        if self.screens.len() == SCREENS_MAX {
            self.screens.pop_front();
        }
        self.screens.push_back(screen);
    }

    pub(super) fn screens(&self) -> Vec<Screen> {
        self.screens.iter().cloned().collect()
    }

    /// The display goes dark: what was pressed by hand and not used is void.
    pub(super) fn close(&mut self) {
        self.open = None;
        self.matrix = None;
    }

    /// The next planned press; asked for once per acknowledged screen and plan.
    pub(super) fn plan(&mut self) -> Press {
        self.replanned = false;
        self.script.pop_front().unwrap_or(self.usual)
    }

    /// The press to act on now, if the screen's first plan was overtaken: by hand, or by another
    /// plan.
    pub(super) fn overtaken(&mut self) -> Option<Press> {
        match self.pressed() {
            Some(press) => Some(press),
            None => self.replanned.then(|| self.plan()),
        }
    }

    /// What was pressed by hand on the open screen.
    pub(super) fn pressed(&mut self) -> Option<Press> {
        self.open.as_mut().and_then(|(_, pressed)| pressed.take())
    }

    /// The grid that a test asked for, once.
    pub(super) fn take_next_matrix(&mut self) -> Option<String> {
        self.next_matrix.take()
    }

    pub(super) fn show_matrix(&mut self, matrix: &str) {
        let rows = [6..9, 3..6, 0..3].map(|row| matrix[row].to_owned());
        let lines = std::iter::once("Enter PIN".to_owned()).chain(rows).collect();
        self.show(Awaits::Pin, lines);
        self.matrix = Some(matrix.to_owned());
    }
}

/// A handle on the person at the device. Until told otherwise the officer is absent.
#[derive(Debug, Clone)]
pub struct Officer {
    pub(super) shared: Arc<Shared>,
}

impl Officer {
    /// Confirms every screen from now on, this one included; forgets the script.
    pub fn confirm_all(&self) {
        self.plan([], Press::Confirm);
    }

    /// Does nothing from now on; forgets the script. Presses by hand still count.
    pub fn absent(&self) {
        self.plan([], Press::Never);
    }

    /// Does these, one per screen, and then what was usual before: nothing, or confirming after
    /// [`Officer::confirm_all`].
    pub fn script(&self, presses: impl IntoIterator<Item = Press>) {
        let usual = self.shared.lock().desk.usual;
        self.plan(presses, usual);
    }

    /// Confirms `step - 1` screens and rejects the one after them; steps count from 1.
    pub fn reject_at(&self, step: usize) {
        let confirms = std::iter::repeat_n(Press::Confirm, step.saturating_sub(1));
        self.script(confirms.chain([Press::Reject]));
    }

    /// Presses by hand. `false` when no screen waits for a button: the press is lost, as on a
    /// dark display.
    pub fn press(&self, press: Press) -> bool {
        let mut state = self.shared.lock();
        let Some((_, pressed)) = state.desk.open.as_mut() else {
            return false;
        };
        *pressed = Some(press);
        drop(state);
        self.shared.wake();
        true
    }

    /// Presses the right button by hand; see [`Officer::press`].
    pub fn confirm(&self) -> bool {
        self.press(Press::Confirm)
    }

    /// Presses the left button by hand; see [`Officer::press`].
    pub fn reject(&self) -> bool {
        self.press(Press::Reject)
    }

    /// The screen that waits for a button now.
    #[must_use]
    pub fn looks_at(&self) -> Option<Screen> {
        let state = self.shared.lock();
        let (number, _) = state.desk.open?;
        state.desk.screens.iter().rev().find(|screen| screen.number == number).cloned()
    }

    /// Reads the PIN grid on the display: where each digit of `pin` is, numbered like a keypad
    /// (7 8 9 / 4 5 6 / 1 2 3). This is what the host must send. `None` when no grid is shown
    /// or a character is no digit from 1 to 9.
    #[must_use]
    pub fn positions_of(&self, pin: &str) -> Option<String> {
        let state = self.shared.lock();
        let matrix = state.desk.matrix.as_ref()?;
        pin.chars().map(|digit| matrix.find(digit).and_then(|place| char::from_digit(u32::try_from(place).ok()? + 1, 10))).collect()
    }

    /// The next PIN grid is this one: the digits at positions 1 to 9. For replaying transcripts.
    ///
    /// # Panics
    /// When it is not a permutation of 1 to 9.
    pub fn next_pin_matrix(&self, digits: &str) {
        let mut sorted = digits.as_bytes().to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, b"123456789", "a PIN grid has each digit once");
        self.shared.lock().desk.next_matrix = Some(digits.to_owned());
    }

    /// Tells of each screen from now on, when it is shown. The demo prints them and presses. Who
    /// stays a thousand screens behind misses some.
    #[must_use]
    pub fn watch(&self) -> Receiver<Screen> {
        let (watcher, watched) = mpsc::sync_channel(UNREAD_MAX);
        self.shared.lock().desk.watchers.push(watcher);
        watched
    }

    fn plan(&self, presses: impl IntoIterator<Item = Press>, usual: Press) {
        let mut state = self.shared.lock();
        state.desk.script = presses.into_iter().collect();
        state.desk.usual = usual;
        state.desk.replanned = true;
        drop(state);
        self.shared.wake();
    }
}
