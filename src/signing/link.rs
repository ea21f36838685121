//! Packets of 64 bytes to and from a device, with a deadline and a way to stop.
//!
//! The client library's own transports wait for ever and cannot be interrupted. Here a read is cut
//! into short slices; between them the deadline and the cancel flag are looked at. To stop means to
//! send `Cancel` and to wait a little for the device's word that it did: without it the device goes
//! on showing its prompt and is deaf to everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use trezor_client::transport::error::Error as TransportError;
use trezor_client::transport::protocol::Link;
use zeroize::Zeroize as _;

#[cfg(feature = "devkit")]
use super::udp::UdpPort;
use super::usb::UsbPort;

pub(super) const PACKET_LEN: usize = 64;
pub(super) type Packet = [u8; PACKET_LEN];

/// Payload bytes of a message's first packet and of each further one.
const FIRST_PAYLOAD: usize = 55;
const NEXT_PAYLOAD: usize = 63;
/// No answer we ask for is longer; a device that announces more is not one.
const MESSAGE_LEN_MAX: usize = 16 * 1024;
/// `Cancel`, without fields.
const CANCEL_ID: u16 = 20;

/// How long each step may take. The defaults suit a person at a real device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Writing one packet.
    pub write: Duration,
    /// Initialize and other answers that need neither seed nor person.
    pub answer: Duration,
    /// The first use of the seed: a real device stretches keys for seconds.
    pub seed: Duration,
    /// The officer typing PIN or passphrase here.
    pub input: Duration,
    /// The answer to a PIN, on top of the pause the device makes after wrong ones.
    pub pin_answer: Duration,
    /// One page on the device.
    pub button: Duration,
    /// The device's word that it stopped, after which the line is given up.
    pub cancel: Duration,
    /// How often deadline and cancel flag are looked at.
    pub slice: Duration,
}

impl Default for DeviceLimits {
    fn default() -> Self {
        Self {
            write: Duration::from_secs(1),
            answer: Duration::from_secs(5),
            seed: Duration::from_secs(30),
            input: Duration::from_secs(120),
            pin_answer: Duration::from_secs(30),
            button: Duration::from_secs(300),
            cancel: Duration::from_secs(5),
            slice: Duration::from_millis(100),
        }
    }
}

/// Why a way to a device cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PortError {
    NotFound,
    Several(usize),
    Held,
    NoPermission,
    Unavailable(String),
    /// It was there and is not any more, or talks in other lengths.
    Gone,
}

/// The ways to reach a device.
pub(super) enum Port {
    Usb(UsbPort),
    #[cfg(feature = "devkit")]
    Udp(UdpPort),
}

impl Port {
    fn write(&mut self, packet: &[u8], limit: Duration) -> Result<(), PortError> {
        match self {
            Self::Usb(port) => port.write(packet, limit),
            #[cfg(feature = "devkit")]
            Self::Udp(port) => port.write(packet, limit),
        }
    }

    /// One packet, or nothing within the slice.
    fn read(&mut self, slice: Duration) -> Result<Option<Packet>, PortError> {
        match self {
            Self::Usb(port) => port.read(slice),
            #[cfg(feature = "devkit")]
            Self::Udp(port) => port.read(slice),
        }
    }
}

/// Jobs are numbered; cancelling means all that were submitted until now.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) submitted: AtomicU64,
    pub(super) cancelled_through: AtomicU64,
}

/// Whether one job is still wanted.
#[derive(Clone, Debug)]
pub(super) struct CancelFlag {
    pub(super) number: u64,
    pub(super) jobs: Arc<Jobs>,
    /// Set when the caller stopped waiting for this job.
    pub(super) abandoned: Arc<AtomicBool>,
}

impl CancelFlag {
    pub(super) fn is_set(&self) -> bool {
        self.abandoned.load(Ordering::Acquire) || self.number <= self.jobs.cancelled_through.load(Ordering::Acquire)
    }
}

/// Why a read was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    TimedOut,
}

pub(super) struct DeviceLink {
    port: Port,
    limits: DeviceLimits,
    cancel: Option<CancelFlag>,
    deadline: Instant,
    stopped: Option<Stop>,
    /// Payload bytes of the message being read that are still to come.
    pending: usize,
    /// What went wrong below, since the library's error type has no place for it.
    fault: Option<PortError>,
}

impl DeviceLink {
    pub(super) fn new(port: Port, limits: DeviceLimits) -> Self {
        Self { port, limits, cancel: None, deadline: Instant::now(), stopped: None, pending: 0, fault: None }
    }

    /// From here on, reads belong to this job.
    pub(super) fn serve(&mut self, cancel: Option<CancelFlag>) {
        self.cancel = cancel;
        self.stopped = None;
    }

    /// The next message must be complete by then.
    pub(super) fn arm(&mut self, limit: Duration) {
        self.deadline = Instant::now() + limit;
        self.pending = 0;
    }

    pub(super) fn stopped(&self) -> Option<Stop> {
        self.stopped
    }

    pub(super) fn take_fault(&mut self) -> Option<PortError> {
        self.fault.take()
    }

    /// Reads whatever an earlier conversation left behind, until the line is quiet.
    pub(super) fn drain(&mut self) -> Result<(), PortError> {
        const STALE_MAX: usize = 512;
        for _ in 0..STALE_MAX {
            if self.port.read(self.limits.slice)?.is_none() {
                return Ok(());
            }
        }
        Err(PortError::Gone)
    }

    /// Asks the device to leave its prompt, and gives it a moment to say that it did.
    pub(super) fn stop(&mut self, reason: Stop) -> Result<(), TransportError> {
        self.stopped = Some(reason);
        self.deadline = Instant::now() + self.limits.cancel;
        let [high, low] = CANCEL_ID.to_be_bytes();
        let mut packet = [0; PACKET_LEN];
        packet[..5].copy_from_slice(&[b'?', b'#', b'#', high, low]);
        self.write_packet(&packet)
    }

    pub(super) fn write_packet(&mut self, packet: &[u8]) -> Result<(), TransportError> {
        self.port.write(packet, self.limits.write).map_err(|fault| self.failed(fault))
    }

    fn failed(&mut self, fault: PortError) -> TransportError {
        self.fault = Some(fault);
        TransportError::DeviceDisconnected
    }

    /// Checks the framing before the library does: it prints what it dislikes to standard output,
    /// and believes any length.
    fn check(&mut self, packet: &Packet) -> Result<(), TransportError> {
        if self.pending > 0 {
            self.pending = self.pending.saturating_sub(NEXT_PAYLOAD);
            return if packet[0] == b'?' { Ok(()) } else { Err(TransportError::DeviceBadMagic) };
        }
        if packet[..3] != *b"?##" {
            return Err(TransportError::DeviceBadMagic);
        }
        let length = usize::try_from(u32::from_be_bytes([packet[5], packet[6], packet[7], packet[8]])).unwrap_or(usize::MAX);
        if length > MESSAGE_LEN_MAX {
            return Err(TransportError::UnexpectedChunkSizeFromDevice(length));
        }
        self.pending = length.saturating_sub(FIRST_PAYLOAD);
        Ok(())
    }
}

impl Link for DeviceLink {
    fn write_chunk(&mut self, mut chunk: Vec<u8>) -> Result<(), TransportError> {
        let written = self.write_packet(&chunk);
        chunk.zeroize();
        written
    }

    /// Ends at the deadline at the latest: once to stop, and once more to give up.
    fn read_chunk(&mut self) -> Result<Vec<u8>, TransportError> {
        loop {
            if self.stopped.is_none() && self.cancel.as_ref().is_some_and(CancelFlag::is_set) {
                self.stop(Stop::Cancelled)?;
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                match self.stopped {
                    None => self.stop(Stop::TimedOut)?,
                    Some(_) => return Err(TransportError::DeviceReadTimeout),
                }
                continue;
            }
            // A slice of zero would wait for ever on some transports.
            let slice = left.min(self.limits.slice).max(Duration::from_millis(1));
            if let Some(packet) = self.port.read(slice).map_err(|fault| self.failed(fault))? {
                self.check(&packet)?;
                return Ok(packet.to_vec());
            }
        }
    }
}
