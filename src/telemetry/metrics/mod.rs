//! Counts what happens, for `/metrics`. No metric has a label with a user, a key or a text of a
//! client, so that their number is bounded.

mod encode;
mod family;
mod histogram;
mod process;
mod shards;
mod table;

use std::sync::Arc;

pub use encode::Format;
pub use family::{Family, Kind};
pub use process::process_families;
use shards::Shards;
use table::Table;

use crate::pipeline::record::{
    ConnectionEvent, FinishedRequest, ListenerKind, Observation, RequestObserver,
};

/// The counts of requests and connections. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Shards<Table>>);

impl Default for Metrics {
    fn default() -> Self {
        Self(Arc::new(Shards::new()))
    }
}

impl Metrics {
    /// The counts and the other families, as text.
    pub fn encode(&self, format: Format, families: Vec<Family>) -> String {
        let mut all = Table::default();
        self.0.read(|table| all.merge(table));
        encode::encode(format, all, families)
    }
}

impl RequestObserver for Metrics {
    fn observation(&self) -> Observation {
        Observation::Counts
    }

    fn finished(&self, request: &FinishedRequest<'_>) {
        self.0.write(|table| table.add(request));
    }

    fn connection(&self, listener: ListenerKind, event: ConnectionEvent) {
        self.0.write(|table| table.count(listener, event));
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, time::Duration};

    use ::http::{Method, StatusCode};

    use super::*;
    use crate::pipeline::{
        Phase,
        record::{DenialFacts, RequestFacts, UpstreamFacts},
    };

    fn request<'a>(
        method: &'a Method,
        denial: Option<DenialFacts<'a>>,
        facts: &'a RequestFacts,
    ) -> FinishedRequest<'a> {
        let status = denial.as_ref().map_or(StatusCode::OK, |denial| denial.status);
        let (listener, duration) = (ListenerKind::Public, Duration::from_millis(6));
        FinishedRequest {
            listener,
            id: None,
            trace_id: None,
            duration,
            status,
            method,
            head: None,
            denial,
            facts,
        }
    }

    #[expect(clippy::ptr_arg, reason = "the field has this type")]
    fn denial<'a>(code: &'a Cow<'static, str>) -> DenialFacts<'a> {
        DenialFacts { phase: Phase::Verify, code, status: StatusCode::UNAUTHORIZED }
    }

    #[test]
    fn request_is_counted_once_in_each_family() {
        let metrics = Metrics::default();
        let upstream =
            UpstreamFacts { name: "app:80".into(), status: None, duration: Duration::from_secs(1) };
        let facts = RequestFacts {
            decided_in: Some(Duration::from_micros(3)),
            upstream: Some(upstream),
            ..RequestFacts::default()
        };
        let code = Cow::Borrowed("AUTHENTICATION_FAILED");
        metrics.finished(&request(&Method::GET, None, &facts));
        metrics.finished(&request(&Method::GET, Some(denial(&code)), &facts));
        metrics.connection(ListenerKind::Public, ConnectionEvent::Opened);
        metrics.connection(ListenerKind::Public, ConnectionEvent::Opened);
        metrics.connection(ListenerKind::Public, ConnectionEvent::Closed);
        let families = vec![Family::gauge("keyward_users", "Users.", 2.0)];
        let text = metrics.encode(Format::OpenMetrics, families);
        for line in [
            r#"http_server_request_duration_seconds_bucket{le="0.005",keyward_listener="public",http_request_method="GET",http_response_status_code="200"} 0"#,
            r#"http_server_request_duration_seconds_bucket{le="0.01",keyward_listener="public",http_request_method="GET",http_response_status_code="200"} 1"#,
            r#"http_server_request_duration_seconds_count{keyward_listener="public",http_request_method="GET",http_response_status_code="401"} 1"#,
            r#"keyward_decision_duration_seconds_bucket{le="0.000004",listener="public",outcome="allowed"} 1"#,
            r#"keyward_decisions_total{listener="public",outcome="allowed",phase="",code=""} 1"#,
            r#"keyward_decisions_total{listener="public",outcome="denied",phase="verify",code="AUTHENTICATION_FAILED"} 1"#,
            r#"http_client_request_duration_seconds_count{server_address="app:80",error_type="no_response"} 2"#,
            r#"keyward_connections_opened_total{listener="public"} 2"#,
            r#"keyward_connections_open{listener="public"} 1"#,
            "keyward_users 2.0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!metrics.encode(Format::Prometheus, Vec::new()).contains("# EOF"));
    }

    #[test]
    fn number_of_series_is_bounded() {
        let metrics = Metrics::default();
        let facts = RequestFacts::default();
        for number in 0..10_000 {
            let code = Cow::Owned(format!("CODE_{number}"));
            let method = Method::from_bytes(format!("M{number}").as_bytes()).unwrap();
            metrics.finished(&request(&method, Some(denial(&code)), &facts));
        }
        let text = metrics.encode(Format::Prometheus, Vec::new());
        assert!(text.lines().count() < 400, "{}", text.lines().count());
        assert!(text.contains(r#"code="_OTHER"} 98"#), "{text}");
        assert!(text.contains(r#"http_request_method="_OTHER""#));
    }

    #[test]
    fn format_is_the_one_that_the_client_accepts() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::of_accept(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(Format::of_accept(Some("*/*")), Format::Prometheus);
        assert_eq!(Format::of_accept(None), Format::Prometheus);
    }
}
