//! The systemd units: they parse, and they are as tight as we say.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `systemd-analyze security` counts exposure from 0 to 10; the limit of each unit is ten times that.
const EXPOSURE_MAX: [(&str, &str); 3] = [("amanatd.service", "15"), ("amanatd-migrate.service", "15"), ("amanatd-sign.service", "10")];

const UNITS: [&str; 3] = ["amanatd.service", "amanatd-migrate.service", "amanatd-sign.service"];
/// Those that go on running.
const SERVING: [&str; 2] = ["amanatd.service", "amanatd-sign.service"];

#[test]
fn the_units_parse() {
    let place = Unpacked::new("verify");
    for unit in UNITS {
        let Some(output) = systemd_analyze(&["verify", "--man=no"], &place.0.join(unit)) else { return };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // It also reads the host's own units; what it says about those is not our business.
        let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("amanatd")).collect();
        assert!(about_ours.is_empty(), "{unit}: {about_ours:?}");
        assert!(output.status.success(), "{unit}: {said}");
    }
}

#[test]
fn the_units_are_tight() {
    let place = Unpacked::new("security");
    for (unit, limit) in EXPOSURE_MAX {
        let arguments = ["security", "--offline=true", "--no-pager", &format!("--threshold={limit}")];
        let Some(output) = systemd_analyze(&arguments, &place.0.join(unit)) else { return };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{unit} is more exposed than {limit}:\n{said}");
    }
}

/// Without the line, systemd would count the unit as started at once; with notify-reload, systemd
/// 252 ignores the line.
#[test]
fn the_units_say_when_they_are_ready() {
    for unit in SERVING {
        let text = fs::read_to_string(source(unit)).unwrap();
        assert!(text.lines().any(|line| line == "Type=notify"), "{unit}");
        assert!(text.lines().any(|line| line.starts_with("WatchdogSec=")), "{unit}");
        // Neither program reads anything again, and SIGHUP would end it.
        assert!(!text.contains("ExecReload="), "{unit}");
        // Secrets in the environment are readable by whoever can read /proc.
        let secrets = ["DATABASE_URL", "PASSWORD", "SECRET", "TOKEN"];
        let leaks = text.lines().filter(|line| line.starts_with("Environment")).any(|line| secrets.iter().any(|word| line.contains(word)));
        assert!(!leaks, "{unit}: a secret belongs in LoadCredential");
    }
}

#[test]
fn only_the_signing_station_sees_usb() {
    let daemon = fs::read_to_string(source("amanatd.service")).unwrap();
    let station = fs::read_to_string(source("amanatd-sign.service")).unwrap();
    assert!(daemon.contains("\nPrivateDevices=yes\n") && !daemon.contains("\nDeviceAllow="));
    assert!(station.contains("\nDeviceAllow=char-usb_device rw\n"));
    // The station asks the daemon; it has no way into the database.
    assert!(!station.contains("database-url"));
    // Through a socket of this host, and through nothing else.
    assert!(station.contains("\nPrivateNetwork=yes\n") && station.contains(" sign --url unix:/run/amanatd/api.sock\n"));
    assert!(station.contains("\nRestrictAddressFamilies=AF_UNIX AF_NETLINK\n"));
    // The migrator's connection is one unit's, and that unit has no other.
    let migrator = fs::read_to_string(source("amanatd-migrate.service")).unwrap();
    assert!(!daemon.contains("LoadCredential=migrator-url") && !station.contains("migrator-url"));
    let secrets: Vec<&str> = migrator.lines().filter(|line| line.starts_with("LoadCredential=")).collect();
    assert_eq!(secrets, ["LoadCredential=migrator-url:/etc/amanatd/credentials/migrator-url"]);
    assert!(!migrator.contains("[Install]"), "nothing migrates by itself");

    let rules = fs::read_to_string(source("51-amanatd-trezor.rules")).unwrap();
    for (vendor, product) in [("534c", "0001"), ("1209", "53c0"), ("1209", "53c1")] {
        assert!(rules.contains(&format!("ATTR{{idVendor}}==\"{vendor}\", ATTR{{idProduct}}==\"{product}\"")));
    }
}

#[test]
fn the_accounts_and_folders_can_be_made() {
    let place = Unpacked::new("accounts");
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return skipped("only root can give files to root; accounts and folders were not tried");
    }
    fs::create_dir(place.0.join("etc")).unwrap();
    let root = format!("--root={}", place.0.display());
    for (program, arguments, file) in [
        ("systemd-sysusers", vec![root.as_str(), "-"], "amanatd.sysusers.conf"),
        ("systemd-tmpfiles", vec![root.as_str(), "--create", "-"], "amanatd.tmpfiles.conf"),
    ] {
        let made = Command::new(program).args(&arguments).stdin(fs::File::open(source(file)).unwrap()).output();
        match made {
            Ok(output) => assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => return skipped(&format!("{program} does not run here ({error}); {file} was not tried")),
        }
    }
    let accounts = fs::read_to_string(place.0.join("etc/passwd")).unwrap();
    let groups = fs::read_to_string(place.0.join("etc/group")).unwrap();
    assert!(accounts.contains("\namanatd:") || accounts.starts_with("amanatd:"), "{accounts}");
    assert!(groups.lines().any(|line| line.starts_with("plugdev:") && line.ends_with("amanatd-sign")), "{groups}");
}

/// Copies of the units whose programs exist here.
struct Unpacked(PathBuf);

impl Unpacked {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("amanatd-units-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for unit in UNITS {
            let text = fs::read_to_string(source(unit)).unwrap();
            assert!(text.contains("ExecStart=/usr/bin/amanatd "), "{unit}");
            fs::write(folder.join(unit), text.replace("/usr/bin/amanatd ", &format!("{} ", env!("CARGO_BIN_EXE_amanatd")))).unwrap();
        }
        Self(folder)
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

/// `None`, with a line that says so, where there is no systemd.
fn systemd_analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).arg(unit).env("SYSTEMD_COLORS", "0").output() {
        Ok(output) => Some(output),
        Err(error) => {
            skipped(&format!("systemd-analyze does not run here ({error}); the units were not checked"));
            None
        }
    }
}

/// Not `println!`, which is shown only when a test fails.
fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}
