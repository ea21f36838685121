//! The few logs that are ours out of an answer that holds many. Pure.
//!
//! The answer for a range of blocks may be 80 MB, of which a few per cent pay us. Every log is read far
//! enough to know its recipient; only those that are wanted are decoded and checked.

use alloy::primitives::Address;

use super::answer::{RangeLog, RawRangeLog};
use super::error::Fault;
use super::hex::Fixed;
use super::json::{Flaw, Reader, Wire, once};
use super::read::read_list;

/// The position of a transfer's recipient among its topics.
const RECIPIENT: usize = 2;

/// The logs whose third topic names a wanted recipient, in their order, and how many logs there were.
///
/// The recipient is the topic's last 20 bytes, whatever the others are: a token that leaves them dirty
/// still moved money. A log without a third topic is not wanted. One that is not wanted must be JSON and
/// have its topics; its other fields are not looked at. The caller knows what it asked for and checks the
/// contract, the first topic and the block of those that it gets.
pub(super) fn read_logs_where(text: &str, want: impl Fn(&Address) -> bool) -> Result<(usize, Vec<RangeLog>), Fault> {
    let mut wanted = Vec::new();
    let mut count = 0;
    let present = read_list(text, |reader| {
        let start = reader.clone();
        count += 1;
        if recipient(reader)?.is_some_and(|recipient| want(&recipient)) {
            // Once more from its beginning, now with every check.
            *reader = start;
            wanted.push(RawRangeLog::from_wire(reader)?.read()?);
        }
        Ok(())
    })?;
    if present { Ok((count, wanted)) } else { Err(Fault::NotFound { what: "logs of a range of blocks".to_owned() }) }
}

/// Goes past a log and says whom it pays, if it has such a topic.
fn recipient(reader: &mut Reader<'_>) -> Result<Option<Address>, Flaw> {
    let mut topics: Option<Topics> = None;
    let mut first = true;
    reader.open(b'{', "an object")?;
    while let Some(name) = reader.name(&mut first)? {
        match &*name {
            "topics" => once(&mut topics, "topics", reader)?,
            _ => reader.skip()?,
        }
    }
    topics.ok_or(Flaw::Missing("topics")).map(|topics| topics.recipient)
}

struct Topics {
    recipient: Option<Address>,
}

impl Wire for Topics {
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        let mut recipient = None;
        let mut first = true;
        reader.open(b'[', "a list")?;
        for position in 0.. {
            if !reader.another(b']', &mut first)? {
                break;
            }
            let topic = Fixed::<32>::from_wire(reader)?.0;
            if position == RECIPIENT {
                recipient = Some(Address::from_word(topic));
            }
        }
        Ok(Self { recipient })
    }
}
