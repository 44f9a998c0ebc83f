//! What a client may take: bytes, fields, time, connections.

use tokio::time::Instant;

use super::*;

/// What every refusal by hyper itself is turned into.
#[track_caller]
fn is_refused(text: &str, status: u16, code: &str) {
    assert_eq!(statuses(text), [status], "{text}");
    assert!(text.contains("\r\ncontent-type: application/json\r\n"), "{text}");
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let envelope: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&envelope["http_code"], &envelope["error"]), (&status.into(), &code.into()));
}

#[tokio::test]
async fn a_head_has_a_size() {
    let edge = Edge::new(wide()).await;
    let head = |bytes| format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n", "x".repeat(bytes));
    let fits = edge.exchange(format!("{}Connection: close\r\n\r\n", head(12 * 1024))).await;
    assert_eq!(statuses(&fits), [200], "{fits}");
    for bytes in [17 * 1024, 64 * 1024, 4 << 20] {
        let text = edge.exchange(format!("{}\r\n", head(bytes))).await;
        is_refused(&text, 431, "REQUEST_HEADER_FIELDS_TOO_LARGE");
    }
    // Told even when the head never ends.
    let text = edge.exchange(head(17 * 1024)).await;
    is_refused(&text, 431, "REQUEST_HEADER_FIELDS_TOO_LARGE");
}

#[tokio::test]
async fn a_head_has_so_many_fields() {
    for most in [100, 20, 200] {
        let edge = Edge::new(Limits { headers: most, ..wide() }).await;
        let with = |fields: usize| {
            let fields: String = (0..fields - 2).map(|n| format!("X-{n}: x\r\n")).collect();
            format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n")
        };
        assert_eq!(statuses(&edge.exchange(with(most)).await), [200], "{most}");
        let text = edge.exchange(with(most + 1)).await;
        is_refused(&text, 431, "REQUEST_HEADER_FIELDS_TOO_LARGE");
    }
}

#[tokio::test]
async fn a_target_has_a_size() {
    let edge = Edge::new(Limits { header_bytes: 256 * 1024, ..wide() }).await;
    let text = edge.exchange(get(&format!("/{}", "x".repeat(70_000)))).await;
    is_refused(&text, 414, "URI_TOO_LONG");
}

#[tokio::test]
async fn a_silent_client_is_cut() {
    let edge = Edge::new(Limits { header_read: SHORT, ..wide() }).await;
    for said in ["", "G", "GET / HTTP/1.1\r\nHost: x\r\n", "PRI * HT"] {
        let began = Instant::now();
        let text = edge.exchange(said).await;
        assert_eq!(text, "", "{said:?}");
        assert!(began.elapsed() >= SHORT, "{said:?}: {:?}", began.elapsed());
    }
    edge.has_open(0, 100).await;
}

/// The time runs from the first byte: one more byte now and then does not buy more.
#[tokio::test]
async fn a_client_that_dribbles_is_cut() {
    let edge = Edge::new(Limits { header_read: SHORT, ..wide() }).await;
    let mut wire = edge.connect().await;
    wire.send("GET / HTTP/1.1\r\nX: ").await;
    let dribble = async {
        while wire.0.write_all(b"x").await.is_ok() {
            sleep(SHORT / 10).await
        }
    };
    timeout(PATIENCE, dribble).await.expect("it is heard for ever");
}

/// The head of a later request has as much time as the first one's, and no more.
#[tokio::test]
async fn a_later_head_is_timed_too() {
    let edge = Edge::new(Limits { header_read: SHORT, ..wide() }).await;
    let mut wire = edge.connect().await;
    wire.send(&get("/a")).await;
    wire.until("GET /a").await;
    // It may rest for longer than a head may take.
    sleep(SHORT * 2).await;
    wire.send(&get("/b")).await;
    wire.until("GET /b").await;
    wire.send("GET /c").await;
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn a_connection_that_rests_is_closed() {
    let edge = Edge::new(Limits { idle: SHORT, ..wide() }).await;
    let mut wire = edge.connect().await;
    wire.send(&get("/a")).await;
    wire.until("GET /a").await;
    let began = Instant::now();
    assert_eq!(wire.rest().await, "");
    assert!(began.elapsed() >= SHORT * 9 / 10, "{:?}", began.elapsed());
}

/// A request that is being answered is not idle, nor is its head arriving.
#[tokio::test]
async fn a_request_in_flight_is_not_cut() {
    let edge = Edge::new(Limits { idle: SHORT, header_read: SHORT, ..wide() }).await;
    let mut wire = edge.connect().await;
    wire.send(&get("/wait")).await;
    edge.has_begun().await;
    sleep(SHORT * 3).await;
    edge.open();
    wire.until("GET /wait").await;
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn a_client_that_takes_no_bytes_is_cut() {
    let edge = Edge::new(Limits { idle: SHORT, ..wide() }).await;
    let mut wire = edge.connect().await;
    wire.send(&get("/large")).await;
    edge.has_begun().await;
    edge.has_open(0, 100).await;
    assert!(wire.rest().await.len() < LARGE);
    // One that is slow and does take bytes gets all of them.
    let mut wire = edge.connect().await;
    wire.send(&get("/large").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    let mut taken = vec![0; LARGE / 8];
    for _ in 0..7 {
        timeout(PATIENCE, wire.0.read_exact(&mut taken)).await.unwrap().unwrap();
        sleep(SHORT / 2).await;
    }
    assert!(LARGE / 8 < wire.rest().await.len());
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let edge = Edge::with_connections(wide(), 2).await;
    let mut first = edge.connect().await;
    let mut second = edge.connect().await;
    for wire in [&mut first, &mut second] {
        wire.send(&get("/a")).await;
        wire.until("GET /a").await;
    }
    // It is accepted, and not read from.
    let mut third = edge.connect().await;
    third.send(&get("/b")).await;
    sleep(SHORT).await;
    let mut byte = [0];
    assert!(third.0.try_read(&mut byte).is_err(), "it was let in");
    drop(first);
    third.until("GET /b").await;
    drop((second, third));
    edge.has_open(0, 2).await;
}

/// A listener that nobody asks keeps no connection from another.
#[tokio::test]
async fn listeners_share_their_connections() {
    let one = Edge::with_connections(wide(), 1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let other = Edge::sharing(Listener::Tcp(listener), address, wide(), one.connections.clone());
    for edge in [&one, &one, &other, &other, &one] {
        let last = get("/a").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        assert!(edge.exchange(last).await.ends_with("GET /a"));
    }
}

/// What a client still sends does not meet a socket that is gone.
#[tokio::test]
async fn who_was_refused_is_heard_out() {
    let edge = Edge::new(wide()).await;
    let over = || edge.connections.acquire_many(100);
    let is_heard_out = async || {
        let mut wire = edge.connect().await;
        wire.0.write_all(b"NOT HTTP\r\n\r\n").await.unwrap();
        is_refused(&wire.rest().await, 400, "BAD_REQUEST");
        // It would be over at once.
        let is_over = timeout(Duration::from_millis(200), over()).await.is_ok();
        !is_over && wire.0.write_all(b"more").await.is_ok()
    };
    // On a machine that is busy, the second for which it listens may be over.
    let mut is_heard = false;
    for _ in 0..5 {
        is_heard = is_heard || is_heard_out().await;
    }
    assert!(is_heard, "nobody listens");
    drop(timeout(PATIENCE, over()).await.expect("who has gone is still listened to").unwrap());
}

/// An answer to change the protocol that nobody can follow ends the connection.
#[tokio::test]
async fn a_change_of_the_protocol_that_was_not_asked_for_ends_the_connection() {
    let edge = Edge::new(wide()).await;
    edge.exchange("GET /switch HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let all = edge.connections.acquire_many(100);
    drop(timeout(PATIENCE, all).await.expect("it keeps its place").unwrap());
}

/// A client that was refused in the middle of what it sends reads why.
#[tokio::test]
async fn a_refusal_arrives_before_the_reset() {
    let edge = Edge::new(wide()).await;
    for _ in 0..20 {
        let text = edge.exchange(format!("NOT HTTP\r\n\r\n{}", "x".repeat(512 * 1024))).await;
        is_refused(&text, 400, "BAD_REQUEST");
    }
}
