//! A Trezor One made of software, as far as its wire goes: protocol v1 over loopback UDP.
//!
//! For tests and `amanatd demo`. It is the one place in the project with a mnemonic, it says
//! `SIMULATOR` in its Features, and it is never part of a release. It shares no code with the
//! signing room, so that neither can hide the other's mistakes: own framing, own RLP, own texts.
//!
//! What it does was observed on firmware 1.14.1 or read in the vendor's code; the texts on its
//! screens are its own. Deliberately absent: key stretching that takes seconds, locking by itself
//! after a while, a debug port, and every coin but Ethereum's kind.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! use amanatd::devkit::trezor::{SimulatedTrezor, SimulatorOptions};
//!
//! let trezor = SimulatedTrezor::start(SimulatorOptions::default())?;
//! trezor.officer().confirm_all();
//! let endpoint = trezor.endpoint();
//! # Ok(())
//! # }
//! ```

mod definition;
mod device;
mod dice;
mod ethereum;
mod fault;
mod frame;
mod message;
mod network;
mod officer;
mod path;
mod prompt;
mod rlp;
mod screen;
mod session;
mod shared;
mod signing;
mod transaction;
mod wallet;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use definition::{DATA_VERSION_MIN, Definition};
pub use fault::Fault;
pub use message::button;
pub use officer::{Awaits, Officer, Press, Screen};

use device::Device;
use dice::Dice;
use shared::Shared;
use wire::{Event, Wire};

/// The wallet of the vendor's tests. Public: never send money to it.
pub const MNEMONIC: &str = "all all all all all all all all all all all all";

/// What the device does with a key path outside the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// Refuses.
    Strict,
    /// Asks, with a warning of its own. Temporary: the next power cycle makes it strict.
    Prompt,
}

/// A firmware version. It decides what is understood: EIP-1559 from 1.10.4, definitions from
/// 1.13.0, coin type 60 on every network from 1.14.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Firmware {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

/// What device to simulate.
#[derive(Debug, Clone)]
pub struct SimulatorOptions {
    /// The UDP port on 127.0.0.1; 0 takes any.
    pub port: u16,
    /// The words of the wallet.
    pub mnemonic: String,
    /// `false` is a device fresh from the factory, without a wallet.
    pub initialized: bool,
    /// Asks for a passphrase once per session.
    pub passphrase_protection: bool,
    /// Digits from 1 to 9. The device starts locked when there is one.
    pub pin: Option<String>,
    /// What the first wrong PIN costs in time; it doubles with each one. A second on the real
    /// device, nothing here unless a test is about it.
    pub pin_wait: Duration,
    /// What it does with unusual key paths.
    pub safety: Safety,
    /// The version it reports and behaves like.
    pub firmware: Firmware,
    /// Who signed the firmware; `SatoshiLabs` on a real one.
    pub fw_vendor: String,
    /// Reports to be in bootloader mode.
    pub bootloader_mode: bool,
    /// Capability numbers; 7 is Ethereum.
    pub capabilities: Vec<i32>,
    /// What the device calls itself until it is wiped.
    pub device_id: String,
    /// What the owner calls it.
    pub label: String,
    /// Where session ids and PIN grids come from; `None` is different each time.
    pub seed: Option<u64>,
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        Self {
            port: 0,
            mnemonic: MNEMONIC.to_owned(),
            initialized: true,
            passphrase_protection: false,
            pin: None,
            pin_wait: Duration::ZERO,
            safety: Safety::Strict,
            firmware: Firmware { major: 1, minor: 14, patch: 1 },
            fw_vendor: "SIMULATOR".to_owned(),
            bootloader_mode: false,
            capabilities: vec![1, 2, 5, 7, 10, 12, 14],
            device_id: "51D0000000000000AA000001".to_owned(),
            label: "Simulated Trezor".to_owned(),
            seed: None,
        }
    }
}

/// A running simulator. Dropping it ends its threads and closes its socket.
#[derive(Debug)]
pub struct SimulatedTrezor {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl SimulatedTrezor {
    /// Plugs the device in.
    ///
    /// # Errors
    /// The port is taken, or the options describe no device: words that are no mnemonic, a PIN
    /// that cannot be typed.
    pub fn start(options: SimulatorOptions) -> io::Result<Self> {
        if !wallet::is_mnemonic(&options.mnemonic) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "these words are no BIP-39 mnemonic"));
        }
        if let Some(pin) = &options.pin
            && (pin.is_empty() || !pin.chars().all(|digit| matches!(digit, '1'..='9')))
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a PIN consists of digits from 1 to 9"));
        }
        let socket = wire::bind(options.port)?;
        let reader = socket.try_clone()?;
        let address = socket.local_addr()?;
        let dice = Dice::new(options.seed)?;
        let (events, heard) = mpsc::sync_channel(wire::EVENTS_MAX);
        let shared = Arc::new(Shared::new(events.clone()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut simulated = Self { address, shared: Arc::clone(&shared), stop: Arc::clone(&stop), threads: Vec::new() };
        let read = move || wire::read_datagrams(&reader, &events, &stop);
        simulated.threads.push(thread::Builder::new().name("trezor-socket".to_owned()).spawn(read)?);
        let wire = Wire::new(socket, heard, Arc::clone(&shared));
        let device = Device::new(options, wire, shared, dice);
        simulated.threads.push(thread::Builder::new().name("trezor-device".to_owned()).spawn(|| device.run())?);
        Ok(simulated)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as the daemon is told it: `udp:127.0.0.1:<port>`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("udp:{}", self.address)
    }

    /// The person at the device.
    #[must_use]
    pub fn officer(&self) -> Officer {
        Officer { shared: Arc::clone(&self.shared) }
    }

    /// What was shown so far, in order.
    #[must_use]
    pub fn screens(&self) -> Vec<Screen> {
        self.shared.lock().desk.screens()
    }

    /// Makes something go wrong, now or at its moment.
    pub fn inject(&self, fault: Fault) {
        self.shared.lock().faults.add(fault);
    }

    /// Takes back the faults that have not struck, and those that last. What a fault has changed
    /// about the device stays changed.
    pub fn mend(&self) {
        self.shared.lock().faults.clear();
    }

    /// Pulls the plug: nothing is heard and nothing is said until [`SimulatedTrezor::plug_in`].
    pub fn unplug(&self) {
        self.shared.lock().unplugged = true;
    }

    /// Plugs the device in again, also after a fault made it vanish. It has forgotten its
    /// sessions and, with a PIN, is locked. What was sent to it before is lost for good.
    pub fn plug_in(&self) {
        // The signal takes the way of the packets, and so comes after those sent before it.
        let signalled = wire::bell().and_then(|bell| {
            self.shared.lock().plug = Some(bell.local_addr()?);
            bell.send_to(&[], self.address)
        });
        if signalled.is_err() {
            self.shared.lock().unplugged = false;
            self.shared.tell(Event::PowerCycle);
        }
    }
}

impl Drop for SimulatedTrezor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.shared.tell(Event::Stop);
        // The reader looks at `stop` after each datagram: an empty one spares us its timeout.
        if let Ok(bell) = wire::bell() {
            let _ = bell.send_to(&[], self.address);
        }
        for thread in self.threads.drain(..) {
            // A panic in the thread was printed there; there is nothing to add to it here.
            let _ = thread.join();
        }
    }
}
