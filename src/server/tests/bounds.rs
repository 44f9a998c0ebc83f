//! Tests of the limits of a connection: bytes, header fields, time, and the number of connections.

use tokio::time::Instant;

use super::*;

/// Asserts that a rejection by hyper has Keyward's error envelope.
#[track_caller]
fn assert_rejected(text: &str, status: u16, code: &str) {
    assert_eq!(statuses(text), [status], "{text}");
    assert!(text.contains("\r\ncontent-type: application/json\r\n"), "{text}");
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let envelope: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&envelope["http_code"], &envelope["error"]), (&status.into(), &code.into()));
}

#[tokio::test]
async fn head_larger_than_the_limit_is_rejected() {
    let listener = TestListener::new(generous_limits()).await;
    let head = |bytes| format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n", "x".repeat(bytes));
    let fits = listener.exchange(format!("{}Connection: close\r\n\r\n", head(12 * 1024))).await;
    assert_eq!(statuses(&fits), [200], "{fits}");
    for bytes in [17 * 1024, 64 * 1024, 4 << 20] {
        let text = listener.exchange(format!("{}\r\n", head(bytes))).await;
        assert_rejected(&text, 431, "REQUEST_HEADER_FIELDS_TOO_LARGE");
    }
    // A head that never ends is rejected too.
    let text = listener.exchange(head(17 * 1024)).await;
    assert_rejected(&text, 431, "REQUEST_HEADER_FIELDS_TOO_LARGE");
}

#[tokio::test]
async fn head_with_more_fields_than_the_limit_is_rejected() {
    for max in [100, 20, 200] {
        let listener =
            TestListener::new(ConnectionLimits { headers: max, ..generous_limits() }).await;
        let request_with = |fields: usize| {
            let fields: String = (0..fields - 2).map(|n| format!("X-{n}: x\r\n")).collect();
            format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n")
        };
        assert_eq!(statuses(&listener.exchange(request_with(max)).await), [200], "{max}");
        let text = listener.exchange(request_with(max + 1)).await;
        assert_rejected(&text, 431, "REQUEST_HEADER_FIELDS_TOO_LARGE");
    }
}

#[tokio::test]
async fn long_target_is_rejected() {
    let listener =
        TestListener::new(ConnectionLimits { header_bytes: 256 * 1024, ..generous_limits() }).await;
    let text = listener.exchange(get(&format!("/{}", "x".repeat(70_000)))).await;
    assert_rejected(&text, 414, "URI_TOO_LONG");
}

#[tokio::test]
async fn silent_client_is_closed_after_the_head_timeout() {
    let listener =
        TestListener::new(ConnectionLimits { header_read: SHORT, ..generous_limits() }).await;
    for sent in ["", "G", "GET / HTTP/1.1\r\nHost: x\r\n", "PRI * HT"] {
        let began = Instant::now();
        let text = listener.exchange(sent).await;
        assert_eq!(text, "", "{sent:?}");
        assert!(began.elapsed() >= SHORT, "{sent:?}: {:?}", began.elapsed());
    }
    listener.wait_for_open(0, 100).await;
}

/// The timeout counts from the first byte: more bytes do not extend the timeout.
#[tokio::test]
async fn client_that_sends_a_head_slowly_is_closed() {
    let listener =
        TestListener::new(ConnectionLimits { header_read: SHORT, ..generous_limits() }).await;
    let mut connection = listener.connect().await;
    connection.send("GET / HTTP/1.1\r\nX: ").await;
    let dribble = async {
        while connection.0.write_all(b"x").await.is_ok() {
            sleep(SHORT / 10).await
        }
    };
    timeout(PATIENCE, dribble).await.expect("the server should close the connection");
}

/// The head of a later request has the same timeout as the head of the first request.
#[tokio::test]
async fn head_of_a_later_request_has_a_timeout() {
    let listener =
        TestListener::new(ConnectionLimits { header_read: SHORT, ..generous_limits() }).await;
    let mut connection = listener.connect().await;
    connection.send(&get("/a")).await;
    connection.until("GET /a").await;
    // The head timeout does not apply to an idle connection. Only the longer idle timeout does.
    sleep(SHORT * 2).await;
    connection.send(&get("/b")).await;
    connection.until("GET /b").await;
    connection.send("GET /c").await;
    assert_eq!(connection.rest().await, "");
}

#[tokio::test]
async fn idle_connection_is_closed() {
    let listener = TestListener::new(ConnectionLimits { idle: SHORT, ..generous_limits() }).await;
    let mut connection = listener.connect().await;
    connection.send(&get("/a")).await;
    connection.until("GET /a").await;
    let began = Instant::now();
    assert_eq!(connection.rest().await, "");
    assert!(began.elapsed() >= SHORT * 9 / 10, "{:?}", began.elapsed());
}

/// Neither the idle timeout nor the head timeout applies to a request in flight.
#[tokio::test]
async fn request_in_flight_is_not_closed() {
    let listener = TestListener::new(ConnectionLimits {
        idle: SHORT,
        header_read: SHORT,
        ..generous_limits()
    })
    .await;
    let mut connection = listener.connect().await;
    connection.send(&get("/wait")).await;
    listener.wait_for_request().await;
    sleep(SHORT * 3).await;
    listener.release_waiting_requests();
    connection.until("GET /wait").await;
    assert_eq!(connection.rest().await, "");
}

#[tokio::test]
async fn client_that_reads_no_bytes_is_closed() {
    let listener = TestListener::new(ConnectionLimits { idle: SHORT, ..generous_limits() }).await;
    let mut connection = listener.connect().await;
    connection.send(&get("/large")).await;
    listener.wait_for_request().await;
    listener.wait_for_open(0, 100).await;
    assert!(connection.rest().await.len() < LARGE);
    // A client that reads slowly gets all bytes.
    let mut connection = listener.connect().await;
    connection.send(&get("/large").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    let mut taken = vec![0; LARGE / 8];
    for _ in 0..7 {
        timeout(PATIENCE, connection.0.read_exact(&mut taken)).await.unwrap().unwrap();
        sleep(SHORT / 2).await;
    }
    assert!(LARGE / 8 < connection.rest().await.len());
}

#[tokio::test]
async fn connections_above_the_limit_wait() {
    let listener = TestListener::with_connections(generous_limits(), 2).await;
    let mut first = listener.connect().await;
    let mut second = listener.connect().await;
    for connection in [&mut first, &mut second] {
        connection.send(&get("/a")).await;
        connection.until("GET /a").await;
    }
    // The server accepts the third connection, but does not read from it.
    let mut third = listener.connect().await;
    third.send(&get("/b")).await;
    sleep(SHORT).await;
    let mut byte = [0];
    assert!(third.0.try_read(&mut byte).is_err(), "the third connection was served");
    drop(first);
    third.until("GET /b").await;
    drop((second, third));
    listener.wait_for_open(0, 2).await;
}

/// A listener without clients holds no permit that another listener needs.
#[tokio::test]
async fn listeners_share_the_connection_limit() {
    let first = TestListener::with_connections(generous_limits(), 1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let other = TestListener::sharing(
        BoundSocket::Tcp(listener),
        address,
        generous_limits(),
        first.connections.clone(),
    );
    for listener in [&first, &first, &other, &other, &first] {
        let last = get("/a").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        assert!(listener.exchange(last).await.ends_with("GET /a"));
    }
}

/// The socket is not closed while a rejected client may still be sending.
#[tokio::test]
async fn server_keeps_reading_from_a_rejected_client() {
    let listener = TestListener::new(generous_limits()).await;
    let all_closed = || listener.connections.acquire_many(100);
    let keeps_reading = async || {
        let mut connection = listener.connect().await;
        connection.0.write_all(b"NOT HTTP\r\n\r\n").await.unwrap();
        assert_rejected(&connection.rest().await, 400, "BAD_REQUEST");
        // If the server did not linger, the connection would be closed after this time.
        let is_closed = timeout(Duration::from_millis(200), all_closed()).await.is_ok();
        !is_closed && connection.0.write_all(b"more").await.is_ok()
    };
    // On a busy machine, the lingering time (1 s) may end before the check, so there are five
    // attempts.
    let mut has_lingered = false;
    for _ in 0..5 {
        has_lingered = has_lingered || keeps_reading().await;
    }
    assert!(has_lingered, "the server should keep reading for a while");
    drop(
        timeout(PATIENCE, all_closed())
            .await
            .expect("the server should stop lingering after the client closes the connection")
            .unwrap(),
    );
}

#[tokio::test]
async fn unrequested_protocol_switch_ends_the_connection() {
    let listener = TestListener::new(generous_limits()).await;
    listener.exchange("GET /switch HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let all = listener.connections.acquire_many(100);
    let permits = timeout(PATIENCE, all).await;
    drop(permits.expect("the server should close the connection").unwrap());
}

/// The client is still sending when the server responds.
#[tokio::test]
async fn rejected_client_reads_the_response_before_a_reset() {
    let listener = TestListener::new(generous_limits()).await;
    for _ in 0..20 {
        let text = listener.exchange(format!("NOT HTTP\r\n\r\n{}", "x".repeat(512 * 1024))).await;
        assert_rejected(&text, 400, "BAD_REQUEST");
    }
}
