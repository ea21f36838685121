//! Officers: who confirm, refuse, are absent, type wrong PINs, or change their minds.

use std::time::Duration;

use amanatd::devkit::trezor::{SimulatedTrezor, SimulatorOptions};
use amanatd::signing::{Device, DeviceError, DeviceLimits, Input, InputError, Passphrase, PinPositions, Progress, Step};
use amanatd::units::Disposition;
use zeroize::Zeroizing;

use super::{account_0, hasty, open, patient, sign, signing_pages, start, until, within};

fn pin(positions: &str) -> Input {
    Input::Pin(PinPositions::new(Zeroizing::new(positions.to_owned())).unwrap())
}

async fn type_pin(device: &Device, trezor: &SimulatedTrezor, digits: &str) {
    until(device, |progress| matches!(progress, Progress::WaitingPin { .. })).await;
    let positions = trezor.officer().positions_of(digits).unwrap();
    device.answer(pin(&positions)).unwrap();
}

#[tokio::test]
async fn a_refusal_at_any_step_is_the_officers_and_final() {
    let trezor = start(SimulatorOptions::default());
    let device = open(&trezor, patient()).await;
    for step in 1..=4 {
        trezor.officer().absent();
        trezor.officer().reject_at(usize::try_from(step).unwrap());
        let before = signing_pages(&trezor);
        let error = sign(&device).await.unwrap_err();
        assert!(matches!(error, DeviceError::Refused { step: at } if at == step), "{step}: {error}");
        assert!(!error.may_have_signed());
        assert_eq!(error.disposition(), Disposition::Officer);
        assert_eq!(signing_pages(&trezor) - before, usize::try_from(step).unwrap(), "it is not asked again");
        trezor.officer().confirm_all();
        sign(&device).await.unwrap();
    }
}

#[tokio::test]
async fn progress_counts_the_pages() {
    let trezor = start(SimulatorOptions::default());
    let device = open(&trezor, patient()).await;
    let (signed, ()) = tokio::join!(sign(&device), async {
        for page in 1..=4 {
            until(&device, |progress| *progress == Progress::Waiting { step: page, code: 8 }).await;
            assert_eq!(device.answer(pin("1")), Err(InputError::NotAsked));
            assert!(trezor.officer().confirm());
        }
    });
    signed.unwrap();
    assert_eq!(*device.progress().borrow(), Progress::Idle);
}

#[tokio::test]
async fn an_absent_officer_ends_in_a_time_limit_and_an_idle_device() {
    let trezor = start(SimulatorOptions::default());
    let device = open(&trezor, hasty()).await;
    let error = sign(&device).await.unwrap_err();
    assert!(matches!(error, DeviceError::TimedOut { step: Step::Button(1), may_have_signed: false }), "{error:?}");
    assert_eq!(trezor.officer().looks_at(), None, "the prompt is gone");
    trezor.officer().confirm_all();
    sign(&device).await.unwrap();
}

#[tokio::test]
async fn cancelling_ends_the_prompt_and_only_the_jobs_until_then() {
    let trezor = start(SimulatorOptions::default());
    let device = open(&trezor, patient()).await;
    let (error, ()) = tokio::join!(sign(&device), async {
        until(&device, |progress| matches!(progress, Progress::Waiting { .. })).await;
        device.cancel();
    });
    let error = error.unwrap_err();
    assert!(matches!(error, DeviceError::Cancelled { may_have_signed: false }), "{error:?}");
    assert_eq!(trezor.officer().looks_at(), None);
    device.cancel();
    trezor.officer().confirm_all();
    sign(&device).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_its_job() {
    let trezor = start(SimulatorOptions::default());
    let device = open(&trezor, patient()).await;
    tokio::select! {
        _ = sign(&device) => panic!("nobody confirms"),
        () = until(&device, |progress| matches!(progress, Progress::Waiting { .. })) => {}
    }
    until(&device, |progress| *progress == Progress::Idle).await;
    assert_eq!(trezor.officer().looks_at(), None);
    trezor.officer().confirm_all();
    sign(&device).await.unwrap();
}

#[tokio::test]
async fn the_queue_holds_one_job() {
    let trezor = start(SimulatorOptions::default());
    let device = open(&trezor, patient()).await;
    let waiting = async {
        until(&device, |progress| matches!(progress, Progress::Waiting { .. })).await;
        let (queued, refused) = tokio::join!(within(device.features()), async {
            let refused = within(device.features()).await;
            trezor.officer().confirm_all();
            refused
        });
        queued.unwrap();
        assert!(matches!(refused.unwrap_err(), DeviceError::QueueFull));
    };
    let (signed, ()) = tokio::join!(sign(&device), waiting);
    signed.unwrap();
}

#[tokio::test]
async fn a_locked_device_asks_for_its_pin_once() {
    let trezor = start(SimulatorOptions { pin: Some("1379".to_owned()), ..SimulatorOptions::default() });
    trezor.officer().confirm_all();
    let device = open(&trezor, patient()).await;
    assert_eq!(device.answer(pin("1379")), Err(InputError::NotAsked), "not before it is asked for");
    let (signed, ()) = tokio::join!(sign(&device), type_pin(&device, &trezor, "1379"));
    signed.unwrap();
    sign(&device).await.unwrap();
}

#[tokio::test]
async fn a_wrong_pin_is_counted_and_never_sent_again() {
    let trezor = start(SimulatorOptions { pin: Some("1379".to_owned()), ..SimulatorOptions::default() });
    trezor.officer().confirm_all();
    let device = open(&trezor, patient()).await;
    for attempt in 1..=2 {
        let shown = trezor.screens().len();
        let (error, ()) = tokio::join!(sign(&device), type_pin(&device, &trezor, "2468"));
        let error = error.unwrap_err();
        assert!(matches!(error, DeviceError::PinWrong { failures } if failures == attempt), "{error}");
        assert_eq!(error.disposition(), Disposition::Officer);
        assert_eq!(trezor.screens().len(), shown + 1, "one grid per attempt");
    }
    let (signed, ()) = tokio::join!(sign(&device), async {
        until(&device, |progress| *progress == Progress::WaitingPin { failures: 2 }).await;
        type_pin(&device, &trezor, "1379").await;
    });
    signed.unwrap();
}

#[tokio::test]
async fn a_pin_or_passphrase_nobody_types_ends_in_its_limit() {
    let locked = start(SimulatorOptions { pin: Some("1379".to_owned()), ..SimulatorOptions::default() });
    let device = open(&locked, hasty()).await;
    assert!(matches!(sign(&device).await.unwrap_err(), DeviceError::TimedOut { step: Step::Pin, may_have_signed: false }));
    let (error, ()) = tokio::join!(sign(&device), async {
        until(&device, |progress| matches!(progress, Progress::WaitingPin { .. })).await;
        device.cancel();
    });
    assert!(matches!(error.unwrap_err(), DeviceError::Cancelled { may_have_signed: false }));

    let hidden = start(SimulatorOptions { passphrase_protection: true, ..SimulatorOptions::default() });
    let device = open(&hidden, hasty()).await;
    assert!(matches!(sign(&device).await.unwrap_err(), DeviceError::TimedOut { step: Step::Passphrase, may_have_signed: false }));
    assert_eq!(signing_pages(&hidden), 0);
}

#[tokio::test]
async fn a_passphrase_is_shown_and_can_be_refused() {
    let trezor = start(SimulatorOptions { passphrase_protection: true, ..SimulatorOptions::default() });
    trezor.officer().reject_at(2);
    let device = open(&trezor, patient()).await;
    let (error, ()) = tokio::join!(within(device.account_xpub(account_0().account())), async {
        until(&device, |progress| *progress == Progress::WaitingPassphrase).await;
        let typed = Passphrase::new(Zeroizing::new("x".to_owned())).unwrap();
        device.answer(Input::Passphrase(typed)).unwrap();
    });
    assert!(matches!(error.unwrap_err(), DeviceError::Refused { step: 2 }));
}

#[tokio::test]
async fn an_address_on_display_is_left_by_cancelling() {
    let trezor = start(SimulatorOptions::default());
    let device = open(&trezor, patient()).await;
    let path = "m/44'/60'/0'/0/0".parse().unwrap();
    let (error, ()) = tokio::join!(within(device.show_address(path)), async {
        until(&device, |progress| *progress == Progress::Waiting { step: 1, code: 10 }).await;
        trezor.officer().reject();
        until(&device, |progress| *progress == Progress::Waiting { step: 2, code: 10 }).await;
        device.cancel();
    });
    assert!(matches!(error.unwrap_err(), DeviceError::Cancelled { may_have_signed: false }));
    assert_eq!(trezor.officer().looks_at(), None);
}

#[tokio::test]
async fn a_prompt_another_program_left_open_is_closed() {
    let trezor = start(SimulatorOptions::default());
    // Its answers go to the other program from then on, so it runs into this limit.
    let first = open(&trezor, DeviceLimits { button: Duration::from_secs(4), ..patient() }).await;
    let (error, ()) = tokio::join!(sign(&first), async {
        until(&first, |progress| matches!(progress, Progress::Waiting { .. })).await;
        let second = open(&trezor, patient()).await;
        trezor.officer().confirm_all();
        sign(&second).await.unwrap();
    });
    let error = error.unwrap_err();
    assert!(matches!(error, DeviceError::TimedOut { step: Step::Button(1), may_have_signed: false }), "{error:?}");
}
