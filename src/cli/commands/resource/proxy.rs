//! Options of the handler `proxy`: how requests and responses are passed on, and for how long.

use clap::Args;
use serde_json::{Map, Value, json};

/// The options that set how a proxy passes requests on.
#[derive(Debug, Clone, Args)]
pub struct ProxyOptions {
    /// For the handler proxy: whether the upstream gets the client's Host instead of its own
    /// [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    preserve_host: Option<bool>,
    /// For the handler proxy: whether the upstream gets the client's credential [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    keep_credential: Option<bool>,
    /// For the handler proxy: a protocol that a connection may switch to, or none; repeatable
    /// [default: websocket]
    #[arg(long = "upgrade", value_name = "PROTOCOL")]
    upgrades: Vec<String>,
    /// For the handler proxy: the time limit for connecting, in seconds [default: 5]
    #[arg(long, value_name = "SECONDS")]
    connect_seconds: Option<u32>,
    /// For the handler proxy: the time limit from the last byte of the request to the response, in
    /// seconds [default: 60]
    #[arg(long, value_name = "SECONDS")]
    response_seconds: Option<u32>,
    /// For the handler proxy: the time limit without a byte of the response, in seconds
    /// [default: 300]
    #[arg(long, value_name = "SECONDS")]
    idle_seconds: Option<u32>,
    /// For the handler proxy: the number of consecutive failures after which an upstream gets no
    /// requests for some time [default: 3]
    #[arg(long, value_name = "FAILURES")]
    eject_after: Option<u32>,
    /// For the handler proxy: this time, in seconds [default: 10]
    #[arg(long, value_name = "SECONDS")]
    eject_seconds: Option<u32>,
}

impl ProxyOptions {
    /// Adds the options that are given to the settings of a proxy.
    pub fn put(&self, proxy: &mut Map<String, Value>) {
        for (name, flag) in
            [("preserve_host", self.preserve_host), ("keep_credential", self.keep_credential)]
        {
            proxy.extend(flag.map(|flag| (name.into(), flag.into())));
        }
        for (name, number) in [
            ("connect_seconds", self.connect_seconds),
            ("response_seconds", self.response_seconds),
            ("idle_seconds", self.idle_seconds),
            ("eject_after", self.eject_after),
            ("eject_seconds", self.eject_seconds),
        ] {
            proxy.extend(number.map(|number| (name.into(), number.into())));
        }
        if !self.upgrades.is_empty() {
            let names: Vec<&String> = self.upgrades.iter().filter(|name| *name != "none").collect();
            proxy.insert("upgrades".into(), json!(names));
        }
    }
}
