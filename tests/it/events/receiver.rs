//! A webhook receiver that responds with given statuses and checks signatures with openssl.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::SECRET;
use crate::harness::TIMEOUT;

/// A webhook that the receiver got, and the status of the response.
#[derive(Debug, Clone)]
pub struct ReceivedWebhook {
    pub id: String,
    /// The path and the query.
    pub target: String,
    pub body: Value,
    pub status: u16,
}

/// A receiver that responds with the given statuses in order, and with 204 after the last status.
pub struct Receiver {
    pub port: u16,
    received: Arc<Mutex<Vec<ReceivedWebhook>>>,
    pub statuses: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    pub fn new(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::<Mutex<Vec<ReceivedWebhook>>>::default();
        let statuses = Arc::new(Mutex::new(statuses.iter().copied().collect::<VecDeque<_>>()));
        let (log, next_status) = (received.clone(), statuses.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if reader.read_line(&mut head).unwrap_or(0) == 0 {
                        break;
                    }
                }
                let field = |name: &str| {
                    let lines = head.lines().filter_map(|line| line.split_once(": "));
                    let mut matching = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
                    matching.next().map(|(_, value)| value.to_owned()).unwrap_or_default()
                };
                let length = field("content-length").parse().unwrap_or(0);
                let mut body = vec![0; length];
                if reader.read_exact(&mut body).is_err() {
                    continue;
                }
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                assert!(head.starts_with("POST /in") && head.contains(" HTTP/1.1\r\n"), "{head}");
                assert_eq!(field("content-type"), "application/json");
                let (id, time) = (field("webhook-id"), field("webhook-timestamp"));
                let signed = [format!("{id}.{time}.").as_bytes(), &body].concat();
                assert_eq!(field("webhook-signature"), format!("v1,{}", hmac(&signed)), "{head}");
                let status = next_status.lock().unwrap().pop_front().unwrap_or(204);
                let body = serde_json::from_slice(&body).unwrap();
                log.lock().unwrap().push(ReceivedWebhook { id, target, body, status });
                // The response announces a body that never comes. The sender must not wait for the
                // body.
                let response = format!(
                    "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: 999999999\r\n\r\n"
                );
                let _ = stream.write_all(response.as_bytes());
            }
        });
        Self { port, received, statuses }
    }

    pub fn received(&self) -> Vec<ReceivedWebhook> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until `count` webhooks were received.
    pub fn wait_for(&self, count: usize) -> Vec<ReceivedWebhook> {
        let started = Instant::now();
        loop {
            let received = self.received();
            if received.len() >= count {
                return received;
            }
            assert!(started.elapsed() < TIMEOUT, "{received:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// HMAC-SHA256 in Base64, computed by openssl so that the check does not depend on Keyward's code.
fn hmac(text: &[u8]) -> String {
    let key: String = STANDARD
        .decode(SECRET.strip_prefix("whsec_").unwrap())
        .unwrap()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{key}"), "-binary"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is needed: apt-get install openssl");
    child.stdin.take().unwrap().write_all(text).unwrap();
    STANDARD.encode(child.wait_with_output().unwrap().stdout)
}
