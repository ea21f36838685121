//! `doctor`: looks at everything the daemon stands on, and says of each finding what to do about it.
//!
//! It reads and asks, and changes nothing: no row, no chain, no device. Each part is looked at by itself, so that one fault does not hide the
//! next; what cannot be looked at because of another finding says so.

mod chains;
mod database;
mod device;
mod disk;
mod secrets;
mod webhooks;

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::console::{say, table};
use crate::config::Config;
use crate::signing::DeviceAddress;

/// What `amanatd doctor` looks at.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
    /// Look at a Trezor too: usb, or usb:BUS:ADDRESS. Nothing is shown or asked on it but its public keys.
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceAddress>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// It works, and somebody should look.
    Warning,
    /// It does not work, or is not safe.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    area: &'static str,
    /// What of the area: a chain, an endpoint, a file.
    subject: String,
    found: String,
    /// What to do; empty where there is nothing to do.
    remedy: String,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Report(Vec<Finding>);

impl Report {
    fn ok(&mut self, area: &'static str, subject: impl Into<String>, found: impl Into<String>) {
        self.add(Level::Ok, area, subject, found, "");
    }

    fn warn(&mut self, area: &'static str, subject: impl Into<String>, found: impl Into<String>, remedy: &str) {
        self.add(Level::Warning, area, subject, found, remedy);
    }

    fn fail(&mut self, area: &'static str, subject: impl Into<String>, found: impl Into<String>, remedy: &str) {
        self.add(Level::Failure, area, subject, found, remedy);
    }

    fn add(&mut self, level: Level, area: &'static str, subject: impl Into<String>, found: impl Into<String>, remedy: &str) {
        self.0.push(Finding { level, area, subject: subject.into(), found: found.into(), remedy: remedy.to_owned() });
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }
}

/// Looks at everything. An error if anything is a failure; warnings are none.
pub(super) async fn run(args: DoctorArgs, path: &Path) -> anyhow::Result<()> {
    let mut report = Report::default();
    secrets::examine(&mut report, path);
    match Config::load(path) {
        Ok(config) => {
            let chains = config.chains.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            report.ok("configuration", path.display().to_string(), format!("read; chains {chains}"));
            examine(&mut report, &args, &config).await;
        }
        Err(error) => {
            let remedy = "correct the file: operating.md lists every field. Nothing else was looked at";
            report.fail("configuration", path.display().to_string(), causes(&error), remedy);
        }
    }
    print(&report, args.json)?;
    match report.count(Level::Failure) {
        0 => Ok(()),
        1 => anyhow::bail!("1 failure"),
        failures => anyhow::bail!("{failures} failures"),
    }
}

async fn examine(report: &mut Report, args: &DoctorArgs, config: &Config) {
    for (name, address) in [("api.listen", config.api_listen), ("metrics.listen", config.metrics_listen)] {
        if address.ip().is_loopback() {
            report.ok("configuration", name, address.to_string());
        } else {
            let remedy = "both speak plain HTTP, and metrics ask for no token: listen on loopback, with a TLS proxy or a tunnel in front";
            report.warn("configuration", name, format!("{address} is not loopback"), remedy);
        }
    }
    if config.plan.approvals_required < 2 {
        let remedy = "set planning.approvals_required to 2 or more where one person must not be enough";
        report.warn("configuration", "planning", "one officer alone can approve an outflow", remedy);
    }
    let database = database::examine(report, config).await;
    disk::examine(report, config);
    chains::examine(report, config, database.as_ref()).await;
    if let Some(database) = &database {
        webhooks::examine(report, config, database).await;
    }
    if let Some(device) = args.device {
        device::examine(report, device, database.as_ref()).await;
    }
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        say(serde_json::to_string_pretty(&report.0)?);
        return Ok(());
    }
    let level = |level: Level| match level {
        Level::Ok => "ok",
        Level::Warning => "WARNING",
        Level::Failure => "FAILURE",
    };
    let rows: Vec<Vec<String>> = report
        .0
        .iter()
        .map(|finding| vec![level(finding.level).to_owned(), finding.area.to_owned(), finding.subject.clone(), finding.found.clone()])
        .collect();
    table(&["", "area", "what", "found"], &rows, &[]);
    let mut open: Vec<&Finding> = report.0.iter().filter(|finding| finding.level > Level::Ok).collect();
    open.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    if !open.is_empty() {
        say("\nWhat to do:");
        for finding in open {
            let line = format!("{} {} {}: {}", level(finding.level), finding.area, finding.subject, finding.remedy);
            say(format!("- {}", super::console::legible(&line)));
        }
    }
    say(format!("\n{} failures, {} warnings", report.count(Level::Failure), report.count(Level::Warning)));
    Ok(())
}

/// An error and its causes in one line.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}
