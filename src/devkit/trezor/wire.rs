//! The socket: datagrams in, messages out, and the faults that live between the two.
//!
//! One thread reads the socket and hands datagrams over, so that the device's own thread waits
//! for one thing only, whatever happens first: a packet, a press, or the end.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::frame::{self, Arrived, Assembler, Message, PACKET};
use super::message::{BUTTON_REQUEST, FAILURE, Failure, SUCCESS, TX_ACK};
use super::shared::Shared;

/// Datagrams that wait for the device; what is beyond is lost, as on any UDP socket.
pub(super) const EVENTS_MAX: usize = 1024;

/// How long the reader may overlook that it has to stop.
const STOP_SLICE: Duration = Duration::from_millis(100);

/// Answers that a fault holds back; more are lost.
const LATE_MAX: usize = 64;

/// Something happened.
#[derive(Debug)]
pub(super) enum Event {
    Datagram {
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    /// The officer did something: look at the desk.
    Wake,
    PowerCycle,
    Stop,
}

/// What the device heard.
#[derive(Debug)]
pub(super) enum Heard {
    Message {
        from: SocketAddr,
        message: Message,
    },
    TooBig {
        from: SocketAddr,
    },
    /// The officer did something.
    Wake,
    /// The time that was asked for is up.
    Deadline,
    PowerCycle,
    Stop,
}

#[derive(Debug)]
pub(super) struct Wire {
    socket: UdpSocket,
    events: Receiver<Event>,
    shared: Arc<Shared>,
    assembler: Assembler,
    /// Whose request is being answered.
    requester: Option<SocketAddr>,
    last_sender: Option<SocketAddr>,
    late: VecDeque<Late>,
}

#[derive(Debug)]
struct Late {
    due: Instant,
    to: SocketAddr,
    packets: Vec<[u8; PACKET]>,
}

impl Wire {
    pub(super) fn new(socket: UdpSocket, events: Receiver<Event>, shared: Arc<Shared>) -> Self {
        Self { socket, events, shared, assembler: Assembler::default(), requester: None, last_sender: None, late: VecDeque::new() }
    }

    /// From now on answers go to this one.
    pub(super) fn answer_to(&mut self, requester: SocketAddr) {
        self.requester = Some(requester);
    }

    /// Forgets half a message, as a device without power does.
    pub(super) fn reset(&mut self) {
        self.assembler = Assembler::default();
        self.late.clear();
    }

    /// Waits for the next thing that concerns the device.
    pub(super) fn hear(&mut self, deadline: Option<Instant>) -> Heard {
        loop {
            self.send_due();
            let until = match (deadline, self.late.front().map(|late| late.due)) {
                (Some(deadline), Some(due)) => Some(deadline.min(due)),
                (deadline, due) => deadline.or(due),
            };
            match self.next_event(until) {
                Some(Event::Stop) => return Heard::Stop,
                Some(Event::PowerCycle) => return Heard::PowerCycle,
                Some(Event::Wake) => return Heard::Wake,
                Some(Event::Datagram { from, bytes }) => {
                    if let Some(heard) = self.datagram(from, &bytes) {
                        return heard;
                    }
                }
                None if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                    return Heard::Deadline;
                }
                None => {}
            }
        }
    }

    /// Sends an answer to the requester, or to whom a fault makes it go.
    pub(super) fn send(&mut self, id: u16, payload: Vec<u8>) {
        let mut state = self.shared.lock();
        let to = if state.faults.has(&Fault::ReplyToLastSender) { self.last_sender } else { self.requester };
        let delay = state.faults.take(|fault| match fault {
            Fault::ReplyLate(delay) => Some(*delay),
            _ => None,
        });
        drop(state);
        let Some(to) = to else { return };
        let packets = frame::packets(&Message { id, payload });
        match delay {
            None => self.send_packets(to, &packets),
            Some(delay) => self.send_later(delay, to, packets),
        }
    }

    /// Late answers keep their order among themselves. One that is due beyond the clock's end
    /// never comes.
    fn send_later(&mut self, delay: Duration, to: SocketAddr, packets: Vec<[u8; PACKET]>) {
        if let Some(due) = Instant::now().checked_add(delay)
            && self.late.len() < LATE_MAX
        {
            let due = self.late.back().map_or(due, |last| last.due.max(due));
            self.late.push_back(Late { due, to, packets });
        }
    }

    pub(super) fn send_failure(&mut self, failure: &Failure) {
        let mut payload = vec![0x08, u8::try_from(failure.code).expect("failure codes are below 128"), 0x12];
        payload.push(u8::try_from(failure.text.len()).expect("failure texts are short"));
        payload.extend_from_slice(failure.text.as_bytes());
        self.send(FAILURE, payload);
    }

    pub(super) fn send_success(&mut self, text: &str) {
        let mut success = trezor_client::protos::Success::new();
        success.set_message(text.to_owned());
        self.send_message(SUCCESS, &success);
    }

    pub(super) fn send_button_request(&mut self, code: u32) {
        self.send(BUTTON_REQUEST, vec![0x08, u8::try_from(code).expect("button codes are below 128")]);
    }

    pub(super) fn send_message<M: protobuf::Message>(&mut self, id: u16, message: &M) {
        let payload = message.write_to_bytes().expect("every required field of an answer is set");
        self.send(id, payload);
    }

    fn next_event(&mut self, until: Option<Instant>) -> Option<Event> {
        match until {
            // A closed channel means that nobody owns the simulator any more.
            None => Some(self.events.recv().unwrap_or(Event::Stop)),
            Some(until) => match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Event::Stop),
            },
        }
    }

    fn datagram(&mut self, from: SocketAddr, bytes: &[u8]) -> Option<Heard> {
        let mut state = self.shared.lock();
        if bytes.is_empty() && state.plug == Some(from) {
            state.plug = None;
            state.unplugged = false;
            return Some(Heard::PowerCycle);
        }
        if state.unplugged {
            return None;
        }
        drop(state);
        self.last_sender = Some(from);
        if bytes == b"PINGPING" {
            // Nobody to tell when the pinger is gone already.
            let _ = self.socket.send_to(b"PONGPONG", from);
            return None;
        }
        let packet: &[u8; PACKET] = bytes.try_into().ok()?;
        match self.assembler.push(packet) {
            Arrived::Whole(message) if self.chunk_is_lost(Some(message.id)) => None,
            Arrived::Whole(message) => Some(Heard::Message { from, message }),
            Arrived::TooBig => Some(Heard::TooBig { from }),
            Arrived::Nothing => {
                self.chunk_is_lost(self.assembler.partial_id());
                None
            }
        }
    }

    fn chunk_is_lost(&self, id: Option<u16>) -> bool {
        let mut state = self.shared.lock();
        let lost = id == Some(TX_ACK) && state.faults.strike(&Fault::VanishMidChunk);
        state.unplugged |= lost;
        lost
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while self.late.front().is_some_and(|late| late.due <= now) {
            if let Some(late) = self.late.pop_front() {
                self.send_packets(late.to, &late.packets);
            }
        }
    }

    fn send_packets(&self, to: SocketAddr, packets: &[[u8; PACKET]]) {
        for packet in packets {
            let mut state = self.shared.lock();
            if state.faults.vanishes_before_packet() {
                state.unplugged = true;
            }
            if state.unplugged {
                return;
            }
            drop(state);
            // The host may have closed its socket; a device does not care.
            let _ = self.socket.send_to(packet, to);
        }
    }
}

/// Reads the socket until told to stop; the body of the reader's thread.
pub(super) fn read_datagrams(socket: &UdpSocket, events: &SyncSender<Event>, stop: &AtomicBool) {
    // One byte more than a packet, so that a longer datagram is seen to be none.
    let mut buffer = [0; PACKET + 1];
    while !stop.load(Ordering::Acquire) {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let bytes = buffer[..length].to_vec();
                if events.send(Event::Datagram { from, bytes }).is_err() {
                    return;
                }
            }
            Err(error) if matters(&error) => {
                tracing::error!(%error, "the simulated Trezor cannot read its socket");
                return;
            }
            Err(_) => {}
        }
    }
}

/// A read that only timed out, was interrupted, or reports that an earlier answer found nobody,
/// is no reason to stop.
fn matters(error: &io::Error) -> bool {
    !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::ConnectionRefused)
}

/// A socket to ring at the device's, from inside this process.
pub(super) fn bell() -> io::Result<UdpSocket> {
    UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))
}

/// Binds the socket on loopback; port 0 takes any.
pub(super) fn bind(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(STOP_SLICE))?;
    Ok(socket)
}
