//! RLP, for the hash alone: byte strings go in as they came over the wire.
//!
//! Deliberately without numbers. The device hashes the bytes it is given, so an integer that the
//! host padded yields a signature over an encoding that no node accepts; a typed encoder would
//! repair it and hide the host's mistake.

/// Appends one byte string.
pub(super) fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes {
        [single] if *single < 0x80 => out.push(*single),
        _ => {
            header(out, 0x80, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}

/// Appends a list whose items are encoded already.
pub(super) fn list(out: &mut Vec<u8>, items: &[u8]) {
    header(out, 0xc0, items.len());
    out.extend_from_slice(items);
}

fn header(out: &mut Vec<u8>, base: u8, length: usize) {
    let bytes = length.to_be_bytes();
    let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    match length {
        0..=55 => out.push(base + bytes[bytes.len() - 1]),
        _ => {
            let count = u8::try_from(significant.len()).expect("a length has at most eight bytes");
            out.push(base + 55 + count);
            out.extend_from_slice(significant);
        }
    }
}
