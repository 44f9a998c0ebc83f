//! `keyward key edit`: changes the label, the limits and the bounds of a key.

use clap::Args;
use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::{
    cli::{
        CliError, Session,
        client::{
            lists::{ListEdit, Unset, unchanged},
            paths::path,
        },
        commands::limit::{Budget, NoBudget, NoRate, Rate},
    },
    model::{Clock, Expires},
};

#[derive(Debug, Args)]
pub struct Edit {
    /// The key's id, or - to read the key's text from standard input
    id: String,
    /// A label for people
    #[arg(long)]
    label: Option<String>,
    /// The new expiry: a time span from now such as 90d, a time such as 2027-01-01T00:00:00Z, a day
    /// such as 2026-12-31 (to its end in UTC), or never
    #[arg(long, value_name = "WHEN", value_parser = Expires::parse)]
    expires: Option<Expires>,
    /// Replace all scopes with this permission; repeatable
    #[arg(long = "scope", value_name = "PERMISSION", conflicts_with = "no_scopes")]
    scopes: Vec<String>,
    /// Add a scope, and keep the others; repeatable
    #[arg(long = "add-scope", value_name = "PERMISSION", conflicts_with = "no_scopes")]
    add_scopes: Vec<String>,
    /// Remove a scope, and keep the others; repeatable. A key without any scope in its list has no
    /// permission
    #[arg(long = "remove-scope", value_name = "PERMISSION", conflicts_with = "no_scopes")]
    remove_scopes: Vec<String>,
    /// Remove the list of scopes, so that the key has all permissions of its user
    #[arg(long)]
    no_scopes: bool,
    /// Replace all networks with this one, such as 10.0.0.0/8; repeatable
    #[arg(long = "network", value_name = "CIDR", conflicts_with = "no_networks")]
    networks: Vec<String>,
    /// Add a network, and keep the others; repeatable
    #[arg(long = "add-network", value_name = "CIDR", conflicts_with = "no_networks")]
    add_networks: Vec<String>,
    /// Remove a network, and keep the others; repeatable
    #[arg(long = "remove-network", value_name = "CIDR", conflicts_with = "no_networks")]
    remove_networks: Vec<String>,
    /// Remove the list of networks, so that the key is accepted from any address
    #[arg(long)]
    no_networks: bool,
    #[command(flatten)]
    rate: Rate,
    #[command(flatten)]
    no_rate: NoRate,
    #[command(flatten)]
    budget: Budget,
    #[command(flatten)]
    no_budget: NoBudget,
}

const ALL_PERMISSIONS: Unset =
    Unset { meaning: "all permissions of the user", option: None, is_empty_list: false };
const ANY_ADDRESS: Unset =
    Unset { meaning: "any address", option: Some("--no-networks"), is_empty_list: true };

impl Edit {
    pub async fn run(self, session: &Session) -> anyhow::Result<()> {
        let target = path(&["keys", &super::key_id(&self.id, session).await?]);
        let end = self.expires.map(|expires| expires.from(Clock::system().now()));
        let end = end.map(|end| end.map_or(Value::Null, |end| end.to_string().into()));
        let change = |key: &mut Map<String, Value>, notes: &mut Vec<String>| {
            key.extend(self.label.clone().map(|label| ("label".into(), label.into())));
            key.extend(end.clone().map(|end| ("expires".into(), end)));
            self.put_lists(key, notes)?;
            self.rate.put(key);
            self.no_rate.put(key);
            self.budget.put(key);
            self.no_budget.put(key);
            Ok(())
        };
        session.edit(&target, change).await?;
        super::note_end_of_day(self.expires, session);
        Ok(())
    }

    fn put_lists(
        &self,
        key: &mut Map<String, Value>,
        notes: &mut Vec<String>,
    ) -> Result<(), CliError> {
        let scopes = ListEdit {
            option: "--scope",
            set: &self.scopes,
            add: &self.add_scopes,
            remove: &self.remove_scopes,
            unset: Some(ALL_PERMISSIONS),
            spelling: unchanged,
        };
        let networks = ListEdit {
            option: "--network",
            set: &self.networks,
            add: &self.add_networks,
            remove: &self.remove_networks,
            unset: Some(ANY_ADDRESS),
            spelling: spelled_network,
        };
        scopes.put(key, "scopes", notes)?;
        networks.put(key, "networks", notes)?;
        for (name, is_removed) in [("scopes", self.no_scopes), ("networks", self.no_networks)] {
            if is_removed {
                key.insert(name.into(), Value::Null);
            }
        }
        Ok(())
    }
}

/// The spelling of a network in a record. The API reports a text that is not a network.
fn spelled_network(text: &str) -> String {
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(|_| address());
    network.map_or_else(|_| text.to_owned(), |network| network.to_string())
}
