//! Whoever gets webhooks: it answers as it is told, and checks signatures with openssl.

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
use crate::harness::PATIENCE;

/// A webhook as it came.
#[derive(Debug, Clone)]
pub struct Came {
    pub id: String,
    pub body: Value,
    pub answered: u16,
}

/// A receiver. It answers with these statuses, one after another, and then with 204.
pub struct Receiver {
    pub port: u16,
    came: Arc<Mutex<Vec<Came>>>,
    pub answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    pub fn new(answers: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let came = Arc::<Mutex<Vec<Came>>>::default();
        let answers = Arc::new(Mutex::new(answers.iter().copied().collect::<VecDeque<_>>()));
        let (all, next) = (came.clone(), answers.clone());
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
                    let mut found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
                    found.next().map(|(_, value)| value.to_owned()).unwrap_or_default()
                };
                let length = field("content-length").parse().unwrap_or(0);
                let mut body = vec![0; length];
                if reader.read_exact(&mut body).is_err() {
                    continue;
                }
                assert!(head.starts_with("POST /in HTTP/1.1\r\n"), "{head}");
                assert_eq!(field("content-type"), "application/json");
                let (id, time) = (field("webhook-id"), field("webhook-timestamp"));
                let signed = [format!("{id}.{time}.").as_bytes(), &body].concat();
                assert_eq!(field("webhook-signature"), format!("v1,{}", hmac(&signed)), "{head}");
                let status = next.lock().unwrap().pop_front().unwrap_or(204);
                let body = serde_json::from_slice(&body).unwrap();
                all.lock().unwrap().push(Came { id, body, answered: status });
                // A body without an end must not keep anybody.
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: 999999999\r\n\r\n"
                );
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { port, came, answers }
    }

    pub fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    /// Waits until so many have come.
    pub fn until(&self, count: usize) -> Vec<Came> {
        let begun = Instant::now();
        loop {
            let came = self.came();
            if came.len() >= count {
                return came;
            }
            assert!(begun.elapsed() < PATIENCE, "{came:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// HMAC-SHA256 by another program, in base64.
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
