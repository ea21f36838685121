//! The recorded conversations, replayed: the host's lines go in, and what comes out must be the
//! device's payloads.
//!
//! Skipped are Features, whose content is the simulator's own, and session ids: where the device
//! was asked to resume, the simulator is given the id of its own session. Everything else is
//! compared byte for byte, signatures included.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::hex;
use amanatd::devkit::trezor::{SimulatedTrezor, SimulatorOptions};
use serde::Deserialize;
use trezor_client::protos::Features;

use super::client::{FEATURES, Host, INITIALIZE};

#[derive(Deserialize)]
struct Line {
    scenario: String,
    step: usize,
    from: String,
    id: Option<u16>,
    message: String,
    payload: Option<String>,
}

/// The first scenario that was recorded with a PIN and a passphrase.
const WITH_PIN: &str = "pin_unlock";

#[test]
fn transcripts_are_answered_alike() {
    let lines: Vec<Line> =
        include_str!("../../data/trezor/transcripts.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let split = lines.iter().position(|line| line.scenario == WITH_PIN).unwrap();
    let (without_pin, with_pin) = lines.split_at(split);
    let compared = replay(without_pin, SimulatorOptions::default())
        + replay(with_pin, SimulatorOptions { pin: Some("1234".to_owned()), passphrase_protection: true, ..SimulatorOptions::default() });
    let device_lines = lines.iter().filter(|line| line.from == "device" && line.payload.is_some()).count();
    assert_eq!(compared, device_lines);
    let scenarios: BTreeSet<_> = lines.iter().map(|line| &line.scenario).collect();
    assert_eq!(scenarios.len(), 38);
}

/// How many payloads were compared; all were equal.
fn replay(lines: &[Line], options: SimulatorOptions) -> usize {
    let trezor = SimulatedTrezor::start(options).unwrap();
    let officer = trezor.officer();
    let host = Host::new(&trezor);
    let mut session = Vec::new();
    // The recorded ids were random: each stands for the session that was in use when the host
    // named it for the first time.
    let mut sessions: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut compared = 0;
    for (place, line) in lines.iter().enumerate() {
        let here = format!("{} {}: {}", line.scenario, line.step, line.message);
        match (line.from.as_str(), line.message.split_once(' ')) {
            ("host", _) => {
                let mut payload = hex::decode(line.payload.as_ref().unwrap()).unwrap();
                if let Some(id) = payload.get(2..).filter(|_| line.id == Some(INITIALIZE)) {
                    let ours = sessions.entry(id.to_vec()).or_insert_with(|| session.clone());
                    payload = [&[0x0a, 32], &ours[..]].concat();
                }
                // The grid that the device is going to show is named two lines further on.
                let grid = lines.get(place + 2).and_then(|line| line.message.strip_prefix("matrix "));
                if let Some((digits, _)) = grid.and_then(|grid| grid.split_once(' ')) {
                    officer.next_pin_matrix(digits);
                }
                host.send(line.id.unwrap(), &payload);
            }
            // Before the host's ButtonAck, so it is held until that arrives.
            ("officer", None) => match line.message.as_str() {
                "confirm" => assert!(officer.confirm(), "{here}"),
                "reject" => assert!(officer.reject(), "{here}"),
                other => panic!("{other}"),
            },
            ("officer", Some(("matrix", typed))) => {
                let (_, pin) = typed.split_once(" pin ").unwrap();
                let next = lines[place + 1].payload.as_ref().unwrap();
                let typed = hex::decode(next).unwrap().split_off(2);
                assert_eq!(officer.positions_of(pin).unwrap().into_bytes(), typed, "{here}");
            }
            ("device", _) => {
                let heard = host.receive();
                assert_eq!(Some(heard.id), line.id, "{here}");
                match &line.payload {
                    Some(payload) => {
                        assert_eq!(hex::encode(&heard.payload), *payload, "{here}");
                        compared += 1;
                    }
                    None => session = heard.expect::<Features>(FEATURES).session_id().to_vec(),
                }
            }
            other => panic!("{other:?}"),
        }
    }
    compared
}
