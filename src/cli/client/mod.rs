//! A client of the admin API: builds requests and parses responses. An [`ApiTransport`] delivers
//! the requests.

pub(super) mod command_name;
pub(super) mod connect;
pub(super) mod download;
pub(super) mod lists;
pub(super) mod local;
pub(super) mod many;
pub(super) mod paths;
pub(super) mod remote;
pub(super) mod session;

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH},
};
use serde_json::Value;

use self::download::Download;
use super::{CliError, Exit};
use crate::{
    api::{COMMAND_FIELD, WARNING_FIELD},
    model::{Application, Secret},
};

/// The future that [`ApiTransport::send`] returns.
pub type SendFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Bytes>, CliError>> + Send + 'a>>;

/// Delivers requests to the admin API of a running server, or to the API in this process.
pub trait ApiTransport: Send + Sync {
    /// Sends a request and returns the response, which may have any status.
    fn send(&self, request: Request<Bytes>) -> SendFuture<'_>;

    /// Sends a request, and passes the body of a successful response to `output` in parts. The
    /// returned response then has no body.
    fn download<'a>(
        &'a self,
        request: Request<Bytes>,
        output: &'a mut dyn Download,
    ) -> SendFuture<'a>;
}

/// A client that authenticates with the operator's key.
pub struct AdminClient {
    transport: Box<dyn ApiTransport>,
    key: Secret,
}

/// A successful response of the API.
#[derive(Debug, Clone)]
pub struct ApiResponse {
    /// The body. `null` means that the response has no body.
    pub body: Value,
    /// The revision of the record. `None` means that the response contains no revision.
    pub etag: Option<HeaderValue>,
    /// Advice about the change.
    pub warnings: Vec<String>,
}

impl AdminClient {
    /// Creates a client that uses this transport and this key.
    pub fn new(transport: impl ApiTransport + 'static, key: Secret) -> Self {
        Self { transport: Box::new(transport), key }
    }

    /// Gets a record or a list.
    pub async fn get(&self, target: &str) -> Result<ApiResponse, CliError> {
        self.send(Method::GET, target, None, None).await
    }

    /// Creates a record, or runs an action, as the path says.
    pub async fn post(&self, target: &str, body: &Value) -> Result<ApiResponse, CliError> {
        self.send(Method::POST, target, Some(body), None).await
    }

    /// Applies a merge patch (RFC 7396) to a record, if the record's revision is equal to `etag`.
    /// `None` means any revision.
    pub async fn patch(
        &self,
        target: &str,
        body: &Value,
        etag: Option<HeaderValue>,
    ) -> Result<ApiResponse, CliError> {
        self.send(Method::PATCH, target, Some(body), etag).await
    }

    /// Deletes a record.
    pub async fn delete(&self, target: &str) -> Result<ApiResponse, CliError> {
        self.send(Method::DELETE, target, None, None).await
    }

    /// Gets a response body of this media type, and passes it to `output` in parts.
    pub async fn download(
        &self,
        target: &str,
        media_type: &'static str,
        output: &mut dyn Download,
    ) -> Result<(), CliError> {
        let mut request = self.request(Method::GET, target, None, None)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(media_type));
        let response = self.transport.download(request, output).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(parse_response(response).err().unwrap_or_else(unreadable))
    }

    /// Posts text of this media type.
    pub async fn post_text(
        &self,
        target: &str,
        media_type: &'static str,
        text: String,
    ) -> Result<ApiResponse, CliError> {
        let mut request = self.request(Method::POST, target, None, None)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        *request.body_mut() = Bytes::from(text);
        parse_response(self.transport.send(request).await?)
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
        etag: Option<HeaderValue>,
    ) -> Result<ApiResponse, CliError> {
        let request = self.request(method, target, body, etag)?;
        parse_response(self.transport.send(request).await?)
    }

    fn request(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
        etag: Option<HeaderValue>,
    ) -> Result<Request<Bytes>, CliError> {
        self.build_request(method, target, body, etag).map_err(|problem| {
            let text = format!("cannot build a request for {target}: {problem}");
            CliError::new(Exit::Failed, text)
        })
    }

    fn build_request(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
        etag: Option<HeaderValue>,
    ) -> http::Result<Request<Bytes>> {
        const AUTH_METHOD: HeaderName = HeaderName::from_static("auth-method");
        let mut credential = HeaderValue::try_from(format!("Bearer {}", self.key.expose()))?;
        credential.set_sensitive(true);
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(AUTH_METHOD, Application::operator().id)
            .header(AUTHORIZATION, credential)
            .header(ACCEPT, "application/json");
        if let Some(etag) = etag {
            request = request.header(IF_MATCH, etag);
        }
        if let Some(command) = command_name::of(std::env::args().skip(1)) {
            request = request.header(COMMAND_FIELD, command);
        }
        match body {
            Some(body) => {
                request.header(CONTENT_TYPE, "application/json").body(Bytes::from(body.to_string()))
            }
            None => request.body(Bytes::new()),
        }
    }
}

fn unreadable() -> CliError {
    CliError::new(Exit::Failed, "Cannot read the server's response. Is the server Keyward?")
}

fn parse_response(response: Response<Bytes>) -> Result<ApiResponse, CliError> {
    let (parts, bytes) = response.into_parts();
    let body = match bytes.as_ref() {
        b"" => Ok(Value::Null),
        text => serde_json::from_slice(text),
    };
    match body {
        Ok(body) if parts.status.is_success() => {
            let warnings = parts.headers.get_all(WARNING_FIELD).into_iter();
            let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let warnings = warnings.map(text).collect();
            Ok(ApiResponse { body, etag: parts.headers.get(ETAG).cloned(), warnings })
        }
        Err(_) if parts.status.is_success() => Err(CliError::new(
            Exit::Failed,
            "The server's response is not JSON. Is the server Keyward?",
        )),
        body => Err(CliError::from_response(parts.status, body.unwrap_or_default())),
    }
}
