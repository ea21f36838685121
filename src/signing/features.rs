//! What a device says about itself, and whether that is enough to sign with it.
//!
//! Pure. Nothing here proves identity: a device's id changes when it is wiped and differs on a
//! backup device. Only the account's xpub tells one wallet from another.

use trezor_client::protos::Features;

use super::error::{DeviceError, FirmwareVersion};

/// Trezor One, and all newer models: what signs EIP-1559 on every network's coin type 60 path.
const FIRMWARE_MIN_ONE: FirmwareVersion = FirmwareVersion(1, 14, 1);
const FIRMWARE_MIN_NEWER: FirmwareVersion = FirmwareVersion(2, 9, 1);
const CAPABILITY_ETHEREUM: i32 = 7;
const SAFETY_STRICT: i32 = 0;
/// The simulated device calls itself that, so that no release takes it for a real one.
const SIMULATOR: &str = "SIMULATOR";
const VENDOR: &str = "SatoshiLabs";

/// A device that passed the checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFeatures {
    /// "1" for a Trezor One, "T", "Safe 3", …
    pub model: String,
    pub firmware: FirmwareVersion,
    /// The name its owner gave it; shown by some devices only while unlocked.
    pub label: Option<String>,
    /// A hint to tell devices apart, never an identity.
    pub device_id: Option<String>,
    pub pin_protected: bool,
    pub passphrase_protected: bool,
    /// Unknown on some devices until a PIN was asked for.
    pub unlocked: Option<bool>,
    /// Refuses unusual paths and calls.
    pub strict_checks: bool,
}

impl DeviceFeatures {
    pub(super) fn check(features: &Features) -> Result<Self, DeviceError> {
        if features.bootloader_mode() {
            return Err(DeviceError::Bootloader);
        }
        let model = features.model().to_owned();
        // A Safe 7 answers this only in part, and nothing that follows.
        if model == "Safe 7" || features.internal_model() == "T3W1" {
            return Err(DeviceError::UnsupportedModel);
        }
        check_vendor(&model, features.fw_vendor())?;
        let firmware = FirmwareVersion(features.major_version(), features.minor_version(), features.patch_version());
        let needed = if model == "1" { FIRMWARE_MIN_ONE } else { FIRMWARE_MIN_NEWER };
        if firmware < needed {
            return Err(DeviceError::FirmwareTooOld { found: firmware, needed });
        }
        if !features.initialized() {
            return Err(DeviceError::NotInitialized);
        }
        if !features.capabilities.iter().any(|capability| capability.value() == CAPABILITY_ETHEREUM) {
            return Err(DeviceError::NoEthereum);
        }
        Ok(Self {
            model,
            firmware,
            label: features.label.clone().filter(|label| !label.is_empty()),
            device_id: features.device_id.clone(),
            pin_protected: features.pin_protection(),
            passphrase_protected: features.passphrase_protection(),
            unlocked: features.unlocked,
            strict_checks: features.safety_checks.is_none_or(|level| level.value() == SAFETY_STRICT),
        })
    }

    /// What an officer should put right, though signing works.
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if !self.pin_protected {
            warnings.push("the device has no PIN: whoever holds it can sign");
        }
        if !self.strict_checks {
            warnings.push("the device's safety checks are off: it also signs for unusual paths");
        }
        warnings
    }
}

fn check_vendor(model: &str, vendor: &str) -> Result<(), DeviceError> {
    if vendor == SIMULATOR {
        return if cfg!(feature = "devkit") { Ok(()) } else { Err(DeviceError::Simulator) };
    }
    // Only a Trezor One's word for its vendor is certain; others must at least not warn.
    let foreign = if model == "1" { vendor != VENDOR } else { vendor.to_ascii_uppercase().contains("UNSAFE") };
    if foreign { Err(DeviceError::ForeignFirmware { vendor: vendor.chars().take(40).collect() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use trezor_client::protos::SafetyCheckLevel;
    use trezor_client::protos::features::Capability;

    use super::*;

    fn trezor_one() -> Features {
        let mut features = Features::new();
        features.set_model("1".to_owned());
        features.set_fw_vendor(VENDOR.to_owned());
        features.set_major_version(1);
        features.set_minor_version(14);
        features.set_patch_version(1);
        features.set_initialized(true);
        features.set_pin_protection(true);
        features.capabilities.push(Capability::Capability_Ethereum.into());
        features.set_safety_checks(SafetyCheckLevel::Strict);
        features
    }

    fn outcome(edit: impl FnOnce(&mut Features)) -> String {
        let mut features = trezor_one();
        edit(&mut features);
        DeviceFeatures::check(&features).map_or_else(|error| error.to_string(), |_| "good".to_owned())
    }

    #[test]
    fn each_unfit_device_is_refused_by_its_reason() {
        assert_eq!(outcome(|_| {}), "good");
        assert!(outcome(|f| f.set_bootloader_mode(true)).contains("bootloader"));
        assert!(outcome(|f| f.set_initialized(false)).contains("no seed"));
        assert!(outcome(|f| f.capabilities.clear()).contains("universal firmware"));
        assert!(outcome(|f| f.set_minor_version(13)).contains("1.13.1 is too old; install 1.14.1"));
        assert!(outcome(|f| f.set_patch_version(0)).contains("1.14.0"));
        assert!(outcome(|f| f.set_fw_vendor("UNSAFE, DO NOT USE!".to_owned())).contains("do not use this device"));
        assert!(outcome(|f| f.set_model("Safe 7".to_owned())).contains("Safe 7"));
        assert!(outcome(|f| f.set_internal_model("T3W1".to_owned())).contains("not supported"));
        let newer = |minor| {
            outcome(move |f| {
                f.set_model("Safe 3".to_owned());
                f.set_major_version(2);
                f.set_minor_version(minor);
            })
        };
        assert_eq!(newer(9), "good");
        assert!(newer(8).contains("install 2.9.1"));
    }

    #[test]
    fn the_simulator_is_refused_outside_devkit_builds() {
        let simulator = outcome(|f| f.set_fw_vendor(SIMULATOR.to_owned()));
        assert_eq!(simulator == "good", cfg!(feature = "devkit"), "{simulator}");
    }

    #[test]
    fn a_careless_device_works_with_warnings() {
        let mut features = trezor_one();
        assert!(DeviceFeatures::check(&features).unwrap().warnings().is_empty());
        features.set_pin_protection(false);
        features.set_safety_checks(SafetyCheckLevel::PromptTemporarily);
        assert_eq!(DeviceFeatures::check(&features).unwrap().warnings().len(), 2);
    }
}
