//! The person at the device: shows what it waits for, and passes on what is typed.

use std::future::Future;

use zeroize::Zeroizing;

use super::super::console::say;
use crate::signing::{Device, DeviceAddress, DeviceError, DeviceLimits, Input, Passphrase, PinPositions, Progress};

/// A device with a person in front of it.
#[derive(Debug)]
pub(in crate::cli) struct Desk {
    device: Device,
}

impl Desk {
    pub(in crate::cli) async fn open(address: DeviceAddress) -> Result<Self, DeviceError> {
        Ok(Self { device: Device::open(address, DeviceLimits::default()).await? })
    }

    pub(in crate::cli) fn device(&self) -> &Device {
        &self.device
    }

    /// Waits for the device's work and says meanwhile what it wants from whom.
    pub(in crate::cli) async fn attend<T>(&self, work: impl Future<Output = Result<T, DeviceError>>) -> Result<T, DeviceError> {
        let mut progress = self.device.progress();
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                changed = progress.changed() => {
                    if changed.is_err() {
                        return work.await;
                    }
                    let seen = *progress.borrow_and_update();
                    self.react(seen).await;
                }
            }
        }
    }

    async fn react(&self, progress: Progress) {
        match progress {
            Progress::Idle | Progress::Connecting | Progress::Working => {}
            Progress::Waiting { step, .. } => say(format!("  step {step}: look at the device, compare, press")),
            Progress::WaitingPin { failures } => {
                if failures > 0 {
                    say(format!("  {failures} wrong PINs in a row; the 16th wipes the device"));
                }
                say("  the device shows nine digits; type where those of your PIN are:\n    7 8 9\n    4 5 6\n    1 2 3");
                self.ask("  PIN positions: ", |typed| PinPositions::new(typed).map(Input::Pin)).await;
            }
            Progress::WaitingPassphrase => {
                self.ask("  passphrase (empty for the standard wallet): ", |typed| Passphrase::new(typed).map(Input::Passphrase)).await;
            }
        }
    }

    /// Reads without echo until the input can be used; a closed terminal cancels the prompt.
    async fn ask<F>(&self, prompt: &'static str, read: F)
    where
        F: Fn(Zeroizing<String>) -> Result<Input, crate::signing::InputError>,
    {
        loop {
            let typed = tokio::task::spawn_blocking(move || rpassword::prompt_password(prompt).map(Zeroizing::new)).await;
            let Ok(Ok(typed)) = typed else {
                say("  no terminal to type at; cancelled");
                self.device.cancel();
                return;
            };
            match read(typed).and_then(|input| self.device.answer(input)) {
                Ok(()) => return,
                Err(crate::signing::InputError::NotAsked) => return,
                Err(error) => say(format!("  {error}")),
            }
        }
    }
}
