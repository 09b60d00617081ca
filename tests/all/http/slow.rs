//! Clients that are slow on purpose: each is given its time and no more, and nobody waits for them.

use std::time::Duration;
use std::time::Instant;

use keybearer_tests::Built;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Wire;
use serde_json::json;

use super::assert_problem;

/// What the server is configured to wait.
const WAIT: Duration = Duration::from_millis(500);
/// The longest that it may take beyond that, on a machine with two busy processors.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn h03_h12_slow_and_silent_clients_are_cut_off_and_nobody_waits_for_them() -> anyhow::Result<()> {
    // If this failed, a laptop with a hundred open connections could stop the service for everybody.
    let (built, authority) = (Built::find()?, keybearer_tests::Authority::new()?);
    let config = "[limits]\nheader_ms = 500\nbody_ms = 500\nstalled_write_ms = 500\nhandshake_ms = 500";
    let server = Server::start(&built, &authority, ServerOptions::default().with(config))?;
    server.publish("echo").await?;
    let tenant = server.tenant_with(json!({"name": "acme", "calls_per_second": 100_000})).await?;
    tenant.allow("echo").await?;
    let address = server.public().address();
    let head = format!("POST /v1/calls HTTP/1.1\r\nhost: k\r\nauthorization: Bearer {}\r\n", tenant.token);
    let body_head = format!("{head}content-type: application/json\r\ncontent-length: 1000\r\n\r\n");

    let silent = async {
        let mut wire = Wire::connect(address).await?;
        let (answers, after) = wire.until_closed().await?;
        anyhow::ensure!(answers.iter().all(|answer| answer.status == 408), "{answers:?}");
        anyhow::Ok(after)
    };
    let dripping_head = async {
        let mut wire = Wire::connect(address).await?;
        let began = Instant::now();
        for byte in head.as_bytes().iter().cycle() {
            if !wire.write(&[*byte]).await || began.elapsed() > WAIT + SLACK {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(began.elapsed())
    };
    let dripping_body = async {
        let mut wire = Wire::connect(address).await?;
        wire.write(body_head.as_bytes()).await;
        let began = Instant::now();
        for _ in 0..10 {
            wire.write(b" ").await;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        let answer = wire.answer().await?;
        assert_problem(&answer, 400, "malformed_body", "a body that drips");
        assert_eq!(answer.json()["limit"], json!({"name": "body_ms", "value": 500}));
        anyhow::Ok(began.elapsed())
    };
    let idle = async {
        let mut wire = Wire::connect(address).await?;
        wire.write(b"GET /openapi.json HTTP/1.1\r\nhost: k\r\n\r\n").await;
        anyhow::ensure!(wire.answer().await?.status == 200);
        let (answers, after) = wire.until_closed().await?;
        anyhow::ensure!(answers.iter().all(|answer| answer.status == 408), "{answers:?}");
        anyhow::Ok(after)
    };
    let never_reads = async {
        let mut wire = Wire::connect(address).await?;
        let began = Instant::now();
        // More answers than the buffers between us hold; writing fails when the server has had enough.
        let request = b"GET /openapi.json HTTP/1.1\r\nhost: k\r\n\r\n".repeat(50);
        while began.elapsed() < WAIT + SLACK {
            let written = tokio::time::timeout(Duration::from_millis(100), wire.write(&request)).await;
            if written == Ok(false) {
                break;
            }
        }
        anyhow::Ok(began.elapsed())
    };
    let neighbour = async {
        let began = Instant::now();
        while began.elapsed() < WAIT * 2 {
            let asked = Instant::now();
            let answer = tenant.call("echo.echo", json!({"text": "x"})).await?;
            anyhow::ensure!(answer.status == 200 && asked.elapsed() < SLACK, "{}", answer.text());
        }
        anyhow::Ok(())
    };
    let (silent, dripping_head, dripping_body, idle, never_reads, neighbour) =
        tokio::join!(silent, dripping_head, dripping_body, idle, never_reads, neighbour);
    neighbour?;
    let all = [
        ("silent", silent?),
        ("head", dripping_head?),
        ("body", dripping_body?),
        ("idle", idle?),
        ("reads", never_reads?),
    ];
    for (what, after) in all {
        assert!(after < WAIT + SLACK, "{what}: cut off after {after:?}");
    }
    Ok(())
}

/// Connections that one address may have.
const PER_ADDRESS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn h03_idle_connections_of_one_address_are_counted_and_half_closed_ones_end() -> anyhow::Result<()> {
    // If this failed, one address could take every connection that the server has.
    let (built, authority) = (Built::find()?, keybearer_tests::Authority::new()?);
    let config = format!("[limits]\nconnections_per_address = {PER_ADDRESS}");
    let server = Server::start(&built, &authority, ServerOptions::default().with(&config))?;
    let address = server.public().address();
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: k\r\n\r\n";
    let mut idle = Vec::new();
    for _ in 0..PER_ADDRESS {
        let mut wire = Wire::connect(address).await?;
        wire.write(request).await;
        assert_eq!(wire.answer().await?.status, 200);
        idle.push(wire);
    }
    let mut one_more = Wire::connect(address).await?;
    one_more.write(request).await;
    assert!(one_more.until_closed().await?.0.is_empty(), "one too many is closed at once");
    assert_eq!(server.admin().get("/readyz").await?.status, 200, "the operator's listener counts for itself");
    idle.clear();
    // The kernel tells the server in its own time that they are gone.
    let answer = loop {
        if let Ok(answer) = server.public().get("/openapi.json").await {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(answer.status, 200, "places come back");
    let mut half = Wire::connect(address).await?;
    half.write(request).await;
    half.finish().await;
    let (answers, after) = half.until_closed().await?;
    assert!(answers.len() <= 1 && after < SLACK, "who has nothing more to say holds no place: {answers:?}");
    Ok(())
}
