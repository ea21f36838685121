//! Every fault of a device or a line ends in its named outcome, within its limit, without a
//! signature; and when the fault is over the next job works.

use std::time::Duration;

use amanatd::devkit::trezor::{Fault, SimulatedTrezor, SimulatorOptions};
use amanatd::signing::{CheckError, Definitions, Device, DeviceError, DeviceLimits, SignatureField};
use amanatd::units::Disposition;
use tokio::task::JoinSet;

use super::{account_0, hasty, open, patient, sign, signing_pages, spec, start, usdt, within};

async fn confirming() -> (SimulatedTrezor, Device) {
    let trezor = start(SimulatorOptions::default());
    trezor.officer().confirm_all();
    let device = open(&trezor, patient()).await;
    (trezor, device)
}

/// The error that a fault ends in. The next job must work.
async fn outcome(fault: Fault) -> DeviceError {
    let (trezor, device) = confirming().await;
    trezor.inject(fault.clone());
    let error = sign(&device).await.expect_err(&format!("{fault:?} must not end in a signature"));
    trezor.mend();
    sign(&device).await.unwrap_or_else(|error| panic!("the job after {fault:?}: {error}"));
    error
}

#[tokio::test]
async fn s3_a_tampered_signature_is_named_and_refused() {
    let flipped = outcome(Fault::FlippedV).await;
    assert!(matches!(flipped, DeviceError::BadSignature(CheckError::Signer { .. })), "{flipped:?}");
    let high = outcome(Fault::HighS).await;
    assert!(matches!(high, DeviceError::BadSignature(CheckError::HighS { .. })), "{high:?}");
    let short = outcome(Fault::ShortR).await;
    assert!(matches!(short, DeviceError::BadSignature(CheckError::ScalarLength { field: SignatureField::R, found: 31 })), "{short:?}");
    let nonce = outcome(Fault::OtherNonce).await;
    assert!(matches!(nonce, DeviceError::BadSignature(CheckError::Signer { .. })), "{nonce:?}");
    let chain = outcome(Fault::OtherChainV).await;
    assert!(matches!(chain, DeviceError::BadSignature(CheckError::V { found: 37 | 38 })), "{chain:?}");
    for error in [flipped, high, short, nonce, chain] {
        assert!(error.may_have_signed(), "a key of ours signed something: {error}");
        assert_eq!(error.disposition(), Disposition::Officer);
    }
}

#[tokio::test]
async fn a_request_for_more_data_is_refused() {
    for fault in [Fault::ChunkTooLarge, Fault::ChunkWithoutEnd] {
        let error = outcome(fault).await;
        assert!(matches!(error, DeviceError::ChunkOutOfBounds { asked: 1.. }), "{error:?}");
        assert!(error.may_have_signed());
    }
}

#[tokio::test]
async fn odd_answers_have_their_names() {
    let unknown = outcome(Fault::UnknownMessage(60_000)).await;
    assert!(matches!(unknown, DeviceError::Garbled { may_have_signed: false, .. }), "{unknown:?}");
    let other = outcome(Fault::UnknownMessage(2)).await;
    assert!(matches!(other, DeviceError::Garbled { may_have_signed: false, .. }), "{other:?}");
    let busy = outcome(Fault::Busy).await;
    assert!(matches!(busy, DeviceError::DeviceBusy), "{busy:?}");
    assert_eq!(busy.disposition(), Disposition::Retry);
    let protocol = outcome(Fault::InvalidProtocol).await;
    assert!(matches!(protocol, DeviceError::UnsupportedModel), "{protocol:?}");
}

#[tokio::test]
async fn an_older_firmware_found_later_is_refused() {
    let (trezor, device) = confirming().await;
    trezor.inject(Fault::OldFirmware { major: 1, minor: 10, patch: 3 });
    // The fault strikes with the first message; what is told from then on is the old version.
    let error = sign(&device).await.unwrap_err();
    assert!(matches!(error, DeviceError::FirmwareTooOld { .. }), "{error:?}");
    assert!(!error.may_have_signed());
}

#[tokio::test]
async fn a_forgotten_session_is_opened_again() {
    let (trezor, device) = confirming().await;
    sign(&device).await.unwrap();
    trezor.inject(Fault::SessionsEvicted);
    sign(&device).await.unwrap();
}

#[tokio::test]
async fn faults_of_data_chunks_cannot_strike_a_transfer() {
    for fault in [Fault::LockWhileSigning, Fault::VanishMidChunk] {
        let (trezor, device) = confirming().await;
        trezor.inject(fault);
        sign(&device).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_after_the_limit_is_never_taken() {
    let trezor = start(SimulatorOptions::default());
    trezor.officer().confirm_all();
    let device = open(&trezor, hasty()).await;
    trezor.inject(Fault::ReplyLate(Duration::from_secs(3)));
    let error = sign(&device).await.unwrap_err();
    assert!(!error.may_have_signed(), "{error:?}");
    assert!(matches!(error, DeviceError::NotFound | DeviceError::TimedOut { .. }), "{error:?}");
    trezor.mend();
    trezor.plug_in();
    sign(&device).await.unwrap();
}

/// Vanishes after so many packets of one signing job: what came of it, and after how many pages.
async fn vanishing_after(packets: u32) -> (Result<(), DeviceError>, usize) {
    let limit = Duration::from_secs(2);
    let limits = DeviceLimits { answer: limit, seed: limit, button: limit, cancel: Duration::from_millis(300), ..patient() };
    let trezor = start(SimulatorOptions::default());
    trezor.officer().confirm_all();
    let device = open(&trezor, limits).await;
    let account = within(device.open_account(account_0())).await.unwrap();
    trezor.inject(Fault::VanishAfterPackets(packets));
    let definitions = Definitions::load(None, &spec(1), usdt().transfer().asset);
    let result = within(account.sign(usdt(), definitions)).await.map(|_| ());
    let pages = signing_pages(&trezor);
    trezor.mend();
    trezor.plug_in();
    sign(&device).await.unwrap_or_else(|error| panic!("the job after vanishing at packet {packets}: {error}"));
    (result, pages)
}

#[tokio::test]
async fn n3_a_device_that_vanishes_leaves_doubt_only_after_a_press() {
    // Features and the xpub are several packets each, then come four pages and the signature.
    let mut runs = JoinSet::new();
    for packets in 0..20 {
        runs.spawn(async move { (packets, vanishing_after(packets).await) });
    }
    let mut results = runs.join_all().await;
    results.sort_by_key(|(packets, _)| *packets);
    let mut outcomes = Vec::new();
    for (packets, (result, pages)) in results {
        let doubt = result.as_ref().is_err_and(DeviceError::may_have_signed);
        outcomes.push(match result {
            Ok(()) => "signed",
            Err(DeviceError::NotFound) => "not found",
            Err(DeviceError::Disconnected { may_have_signed: false }) => "lost before a press",
            Err(DeviceError::Disconnected { may_have_signed: true }) => "lost after a press",
            Err(other) => panic!("after {packets} packets and {pages} pages: {other:?}"),
        });
        // The simulator shows a page before its packet is lost, so a press needs a second page.
        assert!(!doubt || pages >= 2, "after {packets} packets and {pages} pages");
    }
    outcomes.dedup();
    assert_eq!(outcomes, ["not found", "lost before a press", "lost after a press", "signed"]);
}

#[tokio::test]
async fn answers_stolen_by_another_socket_are_a_lost_line() {
    let trezor = start(SimulatorOptions::default());
    let device = open(&trezor, hasty()).await;
    trezor.inject(Fault::ReplyToLastSender);
    let thief = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let steal = async {
        super::until(&device, |progress| matches!(progress, amanatd::signing::Progress::Waiting { .. })).await;
        thief.send_to(b"PINGPING", trezor.address()).unwrap();
        trezor.officer().confirm_all();
    };
    let (result, ()) = tokio::join!(sign(&device), steal);
    // The pong of a health check is enough to lose an answer; none of it becomes a signature.
    if let Err(error) = result {
        assert!(matches!(error, DeviceError::TimedOut { .. } | DeviceError::Disconnected { .. }), "{error:?}");
    }
    trezor.mend();
    sign(&device).await.unwrap();
}
