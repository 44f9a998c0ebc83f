//! The parts of certificates (RFC 5280) that tell an operator's mistakes: when they are valid, who
//! signed them, and whether they may sign others. rustls looks at none of these in the certificate
//! that it presents.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// A certificate that ends sooner than this is reported, in seconds.
const SOON: i64 = 14 * 24 * 3600;

/// The time in which all certificates of a chain are valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    begin: i64,
    end: i64,
}

/// The validity of a certificate at a certain time, if an operator should know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValidityWarning {
    /// The time has not begun.
    NotYet(i64),
    /// The time is over.
    Expired(i64),
    /// The time is over soon.
    Expires {
        /// The whole days until then.
        days: i64,
        /// The time at which the certificate expires.
        end: i64,
    },
}

impl ValidityWarning {
    /// Whether clients refuse the certificate now.
    pub fn is_invalid(self) -> bool {
        !matches!(self, Self::Expires { .. })
    }
}

impl fmt::Display for ValidityWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |seconds: i64| {
            jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".into(), |t| t.to_string())
        };
        match *self {
            Self::NotYet(begin) => write!(f, "is not valid before {}", time(begin)),
            Self::Expired(end) => write!(f, "expired at {}", time(end)),
            Self::Expires { days: 0, end } => write!(f, "expires within a day, at {}", time(end)),
            Self::Expires { days, end } => write!(f, "expires in {days} days, at {}", time(end)),
        }
    }
}

impl Validity {
    /// The time in which all these certificates are valid. `None` means that one cannot be read.
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let mut all = Self { begin: i64::MIN, end: i64::MAX };
        for certificate in chain {
            let validity = parse(certificate)?.validity().clone();
            all.begin = all.begin.max(validity.not_before.timestamp());
            all.end = all.end.min(validity.not_after.timestamp());
        }
        Some(all)
    }

    /// The warning at a time in seconds since 1970. `None` means that all is well.
    pub fn warning(self, now: i64) -> Option<ValidityWarning> {
        if now < self.begin {
            Some(ValidityWarning::NotYet(self.begin))
        } else if now > self.end {
            Some(ValidityWarning::Expired(self.end))
        } else if self.end - now < SOON {
            let days = (self.end - now) / (24 * 3600);
            Some(ValidityWarning::Expires { days, end: self.end })
        } else {
            None
        }
    }
}

/// The time in seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The number, from 1, of the first certificate after the server's own that signed no certificate
/// of the chain. `None` means that all of them belong to the chain.
pub fn unrelated(chain: &[CertificateDer<'_>]) -> Option<usize> {
    let parsed: Vec<_> = chain.iter().map(|certificate| parse(certificate)).collect();
    let is_related = |index: usize| {
        let Some(certificate) = &parsed[index] else { return true };
        let is_copy = chain[..index].contains(&chain[index]);
        is_copy
            || parsed.iter().enumerate().any(|(other, signed)| {
                let issuer = signed.as_ref().map(|signed| signed.issuer().as_raw());
                other != index && issuer == Some(certificate.subject().as_raw())
            })
    };
    (1..chain.len()).find(|index| !is_related(*index)).map(|index| index + 1)
}

/// The subject of a certificate that cannot sign clients' certificates: another authority has
/// signed it, and it may sign none. `None` means that the certificate is an authority, or that it
/// signed itself.
pub fn name_of_leaf(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = parse(certificate)?;
    let is_self_signed = parsed.issuer().as_raw() == parsed.subject().as_raw();
    (!parsed.is_ca() && !is_self_signed).then(|| parsed.subject().to_string())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warning_names_the_end_of_the_validity_that_matters() {
        const DAY: i64 = 24 * 3600;
        let validity = Validity { begin: 100 * DAY, end: 200 * DAY };
        for (day, expected) in [
            (99, Some("is not valid before 1970-04-11T00:00:00Z")),
            (100, None),
            (186, None),
            (187, Some("expires in 13 days, at 1970-07-20T00:00:00Z")),
            (200, Some("expires within a day, at 1970-07-20T00:00:00Z")),
            (201, Some("expired at 1970-07-20T00:00:00Z")),
        ] {
            let warning = validity.warning(day * DAY);
            assert_eq!(warning.map(|warning| warning.to_string()).as_deref(), expected, "{day}");
            let is_invalid = !(100..=200).contains(&day);
            assert_eq!(warning.is_some_and(ValidityWarning::is_invalid), is_invalid, "{day}");
        }
    }
}
