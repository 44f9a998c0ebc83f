//! `keyward serve`: both listeners, until a signal.

use crate::config::Loaded;

/// Serves until it is told to stop.
pub async fn run(loaded: Loaded) -> anyhow::Result<()> {
    anyhow::bail!("cannot serve {} yet", loaded.settings.server.listen)
}
