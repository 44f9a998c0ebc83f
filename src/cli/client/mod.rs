//! A client of the admin API. It knows how to ask and what an answer means; a [`Transport`] knows the way.

pub(super) mod connect;
pub(super) mod local;
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

use super::{Exit, Failure};
use crate::model::{Application, Secret};

/// What [`Transport::send`] returns.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Failure>> + Send + 'a>>;

/// The way to the admin API: to a server that runs, or to the API in this process.
pub trait Transport: Send + Sync {
    /// Takes a request there and its answer back, whatever its status.
    fn send(&self, request: Request<Bytes>) -> Sending<'_>;
}

/// A client with the operator's key.
pub struct Client {
    transport: Box<dyn Transport>,
    key: Secret,
}

/// What the API answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The body; null: there was none.
    pub body: Value,
    /// The revision of the record, if the answer names it.
    pub etag: Option<HeaderValue>,
}

impl Client {
    /// A client that goes this way and shows this key.
    pub fn new(transport: impl Transport + 'static, key: Secret) -> Self {
        Self { transport: Box::new(transport), key }
    }

    /// Asks for a record or a list.
    pub async fn get(&self, target: &str) -> Result<Answer, Failure> {
        self.send(Method::GET, target, None, None).await
    }

    /// Makes a record, or does what a path names.
    pub async fn post(&self, target: &str, body: &Value) -> Result<Answer, Failure> {
        self.send(Method::POST, target, Some(body), None).await
    }

    /// Changes a record (RFC 7396), if it is still the one that `etag` names.
    pub async fn patch(
        &self,
        target: &str,
        body: &Value,
        etag: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        self.send(Method::PATCH, target, Some(body), etag).await
    }

    /// Takes a record away.
    pub async fn delete(&self, target: &str) -> Result<Answer, Failure> {
        self.send(Method::DELETE, target, None, None).await
    }

    /// Asks for a text.
    pub async fn get_text(&self, target: &str, media: &'static str) -> Result<String, Failure> {
        let mut request = self.asked(Method::GET, target, None, None)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(media));
        let answer = self.transport.send(request).await?;
        if !answer.status().is_success() {
            return Err(read(answer).err().unwrap_or_else(unreadable));
        }
        String::from_utf8(answer.into_body().to_vec()).map_err(|_| unreadable())
    }

    /// Sends a text.
    pub async fn post_text(
        &self,
        target: &str,
        media: &'static str,
        text: String,
    ) -> Result<Answer, Failure> {
        let mut request = self.asked(Method::POST, target, None, None)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        *request.body_mut() = Bytes::from(text);
        read(self.transport.send(request).await?)
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
        etag: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        let request = self.asked(method, target, body, etag)?;
        read(self.transport.send(request).await?)
    }

    fn asked(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
        etag: Option<HeaderValue>,
    ) -> Result<Request<Bytes>, Failure> {
        self.request(method, target, body, etag).map_err(|problem| {
            Failure::new(Exit::Failed, format!("{target} cannot be asked for: {problem}"))
        })
    }

    fn request(
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
        match body {
            Some(body) => {
                request.header(CONTENT_TYPE, "application/json").body(Bytes::from(body.to_string()))
            }
            None => request.body(Bytes::new()),
        }
    }
}

fn unreadable() -> Failure {
    Failure::new(Exit::Failed, "The server's answer cannot be read. Is it Keyward?")
}

fn read(response: Response<Bytes>) -> Result<Answer, Failure> {
    let (parts, bytes) = response.into_parts();
    let body = match bytes.as_ref() {
        b"" => Ok(Value::Null),
        text => serde_json::from_slice(text),
    };
    match body {
        Ok(body) if parts.status.is_success() => {
            Ok(Answer { body, etag: parts.headers.get(ETAG).cloned() })
        }
        Err(_) if parts.status.is_success() => {
            Err(Failure::new(Exit::Failed, "The server's answer is not JSON. Is it Keyward?"))
        }
        body => Err(Failure::answered(parts.status, body.unwrap_or_default())),
    }
}
