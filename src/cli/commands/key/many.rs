//! The option of `keyward key revoke` that revokes all keys which conditions select.

use clap::Args;

use crate::cli::{
    Session,
    client::{many::Many, paths::path},
};

/// Selects many keys, which the server finds.
#[derive(Debug, Default, Args)]
pub struct ManyKeys {
    /// Revoke all keys for which these conditions hold, such as user=anna, label="build-*",
    /// application=mobile, created-before=90d or expires-before=2027-01-01T00:00:00Z; separated by
    /// commas
    #[arg(
        long = "where", value_name = "CONDITIONS", group = "filter",
        conflicts_with_all = ["user", "application", "created_before"]
    )]
    conditions: Option<String>,
}

impl ManyKeys {
    /// Revokes the keys. `None` means that no conditions were given.
    pub async fn revoke(&self, dry_run: bool, session: &Session) -> Option<anyhow::Result<()>> {
        let conditions = self.conditions.clone()?;
        let body = [("where", conditions.into()), ("revoke", true.into())];
        let body = body.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let many = Many { target: path(&["keys", "bulk"]), body, records: "keys", verb: "revoked" };
        let sums = many.run(dry_run, session).await;
        Some(sums.map_err(Into::into).and_then(|sums| many.report(&sums, session)))
    }
}
