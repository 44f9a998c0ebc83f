//! `keyward import`: imports everything that Keyward can take over from another system.

mod drupal;

use clap::Subcommand;

use crate::cli::Session;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Import users, roles, keys and applications from the database of a Drupal site
    Drupal(drupal::Drupal),
}

/// Runs the command.
pub async fn run(verb: Verb, session: &Session) -> anyhow::Result<()> {
    match verb {
        Verb::Drupal(drupal) => drupal.run(session).await,
    }
}
