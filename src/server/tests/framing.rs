//! Tests of request framing. A request whose end is ambiguous is rejected, because otherwise a
//! client could smuggle a second request inside the first.

use super::*;

const HOST: &str = "Host: x\r\n";
/// A request inside another request. The inner request must never get a response.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn pipelined_requests_get_responses_in_order() {
    let listener = TestListener::new(generous_limits()).await;
    let last = "HEAD /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let post = "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nfirst";
    let text = listener.exchange([&get("/a"), post, &get("/b"), last].concat()).await;
    assert_eq!(statuses(&text), [200, 200, 200, 200], "{text}");
    let positions = ["GET /a", "first", "GET /b"].map(|part| text.find(part).unwrap());
    assert!(positions.is_sorted(), "{text}");
    // The response to HEAD has no body. Its `Content-Length` is the length that the body of a GET
    // would have.
    assert!(text.ends_with("\r\n\r\n"), "{text}");
    assert!(text.rsplit("HTTP/1.1").next().unwrap().contains("content-length: 7\r\n"), "{text}");
}

#[tokio::test]
async fn request_sent_byte_by_byte_is_served() {
    let listener = TestListener::new(generous_limits()).await;
    let mut connection = listener.connect().await;
    let whole = "POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
    for byte in whole.as_bytes() {
        connection.0.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let text = connection.rest().await;
    assert!(text.ends_with("\r\n\r\nabcde"), "{text}");
}

#[tokio::test]
async fn truncated_request_is_not_served() {
    let listener = TestListener::new(generous_limits()).await;
    let whole =
        "POST /read HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
    for length in 0..whole.len() {
        let mut connection = listener.connect().await;
        connection.send(&whole[..length]).await;
        connection.0.shutdown().await.unwrap();
        let text = connection.rest().await;
        assert!(!statuses(&text).contains(&200), "{length}: {text}");
    }
    assert_eq!(statuses(&listener.exchange(whole).await), [200]);
    listener.wait_for_open(0, 100).await;
}

#[tokio::test]
async fn malformed_length_is_rejected() {
    let listener = TestListener::new(generous_limits()).await;
    for fields in [
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4\r\nX: y\r\nContent-Length: 0\r\n",
        "Content-Length: 4, 5\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: -4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: 4 4\r\n",
        "Content-Length: \r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked;x=y\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 4\r\n folded\r\n",
        "Content-Length : 4\r\n",
        " Content-Length: 4\r\n",
        "Content-Length: 4\rX: y\r\n",
        "X\0: y\r\n",
        "X: y\0\r\n",
        ": y\r\n",
        "no colon\r\n",
    ] {
        let text =
            listener.exchange(format!("POST /read HTTP/1.1\r\n{HOST}{fields}\r\n{SMUGGLED}"));
        let text = text.await;
        assert_eq!(statuses(&text), [400], "{fields:?}: {text}");
        assert!(text.contains("\"error\": \"BAD_REQUEST\""), "{fields:?}: {text}");
    }
    let old = format!("POST /read HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{SMUGGLED}");
    assert_eq!(statuses(&listener.exchange(old).await), [400]);
}

/// The connection is closed, because the end of the body is unknown (RFC 9112, section 6.1).
#[tokio::test]
async fn unknown_transfer_coding_is_not_implemented() {
    let listener = TestListener::new(generous_limits()).await;
    for coding in ["gzip", "gzip, chunked", "identity", "xchunked", "br , deflate,Chunked"] {
        let head = format!("POST /read HTTP/1.1\r\n{HOST}Transfer-Encoding: {coding}\r\n\r\n");
        // Alone, after another request, and in two pieces.
        for before in ["", "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let text = listener.exchange(format!("{before}{head}0\r\n\r\n{SMUGGLED}")).await;
            let expected = if before.is_empty() { vec![501] } else { vec![200, 501] };
            assert_eq!(statuses(&text), expected, "{coding:?}: {text}");
            assert!(text.contains("\"error\": \"NOT_IMPLEMENTED\""), "{coding:?}: {text}");
        }
        let mut connection = listener.connect().await;
        connection.send(&head[..30]).await;
        connection.send(&head[30..]).await;
        assert_eq!(statuses(&connection.rest().await), [501], "{coding:?}");
    }
}

/// A proxy in front may have used the length that hyper ignores (RFC 9112, section 6.3).
#[tokio::test]
async fn request_with_two_lengths_is_rejected() {
    let listener = TestListener::new(generous_limits()).await;
    let (length, chunked) = ("Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n");
    for fields in [[length, chunked].concat(), [chunked, length].concat(), length.repeat(2)] {
        let head = format!("POST /read HTTP/1.1\r\n{HOST}{fields}\r\n");
        let text = listener.exchange(format!("{head}3\r\nabc\r\n0\r\n\r\n{SMUGGLED}")).await;
        assert_eq!(statuses(&text), [400], "{fields:?}: {text}");
    }
}

#[tokio::test]
async fn malformed_chunk_is_rejected() {
    let listener = TestListener::new(generous_limits()).await;
    for chunks in [
        "x\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3;x\ny\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
    ] {
        let head = format!("POST /read HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
        let text = listener.exchange(format!("{head}{chunks}{SMUGGLED}")).await;
        assert_eq!(statuses(&text), [400], "{chunks:?}: {text}");
    }
}

/// A server may end a line at a bare LF (RFC 9112, section 2.2), while for a proxy in front the
/// line goes on.
#[tokio::test]
async fn bare_line_feed_in_a_head_is_rejected() {
    let listener = TestListener::new(generous_limits()).await;
    for head in [
        "GET /a HTTP/1.1\nHost: x\n\n",
        "GET /a HTTP/1.1\r\nHost: x\r\nX: y\nContent-Length: 3\r\n\r\nabc",
        "GET /a HTTP/1.1\r\nHost: x\r\n\n",
    ] {
        let text = listener.exchange(format!("{head}{SMUGGLED}")).await;
        assert_eq!(statuses(&text), [400], "{head:?}: {text}");
    }
}

#[tokio::test]
async fn malformed_request_line_is_rejected() {
    let listener = TestListener::new(generous_limits()).await;
    for line in [
        "GET /a",
        "GET  /a HTTP/1.1",
        "GET /a  HTTP/1.1",
        "GET /a HTTP/1.1 ",
        "GET /a HTTP/1.2",
        "GET /a HTTP/2.0",
        "GET /a HTTP/0.9",
        "GET /a http/1.1",
        "GET /a b HTTP/1.1",
        "GET /a\0 HTTP/1.1",
        "G\u{e9}T /a HTTP/1.1",
        " GET /a HTTP/1.1",
        "/a HTTP/1.1",
        "HTTP/1.1 200 OK",
    ] {
        let text = listener.exchange(format!("{line}\r\n{HOST}\r\n")).await;
        assert_eq!(statuses(&text), [400], "{line:?}: {text}");
        assert!(text.contains("\"error\": \"BAD_REQUEST\""), "{line:?}: {text}");
    }
}
