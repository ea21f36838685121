//! A Trezor on USB: interface 0, interrupt transfers of 64 bytes, OUT 0x01 and IN 0x81.
//!
//! libusb is opened afresh for each connection, and its absence (no bus in a container, no library)
//! is a state to report. The client library's own search is not used: it panics where libusb cannot
//! start, and it asks a UDP port of this machine whether it is a device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rusb::{Context, Device, DeviceHandle, UsbContext as _};

use super::error::DeviceError;
use super::link::{PACKET_LEN, Packet, PortError};

const TREZOR_ONE: (u16, u16) = (0x534c, 0x0001);
/// All newer models share this one.
const TREZOR: (u16, u16) = (0x1209, 0x53c1);
const BOOTLOADER: (u16, u16) = (0x1209, 0x53c0);

const INTERFACE: u8 = 0;
const OUT: u8 = 0x01;
const IN: u8 = 0x81;

/// Where a device is plugged in. Not an identity: only its account's xpub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsbPlace {
    pub bus: u8,
    pub address: u8,
}

/// The Trezors that are plugged in now.
pub fn usb_devices() -> Result<Vec<UsbPlace>, DeviceError> {
    let found = guarded(|| Ok(trezors(&Context::new()?)?.iter().map(place).collect()));
    found.map_err(|fault| match fault {
        PortError::Unavailable(reason) => DeviceError::UsbUnavailable { reason },
        PortError::NoPermission => DeviceError::NoPermission,
        _ => DeviceError::NotFound,
    })
}

pub(super) struct UsbPort {
    handle: DeviceHandle<Context>,
}

impl UsbPort {
    /// Opens the device at this place, or the only one there is.
    pub(super) fn open(at: Option<UsbPlace>) -> Result<Self, PortError> {
        let claimed = guarded(|| {
            let mut found = trezors(&Context::new()?)?;
            found.retain(|device| at.is_none_or(|at| place(device) == at));
            let [device] = found.as_slice() else {
                return Ok(Err(found.len()));
            };
            let handle = device.open()?;
            handle.claim_interface(INTERFACE)?;
            Ok(Ok(Self { handle }))
        });
        match claimed? {
            Ok(port) => Ok(port),
            Err(0) => Err(PortError::NotFound),
            Err(count) => Err(PortError::Several(count)),
        }
    }

    pub(super) fn write(&mut self, packet: &[u8], limit: Duration) -> Result<(), PortError> {
        match self.handle.write_interrupt(OUT, packet, limit) {
            Ok(PACKET_LEN) => Ok(()),
            Ok(_) | Err(_) => Err(PortError::Gone),
        }
    }

    pub(super) fn read(&mut self, slice: Duration) -> Result<Option<Packet>, PortError> {
        let mut packet = [0; PACKET_LEN];
        match self.handle.read_interrupt(IN, &mut packet, slice) {
            Ok(PACKET_LEN) => Ok(Some(packet)),
            Err(rusb::Error::Timeout | rusb::Error::Interrupted) => Ok(None),
            Ok(_) | Err(_) => Err(PortError::Gone),
        }
    }
}

fn place(device: &Device<Context>) -> UsbPlace {
    UsbPlace { bus: device.bus_number(), address: device.address() }
}

fn trezors(context: &Context) -> rusb::Result<Vec<Device<Context>>> {
    let known = |device: &Device<Context>| {
        let id = device.device_descriptor().map(|descriptor| (descriptor.vendor_id(), descriptor.product_id()));
        matches!(id, Ok(TREZOR_ONE | TREZOR | BOOTLOADER))
    };
    Ok(context.devices()?.iter().filter(known).collect())
}

/// Names libusb's errors, and turns a panic inside the binding into one: the station must outlive
/// a machine without USB.
fn guarded<T>(work: impl FnOnce() -> rusb::Result<T>) -> Result<T, PortError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(rusb::Error::Busy)) => Err(PortError::Held),
        Ok(Err(rusb::Error::Access)) => Err(PortError::NoPermission),
        Ok(Err(rusb::Error::NoDevice)) => Err(PortError::NotFound),
        Ok(Err(error)) => Err(PortError::Unavailable(error.to_string())),
        Err(_) => Err(PortError::Unavailable("libusb failed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_usb_is_an_answer_and_not_a_crash() {
        match usb_devices() {
            Ok(devices) => assert!(devices.len() < 128),
            Err(error) => assert!(matches!(error, DeviceError::UsbUnavailable { .. } | DeviceError::NoPermission), "{error}"),
        }
        let nowhere = UsbPlace { bus: 255, address: 255 };
        assert!(matches!(UsbPort::open(Some(nowhere)).err(), Some(PortError::NotFound | PortError::Unavailable(_))));
        assert_eq!(guarded(|| -> rusb::Result<()> { Err(rusb::Error::Busy) }), Err(PortError::Held));
        assert_eq!(guarded(|| -> rusb::Result<()> { Err(rusb::Error::Access) }), Err(PortError::NoPermission));
    }
}
