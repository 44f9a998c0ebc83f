//! An application behind Keyward, or the server of a web page: it records each request, and its
//! response depends on the path.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// The complete text of the response to a request.
type Respond = dyn Fn(&Recorded) -> String + Send + Sync;

/// A request that the application has received.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The request line and the header fields, in lower case, one per line.
    pub head: String,
    pub body: String,
}

impl Recorded {
    /// The value of a field, in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

#[derive(Clone)]
pub struct Application {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Recorded>>>,
}

impl Application {
    /// An application that responds to each user with the user's name. The last segment of the path
    /// selects further header fields.
    pub fn start() -> Self {
        Self::with(respond)
    }

    pub fn with(respond: impl Fn(&Recorded) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let application = Self { address, received: Arc::default() };
        let (received, respond) = (application.received.clone(), Arc::new(respond));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (received, respond) = (received.clone(), respond.clone());
                thread::spawn(move || {
                    let _ = serve(&stream, &received, &*respond);
                });
            }
        });
        application
    }

    /// The requests since the last call.
    pub fn take_received(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.received.lock().unwrap())
    }
}

/// Serves one request, because each response ends the connection.
fn serve(
    stream: &TcpStream,
    received: &Mutex<Vec<Recorded>>,
    respond: &Respond,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let head = head.replace("\r\n", "\n").to_lowercase();
    let mut request = Recorded { head, body: String::new() };
    let length = request.field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    let text = respond(&request);
    received.lock().unwrap().push(request);
    (&mut (&*stream)).write_all(text.as_bytes())
}

fn respond(request: &Recorded) -> String {
    let user = request.field("x-keyward-user").filter(|name| !name.is_empty()).unwrap_or("nobody");
    let case = request.path().rsplit('/').next().unwrap_or_default();
    let fields = match case {
        "public" => "Cache-Control: public, max-age=600\r\n",
        "s-maxage" => "Cache-Control: s-maxage=600\r\nX-Accel-Expires: 600\r\n",
        "max-age" => "Cache-Control: max-age=600\r\n",
        "expires" => "Expires: Wed, 01 Jan 2098 00:00:00 GMT\r\n",
        "no-store" => "Cache-Control: no-store\r\n",
        "vary" => "Vary: Accept\r\nVary: api-key\r\n",
        "star" => "Vary: *\r\n",
        "cors" => "Access-Control-Allow-Origin: https://old.example\r\nAccess-Control-Allow-Methods: PUT\r\nVary: Accept\r\n",
        "switch" => return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".into(),
        "not-modified" => return "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nConnection: close\r\n\r\n".into(),
        "partial" => return "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/2\r\nContent-Length: 1\r\nConnection: close\r\n\r\na".into(),
        "stream" => return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\na\r\n0\r\n\r\n".into(),
        _ => "",
    };
    let length = user.len();
    format!(
        "HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n{user}"
    )
}
