//! Checks that the outcome of a request follows the rules that no script may break.

use super::scripted_gate::{Attempt, Entitlement, KINDS, Outcome, SECRET, ScriptedGate};
use keyward::scripting::ScriptKind;

/// The expected result of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// The script loads as no kind.
    RefusedLoad,
    /// Every response is a denial.
    Denied,
    /// Only entitled requests pass.
    Harmless,
}

impl Expectation {
    /// Parses the first line of a script.
    pub fn parse(text: &str) -> Option<Self> {
        match text.lines().next()?.strip_prefix("// expect: ")? {
            "refused-load" => Some(Self::RefusedLoad),
            "denied" => Some(Self::Denied),
            "harmless" => Some(Self::Harmless),
            _ => None,
        }
    }
}

/// Checks the outcome of one attempt. Returns the violations.
pub fn check_attempt(
    gate: &ScriptedGate,
    attempt: &Attempt,
    outcome: &Outcome,
    expect: Expectation,
) -> Vec<String> {
    let mut violations = Vec::new();
    if attempt.entitlement == Entitlement::NotEntitled && outcome.passed.is_some() {
        violations.push(format!("passed as {:?}", outcome.passed));
    }
    if outcome.passed.is_some_and(|uid| uid != Some(gate.llama_id)) {
        violations.push(format!("passed as another user: {:?}", outcome.passed));
    }
    if expect == Expectation::Denied && !is_denial(outcome) {
        violations.push("the response is not a denial".into());
    }
    violations.extend(check_outcome(outcome));
    if gate.credentials().iter().any(|text| outcome.detail.contains(text)) {
        violations.push(format!("the log would contain the credential: {}", outcome.detail));
    }
    let (kind, name, status) = (gate.kind, attempt.name, outcome.status);
    violations
        .into_iter()
        .map(|violation| format!("{kind}, {name}, {status}: {violation}"))
        .collect()
}

/// Checks the rules that hold for every script, even for a script that authorizes everybody.
/// Returns the violations.
fn check_outcome(outcome: &Outcome) -> Vec<String> {
    let mut violations = Vec::new();
    if outcome.passed.is_none() && !is_denial(outcome) {
        violations.push("a denial became a success".into());
    }
    if !(200..=599).contains(&outcome.status.as_u16()) {
        violations.push("the status is not the status of a final response".into());
    }
    for (name, value) in &outcome.headers {
        let is_reserved = name.as_str().starts_with("x-keyward-") && name != "x-keyward-hint";
        let framing = ["connection", "transfer-encoding", "content-length", "upgrade", "trailer"];
        if is_reserved || framing.contains(&name.as_str()) || name.as_str().contains("injected") {
            violations.push(format!("the script set {name}"));
        }
        if value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            violations.push(format!("{name} contains a line end or NUL"));
        }
        if value.as_bytes().windows(SECRET.len()).any(|part| part == SECRET.as_bytes()) {
            violations.push(format!("{name} contains the secret"));
        }
    }
    let texts = [String::from_utf8_lossy(&outcome.body).into_owned(), outcome.detail.clone()];
    if texts.iter().any(|text| text.contains(SECRET)) {
        violations.push("body or detail contains the secret".into());
    }
    violations
}

fn is_denial(outcome: &Outcome) -> bool {
    (400..=599).contains(&outcome.status.as_u16())
}

/// The result of [`check_script`].
#[derive(Default)]
pub struct ScriptCheck {
    /// Number of kinds that the script loads as.
    pub loaded: usize,
    /// The violations.
    pub violations: Vec<String>,
}

/// Checks a script without a stated expectation.
///
/// `data` has up to three parts, separated by NUL bytes: the script, the query of an additional
/// request, and the credential of this request.
pub fn check_script(data: &[u8]) -> ScriptCheck {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let path = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let credential = parts.next().unwrap_or_default();
    let mut check = ScriptCheck::default();
    for kind in KINDS {
        let Ok(gate) = ScriptedGate::load(kind, &text) else { continue };
        check.loaded += 1;
        let mut attempts = gate.attempts();
        let path = format!("/orders?{path}");
        let entitlement = Entitlement::NotEntitled;
        attempts.push(gate.attempt("additional request", entitlement, &path, credential));
        for attempt in attempts {
            let outcome = gate.run(&attempt);
            let mut violations = check_outcome(&outcome);
            // The script of an authentication type may authenticate every request.
            let may_authenticate = gate.kind == ScriptKind::Auth;
            let is_entitled = attempt.entitlement == Entitlement::Entitled || may_authenticate;
            if !is_entitled && outcome.passed.is_some() {
                violations.push(format!("passed as {:?}", outcome.passed));
            }
            let (name, status) = (attempt.name, outcome.status);
            let violations = violations.into_iter();
            let violations = violations.map(|text| format!("{kind}, {name}, {status}: {text}"));
            check.violations.extend(violations);
        }
    }
    check
}
