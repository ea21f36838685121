//! Who may read the secrets: the files that the configuration names, the credentials, the configuration itself
//! where it holds a secret. Its fields are found by their form, so that one added later is looked at too.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Report;

const AREA: &str = "secrets";
/// What ends in `_file` and holds no secret.
const PLAIN_FILES: [&str; 1] = ["chains_file"];

pub(super) fn examine(report: &mut Report, config: &Path) {
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let Ok(table) = text.parse::<toml::Table>() else { return };
    let folder = config.parent().unwrap_or(Path::new("."));
    let mut found = Found::default();
    walk(&toml::Value::Table(table), &mut found);
    for file in &found.files {
        look(report, &folder.join(file));
    }
    if found.inline {
        look(report, config);
    }
    if let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            let remedy = "name the directory that holds the credentials, as a user who may read it";
            return report.fail(AREA, directory.display().to_string(), "$CREDENTIALS_DIRECTORY cannot be read", remedy);
        };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
        files.sort();
        for file in files {
            look(report, &file);
        }
    }
}

#[derive(Debug, Default)]
struct Found {
    files: Vec<String>,
    /// A connection string or a URL that carries a secret stands in the file itself.
    inline: bool,
}

fn walk(value: &toml::Value, found: &mut Found) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                match value {
                    toml::Value::String(file) if key.ends_with("_file") && !PLAIN_FILES.contains(&key.as_str()) => {
                        found.files.push(file.clone());
                    }
                    _ => walk(value, found),
                }
            }
        }
        toml::Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
        toml::Value::String(text) => found.inline |= carries_secret(text),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_) => {}
    }
}

/// A URL with a password, or with a path or query in which providers put keys. A socket's `?host=` is none.
fn carries_secret(text: &str) -> bool {
    let Ok(url) = text.parse::<reqwest::Url>() else { return false };
    if url.password().is_some() {
        return true;
    }
    match url.scheme() {
        "http" | "https" | "ws" | "wss" => !matches!(url.path(), "" | "/") || url.query().is_some(),
        _ => url.query_pairs().any(|(key, _)| key == "password"),
    }
}

fn look(report: &mut Report, file: &Path) {
    let subject = file.display().to_string();
    let meta = match std::fs::metadata(file) {
        Ok(meta) => meta,
        Err(error) => return report.fail(AREA, subject, error.to_string(), "put the file there, or correct the field that names it"),
    };
    let mode = meta.mode() & 0o7777;
    let found = format!("mode {mode:04o}, owner {}", meta.uid());
    if mode & 0o007 != 0 {
        report.fail(
            AREA,
            subject,
            format!("{found}: others may read or change it"),
            "chmod 0600, then replace the secret: it may be known",
        );
    } else if mode & 0o070 != 0 {
        report.warn(
            AREA,
            subject,
            format!("{found}: its group may read or change it"),
            "chmod 0600, unless the group is the daemon's alone",
        );
    } else {
        report.ok(AREA, subject, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn y7_secrets_are_known_by_their_form() {
        for secret in [
            "postgres://app:pw@db/amanat",
            "postgres://app@db/amanat?password=pw",
            "https://node.example/v2/key",
            "https://node.example/?key=k",
            "wss://node.example/key",
            "https://user:pw@node.example",
        ] {
            assert!(carries_secret(secret), "{secret}");
        }
        for plain in ["postgres://app@localhost/amanat?host=/run/postgresql", "http://127.0.0.1:8545", "127.0.0.1:8700", "chains.toml"] {
            assert!(!carries_secret(plain), "{plain}");
        }
    }

    #[test]
    fn y7_files_are_found_in_every_section() {
        let text = "chains_file = 'c'\n[database]\nurl_file = 'a'\n[later]\nkey_file = 'b'\n[[chain]]\nid = 1\nrpc_urls = ['http://n/key']";
        let mut found = Found::default();
        walk(&toml::Value::Table(text.parse().unwrap()), &mut found);
        assert_eq!(found.files, ["a", "b"]);
        assert!(found.inline);
    }
}
