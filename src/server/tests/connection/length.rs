//! Tests of requests whose length or parts two programs could read differently, in HTTP/1.1 and
//! HTTP/2. None of them gets a second response.

use super::*;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// A handler that reads the body, and a handler that does not.
const PATHS: [&str; 2] = ["/read", "/a"];

#[tokio::test]
async fn only_one_exact_transfer_coding_is_accepted() {
    let listener = TestListener::new(generous_limits()).await;
    for fields in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5\r\nX: y\r\nContent-Length: 5\r\n",
    ] {
        for path in PATHS {
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
            let text = listener.exchange(format!("{head}0\r\n\r\n{SMUGGLED}")).await;
            // A coding that is not known comes before any other mistake.
            let is_unknown = ["gzip", "identity"].iter().any(|name| fields.contains(name));
            let status = if is_unknown { 501 } else { 400 };
            assert_eq!(statuses(&text), [status], "{path} {fields:?}: {text}");
        }
    }
    for fields in ["Transfer-Encoding: CHUNKED\r\n", "transfer-encoding:\t chunked \r\n"] {
        let head = format!("POST /read HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
        let text = listener.exchange(format!("{head}1\r\na\r\n0\r\n\r\n")).await;
        assert_eq!(statuses(&text), [200], "{fields:?}: {text}");
    }
}

#[tokio::test]
async fn malformed_trailers_and_chunks_are_rejected() {
    let listener = TestListener::new(generous_limits()).await;
    let long = format!("0\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let many: String = (0..200).map(|number| format!("X-{number}: y\r\n")).collect();
    let many = format!("0\r\n{many}\r\n");
    for body in [
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\r\n\n",
        "0\r\nX: y\r\n folded\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        "0\r\nX: y\rZ: z\r\n\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
        "0\r\ntransfer-encoding: chunked\r\n\r\n",
        "0\r\nHost: y\r\n\r\n",
        "0\r\nAuthorization: y\r\n\r\n",
        "0\n\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3;x\0y\r\nabc\r\n0\r\n\r\n",
        "3;x\ry\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "00000000000000003g\r\n",
    ] {
        for path in PATHS {
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{CHUNKED}\r\n");
            let text = listener.exchange(format!("{head}{body}{SMUGGLED}")).await;
            assert_eq!(statuses(&text), [400], "{path} {body:?}: {text}");
        }
    }
    // These are within the limits of a head for the inspection, but not for hyper.
    for body in [&long, &many] {
        let head = format!("POST /read HTTP/1.1\r\nHost: x\r\n{CHUNKED}\r\n");
        let text = listener.exchange(format!("{head}{body}{SMUGGLED}")).await;
        assert_eq!(statuses(&text), [400], "{text}");
    }
    let head = format!("POST /read HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{CHUNKED}\r\n");
    let text = listener.exchange(format!("{head}3;x=\"y\"\r\nabc\r\n0\r\nX: y\r\n\r\n")).await;
    assert!(text.ends_with("\r\n\r\nabc"), "{text}");
}

/// The bytes of the trailers come after hyper has seen the head.
#[tokio::test]
async fn malformed_trailers_that_come_later_are_rejected() {
    let listener = TestListener::new(generous_limits()).await;
    for body in ["0\r\nX: y\n\r\n", "0\r\nContent-Length: 3\r\n\r\n", "3;\x01\r\nabc\r\n0\r\n\r\n"]
    {
        let mut connection = listener.connect().await;
        connection.send(&format!("POST /read HTTP/1.1\r\nHost: x\r\n{CHUNKED}\r\n")).await;
        listener.wait_for_request().await;
        connection.send(&format!("{body}{SMUGGLED}")).await;
        let text = connection.rest().await;
        assert_eq!(statuses(&text), [400], "{body:?}: {text}");
    }
}

#[tokio::test]
async fn request_behind_a_request_for_an_upgrade_is_inspected() {
    let listener = TestListener::new(generous_limits()).await;
    let upgrade = "GET /a HTTP/1.1\r\nHost: x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    let lengths = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n";
    for bad in [
        format!("POST /a HTTP/1.1\r\nHost: x\r\n{lengths}\r\n0\r\n\r\n"),
        "GET /a HTTP/1.1\nHost: x\n\n".to_owned(),
        "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ] {
        let text = listener.exchange(format!("{upgrade}{bad}{SMUGGLED}")).await;
        assert_eq!(statuses(&text), [200, 400], "{bad:?}: {text}");
        // The second request comes after the first response.
        let mut connection = listener.connect().await;
        connection.send(upgrade).await;
        connection.until("GET /a").await;
        connection.send(&format!("{bad}{SMUGGLED}")).await;
        let text = connection.rest().await;
        assert_eq!(statuses(&text), [400], "{bad:?}: {text}");
    }
    let last = get("/b").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let text = listener.exchange(format!("{upgrade}{upgrade}{last}")).await;
    assert_eq!(statuses(&text), [200, 200, 200], "{text}");
}

#[tokio::test]
async fn fragment_in_a_target_is_rejected() {
    let listener = TestListener::new(generous_limits()).await;
    for target in ["/a#b", "/#", "http://x/a#b", "/a?b#c", "*#"] {
        let text = listener.exchange(get(target)).await;
        assert_eq!(statuses(&text), [400], "{target}: {text}");
    }
    let fields = "GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nReferer: http://x/#b\r\n\r\n";
    assert_eq!(statuses(&listener.exchange(fields).await), [200]);
}

/// A client that writes the frames of HTTP/2 itself.
struct Frames(TcpStream);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

impl Frames {
    async fn connect(listener: &TestListener) -> Self {
        let mut frames = Self(listener.connect().await.0);
        frames.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        frames.send(4, 0, 0, &[]).await;
        frames
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.0.write_all(&frame).await.unwrap();
    }

    /// Sends the head of a POST with these fields, then one data frame.
    async fn post(&mut self, fields: &[(&str, &str)], data: &[u8]) {
        let pseudo =
            [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/read")];
        let mut block = Vec::new();
        for (name, value) in pseudo.iter().chain(fields) {
            // A literal field without indexing (RFC 7541, section 6.2.2).
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.send(HEADERS, END_HEADERS, 1, &block).await;
        self.send(DATA, END_STREAM, 1, data).await;
    }

    /// The kind of the first frame on stream 1, or of a frame that ends the connection, and the
    /// payload.
    async fn outcome(&mut self) -> (u8, Vec<u8>) {
        let reading = async {
            loop {
                let mut head = [0; 9];
                self.0.read_exact(&mut head).await.unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; usize::try_from(length).unwrap()];
                self.0.read_exact(&mut payload).await.unwrap();
                if head[8] == 1 || head[3] == GO_AWAY {
                    return (head[3], payload);
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("the server should respond")
    }
}

/// The indexed field `:status: 200`, and the indexed field `:status: 400` (RFC 7541, appendix A).
const OK: u8 = 0x88;
const BAD_REQUEST: u8 = 0x8c;

#[tokio::test]
async fn http2_request_that_contradicts_itself_is_not_served() {
    let listener = TestListener::new(generous_limits()).await;
    for fields in [
        &[("content-length", "4")][..],
        &[("content-length", "6")],
        &[("content-length", "+5")],
        &[("content-length", "5, 5")],
        &[("content-length", "5"), ("content-length", "5")],
        &[("content-length", "5"), ("content-length", "6")],
        &[("transfer-encoding", "chunked")],
        &[("connection", "close")],
        &[("keep-alive", "x")],
        &[("proxy-connection", "x")],
        &[("upgrade", "x")],
        &[("te", "gzip")],
        &[("te", "trailers, gzip")],
        &[("Upper", "x")],
        &[("x", "a\nb")],
        &[(":path", "/a")],
        &[("host", "x"), (":scheme", "http")],
    ] {
        let mut client = Frames::connect(&listener).await;
        client.post(fields, b"01234").await;
        let (kind, payload) = client.outcome().await;
        let is_rejected =
            kind == RESET || kind == GO_AWAY || (kind == HEADERS && payload[0] == BAD_REQUEST);
        assert!(is_rejected, "{fields:?}: {kind} {payload:?}");
    }
    for fields in [&[("content-length", "5")][..], &[("te", "trailers")], &[]] {
        let mut client = Frames::connect(&listener).await;
        client.post(fields, b"01234").await;
        let (kind, payload) = client.outcome().await;
        assert_eq!((kind, payload[0]), (HEADERS, OK), "{fields:?}");
    }
}

#[tokio::test]
async fn http2_head_with_more_fields_than_the_limit_is_rejected() {
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let listener = TestListener::new(ConnectionLimits { headers: 20, ..generous_limits() }).await;
    let io = TokioIo::new(listener.connect().await.0);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    for (fields, status) in [(19, 200), (20, 431), (120, 431)] {
        let mut request = Request::get("http://x/a");
        for number in 0..fields {
            request = request.header(format!("x-{number}"), "x");
        }
        let request = request.body(http_body_util::Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{fields}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let is_envelope =
            body.starts_with(b"{\n    \"status\": \"error\",\n    \"http_code\": 431");
        assert_eq!(is_envelope, status == 431);
    }
}
