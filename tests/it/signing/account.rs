//! S11: the right wallet, compared before each signature; and devices that cannot be used.

use amanatd::account::AccountXpub;
use amanatd::devkit::trezor::{Fault, Firmware, SimulatorOptions};
use amanatd::signing::{
    Definitions, Device, DeviceAddress, DeviceError, Input, Passphrase, Progress, TransactionDraft, TransactionRequest,
};
use amanatd::units::Disposition;
use zeroize::Zeroizing;

use super::{account_0, hasty, open, patient, sign, signing_pages, spec, start, until, usdt, within};

const OTHER_WORDS: &str = "alcohol woman abuse must during monitor noble actual mixed trade anger aisle";

#[tokio::test]
async fn s11_another_seed_is_refused_before_any_page() {
    let trezor = start(SimulatorOptions { mnemonic: OTHER_WORDS.to_owned(), ..SimulatorOptions::default() });
    trezor.officer().confirm_all();
    let device = open(&trezor, patient()).await;
    let error = sign(&device).await.unwrap_err();
    assert!(matches!(error, DeviceError::OtherAccount { .. }) && !error.may_have_signed(), "{error}");
    assert_eq!(error.to_string(), "this device or passphrase does not hold account 0 with fingerprint 069b8dd0");
    assert_eq!(signing_pages(&trezor), 0);
}

#[tokio::test]
async fn s11_a_device_exchanged_after_the_account_was_opened_signs_nothing() {
    let trezor = start(SimulatorOptions::default());
    trezor.officer().confirm_all();
    let device = open(&trezor, patient()).await;
    let account = within(device.open_account(account_0())).await.unwrap();
    trezor.inject(Fault::OtherSeed(OTHER_WORDS.to_owned()));
    let definitions = Definitions::load(None, &spec(1), usdt().transfer().asset);
    let error = within(account.sign(usdt(), definitions)).await.unwrap_err();
    assert!(matches!(error, DeviceError::OtherAccount { .. }), "{error}");
    assert_eq!(signing_pages(&trezor), 0);
}

#[tokio::test]
async fn s11_a_wrong_passphrase_never_reaches_a_signing_page() {
    let trezor = start(SimulatorOptions { passphrase_protection: true, ..SimulatorOptions::default() });
    trezor.officer().confirm_all();
    let device = open(&trezor, patient()).await;
    let wrong = Zeroizing::new("x".to_owned());
    let (error, ()) = tokio::join!(sign(&device), async {
        until(&device, |progress| *progress == Progress::WaitingPassphrase).await;
        device.answer(Input::Passphrase(Passphrase::new(wrong).unwrap())).unwrap();
    });
    let error = error.unwrap_err();
    assert!(matches!(error, DeviceError::OtherAccount { .. }), "{error}");
    assert_eq!(error.disposition(), Disposition::Officer);
    assert_eq!(signing_pages(&trezor), 0);

    // The session was closed, so the next attempt asks again, and the right one signs.
    let (signed, ()) = tokio::join!(sign(&device), async {
        until(&device, |progress| *progress == Progress::WaitingPassphrase).await;
        device.answer(Input::Passphrase(Passphrase::standard())).unwrap();
    });
    signed.unwrap();
    // From here on it is known to the session.
    sign(&device).await.unwrap();
}

#[tokio::test]
async fn s11_a_passphrase_the_officer_did_not_mean_is_caught() {
    let trezor = start(SimulatorOptions { passphrase_protection: true, ..SimulatorOptions::default() });
    trezor.officer().confirm_all();
    trezor.inject(Fault::OtherPassphrase("typo".to_owned()));
    let device = open(&trezor, patient()).await;
    let (error, ()) = tokio::join!(sign(&device), async {
        until(&device, |progress| *progress == Progress::WaitingPassphrase).await;
        device.answer(Input::Passphrase(Passphrase::standard())).unwrap();
    });
    assert!(matches!(error.unwrap_err(), DeviceError::OtherAccount { .. }));
    assert_eq!(signing_pages(&trezor), 0);
}

#[tokio::test]
async fn s11_a_sender_of_another_path_is_refused_before_the_device_is_asked() {
    let trezor = start(SimulatorOptions::default());
    trezor.officer().confirm_all();
    let device = open(&trezor, patient()).await;
    let account = within(device.open_account(account_0())).await.unwrap();
    for path in ["m/44'/60'/0'/0/8", "m/44'/60'/1'/0/7"] {
        let draft = TransactionDraft { from: path.parse().unwrap(), ..usdt().draft() };
        let request = TransactionRequest::check(draft, &spec(1)).unwrap();
        let definitions = Definitions::load(None, &spec(1), request.transfer().asset);
        let error = within(account.sign(request, definitions)).await.unwrap_err();
        assert!(matches!(error, DeviceError::OtherSender { .. }) && !error.may_have_signed(), "{path}: {error}");
    }
    assert_eq!(signing_pages(&trezor), 0);
    sign(&device).await.unwrap();
}

#[tokio::test]
async fn the_same_wallet_in_another_device_is_welcome() {
    let trezor = start(SimulatorOptions::default());
    trezor.officer().confirm_all();
    let device = open(&trezor, patient()).await;
    let first = within(device.features()).await.unwrap();
    trezor.inject(Fault::OtherDeviceId("51D0000000000000AA000002".to_owned()));
    sign(&device).await.unwrap();
    assert_ne!(within(device.features()).await.unwrap().device_id, first.device_id);
    assert_eq!(first.warnings().len(), 1, "it has no PIN");
}

#[tokio::test]
async fn each_unfit_device_is_refused_when_it_is_opened() {
    let usual = SimulatorOptions::default;
    let old = Firmware { major: 1, minor: 14, patch: 0 };
    let cases = [
        (SimulatorOptions { bootloader_mode: true, ..usual() }, "bootloader"),
        (SimulatorOptions { initialized: false, ..usual() }, "no seed"),
        (SimulatorOptions { capabilities: vec![1, 2], ..usual() }, "universal firmware"),
        (SimulatorOptions { firmware: old, ..usual() }, "1.14.0 is too old"),
        (SimulatorOptions { fw_vendor: "UNSAFE, DO NOT USE!".to_owned(), ..usual() }, "do not use"),
    ];
    for (options, reason) in cases {
        let trezor = start(options);
        let error = within(Device::open(DeviceAddress::Udp(trezor.address()), patient())).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!error.may_have_signed());
    }
}

#[tokio::test]
async fn an_absent_device_is_a_state() {
    let trezor = start(SimulatorOptions::default());
    trezor.officer().confirm_all();
    let device = open(&trezor, hasty()).await;
    trezor.unplug();
    let error = sign(&device).await.unwrap_err();
    assert!(matches!(error, DeviceError::NotFound) && !error.may_have_signed(), "{error}");
    trezor.plug_in();
    sign(&device).await.unwrap();

    let address = trezor.address();
    drop(trezor);
    let error = within(Device::open(DeviceAddress::Udp(address), hasty())).await.unwrap_err();
    assert!(matches!(error, DeviceError::NotFound), "nobody listens: {error}");
    assert!(matches!(sign(&device).await.unwrap_err(), DeviceError::NotFound));
}

#[tokio::test]
async fn an_account_can_be_registered_from_the_device() {
    let trezor = start(SimulatorOptions::default());
    let device = open(&trezor, patient()).await;
    let xpub: AccountXpub = within(device.account_xpub(account_0().account())).await.unwrap();
    assert_eq!(xpub, account_0());
    assert!(trezor.screens().is_empty(), "needs no button");
}
