//! The handler `proxy`: streams a granted request to an upstream, and the response back to the
//! client. Bodies are not buffered.

mod activity;
mod connection;
mod download;
mod endpoint;
mod error;
mod forwarded;
mod headers;
mod health;
mod incoming;
mod networks;
mod outgoing;
mod tunnel;
mod upload;
mod upstreams;

use std::{sync::Arc, time::Duration};

use ::http::{Method, Request, Response, StatusCode};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::time::Instant;

pub use upstreams::Proxies;

use self::{
    connection::{Http1Sender, Reuse, SendError, UpstreamConnection},
    download::Download,
    endpoint::Endpoint,
    error::ProxyError,
    health::UpstreamResult,
    outgoing::OutgoingRequest,
    upload::{Upload, UploadProgress},
    upstreams::Upstreams,
};
use super::{HandlerRequest, Handlers, PassThrough, Payload, PayloadResponse};
use crate::pipeline::{CredentialRemoval, Denial, RequestContext, record::UpstreamFacts};

pub(super) async fn respond(
    handlers: &Handlers,
    mut request: HandlerRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let upstreams = request.grant.rule().and_then(|rule| handlers.proxies.of(&rule.resource));
    let Some(upstreams) = upstreams else {
        return Err(ProxyError::NoUpstream.denial(None));
    };
    let body = std::mem::take(&mut request.body);
    let client_upgrade = request.upgrade.take();
    let removal = request.context.credential_removal(request.request.headers, request.grant.rule());
    removal.as_ref().map_or(Ok(()), CredentialRemoval::check)?;
    let can_upgrade = client_upgrade.is_some();
    let settings = &upstreams.settings;
    let outgoing =
        OutgoingRequest::new(handlers, &request, removal.as_ref(), settings, can_upgrade);
    let limits = request
        .grant
        .rule()
        .map_or(handlers.limits, |rule| handlers.limits.of_resource(&rule.resource));
    let upload = Upload::new(
        body,
        &limits,
        outgoing.expectation(),
        &handlers.identity_fields,
        removal.as_ref(),
    );
    let exchange = send(request.context, &upstreams, &outgoing, upload).await?;
    finish(&upstreams, &outgoing, exchange, client_upgrade)
}

/// An exchange whose response has begun.
struct Exchange {
    response: Response<Incoming>,
    endpoint: Arc<Endpoint>,
    sender: Option<Http1Sender>,
    progress: Option<Arc<UploadProgress>>,
}

/// Tries the upstreams one after another, until one responds or part of the request was sent.
async fn send(
    context: &RequestContext,
    upstreams: &Upstreams,
    outgoing: &OutgoingRequest<'_>,
    mut upload: Upload,
) -> Result<Exchange, Denial> {
    let mut last_denial = None;
    for endpoint in upstreams.next_candidates() {
        let started = context.is_recorded().then(Instant::now);
        let result = attempt(upstreams, &endpoint, outgoing, upload).await;
        if let Some(started) = started
            && result.as_ref().err().is_none_or(|failed| failed.error.blames_upstream())
        {
            let status = result.as_ref().ok().map(|exchange| exchange.response.status());
            let (name, duration) = (endpoint.name().clone(), started.elapsed());
            context.record_upstream(UpstreamFacts { name, status, duration });
        }
        match result {
            Ok(exchange) => {
                endpoint.record(UpstreamResult::Responded, &upstreams.settings);
                return Ok(exchange);
            }
            Err(FailedAttempt { error, unsent }) => {
                let denial = error.denial(Some(endpoint.name()));
                if !error.blames_upstream() {
                    return Err(denial);
                }
                endpoint.record(UpstreamResult::Failed, &upstreams.settings);
                let Some(unsent) = unsent else { return Err(denial) };
                upload = unsent;
                last_denial = Some(denial);
            }
        }
    }
    Err(last_denial
        .unwrap_or_else(|| ProxyError::AllEjected(upstreams.seconds_until_return()).denial(None)))
}

/// The reason why an upstream did not respond. `unsent` is the request's body if another upstream
/// can still receive the request. `unsent` is `None` if part of the request may have been sent, or
/// if no request could be built for the upstream.
struct FailedAttempt {
    error: ProxyError,
    unsent: Option<Upload>,
}

/// Tries one upstream on a pooled connection. If the upstream has closed the pooled connection,
/// tries once more on a new connection.
async fn attempt(
    upstreams: &Upstreams,
    endpoint: &Arc<Endpoint>,
    outgoing: &OutgoingRequest<'_>,
    mut upload: Upload,
) -> Result<Exchange, FailedAttempt> {
    let mut reuse = Reuse::Allowed;
    loop {
        let timeout = Duration::from_secs(upstreams.settings.connect_seconds.into());
        let connection = match endpoint.connect(reuse, timeout).await {
            Ok(connection) => connection,
            Err(error) => return Err(FailedAttempt { error, unsent: Some(upload) }),
        };
        let was_used = connection.was_used();
        // If the upstream may have received the request, the request is repeated only if repeating
        // is safe: the request has no body, and its method is idempotent.
        let is_repeatable = upload.is_empty() && is_idempotent(outgoing.method());
        let progress = upload.progress();
        let request = match outgoing.request(endpoint, upload) {
            Ok(request) => request,
            Err(error) => return Err(FailedAttempt { error, unsent: None }),
        };
        let timeout = Duration::from_secs(upstreams.settings.response_seconds.into());
        match exchange(connection, request, progress.as_deref(), timeout).await {
            Ok((response, sender)) => {
                return Ok(Exchange { response, endpoint: endpoint.clone(), sender, progress });
            }
            Err((error, Some(request))) if was_used && error.blames_upstream() => {
                upload = request.into_body();
            }
            Err((ProxyError::Broken(_), None)) if was_used && is_repeatable => {
                upload = Upload::default();
            }
            Err((error, request)) => {
                return Err(FailedAttempt { error, unsent: request.map(Request::into_body) });
            }
        }
        reuse = Reuse::Forbidden;
    }
}

/// Whether RFC 9110, section 9.2.2, says that a request with this method may be sent twice.
fn is_idempotent(method: &Method) -> bool {
    use Method as M;
    [M::GET, M::HEAD, M::OPTIONS, M::TRACE, M::PUT, M::DELETE].contains(method)
}

/// Sends a request and waits for the head of the response. The timeout starts again with every part
/// of the body that is sent.
async fn exchange(
    connection: UpstreamConnection,
    request: Request<Upload>,
    progress: Option<&UploadProgress>,
    timeout: Duration,
) -> Result<(Response<Incoming>, Option<Http1Sender>), (ProxyError, Option<Request<Upload>>)> {
    let mut response = std::pin::pin!(connection.send(request));
    let mut deadline = Instant::now() + timeout;
    loop {
        match tokio::time::timeout_at(deadline, &mut response).await {
            Ok(Ok((response, sender))) if incoming::has_one_length(response.headers()) => {
                return Ok((response, sender));
            }
            Ok(Ok(_)) => return Err((ProxyError::AmbiguousLength, None)),
            Ok(Err(SendError { error, request })) => {
                let error = match progress.and_then(UploadProgress::failure) {
                    Some(failure) => ProxyError::Upload(failure),
                    None => ProxyError::Broken(error),
                };
                return Err((error, request));
            }
            Err(_) => {
                let next = progress.map_or(deadline, |progress| progress.last() + timeout);
                if next <= Instant::now() {
                    let is_client = progress.is_some_and(UploadProgress::waits_for_client);
                    let error = if is_client {
                        ProxyError::ClientTimeout
                    } else {
                        ProxyError::ResponseTimeout
                    };
                    return Err((error, None));
                }
                deadline = next;
            }
        }
    }
}

/// Builds the response for the client.
fn finish(
    upstreams: &Upstreams,
    outgoing: &OutgoingRequest<'_>,
    exchange: Exchange,
    client_upgrade: Option<OnUpgrade>,
) -> Result<PayloadResponse, Denial> {
    let idle = Duration::from_secs(upstreams.settings.idle_seconds.into());
    let Exchange { mut response, endpoint, sender, progress } = exchange;
    if let Some(progress) = &progress {
        progress.response_started();
    }
    let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if is_upgraded {
        match client_upgrade.filter(|_| incoming::switches_to(&response, outgoing.upgrade())) {
            Some(client_upgrade) => {
                tunnel::spawn(client_upgrade, hyper::upgrade::on(&mut response), idle)
            }
            None => return Err(ProxyError::UnexpectedUpgrade.denial(Some(endpoint.name()))),
        }
    }
    let (mut head, body) = response.into_parts();
    incoming::clean(&mut head, is_upgraded);
    // The server must not change a response with this marker.
    head.extensions.insert(PassThrough);
    let is_empty = is_upgraded || hyper::body::Body::is_end_stream(&body);
    if is_empty {
        endpoint.return_to_pool(sender, progress.as_deref());
        if let Some(progress) = &progress {
            progress.response_ended();
        }
        return Ok(Response::from_parts(head, Payload::default()));
    }
    let download = Download::new(body, endpoint, sender, progress, idle);
    Ok(Response::from_parts(head, Payload::stream(download)))
}
