//! Logs on standard error: lines for people or JSON for programs.

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt,
    layer::{Context, Filter, SubscriberExt as _},
    registry,
    util::SubscriberInitExt as _,
};

use super::{
    line::{FinishedLines, LogFormat},
    sampling::{ClientLines, ClientSampler, UnloggedLines},
};

/// Starts logging for the whole process. `directives` are those of [`EnvFilter`]. Returns the count
/// of the lines that are left out.
///
/// # Errors
/// The directives are invalid, or logging was started before.
pub fn start_logs(
    directives: &str,
    format: LogFormat,
    clients: ClientLines,
) -> Result<UnloggedLines, Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::builder().parse(directives)?;
    let unlogged = UnloggedLines::default();
    let sampler = match clients {
        ClientLines::Sampled => Some(ClientSampler::new(unlogged.clone())),
        ClientLines::All => None,
    };
    let lines = fmt::layer().with_writer(FinishedLines(format));
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // The filters are nested, because a layer has only one filter.
    let lines = lines.with_filter(DropLibraryDetails).with_filter(filter);
    match sampler {
        Some(sampler) => registry().with(lines.with_filter(sampler)).try_init()?,
        None => registry().with(lines).try_init()?,
    }
    Ok(unlogged)
}

/// Drops the debug and trace lines of libraries, whatever level is configured. Otherwise a storage
/// engine that traces its pages, or an HTTP library that traces header fields, would log secrets.
struct DropLibraryDetails;

impl DropLibraryDetails {
    fn passes(metadata: &Metadata<'_>) -> bool {
        let is_keyward = metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"));
        is_keyward || *metadata.level() <= Level::INFO
    }
}

impl<S> Filter<S> for DropLibraryDetails {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        Self::passes(metadata)
    }

    fn callsite_enabled(
        &self,
        metadata: &'static Metadata<'static>,
    ) -> tracing::subscriber::Interest {
        if Self::passes(metadata) {
            tracing::subscriber::Interest::always()
        } else {
            tracing::subscriber::Interest::never()
        }
    }
}
