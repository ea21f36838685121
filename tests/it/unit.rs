//! The daemon as its unit runs it: when systemd hears READY, that its watchdog is fed, the socket of a station
//! without a network, and that migrating needs no other secret than its own.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use amanatd::api::Client;
use amanatd::devkit::postgres::{self, APP, MIGRATOR};
use amanatd::devkit::schema::{BOOTSTRAP, FreshDatabase};
use secrecy::SecretString;

use crate::process::{Place, chain, free_port, until};

/// What systemd would hear, message by message.
struct Manager(UnixDatagram);

impl Manager {
    fn at(place: &Place) -> Self {
        let socket = UnixDatagram::bind(place.path("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    fn heard(&self) -> Vec<String> {
        let mut heard = Vec::new();
        let mut buffer = [0; 4_096];
        while let Ok(length) = self.0.recv(&mut buffer) {
            heard.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
        heard
    }
}

#[tokio::test]
async fn y4_ready_is_told_after_the_first_block_and_the_watchdog_is_fed() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let port = free_port();
    place.configure(&base.url(APP), &format!("http://127.0.0.1:{port}"));
    let manager = Manager::at(&place);
    let mut daemon = place.serve_with("log", |command| {
        command.env("NOTIFY_SOCKET", place.path("notify")).env("WATCHDOG_USEC", "1500000");
    });
    let mut heard = Vec::new();
    until(&mut daemon, "it asks for more time and feeds the watchdog", async |_| {
        heard.extend(manager.heard());
        heard.iter().any(|line| line.starts_with("EXTEND_TIMEOUT_USEC=")) && heard.iter().filter(|line| *line == "WATCHDOG=1").count() > 2
    })
    .await;
    assert!(heard.iter().any(|line| line == "STATUS=waiting for the first block of chain 31337"), "{heard:?}");
    assert!(!heard.iter().any(|line| line == "READY=1"), "before anything was read: {heard:?}");
    // The API answers meanwhile.
    assert!(place.is_ready().await);

    let _chain = chain(port).await;
    until(&mut daemon, "it is ready", async |_| {
        heard.extend(manager.heard());
        heard.iter().any(|line| line == "READY=1")
    })
    .await;
    assert_eq!(base.sql("select count(*) from chain_cursors").unwrap().trim(), "1");
    assert_eq!(daemon.terminate().code(), Some(0));
    assert!(manager.heard().iter().any(|line| line == "STOPPING=1"));

    // A chain that was read once is no reason to wait, with or without its node.
    drop(_chain);
    let mut daemon = place.serve_with("log2", |command| {
        command.env("NOTIFY_SOCKET", place.path("notify"));
    });
    until(&mut daemon, "it is ready again", async |_| manager.heard().iter().any(|line| line == "READY=1")).await;
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[tokio::test]
async fn s11_a_station_without_a_network_reaches_the_api_through_a_socket() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let chain = chain(0).await;
    place.configure(&base.url(APP), chain.url());
    std::fs::create_dir(place.path("run")).unwrap();
    let socket = place.path("run/api.sock");
    for round in 0..2 {
        let mut daemon = place.serve_with("log", |command| {
            command.env("RUNTIME_DIRECTORY", place.path("run"));
        });
        until(&mut daemon, "it is ready", async |_| place.is_ready().await && socket.exists()).await;
        let name = format!("t{round}");
        let token = place.succeed(&["token", "create", "--name", &name, "--scope", "payments:read"]);
        let url = format!("unix:{}", socket.display());
        let client = Client::new(&url, SecretString::from(token)).unwrap();
        assert_eq!(client.chains().await.unwrap()[0].chain_id, 31_337);
        // It asks for a token as the port does.
        let stranger = Client::new(&url, SecretString::from(format!("amanat_{}", "ab".repeat(32)))).unwrap();
        assert_eq!(stranger.chains().await.unwrap_err().code(), Some("unauthorized"));
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o666);
        // Killed, it leaves its socket behind, and the next one takes its place.
        daemon.kill();
        assert!(socket.exists());
    }
    for bad in ["unix:relative/path", "unix:", "ftp://x"] {
        assert!(Client::new(bad, SecretString::from("t")).is_err(), "{bad}");
    }
}

#[test]
fn y9_migrating_needs_no_other_secret() {
    let cluster = postgres::shared().unwrap();
    cluster.create_database("unit_migrate").unwrap();
    cluster.sql("unit_migrate", BOOTSTRAP).unwrap();
    let place = Place::new();
    // Neither the daemon's connection nor an endpoint can be read by this unit.
    place.write("amanatd.toml", "[database]\nurl_file = \"not-there\"\n\n[[chain]]\nid = 31337\nrpc_urls_file = \"not-there-either\"\n");
    place.run(&["migrate"]).assert_failed(&["migrator-url"]);
    std::fs::create_dir(place.path("credentials")).unwrap();
    place.write("credentials/migrator-url", &cluster.url(MIGRATOR, "unit_migrate"));
    let mut command = place.command(&["migrate"]);
    let output = command.env("CREDENTIALS_DIRECTORY", place.path("credentials")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("schema is at migration"), "{output:?}");
    cluster.drop_database("unit_migrate").unwrap();
}
