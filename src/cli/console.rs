//! Writing for people: lines and tables on standard output.
//!
//! What is printed may repeat words of a daemon, a device or a stranger. None of them may move the cursor,
//! colour a line, turn its direction around, or begin a line that looks like ours.

use std::io::Write;

/// Prints a line, or several. A reader that went away (a closed pipe) is no error of ours.
pub(super) fn say(line: impl AsRef<str>) {
    let _ = writeln!(std::io::stdout().lock(), "{}", printable(line.as_ref()));
}

/// Says how far a long command is, on standard error.
pub(super) fn note(line: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(line.as_ref()));
}

/// The text without what steers a terminal. Line ends stay: our own texts have them.
pub fn printable(text: &str) -> String {
    text.chars().filter(|character| *character == '\n' || !steers(*character)).collect()
}

/// Somebody else's words, made fit to stand inside a line of ours: one line, and nothing that steers.
pub(super) fn legible(text: &str) -> String {
    text.chars().map(|character| if character.is_whitespace() { ' ' } else { character }).filter(|character| !steers(*character)).collect()
}

/// Control characters, and the invisible ones that reorder or hide their neighbours.
fn steers(character: char) -> bool {
    let invisible = ['\u{061c}', '\u{feff}', '\u{2028}', '\u{2029}'];
    character.is_control()
        || invisible.contains(&character)
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

/// Prints rows in columns as wide as their widest cell. `right` names the columns of numbers.
pub(super) fn table(head: &[&str], rows: &[Vec<String>], right: &[usize]) {
    for line in table_lines(head, rows, right) {
        say(line);
    }
}

/// The lines of a table, heading first.
pub(crate) fn table_lines(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> Vec<String> {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| legible(cell)).collect()).collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let mut text = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if right.contains(&column) { (padding.as_str(), "") } else { ("", padding.as_str()) };
            text.push_str(before);
            text.push_str(cell);
            text.push_str(after);
            text.push_str("  ");
        }
        text.trim_end().to_owned()
    };
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    std::iter::once(line(&head)).chain(rows.iter().map(|row| line(row))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_printed() {
        assert_eq!(printable("a\u{1b}[2Kb\rc\u{7}\u{9b}31m\nd\t"), "a[2Kbc31m\nd");
        assert_eq!(printable("pay \u{202e}0001\u{202c} \u{200b}now"), "pay 0001 now");
        let plain = "Zürich 123.45 USDC → 0x22\n";
        assert_eq!(printable(plain), plain);
    }

    #[test]
    fn foreign_words_cannot_begin_a_line() {
        assert_eq!(legible("halted\nsigned: sweep\u{2028}is\tsigned\r\n"), "halted signed: sweep is signed  ");
        let lines = table_lines(&["name"], &[vec!["a\nb\u{1b}[1m".to_owned()]], &[]);
        assert_eq!(lines, ["name", "a b[1m"]);
    }
}
