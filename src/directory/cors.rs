//! The CORS settings of a resource in compiled form.

use http::HeaderValue;

use crate::model::{Cors, OriginPattern, WebOrigin};

/// The CORS settings of a resource.
#[derive(Debug)]
pub struct CompiledCors {
    record: Cors,
    origins: Vec<OriginPattern>,
    expose: Option<HeaderValue>,
}

impl CompiledCors {
    /// Compiles valid settings.
    pub fn new(record: Cors) -> Self {
        let origins = record.origins.iter().filter_map(|text| OriginPattern::parse(text).ok());
        let names: Vec<&str> = record.expose.iter().map(String::as_str).collect();
        let expose = HeaderValue::try_from(names.join(", ")).ok();
        let expose = expose.filter(|names| !names.is_empty());
        Self { origins: origins.collect(), expose, record }
    }

    /// The record.
    pub fn record(&self) -> &Cors {
        &self.record
    }

    /// The value of `Access-Control-Expose-Headers`. `None` means that no field is exposed.
    pub fn expose(&self) -> Option<&HeaderValue> {
        self.expose.as_ref()
    }

    /// Whether the value of an `Origin` field is an allowed origin.
    pub fn allows_origin(&self, value: &HeaderValue) -> bool {
        let Ok(text) = value.to_str() else { return false };
        let origin = match text {
            "null" => None,
            text => match WebOrigin::parse(text) {
                Ok(origin) => Some(origin),
                Err(_) => return false,
            },
        };
        self.origins.iter().any(|pattern| pattern.matches(origin.as_ref()))
    }
}
