//! Tests of the shutdown: requests in flight get their response, idle connections are closed, and
//! no connection outlives the drain time.

use tokio::{net::UnixListener, time::Instant};

use super::*;

async fn wait_until_closed_to_new_connections(listener: &TestListener) {
    let waiting = async {
        while TcpStream::connect(listener.address).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("the listener should stop accepting connections");
}

#[tokio::test]
async fn request_in_flight_gets_its_response() {
    let mut listener = TestListener::new(generous_limits()).await;
    let mut connection = listener.connect().await;
    connection.send(&get("/wait")).await;
    listener.wait_for_request().await;
    listener.stop();
    wait_until_closed_to_new_connections(&listener).await;
    listener.release_waiting_requests();
    let text = connection.rest().await;
    assert!(text.ends_with("GET /wait"), "{text}");
    // The client may not send another request.
    assert!(text.contains("connection: close"), "{text}");
    listener.ended().await;
}

#[tokio::test]
async fn idle_connection_is_closed_at_once() {
    let mut listener = TestListener::new(generous_limits()).await;
    let mut idle = listener.connect().await;
    idle.send(&get("/a")).await;
    idle.until("GET /a").await;
    listener.stop();
    assert_eq!(idle.rest().await, "");
    listener.ended().await;
}

#[tokio::test]
async fn connections_are_closed_after_the_drain_time() {
    let mut listener =
        TestListener::new(ConnectionLimits { drain: SHORT, ..generous_limits() }).await;
    let (mut never, mut half, mut silent) =
        (listener.connect().await, listener.connect().await, listener.connect().await);
    never.send(&get("/never")).await;
    listener.wait_for_request().await;
    half.send("GET / HT").await;
    listener.wait_for_open(3, 100).await;
    let began = Instant::now();
    listener.stop();
    for connection in [&mut never, &mut half, &mut silent] {
        assert_eq!(connection.rest().await, "");
    }
    assert!(began.elapsed() >= SHORT, "closed before the drain time: {:?}", began.elapsed());
    listener.ended().await;
}

#[tokio::test]
async fn response_in_progress_is_sent_to_its_end() {
    let mut listener = TestListener::new(generous_limits()).await;
    let mut connection = listener.connect().await;
    connection.send(&get("/large")).await;
    connection.until("\r\n\r\n").await;
    listener.stop();
    wait_until_closed_to_new_connections(&listener).await;
    assert_eq!(connection.rest().await.len(), LARGE);
    listener.ended().await;
}

/// The response lacks its last chunk, so no client takes the response for complete.
#[tokio::test]
async fn response_that_fails_is_visibly_incomplete() {
    let listener = TestListener::new(generous_limits()).await;
    let text = listener.exchange(get("/half") + get("/a").as_str()).await;
    assert!(text.contains("transfer-encoding: chunked"), "{text}");
    assert!(!text.contains("\r\n0\r\n") && !text.contains("GET /a"), "{text}");
    assert!(!text.contains("no more came"), "{text}");
    listener.wait_for_open(0, 100).await;
}

#[tokio::test]
async fn unix_socket_is_served_and_drained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("listener.sock");
    let listener = BoundSocket::Unix(UnixListener::bind(&path).unwrap(), path.clone());
    assert_eq!(listener.display_address(), format!("unix:{}", path.display()));
    let mut listener = TestListener::on(listener, ([127, 0, 0, 1], 0).into(), generous_limits(), 1);
    let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
    client.write_all(get("/a").as_bytes()).await.unwrap();
    listener.wait_for_request().await;
    listener.stop();
    let mut text = String::new();
    timeout(PATIENCE, client.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.ends_with("GET /a"), "{text}");
    listener.ended().await;
}
