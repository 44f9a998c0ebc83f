//! Tests of the time that a connection has for its first request, and of HTTP/2 header blocks that
//! do not end.

use tokio::time::Instant;

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingping";
/// `HEADERS` of stream 1, with `END_STREAM` and without `END_HEADERS`: GET http / x, in HPACK.
const OPEN_HEADERS: &[u8] = b"\0\0\x06\x01\x01\0\0\0\x01\x82\x86\x84\x41\x01x";
/// `HEADERS` of stream 3, which never ends.
const OTHER_OPEN_HEADERS: &[u8] = b"\0\0\x03\x01\x01\0\0\0\x03\x82\x86\x84";
/// Empty `CONTINUATION` frames.
const CONTINUATION: &[u8] = b"\0\0\0\x09\0\0\0\0\x01";
const LAST_CONTINUATION: &[u8] = b"\0\0\0\x09\x04\0\0\0\x01";

async fn listener(header_read: Duration) -> TestListener {
    TestListener::new(ConnectionLimits { header_read, ..generous_limits() }).await
}

/// Sends `begin`, then `again` until the server closes the connection.
async fn time_until_closed(listener: &TestListener, begin: &[u8], again: &[u8]) -> Duration {
    let began = Instant::now();
    let mut connection = listener.connect().await;
    connection.0.write_all(begin).await.unwrap();
    let (mut reader, mut writer) = connection.0.split();
    let end = async {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes).await;
    };
    let send = async {
        loop {
            sleep(SHORT / 10).await;
            let _ = writer.write_all(again).await;
        }
    };
    let closed = async {
        tokio::select! {
            () = end => {}
            () = send => {}
        }
    };
    timeout(PATIENCE, closed).await.expect("the server should close the connection");
    began.elapsed()
}

#[tokio::test]
async fn connection_without_a_first_request_is_closed_whatever_else_it_sends() {
    let listener = listener(SHORT).await;
    let settled = [PREFACE, SETTINGS].concat();
    let open = [&settled[..], OPEN_HEADERS].concat();
    for (begin, again) in [
        (PREFACE, &b""[..]),
        (&settled, b""),
        (&settled, PING),
        (&open, b""),
        (b"G", b""),
        (b"\r\n", b"\r\n"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"A: b\r\n"),
    ] {
        let time = time_until_closed(&listener, begin, again).await;
        let text = String::from_utf8_lossy(begin);
        assert!(time >= SHORT && time < PATIENCE / 2, "{text:?}: {time:?}");
    }
    listener.wait_for_open(0, 100).await;
}

#[tokio::test]
async fn first_request_in_time_keeps_the_connection_open() {
    let listener = listener(SHORT * 4).await;
    let mut connection = listener.connect().await;
    connection.0.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
    sleep(SHORT).await;
    connection.0.write_all(&[OPEN_HEADERS, LAST_CONTINUATION].concat()).await.unwrap();
    listener.wait_for_request().await;
    let read = async {
        let mut bytes = Vec::new();
        connection.0.read_to_end(&mut bytes).await
    };
    assert!(timeout(SHORT * 8, read).await.is_err(), "the connection was closed");
}

/// Stream 1 waits for its response, so the connection is not idle.
#[tokio::test]
async fn open_header_block_is_closed_while_another_stream_is_in_flight() {
    let listener = listener(SHORT).await;
    // `:path /never`, as a literal without indexing.
    let never = b"\0\0\x0d\x01\x05\0\0\0\x01\x82\x86\x41\x01x\x04\x06/never";
    let begin = [PREFACE, SETTINGS, never].concat();
    let mut connection = listener.connect().await;
    connection.0.write_all(&begin).await.unwrap();
    listener.wait_for_request().await;
    sleep(SHORT * 3).await;
    let began = Instant::now();
    connection.0.write_all(OTHER_OPEN_HEADERS).await.unwrap();
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, connection.0.read_to_end(&mut bytes))
        .await
        .expect("the server should close the connection");
    assert!(began.elapsed() >= SHORT * 9 / 10, "{:?}", began.elapsed());
}

/// An attacker that keeps sending empty frames does not extend the time.
#[tokio::test]
async fn endless_continuation_is_closed() {
    let listener = listener(SHORT * 2).await;
    let begin = [PREFACE, SETTINGS, OPEN_HEADERS].concat();
    time_until_closed(&listener, &begin, CONTINUATION).await;
    listener.wait_for_open(0, 100).await;
}
