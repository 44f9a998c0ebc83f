//! Requests that two programs could read in two ways. None may reach an upstream.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tokio::{io::AsyncReadExt as _, time::timeout};

use super::{
    rig::{House, PATIENCE},
    upstream::{Speaks, echo, raw},
};

/// What stands where `KEY` does is the credential.
const ODD: [&str; 20] = [
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\ntransfer-encoding: chunked\r\nX: y\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: 1, 2\r\n\r\nab",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: +1\r\n\r\na",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: 0x1\r\n\r\na",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.0\r\nHost: a\r\nKEY\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nKEY\r\nX: a\r\n b\r\n\r\n",
    "GET /x HTTP/1.1\r\n Host: a\r\nKEY\r\n\r\n",
    "GET /x HTTP/1.1\nHost: a\r\nKEY\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\nKEY\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nKEY\r\n\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nKEY\r\nX: a\0b\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nKEY\r\nX: a\rb\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\nKEY\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nKEY\r\n: x\r\n\r\n",
];

#[tokio::test]
async fn a_request_with_two_readings_is_refused_and_reaches_nobody() {
    let upstream = echo(Speaks::Http1).await;
    let proxy = json!({ "upstreams": [upstream.url()] });
    let house =
        House::new(&[json!({ "id": "x", "handler": "proxy", "path": "/x", "proxy": proxy })]).await;
    let key = format!("API-KEY: {}\r\nConnection: close", house.ada);
    let plain = ODD[0].replace("Content-Length: 6\r\n", "").replace('G', "").replace("KEY", &key);
    assert_eq!(house.send(plain.as_bytes()).await.status, 200);
    let mut passed = Vec::new();
    for odd in ODD {
        let answer = house.send(odd.replace("KEY", &key).as_bytes()).await;
        if answer.status != 400 || upstream.connections() != 1 {
            passed.push(format!("{}: {odd:?}", answer.status));
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
}

#[tokio::test]
async fn a_chunk_that_is_none_breaks_the_request_off() {
    // It writes down what reaches it, and says nothing.
    let heard = Arc::new(Mutex::new(Vec::new()));
    let upstream = raw({
        let heard = heard.clone();
        move |mut stream, _| {
            let heard = heard.clone();
            async move {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes).await;
                heard.lock().unwrap().push(String::from_utf8(bytes).unwrap());
            }
        }
    })
    .await;
    let proxy = json!({ "upstreams": [upstream.url()] });
    let house =
        House::new(&[json!({ "id": "x", "handler": "proxy", "path": "/x", "proxy": proxy })]).await;
    for chunk in [
        "g\r\na",
        "-1\r\na",
        "1\na\n",
        "1\r\nab\r\n",
        "ffffffffffffffffff\r\na",
        " 1\r\na",
        "1;\nx\r\na",
    ] {
        let request = format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{chunk}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
            house.ada
        );
        let answer = house.send(request.as_bytes()).await;
        assert_eq!(answer.status, 400, "{chunk:?} {answer:?}");
    }
    // The connection to the upstream ends with the request, or there was none.
    timeout(PATIENCE, async {
        while heard.lock().unwrap().len() < upstream.connections() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let heard = heard.lock().unwrap();
    assert!(heard.iter().any(|said| said.contains("abc")), "nothing got as far as the bad chunk");
    for said in heard.iter() {
        assert!(said.is_empty() || said.starts_with("POST /x "), "{said:?}");
        assert_eq!(said.matches(" HTTP/1.1").count(), usize::from(!said.is_empty()), "{said:?}");
        // No end that a server would take the body for whole by.
        assert!(!said.contains("\r\n0\r\n"), "{said:?}");
    }
}
