//! Decodes the text of a file: UTF-8, or UTF-16 as Windows programs write it.

use zeroize::Zeroizing;

/// Decodes the bytes of a file. The error names the line that cannot be decoded.
pub(in crate::cli) fn decode(bytes: Vec<u8>) -> Result<Zeroizing<String>, String> {
    let bytes = Zeroizing::new(bytes);
    let text = match bytes.as_slice() {
        [0xFF, 0xFE, rest @ ..] => from_utf16(rest, u16::from_le_bytes)?,
        [0xFE, 0xFF, rest @ ..] => from_utf16(rest, u16::from_be_bytes)?,
        // Without a byte order mark, every second byte of ASCII text in UTF-16 is zero.
        [first, 0, ..] if *first != 0 => from_utf16(&bytes, u16::from_le_bytes)?,
        [0, first, ..] if *first != 0 => from_utf16(&bytes, u16::from_be_bytes)?,
        [0x1F, 0x8B, ..] => return Err("the file is compressed: decompress it with gunzip".into()),
        [b'P', b'K', 3, 4, ..] => {
            return Err("the file is a workbook or an archive: save it as CSV (UTF-8)".into());
        }
        // Some spreadsheets write a byte order mark.
        [0xEF, 0xBB, 0xBF, rest @ ..] => from_utf8(rest)?,
        all => from_utf8(all)?,
    };
    Ok(Zeroizing::new(text))
}

fn from_utf8(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|problem| {
        let before = &bytes[..problem.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8: save the file as UTF-8")
    })?;
    Ok(text.to_owned())
}

fn from_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let text: Result<String, _> =
        char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).collect();
    match text {
        Ok(text) if rest.is_empty() => Ok(text),
        _ => Err("the file begins like UTF-16 but is not: save the file as UTF-8".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_every_encoding_of_windows_is_decoded() {
        let text = "user;key\r\nrené;schlüssel-𝄞\r\n";
        let units: Vec<u16> = text.encode_utf16().collect();
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for bytes in [
            text.as_bytes().to_vec(),
            [b"\xEF\xBB\xBF", text.as_bytes()].concat(),
            [b"\xFF\xFE", little.as_slice()].concat(),
            [b"\xFE\xFF", big.as_slice()].concat(),
            little,
            big,
        ] {
            assert_eq!(*decode(bytes.clone()).unwrap(), text, "{bytes:?}");
        }
        assert_eq!(*decode(Vec::new()).unwrap(), "");
    }

    #[test]
    fn other_encodings_are_refused_with_their_line() {
        for (bytes, message) in [
            (&b"a;b\nren\xE9;key\n"[..], "line 2 is not UTF-8"),
            (b"\xFF\xFEa\0b", "UTF-16"),
            (b"\xFF\xFE\x00\xD8a\0", "UTF-16"),
            (b"\x1F\x8B\x08", "gunzip"),
            (b"PK\x03\x04", "CSV"),
        ] {
            let problem = decode(bytes.to_vec()).unwrap_err();
            assert!(problem.contains(message), "{problem}");
        }
    }
}
