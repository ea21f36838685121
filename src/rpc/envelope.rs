//! What a JSON-RPC answer is wrapped in: the id that makes it ours, and a result or an error. Pure.
//!
//! The text of a result is borrowed, never copied, and is known to be JSON. An error is never
//! overlooked, also when a result stands beside it.

use std::ops::Range;

use super::json::{Flaw, Reader, Wire, once};

/// Why an answer, or a batch of them, is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EnvelopeFault {
    #[error("not a JSON-RPC answer: {0}")]
    Flaw(#[from] Flaw),
    /// The node refused. It may do so without saying whom: that grants nothing.
    #[error("refused with code {}", .0.code)]
    Refused(ErrorObject),
    #[error("the answer to another request")]
    OtherId,
    #[error("neither result nor error")]
    Neither,
    #[error("two answers to one request of a batch")]
    TwoAnswers,
    #[error("a batch without the answer to one of its requests")]
    NoAnswer,
}

/// A refusal in the node's own words, which may be long and may repeat what we sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ErrorObject {
    pub(super) code: i64,
    pub(super) message: String,
}

/// The text of `result` in the answer to one request; it may be `null`.
pub(super) fn read_single(body: &[u8], id: u64) -> Result<&str, EnvelopeFault> {
    let mut reader = Reader::new(text_of(body)?);
    let envelope = Envelope::read(&mut reader)?;
    reader.end()?;
    if let Some(error) = envelope.error {
        return Err(EnvelopeFault::Refused(error));
    }
    if envelope.id != Some(id) {
        return Err(EnvelopeFault::OtherId);
    }
    envelope.result.ok_or(EnvelopeFault::Neither)
}

/// The result or the error of each request of a batch, in the order of the ids. The answers may come in
/// any order, but each exactly once and no others.
///
/// A node that refuses the batch as a whole answers with one object, or with an error of no id of ours.
pub(super) fn read_batch(body: &[u8], ids: Range<u64>) -> Result<Vec<Result<&str, ErrorObject>>, EnvelopeFault> {
    let mut reader = Reader::new(text_of(body)?);
    if reader.peek()? == b'{' {
        let envelope = Envelope::read(&mut reader)?;
        reader.end()?;
        return Err(envelope.error.map_or(EnvelopeFault::Flaw(Flaw::Unlike("a list of answers")), EnvelopeFault::Refused));
    }
    let mut answers: Vec<Option<Result<&str, ErrorObject>>> = (ids.clone()).map(|_| None).collect();
    let mut first = true;
    reader.open(b'[', "a list of answers")?;
    while reader.another(b']', &mut first)? {
        let envelope = Envelope::read(&mut reader)?;
        let place = envelope.id.filter(|id| ids.contains(id)).and_then(|id| usize::try_from(id - ids.start).ok());
        let Some(answer) = place.and_then(|place| answers.get_mut(place)) else {
            return Err(envelope.error.map_or(EnvelopeFault::OtherId, EnvelopeFault::Refused));
        };
        if answer.is_some() {
            return Err(EnvelopeFault::TwoAnswers);
        }
        *answer = Some(match (envelope.error, envelope.result) {
            (Some(error), _) => Err(error),
            (None, Some(result)) => Ok(result),
            (None, None) => return Err(EnvelopeFault::Neither),
        });
    }
    reader.end()?;
    answers.into_iter().map(|answer| answer.ok_or(EnvelopeFault::NoAnswer)).collect()
}

fn text_of(body: &[u8]) -> Result<&str, Flaw> {
    std::str::from_utf8(body).map_err(|_| Flaw::NotText)
}

struct Envelope<'b> {
    /// `None` for an id that no request of ours carries, and for none at all.
    id: Option<u64>,
    /// `"result": null` is a result.
    result: Option<&'b str>,
    error: Option<ErrorObject>,
}

impl<'b> Envelope<'b> {
    /// Not [`Wire`], because the result borrows from the body.
    fn read(reader: &mut Reader<'b>) -> Result<Self, Flaw> {
        let (mut id, mut result, mut error) = (None, None, None);
        let mut first = true;
        reader.open(b'{', "an answer")?;
        while let Some(name) = reader.name(&mut first)? {
            match &*name {
                "id" => once_raw(&mut id, "id", reader)?,
                "result" => once_raw(&mut result, "result", reader)?,
                "error" => once(&mut error, "error", reader)?,
                _ => reader.skip()?,
            }
        }
        // An id of another type is not ours, and no reason to lose the error that came with it.
        Ok(Self { id: id.and_then(|id| id.parse().ok()), result, error: error.flatten() })
    }
}

fn once_raw<'b>(field: &mut Option<&'b str>, name: &'static str, reader: &mut Reader<'b>) -> Result<(), Flaw> {
    if field.is_some() {
        return Err(Flaw::Twice(name));
    }
    *field = Some(reader.raw()?);
    Ok(())
}

/// The one number and the one text that are no hexadecimal.
struct Code(i64);
struct Message(String);

impl Wire for Code {
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        reader.raw()?.parse().map(Self).map_err(|_| Flaw::Unlike("the code of an error"))
    }
}

impl Wire for Message {
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        reader.string("the message of an error").map(|message| Self(message.into_owned()))
    }

    fn missing(_: &'static str) -> Result<Self, Flaw> {
        Ok(Self(String::new()))
    }
}

impl Wire for ErrorObject {
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        let (mut code, mut message) = (None, None);
        let mut first = true;
        reader.open(b'{', "an error")?;
        while let Some(name) = reader.name(&mut first)? {
            match &*name {
                "code" => once(&mut code, "code", reader)?,
                "message" => once(&mut message, "message", reader)?,
                _ => reader.skip()?,
            }
        }
        let Code(code) = code.map_or_else(|| Code::missing("code"), Ok)?;
        let Message(message) = message.map_or_else(|| Message::missing("message"), Ok)?;
        Ok(Self { code, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i64, message: &str) -> ErrorObject {
        ErrorObject { code, message: message.to_owned() }
    }

    #[test]
    fn f14_a_single_answer_is_read_strictly() {
        let read = |body: &str| read_single(body.as_bytes(), 7).map(str::to_owned);
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":7,"result":"0x1"}"#), Ok("\"0x1\"".to_owned()));
        assert_eq!(read("\n{ \"result\" : [ {} ] , \"id\" : 7 }\n"), Ok("[ {} ]".to_owned()));
        assert_eq!(read(r#"{"id":7,"result":null}"#), Ok("null".to_owned()));
        assert_eq!(read(r#"{"id":7,"result":"0x1","error":null}"#), Ok("\"0x1\"".to_owned()));
        for body in [
            r#"{"id":8,"result":1}"#,
            r#"{"id":"7","result":1}"#,
            r#"{"id":7.0,"result":1}"#,
            r#"{"id":null,"result":1}"#,
            r#"{"result":1}"#,
        ] {
            assert_eq!(read(body), Err(EnvelopeFault::OtherId), "{body}");
        }
        assert_eq!(read(r#"{"id":7}"#), Err(EnvelopeFault::Neither));
        let broken = [
            (r#"{"id":7,"result":"0x"#, Flaw::CutOff),
            ("", Flaw::CutOff),
            ("<html>busy</html>", Flaw::NotJson),
            ("[]", Flaw::Unlike("an answer")),
            (r#"{"id":7,"result":1}{"#, Flaw::NotJson),
            (r#"{"id":7,"result":1,"result":2}"#, Flaw::Twice("result")),
            (r#"{"id":8,"id":7,"result":1}"#, Flaw::Twice("id")),
            (r#"{"id":7,"result":1,"error":null,"error":null}"#, Flaw::Twice("error")),
            (r#"{"id":7,"error":{"message":"x"}}"#, Flaw::Missing("code")),
            (r#"{"id":7,"error":{"code":"1"}}"#, Flaw::Unlike("the code of an error")),
            (r#"{"id":7,"error":"busy"}"#, Flaw::Unlike("an error")),
        ];
        for (body, flaw) in broken {
            assert_eq!(read(body), Err(EnvelopeFault::Flaw(flaw)), "{body}");
        }
        assert_eq!(read_single(b"{\"id\":7,\"result\":\"\xff\"}", 7), Err(EnvelopeFault::Flaw(Flaw::NotText)));
    }

    #[test]
    fn f14_an_error_is_never_overlooked() {
        for body in [
            r#"{"id":null,"error":{"code":-32000,"message":"unknown block"}}"#,
            r#"{"id":7,"result":"0x1","error":{"code":-32000,"message":"unknown \u0062lock","data":[1]}}"#,
            r#"{"id":{"a":[]},"error":{"code":-32000,"message":"unknown block"}}"#,
        ] {
            assert_eq!(read_single(body.as_bytes(), 7), Err(EnvelopeFault::Refused(refused(-32000, "unknown block"))), "{body}");
        }
    }

    #[test]
    fn f14_a_batch_is_whole_or_nothing() {
        let read = |body: &'static str| read_batch(body.as_bytes(), 5..8);
        let swapped =
            r#"[{"id":7,"result":[7]}, {"id":5,"result":null},{"jsonrpc":"2.0","id":6,"error":{"code":-32602,"message":"too wide"}}]"#;
        assert_eq!(read(swapped), Ok(vec![Ok("null"), Err(refused(-32602, "too wide")), Ok("[7]")]));
        assert_eq!(read_batch(b"[]", 5..5), Ok(Vec::new()));

        let bad = [
            (r#"[{"id":5,"result":1},{"id":6,"result":1}]"#, EnvelopeFault::NoAnswer),
            ("[]", EnvelopeFault::NoAnswer),
            (r#"[{"id":5,"result":1},{"id":6,"result":1},{"id":6,"result":1},{"id":7,"result":1}]"#, EnvelopeFault::TwoAnswers),
            (r#"[{"id":5,"result":1},{"id":6,"result":1},{"id":7,"result":1},{"id":8,"result":1}]"#, EnvelopeFault::OtherId),
            (r#"[{"id":5,"result":1},{"id":6,"result":1},{"id":7,"result":1},{"id":4,"result":1}]"#, EnvelopeFault::OtherId),
            (r#"[{"id":5,"result":1},{"id":6,"result":1},{"id":"7","result":1}]"#, EnvelopeFault::OtherId),
            (r#"[{"id":5,"result":1},{"id":6},{"id":7,"result":1}]"#, EnvelopeFault::Neither),
            (r#"[{"id":5,"result":1},{"id":6,"result":1},{"id":7,"result":1}"#, EnvelopeFault::Flaw(Flaw::CutOff)),
            (r#"[{"id":5,"result":1},{"id":6,"result":1},{"id":7,"result":1}]]"#, EnvelopeFault::Flaw(Flaw::NotJson)),
            (r#"[{"id":5,"result":1},{"id":6,"result":1},{"id":7,"result":1},]"#, EnvelopeFault::Flaw(Flaw::NotJson)),
            (r#"[{"id":5,"result":1},{"id":6,"result":1},null]"#, EnvelopeFault::Flaw(Flaw::Unlike("an answer"))),
            (r#"{"id":5,"result":1}"#, EnvelopeFault::Flaw(Flaw::Unlike("a list of answers"))),
            (
                r#"{"id":null,"error":{"code":-32600,"message":"batch too large"}}"#,
                EnvelopeFault::Refused(refused(-32600, "batch too large")),
            ),
            (r#"[{"id":null,"error":{"code":-32005,"message":"slow down"}}]"#, EnvelopeFault::Refused(refused(-32005, "slow down"))),
        ];
        for (body, fault) in bad {
            assert_eq!(read(body), Err(fault), "{body}");
        }
    }
}
