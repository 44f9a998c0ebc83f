//! Metrics that are read when they are asked for: the state of the store, of the scripts and of the
//! process.

/// The samples of one metric.
#[derive(Debug, Clone)]
pub struct Family {
    /// The name, without the suffix of a counter.
    pub name: &'static str,
    /// A sentence for people.
    pub help: &'static str,
    /// Whether the value only grows.
    pub kind: Kind,
    /// The labels and the value of each sample.
    pub samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value that rises and falls.
    Gauge,
    /// A value that only grows.
    Counter,
}

impl Family {
    /// A value without labels that rises and falls.
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, kind: Kind::Gauge, samples: vec![(Vec::new(), value)] }
    }

    /// A value without labels that only grows.
    pub fn counter(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { kind: Kind::Counter, ..Self::gauge(name, help, value) }
    }

    /// Values that rise and fall, each with the value of one label.
    pub fn gauges<'a>(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Self {
        let values = values.into_iter();
        let samples = values.map(|(text, value)| (vec![(label, text.to_owned())], value));
        Self { name, help, kind: Kind::Gauge, samples: samples.collect() }
    }
}
