//! `POST /api/v1/explain`: runs a request through every phase and reports the result of each.

use std::net::{IpAddr, Ipv4Addr};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{Call, fields::FieldReader, response};
use crate::{
    handlers::PayloadResponse,
    pipeline::{Denial, Explain, ExplainRequest, Explanation, PhaseVerdict},
};

pub(super) async fn explain(
    mut call: Call<'_>,
    explainer: Option<&dyn Explain>,
) -> Result<PayloadResponse, Denial> {
    // The report has facts that clients must not know: whether a user exists, why a key is wrong.
    if !call.identity.is_admin() {
        return Err(response::forbidden("Only an administrator can see how requests are decided."));
    }
    let Some(explainer) = explainer else {
        return Err(response::not_found("public listener", "here"));
    };
    let mut form = FieldReader::new(call.json().await?);
    let asked = read(&mut form);
    form.finish()?;
    let explanation = explainer.explain(&asked).await;
    Ok(response::json(StatusCode::OK, &view(&asked, &explanation)))
}

fn read(form: &mut FieldReader) -> ExplainRequest {
    let method = form.text("method").unwrap_or_else(|| "GET".into());
    let method = Method::from_bytes(method.as_bytes()).unwrap_or_else(|_| {
        form.reject("method", "This is not a method.", "Send one such as GET.");
        Method::GET
    });
    let target = form.needed_text("target");
    if !target.is_empty() && (!target.starts_with('/') || target.contains('#')) {
        form.reject("target", "This is not a path.", "Send one such as /user/1?_format=json.");
    }
    let client = form.text("client").map(|text| text.parse::<IpAddr>());
    let client = client.unwrap_or(Ok(Ipv4Addr::LOCALHOST.into())).unwrap_or_else(|_| {
        form.reject("client", "This is not an address.", "Send one such as 192.0.2.1.");
        Ipv4Addr::LOCALHOST.into()
    });
    ExplainRequest {
        method,
        target,
        host: form.text("host").unwrap_or_else(|| "localhost".into()),
        headers: headers(form),
        client,
        body: form.text("body").unwrap_or_default().into(),
    }
}

/// Each name with its value, or with a list of them. No fault repeats a value: it may be a credential.
fn headers(form: &mut FieldReader) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let entries: Map<String, Value> = form.entries("headers").unwrap_or_default();
    for (name, value) in entries {
        let values = match value {
            Value::Array(values) => values,
            one => vec![one],
        };
        let Ok(known) = HeaderName::from_bytes(name.as_bytes()) else {
            form.reject("headers", "A name is none of a header field.", "Send names like API-KEY.");
            continue;
        };
        for value in values {
            match value.as_str().map(HeaderValue::from_str) {
                Some(Ok(value)) => drop(headers.append(known.clone(), value)),
                _ => form.reject(
                    &format!("headers.{known}"),
                    "This cannot be the value of a header field.",
                    "Send a string without line breaks and control characters.",
                ),
            }
        }
    }
    headers
}

fn view(asked: &ExplainRequest, explanation: &Explanation) -> Value {
    let phases: Vec<Value> = explanation
        .phases
        .iter()
        .map(|report| {
            let found: Map<String, Value> = report
                .found
                .iter()
                .map(|(name, text)| ((*name).into(), text.clone().into()))
                .collect();
            let micros =
                report.time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
            json!({
                "phase": report.phase.name(),
                "verdict": verdict(report.verdict),
                "microseconds": micros,
                "found": found,
            })
        })
        .collect();
    let response = explanation.denial.as_ref().map(|denial| {
        json!({
            "status": denial.status.as_u16(),
            "error": denial.code,
            "description": denial.external_message,
        })
    });
    // Of the fields only how long they are: which of them holds a credential is known to the application's script alone.
    let headers: Map<String, Value> = asked
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), format!("({} bytes)", value.len()).into()))
        .collect();
    let path = asked.target.split('?').next().unwrap_or_default();
    json!({
        "request": {
            "method": asked.method.as_str(),
            "path": path,
            "host": asked.host,
            "client": asked.client,
            "headers": headers,
        },
        "allowed": response.is_none(),
        "response": response,
        "phases": phases,
    })
}

fn verdict(verdict: PhaseVerdict) -> &'static str {
    match verdict {
        PhaseVerdict::Passed => "passed",
        PhaseVerdict::Refused => "refused",
        PhaseVerdict::NotReached => "not reached",
    }
}
