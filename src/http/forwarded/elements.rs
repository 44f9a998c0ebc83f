//! Parses the field `Forwarded` (RFC 7239, section 4).

/// The description of one hop. Values are without their quotes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// The address from which the hop's request came (`for`).
    pub node: Option<&'a str>,
    pub host: Option<&'a str>,
    pub proto: Option<&'a str>,
}

/// The elements of one field value, in their order. `None` means that the value is malformed.
pub(super) fn parse(text: &str) -> Option<Vec<Element<'_>>> {
    let mut elements = Vec::new();
    let mut current: Option<Element<'_>> = None;
    let mut rest = without_space(text);
    loop {
        match rest.bytes().next() {
            None => break,
            Some(b',') => {
                elements.extend(current.take());
                rest = without_space(&rest[1..]);
            }
            Some(b';') => rest = without_space(&rest[1..]),
            Some(_) => {
                let (name, after) = rest.split_once('=')?;
                if name.is_empty() || !name.bytes().all(is_token_byte) {
                    return None;
                }
                let (value, after) = split_value(after)?;
                current.get_or_insert_default().set(name, value)?;
                rest = without_space(after);
                if !(rest.is_empty() || rest.starts_with([',', ';'])) {
                    return None;
                }
            }
        }
    }
    elements.extend(current);
    Some(elements)
}

impl<'a> Element<'a> {
    /// Sets a parameter. `None` means that the parameter is repeated or unreadable. Other
    /// parameters (`by`, extensions) do not matter.
    fn set(&mut self, name: &str, value: &'a str) -> Option<()> {
        let parameter = if name.eq_ignore_ascii_case("for") {
            &mut self.node
        } else if name.eq_ignore_ascii_case("host") {
            &mut self.host
        } else if name.eq_ignore_ascii_case("proto") {
            &mut self.proto
        } else {
            return Some(());
        };
        // Addresses, hosts and schemes need no escapes.
        (parameter.replace(value).is_none() && !value.contains('\\')).then_some(())
    }
}

/// Splits a value from the text after it. A quoted value loses its quotes, and keeps its escapes.
fn split_value(text: &str) -> Option<(&str, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';', ' ', '\t']).unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return (!value.is_empty() && !value.contains('"')).then_some((value, after));
    };
    let mut is_escaped = false;
    for (index, byte) in quoted.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some((&quoted[..index], &quoted[index + 1..])),
            _ => {}
        }
    }
    None
}

fn without_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// Whether a token may contain this byte (RFC 9110, section 5.6.2).
fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_in_any_case_and_order() {
        let text = "By=x;FOR=\"[2001:db8::1]:443\"; Proto=https ;host=\"a.example:8\" , for=unknown;secret=\"a,b;\\\"c\"";
        let first = Element {
            node: Some("[2001:db8::1]:443"),
            host: Some("a.example:8"),
            proto: Some("https"),
        };
        let second = Element { node: Some("unknown"), ..Element::default() };
        assert_eq!(parse(text), Some(vec![first, second]));
        assert_eq!(parse(" , ;,"), Some(vec![]));
        let without_node = Element { proto: Some("http"), ..Element::default() };
        assert_eq!(parse("proto=http"), Some(vec![without_node]));
    }

    #[test]
    fn malformed_fields_are_rejected() {
        for bad in [
            "for",
            "=a",
            "for=",
            "for=\"a",
            "for=\"a\"b",
            "for=a\"b\"",
            "for=a b",
            "for=a;for=b",
            "FOR=a;for=b",
            "for=\"a\\b\"",
            "a b=c",
            "for=\"x, for=\"[2001:db8::1]\"",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
