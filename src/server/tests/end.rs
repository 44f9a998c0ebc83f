//! The end: what is in flight is answered, what is not is closed, and nothing lasts longer than it may.

use tokio::{net::UnixListener, time::Instant};

use super::*;

async fn refuses_connections(edge: &Edge) {
    let refused = async {
        while TcpStream::connect(edge.address).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("it still listens");
}

#[tokio::test]
async fn what_is_in_flight_is_answered() {
    let mut edge = Edge::new(wide()).await;
    let mut wire = edge.connect().await;
    wire.send(&get("/wait")).await;
    edge.has_begun().await;
    edge.stop();
    refuses_connections(&edge).await;
    edge.open();
    let text = wire.rest().await;
    assert!(text.ends_with("GET /wait"), "{text}");
    // The client is told not to send another one.
    assert!(text.contains("connection: close"), "{text}");
    edge.ended().await;
}

#[tokio::test]
async fn what_rests_is_closed_at_once() {
    let mut edge = Edge::new(wide()).await;
    let mut rests = edge.connect().await;
    rests.send(&get("/a")).await;
    rests.until("GET /a").await;
    edge.stop();
    assert_eq!(rests.rest().await, "");
    edge.ended().await;
}

#[tokio::test]
async fn what_never_ends_is_cut_off() {
    let mut edge = Edge::new(Limits { drain: SHORT, ..wide() }).await;
    let (mut never, mut half, mut silent) =
        (edge.connect().await, edge.connect().await, edge.connect().await);
    never.send(&get("/never")).await;
    edge.has_begun().await;
    half.send("GET / HT").await;
    edge.has_open(3, 100).await;
    let began = Instant::now();
    edge.stop();
    for wire in [&mut never, &mut half, &mut silent] {
        assert_eq!(wire.rest().await, "");
    }
    assert!(began.elapsed() >= SHORT, "the answer got no time: {:?}", began.elapsed());
    edge.ended().await;
}

/// An answer that is half sent is sent to its end.
#[tokio::test]
async fn an_answer_on_its_way_arrives_whole() {
    let mut edge = Edge::new(wide()).await;
    let mut wire = edge.connect().await;
    wire.send(&get("/large")).await;
    wire.until("\r\n\r\n").await;
    edge.stop();
    refuses_connections(&edge).await;
    assert_eq!(wire.rest().await.len(), LARGE);
    edge.ended().await;
}

/// The last chunk is missing, so nobody takes it for the whole answer.
#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to() {
    let edge = Edge::new(wide()).await;
    let text = edge.exchange(get("/half") + get("/a").as_str()).await;
    assert!(text.contains("transfer-encoding: chunked"), "{text}");
    assert!(!text.contains("\r\n0\r\n") && !text.contains("GET /a"), "{text}");
    assert!(!text.contains("no more came"), "{text}");
    edge.has_open(0, 100).await;
}

#[tokio::test]
async fn a_unix_socket_is_served_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.sock");
    let listener = Listener::Unix(UnixListener::bind(&path).unwrap(), path.clone());
    assert_eq!(listener.place(), format!("unix:{}", path.display()));
    let mut edge = Edge::on(listener, ([127, 0, 0, 1], 0).into(), wide(), 1);
    let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
    client.write_all(get("/a").as_bytes()).await.unwrap();
    edge.has_begun().await;
    edge.stop();
    let mut text = String::new();
    timeout(PATIENCE, client.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.ends_with("GET /a"), "{text}");
    edge.ended().await;
}
