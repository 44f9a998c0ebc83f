//! The options for how much may be asked, which users, keys, applications and resources share.

use clap::Args;
use serde_json::{Map, Value};

use crate::model::{Credits, RateLimit, Violation};

/// A rate.
#[derive(Debug, Clone, Args)]
pub struct Rate {
    /// How fast it may be used: 100/1m, or 100/1m burst 20 (s, m, h, d, w) [default: as fast as they come]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate_limit: Option<RateLimit>,
}

/// Credits.
#[derive(Debug, Clone, Args)]
pub struct Budget {
    /// How often it may be used: 1000/day, 1000/week or 1000/month, in UTC [default: without end]
    #[arg(long, value_name = "CREDITS", value_parser = credits)]
    credits: Option<Credits>,
}

/// Takes a rate away.
#[derive(Debug, Clone, Args)]
pub struct NoRate {
    /// No rate: as fast as they come
    #[arg(long, conflicts_with = "rate_limit")]
    no_rate_limit: bool,
}

/// Takes credits away.
#[derive(Debug, Clone, Args)]
pub struct NoBudget {
    /// No credits: without end
    #[arg(long, conflicts_with = "credits")]
    no_credits: bool,
}

impl Rate {
    /// Puts it into a record.
    pub fn put(&self, record: &mut Map<String, Value>) {
        record.extend(self.rate_limit.map(|rate| ("rate_limit".into(), rate.to_string().into())));
    }
}

impl Budget {
    /// Puts them into a record.
    pub fn put(&self, record: &mut Map<String, Value>) {
        record.extend(self.credits.map(|credits| ("credits".into(), credits.to_string().into())));
    }
}

impl NoRate {
    /// Takes it out of a record.
    pub fn put(&self, record: &mut Map<String, Value>) {
        if self.no_rate_limit {
            record.insert("rate_limit".into(), Value::Null);
        }
    }
}

impl NoBudget {
    /// Takes them out of a record.
    pub fn put(&self, record: &mut Map<String, Value>) {
        if self.no_credits {
            record.insert("credits".into(), Value::Null);
        }
    }
}

fn rate(text: &str) -> Result<RateLimit, String> {
    RateLimit::parse("", text).map_err(told)
}

fn credits(text: &str) -> Result<Credits, String> {
    Credits::parse("", text).map_err(told)
}

fn told(Violation { message, fix, .. }: Violation) -> String {
    format!("{message} {fix}")
}
