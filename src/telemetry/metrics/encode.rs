//! Writes metrics in the text formats of Prometheus and OpenMetrics.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, prometheus_text, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{
    family::{Family, Kind},
    histogram::{DECISION_BOUNDS, HTTP_BOUNDS, Histogram},
    table::Table,
};
use crate::pipeline::record::{ConnectionEvent, ListenerKind};

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format for a client with this `Accept`. Prometheus itself asks for OpenMetrics.
    pub fn of_accept(accept: Option<&str>) -> Self {
        let is_wanted = accept.is_some_and(|text| text.contains("application/openmetrics-text"));
        if is_wanted { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes the counts of `table` and the other families.
pub(super) fn encode(format: Format, table: Table, families: Vec<Family>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Counts(table)));
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = match format {
        Format::Prometheus => prometheus_text::encode(&mut text, &registry),
        Format::OpenMetrics => text::encode(&mut text, &registry),
    };
    text
}

struct Counts(Table);

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counts")
    }
}

impl Collector for Counts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Table { requests, decisions, decided_in, upstreams, connections } = &self.0;
        let series = requests.iter().map(|(key, histogram)| {
            let labels = vec![
                ("keyward_listener", key.listener.name().to_owned()),
                ("http_request_method", key.method().to_owned()),
                ("http_response_status_code", key.status.as_str().to_owned()),
            ];
            (labels, histogram)
        });
        write_histograms(&mut encoder, REQUESTS, series, &HTTP_BOUNDS)?;
        let series = decided_in.iter().map(|(key, histogram)| {
            let outcome = if key.is_allowed { "allowed" } else { "denied" };
            let listener = key.listener.name().to_owned();
            (vec![("listener", listener), ("outcome", outcome.to_owned())], histogram)
        });
        write_histograms(&mut encoder, DECIDED_IN, series, &DECISION_BOUNDS)?;
        let series = upstreams.iter().map(|(key, histogram)| {
            let status = key.status.as_ref().map(|status| status.as_str().to_owned());
            let status = match status {
                Some(status) => ("http_response_status_code", status),
                None => ("error_type", "no_response".to_owned()),
            };
            (vec![("server_address", key.name.to_string()), status], histogram)
        });
        write_histograms(&mut encoder, UPSTREAMS, series, &HTTP_BOUNDS)?;
        let series = decisions.iter().map(|(key, count)| {
            let (outcome, phase, code) = match &key.denial {
                None => ("allowed", "", ""),
                Some((phase, code)) => ("denied", *phase, &**code),
            };
            let labels = vec![
                ("listener", key.listener.name().to_owned()),
                ("outcome", outcome.to_owned()),
                ("phase", phase.to_owned()),
                ("code", code.to_owned()),
            ];
            (labels, *count)
        });
        write_counters(&mut encoder, DECISIONS, series)?;
        let count = |listener: ListenerKind, event| {
            connections.get(&(listener, event)).copied().unwrap_or_default()
        };
        let listeners = ListenerKind::ALL;
        let label = |listener: ListenerKind| ("listener", listener.name().to_owned());
        let opened = listeners.map(|one| (vec![label(one)], count(one, ConnectionEvent::Opened)));
        write_counters(&mut encoder, CONNECTIONS, opened)?;
        let refused = REASONS.into_iter().flat_map(|(event, reason)| {
            listeners
                .map(|one| (vec![label(one), ("reason", reason.to_owned())], count(one, event)))
        });
        write_counters(&mut encoder, CONNECTIONS_REFUSED, refused)?;
        let (name, help) = CONNECTIONS_OPEN;
        let mut gauges = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for listener in listeners {
            let closed = count(listener, ConnectionEvent::Closed);
            let open = count(listener, ConnectionEvent::Opened).saturating_sub(closed);
            gauges.encode_family(&[label(listener)])?.encode_gauge(&open)?;
        }
        Ok(())
    }
}

const REQUESTS: (&str, &str) = (
    "http_server_request_duration",
    "The time from the head of a request to the head of its response.",
);
const DECIDED_IN: (&str, &str) =
    ("keyward_decision_duration", "The time that the phases of the pipeline took.");
const UPSTREAMS: (&str, &str) = (
    "http_client_request_duration",
    "The time from the head of a request to an upstream to the head of its response.",
);
const DECISIONS: (&str, &str) =
    ("keyward_decisions", "Requests that were allowed or denied, by the phase and the error code.");
const CONNECTIONS: (&str, &str) = ("keyward_connections_opened", "Accepted connections.");
const CONNECTIONS_OPEN: (&str, &str) = ("keyward_connections_open", "Open connections.");
const CONNECTIONS_REFUSED: (&str, &str) =
    ("keyward_connections_refused", "Connections that the server closed, by the reason.");
const REASONS: [(ConnectionEvent, &str); 4] = [
    (ConnectionEvent::PeerLimit, "peer_limit"),
    (ConnectionEvent::FailedHandshake, "handshake"),
    (ConnectionEvent::TimedOut, "timeout"),
    (ConnectionEvent::Malformed, "malformed"),
];

type Labels = Vec<(&'static str, String)>;

fn write_histograms<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    series: impl IntoIterator<Item = (Labels, &'a Histogram<N>)>,
    bounds: &[u64; N],
) -> fmt::Result {
    let unit = Some(&Unit::Seconds);
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
    for (labels, histogram) in series {
        let (sum, count) = (histogram.sum_seconds(), histogram.count());
        let buckets = histogram.buckets(bounds);
        family
            .encode_family(&labels)?
            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

fn write_counters(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    series: impl IntoIterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in series {
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
    }
    Ok(())
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, kind, samples } in &self.0 {
            let metric_type = match kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
            };
            let mut family = encoder.encode_descriptor(name, help, None, metric_type)?;
            for (labels, value) in samples {
                let mut sample = family.encode_family(labels)?;
                match kind {
                    Kind::Gauge => sample.encode_gauge(value)?,
                    Kind::Counter => sample.encode_counter::<NoLabelSet, _, f64>(value, None)?,
                }
            }
        }
        Ok(())
    }
}
