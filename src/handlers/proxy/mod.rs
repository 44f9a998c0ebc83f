//! The handler `proxy`: what was let in goes on to an upstream, and its answer comes back. Neither is kept on the way.

mod connection;
mod download;
mod endpoint;
mod health;
mod incoming;
mod outgoing;
mod trouble;
mod tunnel;
mod upload;
mod upstreams;

use std::{sync::Arc, time::Duration};

use ::http::{Method, Request, Response, StatusCode};
use hyper::{body::Incoming, upgrade::OnUpgrade};

pub use upstreams::Proxies;

use self::{
    connection::{Age, Connection, Lease, Lost},
    download::Download,
    endpoint::Endpoint,
    health::Outcome,
    outgoing::Outgoing,
    trouble::ProxyError,
    upload::{Progress, Upload},
    upstreams::Upstreams,
};
use super::{Call, Foreign, Handlers, Payload, PayloadResponse};
use crate::pipeline::Denial;

pub(super) async fn answer(
    handlers: &Handlers,
    mut call: Call<'_>,
) -> Result<PayloadResponse, Denial> {
    let upstreams = call.grant.rule().and_then(|rule| handlers.proxies.of(&rule.resource));
    let Some(upstreams) = upstreams else {
        return Err(ProxyError::Incomplete.denial(None));
    };
    let body = std::mem::take(&mut call.body);
    let client = call.upgrade.take();
    let outgoing = Outgoing::of(handlers, &call, &upstreams.settings, client.is_some());
    let upload = Upload::of(body, outgoing.expectation(), &handlers.fields);
    let sent = send(&upstreams, &outgoing, upload).await?;
    finish(&upstreams, &outgoing, sent, client)
}

/// An exchange whose answer has begun.
struct Sent {
    response: Response<Incoming>,
    endpoint: Arc<Endpoint>,
    lease: Option<Lease>,
    progress: Option<Arc<Progress>>,
}

/// Tries one upstream after the other until one answers, or until the request may have reached one.
async fn send(
    upstreams: &Upstreams,
    outgoing: &Outgoing<'_>,
    mut upload: Upload,
) -> Result<Sent, Denial> {
    let mut last = None;
    for endpoint in upstreams.round() {
        match attempt(upstreams, &endpoint, outgoing, upload).await {
            Ok(sent) => {
                endpoint.note(Outcome::Worked, &upstreams.settings);
                return Ok(sent);
            }
            Err(Failed { trouble, back }) => {
                if trouble.is_the_upstreams() {
                    endpoint.note(Outcome::Failed, &upstreams.settings);
                }
                match back {
                    Some(unsent) if trouble.is_the_upstreams() => upload = unsent,
                    _ => return Err(trouble.denial(Some(&endpoint))),
                }
                last = Some((trouble, endpoint));
            }
        }
    }
    Err(match last {
        Some((trouble, endpoint)) => trouble.denial(Some(&endpoint)),
        None => ProxyError::AllEjected(upstreams.returns_in()).denial(None),
    })
}

/// Why an upstream did not answer, and the request's body if none of it has left.
struct Failed {
    trouble: ProxyError,
    back: Option<Upload>,
}

/// Tries one upstream: on a connection that is there, and once more on a new one if that has died in the meantime.
async fn attempt(
    upstreams: &Upstreams,
    endpoint: &Arc<Endpoint>,
    outgoing: &Outgoing<'_>,
    mut upload: Upload,
) -> Result<Sent, Failed> {
    let mut age = Age::Any;
    loop {
        let connect = Duration::from_secs(upstreams.settings.connect_seconds.into());
        let connection = match endpoint.connect(age, connect).await {
            Ok(connection) => connection,
            Err(trouble) => return Err(Failed { trouble, back: Some(upload) }),
        };
        let was_used = connection.was_used();
        // What was sent and not answered may have been done all the same; these can be done twice (RFC 9110, section 9.2.2).
        let is_repeatable = upload.is_empty() && *outgoing.method() != Method::POST;
        let progress = upload.progress();
        let request = match outgoing.request(endpoint, upload) {
            Ok(request) => request,
            Err(trouble) => return Err(Failed { trouble, back: None }),
        };
        let wait = Duration::from_secs(upstreams.settings.response_seconds.into());
        match exchange(connection, request, progress.as_deref(), wait).await {
            Ok((response, lease)) => {
                return Ok(Sent { response, endpoint: endpoint.clone(), lease, progress });
            }
            Err((trouble, Some(request))) if was_used && trouble.is_the_upstreams() => {
                upload = request.into_body();
            }
            Err((ProxyError::Broken(_), None)) if was_used && is_repeatable => {
                upload = Upload::default();
            }
            Err((trouble, request)) => {
                return Err(Failed { trouble, back: request.map(Request::into_body) });
            }
        }
        age = Age::New;
    }
}

/// Sends a request and waits for the head of its answer. The wait begins anew with every part of the body that leaves.
async fn exchange(
    connection: Connection,
    request: Request<Upload>,
    progress: Option<&Progress>,
    wait: Duration,
) -> Result<(Response<Incoming>, Option<Lease>), (ProxyError, Option<Request<Upload>>)> {
    let mut answered = std::pin::pin!(connection.send(request));
    let mut until = tokio::time::Instant::now() + wait;
    loop {
        match tokio::time::timeout_at(until, &mut answered).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(Lost { problem, request })) => {
                let is_ours = progress.is_none_or(|progress| !progress.has_broken());
                let trouble =
                    if is_ours { ProxyError::Broken(problem) } else { ProxyError::ClientBroke };
                return Err((trouble, request));
            }
            Err(_) => {
                let moved = progress.map_or(until - wait, Progress::last);
                if moved + wait <= tokio::time::Instant::now() {
                    let waits = progress.is_some_and(Progress::waits_for_client);
                    let trouble = if waits { ProxyError::ClientSilent } else { ProxyError::Silent };
                    return Err((trouble, None));
                }
                until = moved + wait;
            }
        }
    }
}

/// The answer as the client gets it.
fn finish(
    upstreams: &Upstreams,
    outgoing: &Outgoing<'_>,
    sent: Sent,
    client: Option<OnUpgrade>,
) -> Result<PayloadResponse, Denial> {
    let idle = Duration::from_secs(upstreams.settings.idle_seconds.into());
    let Sent { mut response, endpoint, lease, progress } = sent;
    if let Some(progress) = &progress {
        progress.is_answered();
    }
    let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if is_upgraded {
        match client.filter(|_| incoming::switches_to(&response, outgoing.upgrade())) {
            Some(client) => tunnel::open(client, hyper::upgrade::on(&mut response), idle),
            None => return Err(ProxyError::Unasked.denial(Some(&endpoint))),
        }
    }
    let (mut head, body) = response.into_parts();
    incoming::clean(&mut head, is_upgraded);
    head.extensions.insert(Foreign);
    let is_empty = is_upgraded || hyper::body::Body::is_end_stream(&body);
    if is_empty {
        endpoint.take_back(lease, progress.as_deref());
        if let Some(progress) = &progress {
            progress.is_over();
        }
        return Ok(Response::from_parts(head, Payload::default()));
    }
    let download = Download::new(body, endpoint, lease, progress, idle);
    Ok(Response::from_parts(head, Payload::stream(download)))
}
