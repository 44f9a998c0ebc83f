//! Formats found keys as SARIF 2.1.0 (OASIS), which code hosts show beside the lines.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{finding::Finding, owners::Owners};

const RULE: &str = "keyward-api-key";
/// The characters that an artifact's URI has as they are.
const IN_URI: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// The SARIF log of a scan. `is_complete` says that all files could be read.
pub fn log(findings: &[Finding], owners: &Owners, is_complete: bool) -> Value {
    let results: Vec<Value> = findings.iter().map(|finding| result(finding, owners)).collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "keyward",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": [{
                    "id": RULE,
                    "name": "KeywardApiKey",
                    "shortDescription": { "text": "An API key of Keyward" },
                    "fullDescription": { "text": "The text contains an API key: it has the format and the checksum of a key." },
                    "help": { "text": "Revoke the key with `keyward key revoke ID`, give its user another one, and remove the key from the file and from its history." },
                    "defaultConfiguration": { "level": "error" },
                    "properties": { "tags": ["security"], "security-severity": "9.0" },
                }],
            } },
            "invocations": [{ "executionSuccessful": is_complete }],
            "results": results,
        }],
    })
}

fn result(finding: &Finding, owners: &Owners) -> Value {
    let Finding { file, is_content, found } = finding;
    let state = owners.state(found.id);
    let known = owners.record(found.id);
    let owner = match (&state, known["username"].as_str()) {
        (Some(state), Some(user)) => format!(", which belongs to {user}. Its state is {state}"),
        (Some(_), None) => ", which the asked store does not know".to_owned(),
        (None, _) => String::new(),
    };
    let place = if *is_content { "" } else { " in the name of this file" };
    let text = format!(
        "API key {} ({}…{}){place}{owner}. Revoke it and remove it.",
        found.id, found.prefix, found.last_four
    );
    // A key that is not accepted any more is no danger.
    let is_over = state.as_deref().is_some_and(|state| ["revoked", "expired"].contains(&state));
    let uri = if file == "-" {
        "stdin".to_owned()
    } else {
        utf8_percent_encode(file.trim_start_matches("./"), IN_URI).to_string()
    };
    let mut location = json!({ "physicalLocation": { "artifactLocation": { "uri": uri } } });
    if *is_content {
        location["physicalLocation"]["region"] = json!({ "startLine": found.line });
    }
    json!({
        "ruleId": RULE,
        "ruleIndex": 0,
        "level": if is_over { "note" } else { "error" },
        "message": { "text": text },
        "locations": [location],
        "partialFingerprints": { "keywardKeyId/v1": found.id },
        "properties": { "form": finding.form(), "state": state },
    })
}
