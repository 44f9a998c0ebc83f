//! The one spelling of a host name. Rules and requests compare hosts as texts, so two spellings of
//! one host would be two hosts.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
};

use idna::{
    AsciiDenyList,
    uts46::{DnsLength, Hyphens, Uts46},
};
use percent_encoding::percent_decode_str;
use serde::{Deserialize as _, Deserializer};

use super::Resource;
use crate::model::Violation;

/// The maximum length of a name and of a label (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// The normal form of a host without a port: lower case, without the dot at the end, an
/// internationalised name in its ASCII form, an IPv6 address in brackets as RFC 5952 writes it.
/// `None` means that the text is not a host, or that programs read it as different hosts: an IPv4
/// address in an unusual form (`127.1`), an IPv4-mapped IPv6 address, an address with a zone.
///
/// Borrowed if the text is a part of the normal form.
pub fn normal_host(text: &str) -> Option<Cow<'_, str>> {
    if let Some(rest) = text.strip_prefix('[') {
        return normal_ipv6(text, rest.strip_suffix(']')?);
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    match inspect(name) {
        Spelling::Normal => Some(Cow::Borrowed(name)),
        Spelling::Unusual => map(text).map(Cow::Owned),
        Spelling::Invalid => None,
    }
}

/// The spelling of a name without the dot at its end.
#[derive(PartialEq)]
enum Spelling {
    Normal,
    /// The name has characters that must be mapped or decoded, or a label in the ASCII form.
    Unusual,
    Invalid,
}

fn inspect(name: &str) -> Spelling {
    let mut start = 0;
    let (mut is_valid, mut is_encoded) = (name.len() <= MAX_NAME, false);
    let mut end_label = |label: &str| {
        is_valid &= (1..=MAX_LABEL).contains(&label.len());
        is_encoded |= label.starts_with("xn--");
    };
    for (index, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'.' => {
                end_label(&name[start..index]);
                start = index + 1;
            }
            _ => return Spelling::Unusual,
        }
    }
    let last = &name[start..];
    end_label(last);
    match (is_valid && is_clear_address(name, last), is_encoded) {
        (false, _) => Spelling::Invalid,
        (true, true) => Spelling::Unusual,
        (true, false) => Spelling::Normal,
    }
}

/// Whether a name that programs may read as an IPv4 address is one in the usual form. Browsers read
/// every name that ends in a number as an address (WHATWG URL, "ends in a number checker").
fn is_clear_address(name: &str, last: &str) -> bool {
    let is_hex = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    let is_number =
        last.bytes().all(|b| b.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(is_hex);
    !is_number || name.parse::<Ipv4Addr>().is_ok()
}

/// Decodes and maps a name (RFC 3986, section 3.2.2; UTS 46), and checks the result.
fn map(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    let mapped = Uts46::new()
        .to_ascii(decoded.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore)
        .ok()?;
    let name = mapped.strip_suffix('.').unwrap_or(&mapped);
    let is_mapped = match inspect(name) {
        Spelling::Normal => true,
        // The mapping has checked the labels that begin with `xn--`. All other names that are
        // still unusual contain a character that no host has.
        Spelling::Unusual => name.bytes().all(is_name_byte),
        Spelling::Invalid => false,
    };
    is_mapped.then(|| name.to_owned())
}

fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')
}

fn normal_ipv6<'a>(text: &'a str, inner: &str) -> Option<Cow<'a, str>> {
    let address: Ipv6Addr = inner.parse().ok()?;
    if address.to_ipv4_mapped().is_some() {
        return None;
    }
    let mut rest = Expected(inner);
    if write!(rest, "{address}").is_ok() && rest.0.is_empty() {
        return Some(Cow::Borrowed(text));
    }
    Some(Cow::Owned(format!("[{address}]")))
}

/// Compares written text with this text, without an allocation.
struct Expected<'a>(&'a str);

impl fmt::Write for Expected<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
        Ok(())
    }
}

impl Resource {
    /// The spelling of a host in a record. A text that is not a host stays, and the check of the
    /// record reports it.
    pub fn host_of_record(text: String) -> String {
        let normal = normal_host(&text).filter(|normal| **normal != text).map(Cow::into_owned);
        normal.unwrap_or(text)
    }

    pub(super) fn check_host(&self, found: &mut Vec<Violation>) {
        let Some(host) = &self.host else { return };
        let (message, fix) = match normal_host(host) {
            Some(normal) if normal == *host => return,
            Some(normal) => (
                format!("The host {host:?} is not in its normal form."),
                format!("Write {normal}."),
            ),
            None => (
                format!("{host:?} cannot be a host."),
                "Give a host name or an address such as api.example, 192.0.2.1 or [2001:db8::1], \
                 without scheme and port."
                    .into(),
            ),
        };
        found.push(Violation::new("host", message, fix));
    }
}

/// Reads the host of a stored record, which an older version may have written in another spelling.
pub(super) fn stored<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Resource::host_of_record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_has_one_spelling() {
        for (text, normal) in [
            ("api.example", "api.example"),
            ("API.Example", "api.example"),
            ("api.example.", "api.example"),
            ("a_b-c", "a_b-c"),
            ("%61pi.example", "api.example"),
            ("api%2Eexample%2e", "api.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("b%C3%BCcher.example", "xn--bcher-kva.example"),
            ("bu\u{308}cher.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("ａｐｉ。example", "api.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("１２７.0.0.1", "127.0.0.1"),
            ("1.2.3.4.example", "1.2.3.4.example"),
            ("[::1]", "[::1]"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[2001:DB8::0:1]", "[2001:db8::1]"),
        ] {
            assert_eq!(normal_host(text).as_deref(), Some(normal), "{text}");
            // The normal form is its own normal form, and is borrowed.
            let again = normal_host(normal);
            assert_eq!(again.as_deref(), Some(normal), "{text}");
            let is_plain = !normal.starts_with("xn--");
            assert!(!is_plain || matches!(again, Some(Cow::Borrowed(_))), "{text}");
        }
    }

    #[test]
    fn ambiguous_and_malformed_hosts_have_no_spelling() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = vec!["a".repeat(60); 5].join(".");
        for text in [
            "",
            ".",
            "..",
            "a..",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "a@b",
            "a:b",
            "a?b",
            "a\"b",
            "a,b",
            "a%",
            "a%zz",
            "%2561",
            "a%2fb",
            "a%00b",
            "a%ff",
            "a℀b",
            "xn--a",
            "xn--zzzzzz-é",
            "xn--abc-",
            "127.1",
            "0177.0.0.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "1.2.3.4.5",
            "256.0.0.1",
            "127.0.0.1..",
            "a.1",
            "a.0x",
            "１２７.1",
            "[::1",
            "[x]",
            "[]",
            "[::1].",
            "[::ffff:127.0.0.1]",
            "[::FFFF:7f00:1]",
            "[fe80::1%eth0]",
            "[fe80::1%25eth0]",
            "[v1.a]",
            &long_label,
            &long_name,
        ] {
            assert_eq!(normal_host(text), None, "{text}");
        }
    }
}
