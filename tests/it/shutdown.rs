//! The end of the daemon, as a process: in bounded time, whatever its clients and its node do.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use amanatd::devkit::child;
use amanatd::devkit::postgres::SUPERUSER;
use amanatd::devkit::stage::{PATIENCE, Stage, StageOptions};
use rustix::process::Signal;
use sqlx::{Connection, Executor, PgConnection};

/// A daemon that runs, in a directory of its own.
async fn running(name: &str) -> Stage {
    let directory = std::env::temp_dir().join(format!("amanatd-shutdown-{name}-{}", std::process::id()));
    let options = StageOptions { binary: PathBuf::from(env!("CARGO_BIN_EXE_amanatd")), directory, durable: false };
    let mut stage = Stage::start(options).await.unwrap();
    stage.run(&["migrate"]).unwrap();
    stage.start_daemon().await.unwrap();
    stage
}

/// A client that began a request and says nothing more.
fn half_open(url: &str) -> TcpStream {
    let address: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET /v1/chains HTTP/1.1\r\nHost: amanatd\r\nX-Sl").unwrap();
    client
}

/// Waits until the daemon's log has a line with these words.
fn until_logged(stage: &Stage, words: &str) {
    let started = Instant::now();
    while !std::fs::read_to_string(stage.path("daemon.log")).unwrap().contains(words) {
        assert!(started.elapsed() < PATIENCE, "no {words:?} in the log:\n{}", stage.log_tail());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn half_sent_requests_do_not_hold_the_end_up() {
    let mut stage = running("half-open").await;
    let clients = [half_open(&stage.api_url()), half_open(&stage.metrics_url())];
    let status = stage.stop_daemon().unwrap();
    assert_eq!(status.code(), Some(0), "{status}: {}", stage.log_tail());
    drop(clients);
    std::fs::remove_dir_all(stage.path("")).unwrap();
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut stage = running("twice").await;
    // A request that waits for the database holds the orderly end up.
    let mut holder = PgConnection::connect(&stage.database_url(SUPERUSER)).await.unwrap();
    holder.execute("begin; lock table api_tokens in access exclusive mode").await.unwrap();
    let mut client = half_open(&stage.api_url());
    let token = "0".repeat(64);
    client.write_all(format!("ow: 1\r\nAuthorization: Bearer amanat_{token}\r\n\r\n").as_bytes()).unwrap();
    let waiting = "select count(*) from pg_stat_activity where application_name = 'amanatd' and wait_event_type = 'Lock'";
    let started = Instant::now();
    while stage.postgres.sql("postgres", waiting).unwrap().trim() == "0" {
        assert!(started.elapsed() < PATIENCE, "the request does not wait:\n{}", stage.log_tail());
    }
    stage.signal_daemon(Signal::TERM).unwrap();
    until_logged(&stage, "SIGTERM: stopping");
    let status = stage.stop_daemon().unwrap();
    assert_eq!(status.code(), Some(130), "{status}: {}", stage.log_tail());
    drop((client, holder));
    std::fs::remove_dir_all(stage.path("")).unwrap();
}

#[tokio::test]
async fn a_lost_lease_ends_the_daemon_with_its_reason() {
    let mut stage = running("lease").await;
    let client = half_open(&stage.api_url());
    let ended = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'amanatd lease'";
    stage.postgres.sql("postgres", ended).unwrap();
    let status = stage.wait_for_daemon().unwrap();
    assert_eq!(status.code(), Some(1), "{status}: {}", stage.log_tail());
    assert!(stage.log_tail().contains("lease"), "{}", stage.log_tail());
    drop(client);
    std::fs::remove_dir_all(stage.path("")).unwrap();
}

/// A second daemon for the stage's database, on ports of its own.
fn standby(stage: &Stage) -> (Child, PathBuf, String) {
    let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (api, metrics) = (format!("http://127.0.0.1:{}", port()), format!("http://127.0.0.1:{}", port()));
    let host = |url: &str| url.strip_prefix("http://").unwrap().to_owned();
    let text = std::fs::read_to_string(stage.path("amanatd.toml")).unwrap();
    let text = text.replace(&host(&stage.api_url()), &host(&api)).replace(&host(&stage.metrics_url()), &host(&metrics));
    let config = stage.write("standby.toml", &text).unwrap();
    let log = stage.path("standby.log");
    let mut words = child::dies_with_us("KILL");
    words.extend([env!("CARGO_BIN_EXE_amanatd").to_owned(), "--config".to_owned(), config.display().to_string()]);
    words.extend(["serve".to_owned(), "--standby".to_owned()]);
    let mut command = child::command(&words).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap()).env_remove("RUST_LOG");
    (child::spawn(command).unwrap(), log, metrics)
}

async fn is_ready(metrics: &str) -> bool {
    let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{metrics}/readyz")).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

#[tokio::test]
async fn y3_a_standby_takes_over_and_the_sleeper_that_wakes_ends() {
    let mut stage = running("standby").await;
    let (mut second, log, metrics) = standby(&stage);
    let said = |words: &str| std::fs::read_to_string(&log).unwrap().contains(words);
    let started = Instant::now();
    while !said("standing by to take over") {
        assert!(started.elapsed() < PATIENCE, "{}", std::fs::read_to_string(&log).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!is_ready(&metrics).await, "it serves beside the first");
    let shown = reqwest::get(format!("{metrics}/metrics")).await.unwrap().text().await.unwrap();
    assert!(shown.contains("amanatd_standby 1"), "{shown}");

    // The first falls asleep, and the server gives its lease up, as it does when a machine is gone for long.
    stage.signal_daemon(Signal::STOP).unwrap();
    let gone = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'amanatd lease'";
    stage.postgres.sql("postgres", gone).unwrap();
    let started = Instant::now();
    while !is_ready(&metrics).await {
        assert!(started.elapsed() < PATIENCE, "{}", std::fs::read_to_string(&log).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A third, where the server ended an attempt of the second too.
    let lease = "select bool_and(number >= 2 and holder ~ '^pid [0-9]+ on .+') and count(*) = 2 from leases where name <> 'daemon'";
    assert_eq!(stage.postgres.sql("amanat", lease).unwrap().trim(), "t");
    stage.signal_daemon(Signal::CONT).unwrap();
    let status = stage.wait_for_daemon().unwrap();
    assert_eq!(status.code(), Some(1), "{status}: {}", stage.log_tail());
    let ended = child::stop(&mut second, Signal::TERM, PATIENCE).unwrap();
    assert_eq!(ended.code(), Some(0), "{ended}: {}", std::fs::read_to_string(&log).unwrap());
    std::fs::remove_dir_all(stage.path("")).unwrap();
}
