//! Options of rate limits and credits, shared by users, keys, applications and resources.

use clap::Args;
use serde_json::{Map, Value};

use crate::model::{Credits, RateLimit, Violation};

/// The option that sets a rate limit.
#[derive(Debug, Clone, Args)]
pub struct Rate {
    /// The rate limit, such as 100/1m or 100/1m burst 20; units: s, m, h, d, w [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate_limit: Option<RateLimit>,
}

/// The option that sets credits.
#[derive(Debug, Clone, Args)]
pub struct Budget {
    /// The credits, such as 1000/day, 1000/week or 1000/month; periods begin in UTC [default: no
    /// limit]
    #[arg(long, value_name = "CREDITS", value_parser = credits)]
    credits: Option<Credits>,
}

/// The option that removes a rate limit.
#[derive(Debug, Clone, Args)]
pub struct NoRate {
    /// Remove the rate limit
    #[arg(long, conflicts_with = "rate_limit")]
    no_rate_limit: bool,
}

/// The option that removes credits.
#[derive(Debug, Clone, Args)]
pub struct NoBudget {
    /// Remove the credits
    #[arg(long, conflicts_with = "credits")]
    no_credits: bool,
}

impl Rate {
    /// Sets the rate limit in a record.
    pub fn put(&self, record: &mut Map<String, Value>) {
        record.extend(self.rate_limit.map(|rate| ("rate_limit".into(), rate.to_string().into())));
    }
}

impl Budget {
    /// Sets the credits in a record.
    pub fn put(&self, record: &mut Map<String, Value>) {
        record.extend(self.credits.map(|credits| ("credits".into(), credits.to_string().into())));
    }
}

impl NoRate {
    /// If the option is given, sets `rate_limit` to `null` in a merge patch. This removes the rate
    /// limit from the record.
    pub fn put(&self, record: &mut Map<String, Value>) {
        if self.no_rate_limit {
            record.insert("rate_limit".into(), Value::Null);
        }
    }
}

impl NoBudget {
    /// If the option is given, sets `credits` to `null` in a merge patch. This removes the credits
    /// from the record.
    pub fn put(&self, record: &mut Map<String, Value>) {
        if self.no_credits {
            record.insert("credits".into(), Value::Null);
        }
    }
}

fn rate(text: &str) -> Result<RateLimit, String> {
    RateLimit::parse("", text).map_err(message_and_fix)
}

fn credits(text: &str) -> Result<Credits, String> {
    Credits::parse("", text).map_err(message_and_fix)
}

fn message_and_fix(Violation { message, fix, .. }: Violation) -> String {
    format!("{message} {fix}")
}
