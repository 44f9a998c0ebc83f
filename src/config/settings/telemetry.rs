//! Settings of the log, the metrics and the access log.

use std::path::PathBuf;

use ipnet::IpNet;

use super::{Check, file};
use crate::telemetry::{
    ClientLines, LogFormat,
    access_log::{LineFormat, LoggedRequests, Output},
};

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Directives for [`EnvFilter`](tracing_subscriber::EnvFilter).
    pub level: String,
    /// The format of a line.
    pub format: LogFormat,
    /// Which lines about clients are logged.
    pub clients: ClientLines,
}

/// The metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsSettings {
    /// The networks that may read the metrics.
    pub networks: Vec<IpNet>,
    /// The file of the token. `None` means that no token is needed.
    pub token_file: Option<PathBuf>,
}

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// Where the lines go.
    pub output: Output,
    /// The format of a line.
    pub format: LineFormat,
    /// Which requests are logged.
    pub requests: LoggedRequests,
}

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn log(&mut self, raw: &file::LogSection) -> LogSettings {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let clients = [("sampled", ClientLines::Sampled), ("all", ClientLines::All)];
        LogSettings {
            level: self.directives("log.level", &raw.level),
            format: self.choice("log.format", &raw.format, formats),
            clients: self.choice("log.clients", &raw.clients, clients),
        }
    }

    pub(super) fn metrics(&mut self, raw: &file::MetricsSection) -> Option<MetricsSettings> {
        let networks = self.networks("metrics.networks", &raw.networks);
        let is_on = self.choice("metrics.counts", &raw.counts, [("on", true), ("off", false)]);
        if is_on && networks.is_empty() && raw.networks.trim().is_empty() {
            self.broken(
                "metrics.networks",
                "Nobody could read the metrics.",
                "Use addresses and networks, such as 127.0.0.0/8, ::1, or set metrics.counts to \"off\".",
            );
        }
        let token_file = Some(&raw.token_file).filter(|path| !path.is_empty());
        is_on.then(|| MetricsSettings { networks, token_file: token_file.map(Into::into) })
    }

    pub(super) fn access_log(&mut self, raw: &file::AccessLogSection) -> Option<AccessLogSettings> {
        let format = self.choice(
            "access_log.format",
            &raw.format,
            [
                ("json", LineFormat::Json),
                ("logfmt", LineFormat::Logfmt),
                ("combined", LineFormat::Combined),
            ],
        );
        let only_denied =
            self.choice("access_log.requests", &raw.requests, [("all", false), ("denied", true)]);
        let sample = self.size("access_log.sample", raw.sample, 1..=1_000_000);
        let resources = raw.resources.split(',').map(str::trim).filter(|id| !id.is_empty());
        let requests = LoggedRequests {
            only_denied,
            sample: u32::try_from(sample).unwrap_or(u32::MAX),
            resources: resources.map(str::to_owned).collect(),
        };
        let output = match raw.output.as_str() {
            "" => return None,
            "stdout" => Output::Stdout,
            "stderr" => Output::Stderr,
            path => Output::File(path.into()),
        };
        Some(AccessLogSettings { output, format, requests })
    }
}
