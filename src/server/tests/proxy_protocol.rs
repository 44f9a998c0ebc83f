//! Tests of the PROXY protocol: the client that a header names, trusted proxies, and malformed
//! headers.

use super::*;
use crate::tls::{TlsClient, test_authority::Authority};

async fn start(limits: ConnectionLimits, trusted: &str) -> TestListener {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener::from(BoundSocket::Tcp(socket));
    let listener = listener.with_proxy_protocol([trusted.parse().unwrap()]);
    TestListener::on(listener, address, limits, 100)
}

const LOCAL: &str = "127.0.0.0/8";

fn who() -> String {
    get("/who").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
}

/// A header of version 2 with this command, family and payload.
fn version_2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    header.extend(payload);
    header
}

/// Client and server addresses with their ports.
fn addresses(client: &[u8], server: &[u8]) -> Vec<u8> {
    [client, server, &[1, 2, 3, 4]].concat()
}

/// Valid headers, each with the client that it names.
fn headers() -> Vec<(Vec<u8>, &'static str)> {
    let v4 = addresses(&[203, 0, 113, 7], &[10, 0, 0, 1]);
    let v6 = addresses(&"2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets(), &[0; 16]);
    let mapped =
        addresses(&"::ffff:203.0.113.7".parse::<std::net::Ipv6Addr>().unwrap().octets(), &[0; 16]);
    let more = [v4.as_slice(), &[0x02, 0, 3], b"abc", &[0x04, 1, 0], &[0; 256]].concat();
    vec![
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 5555 443\r\n".to_vec(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 5555 443\r\n".to_vec(), "2001:db8::7"),
        (version_2(0x21, 0x11, &v4), "203.0.113.7"),
        (version_2(0x21, 0x21, &v6), "2001:db8::7"),
        (version_2(0x21, 0x21, &mapped), "203.0.113.7"),
        (version_2(0x21, 0x11, &more), "203.0.113.7"),
        // The proxy itself is the client.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), "127.0.0.1"),
        (version_2(0x20, 0x00, &[]), "127.0.0.1"),
        (version_2(0x20, 0x11, &v4), "127.0.0.1"),
        (version_2(0x21, 0x31, &[0; 216]), "127.0.0.1"),
    ]
}

#[tokio::test]
async fn client_is_the_address_that_the_proxy_names() {
    let listener = start(generous_limits(), LOCAL).await;
    for (header, client) in headers() {
        let text = listener.exchange([header.as_slice(), who().as_bytes()].concat()).await;
        assert!(text.ends_with(&format!("\r\n\r\nhttp://{client}")), "{header:?}: {text}");
    }
}

#[tokio::test]
async fn header_in_pieces_is_read() {
    let listener = start(generous_limits(), LOCAL).await;
    for (header, client) in headers() {
        let mut connection = listener.connect().await;
        connection.0.set_nodelay(true).unwrap();
        // Sends the first bytes in small pieces, so that each part of the header is split.
        for piece in header.chunks(5).take(10) {
            connection.0.write_all(piece).await.unwrap();
            sleep(Duration::from_millis(2)).await;
        }
        connection.0.write_all(header.get(50..).unwrap_or_default()).await.unwrap();
        connection.send(&who()).await;
        let text = connection.rest().await;
        assert!(text.ends_with(&format!("http://{client}")), "{header:?}: {text}");
    }
}

#[tokio::test]
async fn clients_that_are_not_trusted_are_not_served() {
    let listener = start(generous_limits(), "203.0.113.0/24").await;
    for (header, _) in headers() {
        assert_eq!(listener.exchange([header.as_slice(), who().as_bytes()].concat()).await, "");
    }
    assert_eq!(listener.exchange(who()).await, "");
    listener.wait_for_open(0, 100).await;
}

#[tokio::test]
async fn connection_with_a_malformed_header_is_not_served() {
    let listener = start(generous_limits(), LOCAL).await;
    let v4 = addresses(&[203, 0, 113, 7], &[10, 0, 0, 1]);
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107));
    for bad in [
        // No PROXY header: if this were accepted, the proxy would be taken for the client.
        who().into_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 10.0.0.1 5555 443\n".to_vec(),
        b"PROXY TCP4 203.0.113.999 10.0.0.1 5555 443\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::7 ::1 5555 443\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 10.0.0.1 5555 443 x\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 10.0.0.1 5555 65536\r\n".to_vec(),
        b"PROXY UDP4 203.0.113.7 10.0.0.1 5555 443\r\n".to_vec(),
        b"PROXY  TCP4 203.0.113.7 10.0.0.1 5555 443\r\n".to_vec(),
        b"proxy TCP4 203.0.113.7 10.0.0.1 5555 443\r\n".to_vec(),
        b"PROXYxTCP4 203.0.113.7 10.0.0.1 5555 443\r\n".to_vec(),
        long.into_bytes(),
        version_2(0x11, 0x11, &v4),
        version_2(0x22, 0x11, &v4),
        version_2(0x21, 0x41, &v4),
        version_2(0x21, 0x11, &v4[..11]),
        version_2(0x21, 0x21, &v4),
        version_2(0x21, 0x11, &[0; 4097]),
    ] {
        let text = listener.exchange([bad.as_slice(), who().as_bytes()].concat()).await;
        assert_eq!(text, "", "{:?}", String::from_utf8_lossy(&bad));
    }
    listener.wait_for_open(0, 100).await;
}

/// A connection with an incomplete header is closed, and does not delay other connections.
#[tokio::test]
async fn header_has_a_timeout() {
    let listener = start(ConnectionLimits { header_read: SHORT, ..generous_limits() }, LOCAL).await;
    let half = version_2(0x21, 0x11, &[0; 12]);
    for sent in [b"".as_slice(), b"PROXY TC", b"PROXY TCP4 203.0.113.7 ", &half[..13], &half[..20]]
    {
        let began = tokio::time::Instant::now();
        let mut silent = listener.connect().await;
        silent.0.write_all(sent).await.unwrap();
        let whole = [b"PROXY UNKNOWN\r\n", who().as_bytes()].concat();
        assert!(listener.exchange(whole).await.ends_with("http://127.0.0.1"));
        assert_eq!(silent.rest().await, "", "{sent:?}");
        assert!(began.elapsed() >= SHORT, "{sent:?}");
    }
    // The second header counts as bytes of the client, and these bytes are not HTTP.
    let twice = format!("PROXY UNKNOWN\r\nPROXY TCP4 203.0.113.7 10.0.0.1 5555 443\r\n{}", who());
    assert_eq!(statuses(&listener.exchange(twice).await), [400]);
}

#[tokio::test]
async fn header_comes_before_tls() {
    let authority = Authority::new();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener::from(BoundSocket::Tcp(socket));
    let listener = listener.with_proxy_protocol([LOCAL.parse().unwrap()]);
    let listener = listener.with_tls(Some(authority.signs("localhost").loaded()));
    let listener = TestListener::on(listener, address, generous_limits(), 100);
    let mut connection = listener.connect().await;
    connection.send("PROXY TCP4 203.0.113.7 10.0.0.1 5555 443\r\n").await;
    let caller = TlsClient::new("localhost", authority.roots(), b"http/1.1").unwrap();
    let mut stream = caller.handshake(connection.0).await.unwrap();
    stream.write_all(who().as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.ends_with("https://203.0.113.7"), "{text}");
}
