//! What the test's side and the device's thread have in common: the officer's desk, the faults,
//! and a doorbell.

use std::net::SocketAddr;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::fault::Faults;
use super::officer::Desk;
use super::wire::Event;

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    events: SyncSender<Event>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) desk: Desk,
    pub(super) faults: Faults,
    /// No power: nothing is heard and nothing is said.
    pub(super) unplugged: bool,
    /// An empty datagram from here is the plug going in.
    pub(super) plug: Option<SocketAddr>,
}

impl Shared {
    pub(super) fn new(events: SyncSender<Event>) -> Self {
        Self { state: Mutex::default(), events }
    }

    /// A panic elsewhere leaves nothing half-done in here, so a poisoned lock is as good as new.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the device's thread look at the desk again. A full queue needs no bell: the thread
    /// looks after each event.
    pub(super) fn wake(&self) {
        let _ = self.events.try_send(Event::Wake);
    }

    /// Hands over an event that must arrive. Nobody listens any more once the thread has ended,
    /// and then there is nothing to do either.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}
