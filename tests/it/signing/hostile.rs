//! Things on the wire that are no Trezor: each is named, and none makes us wait or read for ever.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use amanatd::signing::{Device, DeviceAddress, DeviceError};

use super::{hasty, within};

/// Answers each packet as told, until dropped.
struct Impostor {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    fn start(answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (address, stop) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 64];
            while !stopped.load(Ordering::Acquire) {
                if let Ok((length, from)) = socket.recv_from(&mut packet) {
                    for answer in answers(&packet[..length]) {
                        // A host that hung up has heard enough.
                        let _ = socket.send_to(&answer, from);
                    }
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    async fn outcome(self) -> DeviceError {
        within(Device::open(DeviceAddress::Udp(self.address), hasty())).await.unwrap_err()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn packet(id: u16, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = [b"?##".as_slice(), &id.to_be_bytes(), &length.to_be_bytes(), payload].concat();
    packet.resize(64, 0);
    packet
}

fn message(id: u16, payload: &[u8]) -> Vec<u8> {
    packet(id, u32::try_from(payload.len()).unwrap(), payload)
}

const CANCELLED: [u8; 2] = [0x08, 0x04];

/// Idle like a Trezor, and then this for everything but Cancel.
fn after_cancel(answer: Vec<u8>) -> Impostor {
    Impostor::start(move |request| vec![if request[4] == 20 { message(3, &CANCELLED) } else { answer.clone() }])
}

#[tokio::test]
async fn silence_and_odd_lengths_are_no_device() {
    for answers in [vec![], vec![vec![]], vec![vec![0; 63]], vec![vec![b'?'; 65]]] {
        let error = Impostor::start(move |_| answers.clone()).outcome().await;
        assert!(matches!(error, DeviceError::NotFound), "{error:?}");
    }
}

#[tokio::test]
async fn packets_of_another_protocol_are_another_model() {
    for first in [0x40, 0x00, b'?'] {
        let error = Impostor::start(move |_| vec![vec![first; 64]]).outcome().await;
        assert!(matches!(error, DeviceError::UnsupportedModel), "{error:?}");
    }
}

#[tokio::test]
async fn lengths_nobody_can_mean_are_refused_at_once() {
    for length in [16 * 1024 + 1, u32::MAX] {
        let error = after_cancel(packet(17, length, &[])).outcome().await;
        assert!(matches!(error, DeviceError::Garbled { may_have_signed: false, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_message_that_never_ends_is_a_lost_line() {
    let error = after_cancel(packet(17, 16 * 1024, &[])).outcome().await;
    assert!(matches!(error, DeviceError::NotFound | DeviceError::Garbled { .. }), "{error:?}");
}

#[tokio::test]
async fn answers_that_do_not_fit_are_garbled() {
    // Features that are no protobuf, a success, and pages without end.
    for answer in [message(17, &[0xff; 20]), message(2, &[]), message(26, &[0x08, 0x08]), message(60_000, &[])] {
        let error = after_cancel(answer).outcome().await;
        assert!(matches!(error, DeviceError::Garbled { may_have_signed: false, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_device_that_only_fails_is_named_by_its_code() {
    let firmware = after_cancel(message(3, &[0x08, 99])).outcome().await;
    assert!(matches!(firmware, DeviceError::Firmware { code: 99, .. }), "{firmware:?}");
    let unnumbered = after_cancel(message(3, &[])).outcome().await;
    assert!(matches!(unnumbered, DeviceError::Firmware { code: 0, .. }), "{unnumbered:?}");
}

#[tokio::test]
async fn chatter_does_not_keep_us_reading() {
    let error = Impostor::start(|_| vec![message(2, &[]); 2_000]).outcome().await;
    assert!(!error.may_have_signed(), "{error:?}");
}
