//! As much XML as two central banks write: tags, their attributes, and the text behind them. No entities,
//! no nesting: a document that needs more is refused by whoever misses something in it.

/// A tag that opens or stands alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    pub name: &'a str,
    attributes: Vec<(&'a str, &'a str)>,
    /// What follows it, up to the next tag.
    pub text: &'a str,
}

impl<'a> Tag<'a> {
    pub fn attribute(&self, name: &str) -> Option<&'a str> {
        self.attributes.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }
}

/// The tags of a document in their order; `None` where one does not end, or is not closed: half an answer.
pub fn tags(document: &str) -> Option<Vec<Tag<'_>>> {
    let mut tags = Vec::new();
    let mut open = 0_i64;
    let mut rest = document;
    // Ends: each turn takes a tag off.
    while let Some(start) = rest.find('<') {
        let inside = &rest[start + 1..];
        let end = inside.find('>')?;
        let (tag, after) = (&inside[..end], &inside[end + 1..]);
        rest = after;
        if tag.starts_with(['/', '?', '!']) {
            open -= i64::from(tag.starts_with('/'));
            continue;
        }
        open += i64::from(!tag.ends_with('/'));
        let tag = tag.strip_suffix('/').unwrap_or(tag);
        let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        let text = after.find('<').map_or(after, |next| &after[..next]);
        tags.push(Tag { name, attributes: read_attributes(attributes)?, text: text.trim() });
    }
    (open == 0).then_some(tags)
}

fn read_attributes(mut text: &str) -> Option<Vec<(&str, &str)>> {
    let mut attributes = Vec::new();
    // Ends: each turn takes an attribute off.
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Some(attributes);
        }
        let (name, after) = text.split_once('=')?;
        let quote = after.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
        let (value, after) = after[1..].split_once(quote)?;
        attributes.push((name.trim(), value));
        text = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_attributes_of_either_quote() {
        let found = tags("<?xml version='1.0'?><a><b x='1' y=\"2 3\"> t </b><c/></a><!-- d -->").unwrap();
        let names: Vec<&str> = found.iter().map(|tag| tag.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!((found[1].attribute("x"), found[1].attribute("y"), found[1].attribute("z")), (Some("1"), Some("2 3"), None));
        assert_eq!((found[1].text, found[2].text), ("t", ""));
        for bad in ["<a", "<a>", "<a><b></b>", "<a x>", "<a x=1>", "<a x='1>"] {
            assert!(tags(bad).is_none(), "{bad}");
        }
    }
}
