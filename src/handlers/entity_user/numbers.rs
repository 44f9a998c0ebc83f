//! Keeps the digits of numbers. Reading JSON turns some numbers into floating-point numbers, whose
//! text differs from the text that the client has sent. In a text field, such as a name or a
//! password, the digits count.

use std::borrow::Cow;

/// Puts each number whose digits would be lost into quotation marks, so that it is read as text.
/// Every field that takes a number also takes its text.
pub(super) fn keep_digits(body: &[u8]) -> Cow<'_, [u8]> {
    let mut kept: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut position = 0;
    while position < body.len() {
        match body[position] {
            b'"' => position = end_of_string(body, position),
            b'-' | b'0'..=b'9' => {
                let end =
                    position + body[position..].iter().take_while(|b| is_in_number(**b)).count();
                if is_changed_by_reading(&body[position..end]) && !is_name(&body[end..]) {
                    let kept = kept.get_or_insert_with(|| Vec::with_capacity(body.len() + 16));
                    kept.extend_from_slice(&body[copied..position]);
                    kept.push(b'"');
                    kept.extend_from_slice(&body[position..end]);
                    kept.push(b'"');
                    copied = end;
                }
                position = end;
            }
            _ => position += 1,
        }
    }
    match kept {
        Some(mut kept) => {
            kept.extend_from_slice(&body[copied..]);
            Cow::Owned(kept)
        }
        None => Cow::Borrowed(body),
    }
}

/// The position after a string that begins at `start`.
fn end_of_string(body: &[u8], start: usize) -> usize {
    let mut position = start + 1;
    while let Some(byte) = body.get(position) {
        position += match byte {
            b'\\' => 2,
            b'"' => return position + 1,
            _ => 1,
        };
    }
    body.len()
}

fn is_in_number(byte: u8) -> bool {
    byte.is_ascii_digit() || b"+-.eE".contains(&byte)
}

/// Whether the text of a number differs from the text that it has after it was read.
fn is_changed_by_reading(token: &[u8]) -> bool {
    let Ok(token) = std::str::from_utf8(token) else { return false };
    if token.len() < 19 && !token.starts_with('-') && token.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    is_number(token)
        && serde_json::from_str::<serde_json::Number>(token)
            .map_or(true, |number| number.to_string() != token)
}

/// Whether a text is a number of JSON (RFC 8259, section 6). A number may be too large to be read.
fn is_number(token: &str) -> bool {
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = token.strip_prefix('-').unwrap_or(token);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let exponent = exponent.map(|text| text.strip_prefix(['+', '-']).unwrap_or(text));
    are_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(are_digits)
        && exponent.is_none_or(are_digits)
}

/// Whether the token before this text stands where the name of a member should be. A number is not
/// a name, so the body must stay invalid.
fn is_name(rest: &[u8]) -> bool {
    rest.iter().find(|byte| !b" \t\r\n".contains(byte)) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_whose_digits_would_be_lost_become_text() {
        for (body, expected) in [
            (r#"{"pass":[100000000000000000000]}"#, r#"{"pass":["100000000000000000000"]}"#),
            (r#"{"name":[18446744073709551616]}"#, r#"{"name":["18446744073709551616"]}"#),
            (r#"{"a":[1e2, 100.0 ,1.10,-0]}"#, r#"{"a":["1e2", 100.0 ,"1.10","-0"]}"#),
            (r#"[1e999]"#, r#"["1e999"]"#),
            (r#"{"a":18446744073709551615}"#, r#"{"a":18446744073709551615}"#),
            (r#"{"a":[1,-1,0.5,true,null]}"#, r#"{"a":[1,-1,0.5,true,null]}"#),
            (r#"{"a":"1e2 \" 1e2","b":1e2}"#, r#"{"a":"1e2 \" 1e2","b":"1e2"}"#),
        ] {
            assert_eq!(String::from_utf8_lossy(&keep_digits(body.as_bytes())), expected);
        }
    }

    #[test]
    fn body_that_is_not_json_stays_invalid() {
        for body in [
            "{1e2:1}",
            "[01e2]",
            "[1e]",
            "[1.e2]",
            "[1e2",
            "[1e2 1e3]",
            "\"1e2",
            "[-]",
            "[1e2]x",
            "\"\\",
        ] {
            let kept = keep_digits(body.as_bytes());
            assert!(serde_json::from_slice::<serde_json::Value>(&kept).is_err(), "{body}");
        }
    }
}
