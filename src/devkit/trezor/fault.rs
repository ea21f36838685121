//! What can go wrong with a device, on demand.
//!
//! Faults are injected by tests from outside the wire. Each says when it strikes and whether it
//! lasts; a lasting one ends with [`super::SimulatedTrezor::mend`].

use std::time::Duration;

use super::Firmware;

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The device sends this many more packets and is gone, until it is plugged in again. Zero
    /// unplugs it at once.
    VanishAfterPackets(u32),
    /// The device is gone at the first packet of the next data chunk.
    VanishMidChunk,
    /// The next answer is sent so much later. Other messages are heard meanwhile, and their
    /// answers may come first.
    ReplyLate(Duration),
    /// The device locks itself after the last button of the next transaction with more than one
    /// chunk: the chunk is answered with Failure 9.
    LockWhileSigning,
    /// Another device was plugged in: other words, no session of the old one.
    OtherSeed(String),
    /// The same wallet in another device, or in the same one after a wipe.
    OtherDeviceId(String),
    /// The officer meant another passphrase than the one that was typed. Ends all sessions.
    OtherPassphrase(String),
    /// All sessions are forgotten, as after ten others.
    SessionsEvicted,
    /// The device turns out to run this firmware.
    OldFirmware(Firmware),
    /// The next signature carries the wrong parity: it recovers to a stranger.
    FlippedV,
    /// The next signature has s above n/2 and a parity to match: it still recovers.
    HighS,
    /// The next signature has an r of 31 bytes.
    ShortR,
    /// The next transaction is signed with its nonce plus one.
    OtherNonce,
    /// The next transaction's v speaks of the next chain (legacy), or is folded with the chain
    /// id as legacy does (EIP-1559).
    OtherChainV,
    /// The next transaction asks for a data chunk of one byte more than is left.
    ChunkTooLarge,
    /// The next transaction asks for data without end.
    ChunkWithoutEnd,
    /// The next request is answered with a message of this id and no payload.
    UnknownMessage(u16),
    /// The next request is answered with Failure 15.
    Busy,
    /// Every message is answered with Failure 17, as by a device that speaks another protocol.
    /// Lasts.
    InvalidProtocol,
    /// Answers go to whoever sent the last datagram, as on the device, where a ping from another
    /// socket steals the next answer. Lasts. Without it answers go to the requester.
    ReplyToLastSender,
}

/// The faults that wait for their moment.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Is it there? For faults that last.
    pub(super) fn has(&self, fault: &Fault) -> bool {
        self.0.contains(fault)
    }

    /// Takes the oldest fault that `choose` has a use for.
    pub(super) fn take<T>(&mut self, choose: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let (place, chosen) = self.0.iter().enumerate().find_map(|(place, fault)| choose(fault).map(|chosen| (place, chosen)))?;
        self.0.remove(place);
        Some(chosen)
    }

    /// Takes this very fault, if it is there.
    pub(super) fn strike(&mut self, fault: &Fault) -> bool {
        self.take(|each| (each == fault).then_some(())).is_some()
    }

    /// The device sends a packet: is it gone before that?
    pub(super) fn vanishes_before_packet(&mut self) -> bool {
        for fault in &mut self.0 {
            if let Fault::VanishAfterPackets(left) = fault {
                if *left > 0 {
                    *left -= 1;
                    return false;
                }
                return self.strike(&Fault::VanishAfterPackets(0));
            }
        }
        false
    }
}
