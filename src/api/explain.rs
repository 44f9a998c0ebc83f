//! `POST /api/v1/explain`: decides a described request as the public listener would, and reports
//! the result of each phase.

use std::net::{IpAddr, Ipv4Addr};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{ApiRequest, fields::FieldReader, response};
use crate::{
    handlers::{PayloadResponse, UrlScheme},
    http::{host, method},
    pipeline::{Denial, ExplainRequest, Explanation, PhaseVerdict},
};

pub(super) async fn explain(mut request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    // The report is only for administrators, because it tells whether a user exists and why a key
    // is wrong.
    if !request.identity.is_admin() {
        return Err(response::forbidden("Only an administrator can see how requests are decided."));
    }
    let Some(explainer) = request.explainer else {
        return Err(response::not_found("public listener", "here"));
    };
    let mut reader = FieldReader::new(request.json().await?);
    let explained = read(&mut reader);
    reader.finish()?;
    let explanation = explainer.explain(&explained).await;
    Ok(response::json(StatusCode::OK, &view(&explained, &explanation)))
}

fn read(reader: &mut FieldReader) -> ExplainRequest {
    let method = reader.text("method").unwrap_or_else(|| "GET".into());
    let method = method::parse(&method).unwrap_or_else(|| {
        reader.reject("method", "This is not an HTTP method.", "Send a method such as GET.");
        Method::GET
    });
    let target = reader.required_text("target");
    if !target.is_empty() && (!target.starts_with('/') || target.contains('#')) {
        reader.reject(
            "target",
            "This is not a path.",
            "Send a path such as /user/1?_format=json, and the host of a URL in `host`.",
        );
    }
    let client = reader.text("client").map(|text| text.parse::<IpAddr>());
    let client = client.unwrap_or(Ok(Ipv4Addr::LOCALHOST.into())).unwrap_or_else(|_| {
        let fix = "Send an address such as 192.0.2.1.";
        reader.reject("client", "This is not an IP address.", fix);
        Ipv4Addr::LOCALHOST.into()
    });
    let host = reader.text("host").unwrap_or_else(|| "localhost".into());
    // A host that cannot be read is explained as the public listener reports it.
    let host =
        host::parse(&host, UrlScheme::Http).map(|host| host.authority().to_owned()).unwrap_or(host);
    ExplainRequest {
        method,
        target,
        host,
        headers: headers(reader),
        client,
        body: reader.text("body").unwrap_or_default().into(),
    }
}

/// Reads the header fields. Each name has one value or a list of values. A violation never repeats
/// a value, because the value may be a credential.
fn headers(reader: &mut FieldReader) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let entries: Map<String, Value> = reader.entries("headers").unwrap_or_default();
    for (name, value) in entries {
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            reader.reject(
                "headers",
                "The name of a header field is invalid.",
                "Send names such as API-KEY.",
            );
            continue;
        };
        for value in values {
            match value.as_str().map(HeaderValue::from_str) {
                Some(Ok(value)) => drop(headers.append(name.clone(), value)),
                _ => reader.reject(
                    &format!("headers.{name}"),
                    "This is not a valid header field value.",
                    "Send a string without line breaks and control characters.",
                ),
            }
        }
    }
    headers
}

fn view(explained: &ExplainRequest, explanation: &Explanation) -> Value {
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
    // Only the lengths of the values are shown. Any header field may contain a credential, because
    // a script of the application may read its credential from any field.
    let headers: Map<String, Value> = explained
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), format!("({} bytes)", value.len()).into()))
        .collect();
    let path = explained.target.split('?').next().unwrap_or_default();
    json!({
        "request": {
            "method": explained.method.as_str(),
            "path": path,
            "host": explained.host,
            "client": explained.client,
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
