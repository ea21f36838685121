//! Sessions: ten are kept, the least recently used one makes room.
//!
//! A session remembers the seed that a passphrase opened, so that the passphrase is asked for
//! once. LockDevice does not end one.

use super::wallet::Seed;

/// How many sessions the device keeps.
const SESSIONS_MAX: usize = 10;

pub(super) type SessionId = [u8; 32];

#[derive(Debug)]
struct Session {
    id: SessionId,
    seed: Option<Seed>,
}

/// Most recently used first. The one in use is the first, while `active`.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    known: Vec<Session>,
    active: bool,
}

impl Sessions {
    /// Goes on with the session of this id; `false` when there is none.
    pub(super) fn resume(&mut self, id: &[u8]) -> bool {
        let Some(place) = self.known.iter().position(|session| session.id == id) else {
            return false;
        };
        let session = self.known.remove(place);
        self.known.insert(0, session);
        self.active = true;
        true
    }

    /// Begins a session and forgets the one that was longest unused.
    pub(super) fn begin(&mut self, id: SessionId) {
        self.known.insert(0, Session { id, seed: None });
        self.known.truncate(SESSIONS_MAX);
        self.active = true;
    }

    /// Forgets the session in use.
    pub(super) fn end(&mut self) {
        if self.active {
            self.known.remove(0);
        }
        self.active = false;
    }

    pub(super) fn forget_all(&mut self) {
        *self = Self::default();
    }

    /// The id of the session in use.
    pub(super) fn id(&self) -> Option<&SessionId> {
        self.in_use().map(|session| &session.id)
    }

    /// The seed that the session in use has opened.
    pub(super) fn seed(&self) -> Option<&Seed> {
        self.in_use()?.seed.as_ref()
    }

    pub(super) fn remember(&mut self, seed: Seed) {
        if self.active
            && let Some(session) = self.known.first_mut()
        {
            session.seed = Some(seed);
        }
    }

    fn in_use(&self) -> Option<&Session> {
        self.known.first().filter(|_| self.active)
    }
}
