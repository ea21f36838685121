//! The examples of docs/api.md, run as they stand there against a real API.

use std::process::Stdio;

use amanatd::officer::Scope;
use tokio::process::Command;

use super::root;
use crate::house::ApiHouse;

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// What a program wrote; `None` where the machine does not have it.
async fn run(house: &ApiHouse, token: &str, program: &str, arguments: &[&str]) -> Option<String> {
    let child = Command::new(program)
        .args(arguments)
        .env("AMANATD_URL", &house.url)
        .env("AMANATD_TOKEN", token)
        .env("no_proxy", "*")
        .stdin(Stdio::null())
        .output()
        .await;
    let output = match child {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{program}: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    Some(said)
}

#[tokio::test]
async fn the_examples_of_the_guide_work() {
    let text = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let house = ApiHouse::start().await;
    let scopes = [Scope::PaymentsRead, Scope::PaymentsWrite, Scope::IntentsRead, Scope::LedgerRead, Scope::EventsRead];
    let token = house.token(&scopes, None, 1).await;

    let shell = blocks(&text, "sh");
    assert!(shell.len() >= 4, "{shell:?}");
    if run(&house, &token, "curl", &["--version"]).await.is_none() {
        println!("skipped: no curl on this machine, so the shell examples were not run");
    } else {
        // In one shell, so that a block may use what one before it set.
        let script = format!("set -euo pipefail\n{}", shell.join("\n"));
        let said = run(&house, &token, "bash", &["-c", &script]).await.unwrap();
        assert!(said.contains("deposit_address") && said.contains("\"type\":\"urn:amanatd:problem:invalid_fields\""), "{said}");
        assert_eq!(house.count("select count(*) from payments"), 1, "the same key twice makes one payment");
    }

    let typescript = blocks(&text, "ts");
    assert!(!typescript.is_empty());
    for block in typescript {
        let before = house.count("select count(*) from payments");
        match run(&house, &token, "node", &["--input-type=module", "--eval", &block]).await {
            None => println!("skipped: no node on this machine, so the TypeScript example was not run"),
            Some(said) => {
                assert!(said.contains("pay 12.34 USDC to 0x") && said.contains("payment.created"), "{said}");
                assert_eq!(house.count("select count(*) from payments"), before + 1);
            }
        }
    }
}
