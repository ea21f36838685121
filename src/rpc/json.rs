//! JSON read once, from front to back, without building a tree. Pure.
//!
//! A node's answer is mostly hexadecimal strings of known lengths, so a reader that knows what it wants
//! next is several times faster than a general one. It takes exactly what RFC 8259 allows, also in
//! values that nobody wants, and it refuses names that come twice where the caller says so.
//!
//! Absent on purpose: numbers as values (nodes write them as strings) and any recursion of its own; a
//! value that is skipped may be nested [`DEPTH_MAX`] deep.

use std::borrow::Cow;

use super::error::Fault;

/// Deeper than any honest answer; a bit for each level fits one word.
pub(super) const DEPTH_MAX: u32 = 128;

/// What is wrong with a text. The text itself is a stranger's and is never quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("cut off")]
    CutOff,
    #[error("not JSON")]
    NotJson,
    #[error("not UTF-8")]
    NotText,
    #[error("nested more than {DEPTH_MAX} deep")]
    TooDeep,
    #[error("something else where {0} should be")]
    Unlike(&'static str),
    #[error("without `{0}`")]
    Missing(&'static str),
    #[error("with `{0}` twice")]
    Twice(&'static str),
}

impl From<Flaw> for Fault {
    fn from(flaw: Flaw) -> Self {
        Self::malformed(flaw.to_string())
    }
}

/// A value that can be read from JSON, in its one form.
pub(super) trait Wire: Sized {
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw>;

    /// What it means that an object lacks the field.
    fn missing(name: &'static str) -> Result<Self, Flaw> {
        Err(Flaw::Missing(name))
    }
}

/// Reads a whole text; nothing but white space may follow the value.
pub(super) fn read_whole<T: Wire>(text: &str) -> Result<T, Flaw> {
    let mut reader = Reader::new(text);
    let value = T::from_wire(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Reads a list one by one, so that what it holds is never twice in memory; false where there is `null`
/// instead.
pub(super) fn read_list<'a>(text: &'a str, mut read: impl FnMut(&mut Reader<'a>) -> Result<(), Fault>) -> Result<bool, Fault> {
    let mut reader = Reader::new(text);
    let absent = reader.null()?;
    if !absent {
        let mut first = true;
        reader.open(b'[', "a list")?;
        while reader.another(b']', &mut first)? {
            read(&mut reader)?;
        }
    }
    reader.end()?;
    Ok(!absent)
}

/// A place in a text. Between two calls it stands before a value, or before what follows one.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is not white space; it is not consumed.
    #[inline(always)]
    pub(super) fn peek(&mut self) -> Result<u8, Flaw> {
        match self.text.as_bytes().get(self.at) {
            Some(&byte) if byte > b' ' => Ok(byte),
            Some(_) | None => self.peek_past_space(),
        }
    }

    /// Nodes write none; people do.
    #[cold]
    fn peek_past_space(&mut self) -> Result<u8, Flaw> {
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                Some(&byte) => return Ok(byte),
                None => return Err(Flaw::CutOff),
            }
        }
    }

    /// Refuses whatever follows the value.
    pub(super) fn end(&mut self) -> Result<(), Flaw> {
        match self.peek() {
            Err(Flaw::CutOff) => Ok(()),
            Ok(_) | Err(_) => Err(Flaw::NotJson),
        }
    }

    /// What is left of the text, white space before the next value taken off.
    #[inline(always)]
    pub(super) fn rest(&mut self) -> &'a [u8] {
        let _ = self.peek();
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Goes past bytes that the caller has seen in [`Reader::rest`]; they end at a quotation mark.
    #[inline(always)]
    pub(super) fn advance(&mut self, bytes: usize) {
        self.at += bytes;
    }

    // === objects and lists ===

    /// Goes into an object, or says what should be there instead.
    #[inline(always)]
    pub(super) fn open(&mut self, bracket: u8, wanted: &'static str) -> Result<(), Flaw> {
        if self.peek()? != bracket {
            return Err(self.unlike(wanted));
        }
        self.at += 1;
        Ok(())
    }

    /// The next name of an object, its colon consumed; `None` at the end of the object.
    #[inline(always)]
    pub(super) fn name(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>, Flaw> {
        if !self.another(b'}', first)? {
            return Ok(None);
        }
        let name = self.string("a name")?;
        self.colon()?;
        Ok(Some(name))
    }

    /// Whether a list or an object, which ends with `close`, goes on.
    #[inline(always)]
    pub(super) fn another(&mut self, close: u8, first: &mut bool) -> Result<bool, Flaw> {
        let begins = std::mem::take(first);
        let byte = self.peek()?;
        if byte == close {
            self.at += 1;
            return Ok(false);
        }
        if !begins {
            if byte != b',' {
                return Err(Flaw::NotJson);
            }
            self.at += 1;
        }
        // After a comma there is always another one.
        Ok(true)
    }

    #[inline(always)]
    fn colon(&mut self) -> Result<(), Flaw> {
        if self.peek()? != b':' {
            return Err(Flaw::NotJson);
        }
        self.at += 1;
        Ok(())
    }

    // === values ===

    /// Consumes `null` if it is next.
    #[inline(always)]
    pub(super) fn null(&mut self) -> Result<bool, Flaw> {
        if self.peek()? != b'n' {
            return Ok(false);
        }
        self.literal("null")?;
        Ok(true)
    }

    pub(super) fn boolean(&mut self) -> Result<bool, Flaw> {
        match self.peek()? {
            b't' => self.literal("true").map(|()| true),
            b'f' => self.literal("false").map(|()| false),
            _ => Err(self.unlike("true or false")),
        }
    }

    /// A string, its escapes resolved.
    #[inline(always)]
    pub(super) fn string(&mut self, wanted: &'static str) -> Result<Cow<'a, str>, Flaw> {
        if self.peek()? != b'"' {
            return Err(self.unlike(wanted));
        }
        let text = self.text;
        let content = self.at + 1;
        let end = content + plain_length(text.as_bytes().get(content..).unwrap_or_default());
        if text.as_bytes().get(end) != Some(&b'"') {
            return self.escaped().map(Cow::Owned);
        }
        self.at = end + 1;
        text.get(content..end).map(Cow::Borrowed).ok_or(Flaw::NotJson)
    }

    /// The rare string with escapes; surrogates must come in pairs.
    #[cold]
    fn escaped(&mut self) -> Result<String, Flaw> {
        let start = self.at;
        self.skip_string()?;
        let quoted = self.text.get(start..self.at).ok_or(Flaw::NotJson)?;
        serde_json::from_str(quoted).map_err(|_| Flaw::NotJson)
    }

    /// The text of the next value, whatever it is, checked to be JSON.
    pub(super) fn raw(&mut self) -> Result<&'a str, Flaw> {
        self.peek()?;
        let start = self.at;
        self.skip()?;
        self.text.get(start..self.at).ok_or(Flaw::NotJson)
    }

    /// Goes past the next value, checking that it is JSON.
    #[inline(always)]
    pub(super) fn skip(&mut self) -> Result<(), Flaw> {
        // Almost always a string.
        if self.peek()? == b'"' { self.skip_string() } else { self.skip_any() }
    }

    fn skip_any(&mut self) -> Result<(), Flaw> {
        // One bit for each open bracket, the innermost lowest: set for an object.
        let mut objects: u128 = 0;
        let mut depth = 0;
        loop {
            match self.peek()? {
                b'"' => self.skip_string()?,
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    let is_object = bracket == b'{';
                    if self.peek()? == if is_object { b'}' } else { b']' } {
                        self.at += 1;
                    } else {
                        if depth == DEPTH_MAX {
                            return Err(Flaw::TooDeep);
                        }
                        depth += 1;
                        objects = objects << 1 | u128::from(is_object);
                        if is_object {
                            self.skip_name()?;
                        }
                        continue;
                    }
                }
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                b'-' | b'0'..=b'9' => self.skip_number()?,
                _ => return Err(Flaw::NotJson),
            }
            // A value has ended; so may what holds it.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let in_object = objects & 1 == 1;
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        if in_object {
                            self.peek()?;
                            self.skip_name()?;
                        }
                        break;
                    }
                    b'}' if in_object => {}
                    b']' if !in_object => {}
                    _ => return Err(Flaw::NotJson),
                }
                self.at += 1;
                depth -= 1;
                objects >>= 1;
            }
        }
    }

    fn skip_name(&mut self) -> Result<(), Flaw> {
        self.skip_string()?;
        self.colon()
    }

    /// Stands at what should be a quotation mark.
    #[inline(always)]
    fn skip_string(&mut self) -> Result<(), Flaw> {
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) != Some(&b'"') {
            return Err(Flaw::NotJson);
        }
        self.at += 1;
        // A hash or an address ends where it must.
        let rest = bytes.get(self.at..).unwrap_or_default();
        let length = if ends_there::<64>(rest) {
            66
        } else if ends_there::<40>(rest) {
            42
        } else {
            plain_length(rest)
        };
        self.at += length;
        if rest.get(length) == Some(&b'"') {
            self.at += 1;
            return Ok(());
        }
        self.skip_rest_of_string()
    }

    #[cold]
    fn skip_rest_of_string(&mut self) -> Result<(), Flaw> {
        let bytes = self.text.as_bytes();
        loop {
            self.at += plain_length(bytes.get(self.at..).unwrap_or_default());
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.skip_escape()?,
                // A control character.
                Some(_) => return Err(Flaw::NotJson),
                None => return Err(Flaw::CutOff),
            }
        }
    }

    #[cold]
    fn skip_escape(&mut self) -> Result<(), Flaw> {
        let bytes = self.text.as_bytes();
        match bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = bytes.get(self.at + 2..self.at + 6).ok_or(Flaw::CutOff)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(Flaw::NotJson);
                }
                self.at += 6;
            }
            Some(_) => return Err(Flaw::NotJson),
            None => return Err(Flaw::CutOff),
        }
        Ok(())
    }

    fn skip_number(&mut self) -> Result<(), Flaw> {
        let bytes = self.text.as_bytes();
        let byte = |at: usize| bytes.get(at).copied();
        let mut at = self.at;
        if byte(at) == Some(b'-') {
            at += 1;
        }
        let digits = |from: usize| bytes.get(from..).unwrap_or_default().iter().take_while(|digit| digit.is_ascii_digit()).count();
        let whole = digits(at);
        if whole == 0 || (whole > 1 && byte(at) == Some(b'0')) {
            return Err(Flaw::NotJson);
        }
        at += whole;
        if byte(at) == Some(b'.') {
            let fraction = digits(at + 1);
            if fraction == 0 {
                return Err(Flaw::NotJson);
            }
            at += 1 + fraction;
        }
        if matches!(byte(at), Some(b'e' | b'E')) {
            at += 1 + usize::from(matches!(byte(at + 1), Some(b'+' | b'-')));
            let exponent = digits(at);
            if exponent == 0 {
                return Err(Flaw::NotJson);
            }
            at += exponent;
        }
        self.at = at;
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Flaw> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(Flaw::NotJson);
        }
        self.at += word.len();
        Ok(())
    }

    /// The next value is of another kind, unless it is no value at all.
    #[cold]
    pub(super) fn unlike(&mut self, wanted: &'static str) -> Flaw {
        self.skip().err().unwrap_or(Flaw::Unlike(wanted))
    }
}

/// Defines an object and how it is read: each field by its name on the wire, once, and other names
/// ignored. In tests the object can also be read by serde, which is what ours is held against.
macro_rules! wire {
    ($($(#[$note:meta])* $vis:vis struct $object:ident {
        $($(#[$of_field:meta])* $field_vis:vis $field:ident: $type:ty = $name:literal,)*
    })*) => {$(
        $(#[$note])*
        #[cfg_attr(test, derive(serde::Deserialize))]
        $vis struct $object {
            $($(#[$of_field])* #[cfg_attr(test, serde(rename = $name))] $field_vis $field: $type,)*
        }

        impl $object {
            /// `other` gets the names that are not fields, and must go past their values.
            #[inline]
            fn read_with<'a>(
                reader: &mut $crate::rpc::json::Reader<'a>,
                mut other: impl FnMut(&str, &mut $crate::rpc::json::Reader<'a>) -> Result<(), $crate::rpc::json::Flaw>,
            ) -> Result<Self, $crate::rpc::json::Flaw> {
                use $crate::rpc::json::{Wire, once};
                $(let mut $field: Option<$type> = None;)*
                let mut first = true;
                reader.open(b'{', "an object")?;
                while let Some(name) = reader.name(&mut first)? {
                    match &*name {
                        $($name => once(&mut $field, $name, reader)?,)*
                        name => other(name, reader)?,
                    }
                }
                Ok(Self { $($field: match $field {
                    Some(value) => value,
                    None => <$type>::missing($name)?,
                },)* })
            }
        }

        impl $crate::rpc::json::Wire for $object {
            #[inline]
            fn from_wire(reader: &mut $crate::rpc::json::Reader<'_>) -> Result<Self, $crate::rpc::json::Flaw> {
                Self::read_with(reader, |_, reader| reader.skip())
            }
        }
    )*};
}
pub(super) use wire;

/// How many bytes of a string's content are before its end, an escape, or a control character, which
/// a string may not hold.
#[inline(always)]
fn plain_length(bytes: &[u8]) -> usize {
    const WIDE: usize = 16;
    let mut at = 0;
    // Names and small numbers end within the first words; hashes and data go on.
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let marks = marks(word);
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
        if at == WIDE {
            while bytes.get(at..).and_then(<[u8]>::first_chunk::<WIDE>).is_some_and(is_plain) {
                at += WIDE;
            }
        }
    }
    let tail = bytes.get(at..).unwrap_or_default();
    at + tail.iter().position(|&byte| ends_plain(byte)).unwrap_or(tail.len())
}

/// Whether a string's content is `0x` and so many bytes more, all plain.
#[inline(always)]
fn ends_there<const DIGITS: usize>(content: &[u8]) -> bool {
    content.get(DIGITS + 2) == Some(&b'"')
        && content.starts_with(b"0x")
        && content.get(2..).and_then(<[u8]>::first_chunk::<DIGITS>).is_some_and(is_plain)
}

/// The top bit of each byte that is not plain; other bits are clear.
#[inline(always)]
fn marks(word: &[u8; 8]) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let word = u64::from_le_bytes(*word);
    // A byte's top bit is set where subtracting borrows. A borrow may also mark the byte above the
    // first match, never one below it.
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = word ^ (ONES * 0x22);
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = word ^ (ONES * 0x5c);
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (control | quote | backslash) & TOPS
}

/// Looks at every byte, also after one that is not plain: without a way out the compiler takes many at
/// a time.
#[inline(always)]
fn is_plain<const N: usize>(bytes: &[u8; N]) -> bool {
    !bytes.iter().fold(false, |found, &byte| found | ends_plain(byte))
}

#[inline(always)]
const fn ends_plain(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

// === values made of values ===

impl<T: Wire> Wire for Option<T> {
    #[inline]
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        if reader.null()? { Ok(None) } else { T::from_wire(reader).map(Some) }
    }

    fn missing(_: &'static str) -> Result<Self, Flaw> {
        Ok(None)
    }
}

/// A flag that a node may leave out.
impl Wire for bool {
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        reader.boolean()
    }

    fn missing(_: &'static str) -> Result<Self, Flaw> {
        Ok(false)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        let mut list = Self::new();
        let mut first = true;
        reader.open(b'[', "a list")?;
        while reader.another(b']', &mut first)? {
            list.push(T::from_wire(reader)?);
        }
        Ok(list)
    }
}

/// Reads the field of an object that may come once.
#[inline(always)]
pub(super) fn once<T: Wire>(field: &mut Option<T>, name: &'static str, reader: &mut Reader<'_>) -> Result<(), Flaw> {
    if field.is_some() {
        return Err(Flaw::Twice(name));
    }
    *field = Some(T::from_wire(reader)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    fn skips(text: &str) -> Result<(), Flaw> {
        let mut reader = Reader::new(text);
        reader.skip()?;
        reader.end()
    }

    #[test]
    fn f14_what_nobody_wants_must_still_be_json() {
        let texts = [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "12",
            "-1.5e+10",
            "1E5",
            "0.0",
            "\"\"",
            "\"a\\n\\u00e9\\\"\"",
            "[]",
            "{}",
            "[[],{}]",
            " [1 , 2]\n",
            r#"{"a":{"b":[1,{"c":null}]},"a":2}"#,
            r#""\ud800""#,
            "1e999999",
            "\"0123456789abcdef\"",
            "\"é\"",
            "",
            " ",
            "nul",
            "nulll",
            "tru",
            "01",
            "-",
            "1.",
            "1.e5",
            ".5",
            "1e",
            "1e+",
            "+1",
            "\"",
            "\"a",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"a\nb\"",
            "\"0123456\u{1f}89\"",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\" 1}",
            "{1:2}",
            "[}",
            "{]",
            "[1}",
            "{\"a\":1]",
            "1 1",
            "[] []",
            "[]x",
            "\u{feff}[]",
            "NaN",
            "'a'",
            "[1]\0",
            "\u{a0}1",
        ];
        for text in texts {
            let reference = serde_json::from_str::<IgnoredAny>(text);
            assert_eq!(skips(text).is_ok(), reference.is_ok(), "{text:?}");
        }
    }

    #[test]
    fn f14_nesting_has_a_bound() {
        let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            assert_eq!(skips(&nested(open, close, 128)), Ok(()));
            assert_eq!(skips(&nested(open, close, 129)), Err(Flaw::TooDeep));
            assert_eq!(skips(&open.repeat(1_000_000)), Err(Flaw::TooDeep));
        }
    }

    #[test]
    fn f14_strings_end_where_serde_json_ends_them() {
        for length in 0..40 {
            for special in ['"', '\\', '\u{1f}', '\n', '\0', ' ', '!', '#', '[', ']', '\u{7f}', 'é', '\u{10ffff}'] {
                for place in 0..=length {
                    let mut content: String = "x".repeat(length);
                    content.insert(place, special);
                    let text = format!("\"{content}\"");
                    let reference = serde_json::from_str::<String>(&text);
                    let mut reader = Reader::new(&text);
                    let ours = reader.string("text").map(Cow::into_owned).and_then(|string| reader.end().map(|()| string));
                    assert_eq!(ours.ok(), reference.ok(), "{text:?}");
                    assert_eq!(skips(&text).is_ok(), serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn f14_escapes_are_resolved_and_surrogates_come_in_pairs() {
        for text in [r#""\u0030x1""#, r#""\"\\\/\b\f\n\r\t""#, r#""\ud83d\ude00""#, r#""\ud83d""#, r#""\ude00\ud83d""#, r#""a\u12""#] {
            let ours = Reader::new(text).string("text").map(Cow::into_owned).ok();
            assert_eq!(ours, serde_json::from_str::<String>(text).ok(), "{text}");
        }
    }
}
