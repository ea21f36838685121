//! `make install` and the Debian package, with the binary of this build: what lands where, that nothing starts, that
//! an upgrade keeps what an operator has, and that a downgrade is refused with a reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A folder that is gone after the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("amanatd-package-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A script of ours, which must succeed.
fn script(name: &str, set: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(Path::new(ROOT).join("scripts").join(name));
    command.current_dir(ROOT).env("AMANATD_BINARY", env!("CARGO_BIN_EXE_amanatd")).env_remove("DESTDIR").env_remove("PREFIX");
    let output = command.envs(set.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{name}: {}", said(&output));
    output
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn everything_is_installed_where_it_belongs() {
    let place = Scratch::new("install");
    script("install", &[("DESTDIR", &place.0), ("PREFIX", Path::new("/opt/amanatd"))]);
    let version = Command::new(place.path("opt/amanatd/bin/amanatd")).arg("--version").output().unwrap();
    assert!(said(&version).starts_with("amanatd "), "{}", said(&version));
    for unit in ["amanatd.service", "amanatd-migrate.service", "amanatd-sign.service"] {
        let text = place.read(&format!("opt/amanatd/lib/systemd/system/{unit}"));
        assert!(text.contains("ExecStart=/opt/amanatd/bin/amanatd ") && !text.contains("/usr/"), "{unit}:\n{text}");
        assert!(text.contains("Documentation=file:/opt/amanatd/share/doc/amanatd/operating.md"), "{unit}");
    }
    for file in [
        "lib/sysusers.d/amanatd.conf",
        "lib/tmpfiles.d/amanatd.conf",
        "lib/udev/rules.d/51-amanatd-trezor.rules",
        "share/amanatd/bootstrap.sql",
        "share/amanatd/alerting/amanatd.rules.yml",
        "share/doc/amanatd/operating.md",
        "share/doc/amanatd/runbooks/AmanatdDown.md",
        "share/doc/amanatd/LICENSE",
    ] {
        assert!(place.path("opt/amanatd").join(file).is_file(), "{file}");
    }
    // What an operator edited stays as it is.
    fs::write(place.path("etc/amanatd/amanatd.toml"), "mine").unwrap();
    fs::remove_file(place.path("etc/amanatd/chains.toml")).unwrap();
    script("install", &[("DESTDIR", &place.0), ("PREFIX", Path::new("/opt/amanatd"))]);
    assert_eq!(place.read("etc/amanatd/amanatd.toml"), "mine");
    assert!(place.path("etc/amanatd/chains.toml").is_file());
}

#[test]
fn what_a_release_is_made_of_is_told_with_licences_and_checksums() {
    let told: serde_json::Value = serde_json::from_slice(&script("sbom", &[]).stdout).unwrap();
    let packages = told["packages"].as_array().unwrap();
    let names: Vec<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    for part in ["amanatd", "alloy", "sqlx", "rustls", "trezor-client"] {
        assert!(names.contains(&part), "{part} is missing");
    }
    for absent in ["coins-bip39", "proptest", "insta", "openssl"] {
        assert!(!names.contains(&absent), "{absent} is no part of a release");
    }
    for package in packages.iter().filter(|package| package["name"] != "amanatd") {
        assert!(package["checksums"][0]["checksumValue"].as_str().is_some_and(|sum| sum.len() == 64), "{package}");
        assert!(package["licenseDeclared"].as_str().is_some_and(|licence| licence != "NOASSERTION"), "{package}");
    }
    let known: Vec<&str> = packages.iter().map(|package| package["SPDXID"].as_str().unwrap()).collect();
    for relation in told["relationships"].as_array().unwrap() {
        assert!(known.contains(&relation["relatedSpdxElement"].as_str().unwrap()), "{relation}");
    }
}

/// A system of its own, with an empty package database.
struct System(Scratch);

impl System {
    fn new() -> Self {
        let root = Scratch::new("system");
        for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "etc"] {
            fs::create_dir_all(root.path(folder)).unwrap();
        }
        fs::write(root.path("var/lib/dpkg/status"), "").unwrap();
        Self(root)
    }

    fn dpkg(&self, words: &[&str]) -> Output {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", self.0.0.display()));
        command.args(["--force-script-chrootless", "--force-depends", "--force-confold", "--log=/dev/null"]).args(words);
        command.env("LC_ALL", "C").output().unwrap()
    }

    fn version(&self) -> String {
        let status = self.0.read("var/lib/dpkg/status");
        status.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or_default().to_owned()
    }
}

#[test]
fn y9_an_upgrade_keeps_everything_and_a_downgrade_is_refused() {
    let place = Scratch::new("deb");
    let build = |version: &str| {
        let package = place.path(&format!("{version}.deb"));
        let how =
            [("AMANATD_VERSION", Path::new(version)), ("AMANATD_DEB", package.as_path()), ("AMANATD_DEB_COMPRESSION", Path::new("none"))];
        script("deb", &how);
        package.display().to_string()
    };
    let (older, newer) = (build("1.0.0"), build("1.1.0"));
    let listed = said(&Command::new("dpkg-deb").args(["--contents", &older]).output().unwrap());
    assert!(listed.contains("-rwxr-xr-x root/root") && listed.contains("./usr/bin/amanatd\n"), "{listed}");
    assert!(!listed.contains("credentials"), "no secret and no place for one: {listed}");
    let scripts: String = ["preinst", "postinst", "prerm", "postrm"]
        .map(|script| fs::read_to_string(Path::new(ROOT).join("packaging").join(script)).unwrap())
        .join("\n");
    let commands =
        scripts.lines().filter(|line| !line.trim_start().starts_with(['#']) && !line.contains("echo ") && !line.contains("  back up"));
    for line in commands {
        for word in ["systemctl start", "systemctl enable", "systemctl restart", "deb-systemd-invoke", "amanatd migrate"] {
            assert!(!line.contains(word), "a money daemon starts when somebody says so: {line}");
        }
    }
    let user = said(&Command::new("id").arg("-u").output().unwrap());
    if user.trim() != "0" {
        eprintln!("not root: the package was built and read, and not installed into a root of its own");
        return;
    }

    let system = System::new();
    let installed = system.dpkg(&["-i", &older]);
    assert!(installed.status.success() && said(&installed).contains("nothing was started"), "{}", said(&installed));
    assert_eq!(system.version(), "1.0.0");
    let accounts = system.0.read("etc/passwd");
    assert!(accounts.contains("amanatd:") && accounts.contains("amanatd-sign:"), "{accounts}");
    fs::write(system.0.path("etc/amanatd/amanatd.toml"), "mine").unwrap();
    fs::write(system.0.path("etc/amanatd/credentials/database-url"), "secret").unwrap();

    let upgraded = system.dpkg(&["-i", &newer]);
    assert!(upgraded.status.success() && said(&upgraded).contains("systemctl start amanatd-migrate"), "{}", said(&upgraded));
    assert_eq!(system.version(), "1.1.0");
    assert_eq!(system.0.read("etc/amanatd/amanatd.toml"), "mine");
    assert_eq!(system.0.read("etc/amanatd/credentials/database-url"), "secret");

    let refused = system.dpkg(&["-i", &older]);
    assert!(!refused.status.success(), "{}", said(&refused));
    for word in ["1.1.0 is installed and 1.0.0 is older: refused", "newer schema", "backup"] {
        assert!(said(&refused).contains(word), "{word}: {}", said(&refused));
    }
    assert_eq!(system.version(), "1.1.0");
    assert!(system.0.path("usr/bin/amanatd").is_file());

    let purged = system.dpkg(&["--purge", "amanatd"]);
    assert!(purged.status.success() && said(&purged).contains("are kept"), "{}", said(&purged));
    assert_eq!(system.0.read("etc/amanatd/credentials/database-url"), "secret");
    assert!(!system.0.path("usr/bin/amanatd").exists());
}
