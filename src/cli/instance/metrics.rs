//! `/metrics` on the admin listener, and the state that is read when somebody asks for it.

use std::sync::Arc;

use ::http::{
    HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};
use anyhow::Context as _;
use constant_time_eq::constant_time_eq;
use ipnet::IpNet;

use super::scripts::read_secret;
use crate::{
    accounts::{Accounts, BackupSchedule, TrailStatus},
    config::MetricsSettings,
    handlers::PayloadResponse,
    http::forwarded::is_among,
    model::Secret,
    pipeline::{Denial, Phase},
    server::Peer,
    telemetry::{
        Observers,
        metrics::{Family, Format, Kind, process_families},
    },
};

/// The path of the metrics.
const PATH: &str = "/metrics";

/// Responds to requests for the metrics. Cheap to clone.
#[derive(Clone)]
pub struct MetricsPage(Arc<State>);

struct State {
    observers: Observers,
    accounts: Accounts,
    backups: Option<BackupSchedule>,
    networks: Vec<IpNet>,
    /// `None` means that no token is needed.
    token: Option<Secret>,
}

impl MetricsPage {
    /// # Errors
    /// The file of the token cannot be read.
    pub fn new(
        settings: &MetricsSettings,
        observers: Observers,
        accounts: Accounts,
        backups: Option<BackupSchedule>,
    ) -> anyhow::Result<Self> {
        let token = settings.token_file.as_deref().map(read_secret).transpose();
        let token = token.context("metrics.token_file")?;
        let networks = settings.networks.clone();
        Ok(Self(Arc::new(State { observers, accounts, backups, networks, token })))
    }

    /// The response to a request for the metrics. `None` means that the request is for another
    /// path.
    pub fn respond(&self, head: &Parts, peer: &Peer) -> Option<Result<PayloadResponse, Denial>> {
        if head.uri.path() != PATH {
            return None;
        }
        Some(self.check(head, peer).map(|()| self.page(head)))
    }

    fn check(&self, head: &Parts, peer: &Peer) -> Result<(), Denial> {
        let denial = |status, code, message, internal: &'static str| {
            Denial::message(Phase::Edge, status, code, message).with_internal_message(internal)
        };
        if !is_among(&self.0.networks, peer.client()) {
            return Err(denial(
                StatusCode::FORBIDDEN,
                "METRICS_FORBIDDEN",
                "This address may not read the metrics.",
                "to allow this address, add it to metrics.networks",
            ));
        }
        if let Some(token) = &self.0.token {
            let given = head.headers.get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
            let given = match given.split_at_checked(7) {
                Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"bearer ") => given,
                _ => b"",
            };
            if !constant_time_eq(given, token.expose().as_bytes()) {
                let denial = denial(
                    StatusCode::UNAUTHORIZED,
                    "METRICS_TOKEN",
                    "Send the token of metrics.token_file as \"Authorization: Bearer TOKEN\".",
                    "the token of the metrics is missing or wrong",
                );
                return Err(denial.with_challenge(HeaderValue::from_static("Bearer")));
            }
        }
        if ![Method::GET, Method::HEAD].contains(&head.method) {
            let message = "The metrics can only be read.";
            let status = StatusCode::METHOD_NOT_ALLOWED;
            let denial = Denial::message(Phase::Edge, status, "METHOD_NOT_ALLOWED", message);
            return Err(denial.with_allow("GET, HEAD".to_owned()));
        }
        Ok(())
    }

    fn page(&self, head: &Parts) -> PayloadResponse {
        let accept = head.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        let format = Format::of_accept(accept);
        let metrics = self.0.observers.metrics.clone().unwrap_or_default();
        let text = metrics.encode(format, self.families());
        let mut response = PayloadResponse::new(text.into());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    #[expect(clippy::cast_precision_loss, reason = "a metric needs no more than 15 digits")]
    fn families(&self) -> Vec<Family> {
        let State { observers, accounts, backups, .. } = &*self.0;
        // The operator is not a user of the store.
        let (users, keys) = accounts.directory().counts();
        let (users, keys) = (users.saturating_sub(1), keys.saturating_sub(1));
        let tables = accounts.scripts().table_entries();
        let trail = accounts.trail_status();
        let is_tampered =
            matches!(trail, TrailStatus::Tampered { .. } | TrailStatus::Unreadable(_));
        let flag = |is_set: bool| f64::from(u8::from(is_set));
        let mut families = vec![
            build_info(),
            Family::gauge("keyward_users", "Users.", users as f64),
            Family::gauge(
                "keyward_keys",
                "Keys, also those that do not work any more.",
                keys as f64,
            ),
            Family::gauge(
                "keyward_store_writable",
                "1 if the store can write, 0 after a fault.",
                flag(accounts.fault().is_none()),
            ),
            Family::gauge(
                "keyward_script_problems",
                "Problems of the scripts, as keyward script check shows them.",
                accounts.scripts().problems().len() as f64,
            ),
            Family::gauges(
                "keyward_script_table_entries",
                "Entries that scripts keep for once() and rate_limit().",
                "table",
                [("once", tables.once as f64), ("rate_limit", tables.rate_limit as f64)],
            ),
            Family::gauge(
                "keyward_audit_problem",
                "1 if the audit trail was tampered with or cannot be read.",
                flag(is_tampered),
            ),
            Family::gauge(
                "keyward_clock_behind_seconds",
                "How far the machine's clock is behind the newest time in the store.",
                accounts.clock().seconds_behind().unwrap_or(0) as f64,
            ),
        ];
        if let Some(sequence) = accounts.commits() {
            let help = "Commits of the store since it was made.";
            families.push(Family::counter("keyward_store_commits", help, sequence as f64));
        }
        if let Some(schedule) = backups {
            families.push(Family::gauge(
                "keyward_backup_problem",
                "1 if the last scheduled backup could not be written.",
                flag(accounts.backup_problem().is_some()),
            ));
            if let Some((time, bytes)) = schedule.newest_file() {
                let help = "The time of the newest scheduled backup, in seconds since 1970.";
                let time = time.0 as f64;
                families.push(Family::gauge("keyward_backup_time_seconds", help, time));
                let help = "The size of the newest scheduled backup.";
                families.push(Family::gauge("keyward_backup_bytes", help, bytes as f64));
            }
        }
        if let Some(log) = &observers.access_log {
            let help = "Lines of the access log that could not be written.";
            families.push(Family::counter("keyward_access_log_lost", help, log.lost() as f64));
        }
        families.extend(process_families());
        families
    }
}

fn build_info() -> Family {
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    let samples = vec![(version, 1.0)];
    Family { name: "keyward_build_info", help: "The version.", kind: Kind::Gauge, samples }
}
