//! The few logs that are ours out of an answer that holds many. Pure.
//!
//! The answer for a range of blocks may be 80 MB, of which a few per cent pay us. Every log is read far
//! enough to know its recipient; only those that are wanted are decoded and checked.

use alloy::primitives::Address;

use super::answer::{RangeLog, RawRangeLog, height};
use super::error::Fault;
use super::hex::{Fixed, Quantity};
use super::json::{Flaw, Reader, Wire, once, read_list};
use crate::units::BlockNumber;

/// The position of a transfer's recipient among its topics.
const RECIPIENT: usize = 2;

/// The logs that are wanted by their height and the recipient that their third topic names, in their order,
/// and how many logs there were.
///
/// The recipient is the topic's last 20 bytes, whatever the others are: a token that leaves them dirty
/// still moved money; a log without a third topic names none. A log that is not wanted must be JSON and
/// have its height and its topics; its other fields are not looked at. The caller knows what it asked for
/// and checks the contract, the first topic and the block of those that it gets.
pub(super) fn read_logs_where(
    text: &str,
    mut want: impl FnMut(BlockNumber, Option<&Address>) -> bool,
) -> Result<(usize, Vec<RangeLog>), Fault> {
    let mut wanted = Vec::new();
    let mut count = 0;
    let present = read_list(text, |reader| {
        let start = reader.clone();
        count += 1;
        let (number, recipient) = glance(reader)?;
        if want(height("blockNumber", number)?, recipient.as_ref()) {
            // Once more from its beginning, now with every check.
            *reader = start;
            wanted.push(RawRangeLog::from_wire(reader)?.read()?);
        }
        Ok(())
    })?;
    if present { Ok((count, wanted)) } else { Err(Fault::NotFound { what: "logs of a range of blocks".to_owned() }) }
}

/// Goes past a log and says in which block it is and whom it pays, if it has such a topic.
fn glance(reader: &mut Reader<'_>) -> Result<(Quantity, Option<Address>), Flaw> {
    let (mut topics, mut number) = (None::<Topics>, None::<Quantity>);
    let mut first = true;
    reader.open(b'{', "an object")?;
    while let Some(name) = reader.name(&mut first)? {
        match &*name {
            "topics" => once(&mut topics, "topics", reader)?,
            "blockNumber" => once(&mut number, "blockNumber", reader)?,
            _ => reader.skip()?,
        }
    }
    let topics = topics.ok_or(Flaw::Missing("topics"))?;
    Ok((number.ok_or(Flaw::Missing("blockNumber"))?, topics.recipient))
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
