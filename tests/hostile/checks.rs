//! What may come of an attempt, and what must not.

use super::arena::{Arena, Attempt, Outcome, PLACES, Right, SECRET};
use keyward::hooks::Kind;

/// What is to come of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// It loads nowhere.
    RefusedLoad,
    /// Nobody is answered anything but a refusal.
    Denied,
    /// Nobody is let in who has no right.
    Harmless,
}

impl Expectation {
    /// What a script's first line says.
    pub fn of(text: &str) -> Option<Self> {
        match text.lines().next()?.strip_prefix("// expect: ")? {
            "refused-load" => Some(Self::RefusedLoad),
            "denied" => Some(Self::Denied),
            "harmless" => Some(Self::Harmless),
            _ => None,
        }
    }
}

/// Judges one attempt. Returns what is wrong.
pub fn attempt(
    arena: &Arena,
    attempt: &Attempt,
    outcome: &Outcome,
    expect: Expectation,
) -> Vec<String> {
    let mut wrong = Vec::new();
    if attempt.right == Right::Nobodys && outcome.passed.is_some() {
        wrong.push(format!("passed as {:?}", outcome.passed));
    }
    if outcome.passed.is_some_and(|uid| uid != Some(arena.llama)) {
        wrong.push(format!("passed as somebody else: {:?}", outcome.passed));
    }
    if expect == Expectation::Denied && !is_refusal(outcome) {
        wrong.push("was answered".into());
    }
    wrong.extend(whatever(outcome));
    if arena.credentials().iter().any(|text| outcome.detail.contains(text)) {
        wrong.push(format!("the log would repeat the credential: {}", outcome.detail));
    }
    let (place, name, status) = (arena.place, attempt.name, outcome.status);
    wrong.into_iter().map(|said| format!("{place}, {name}, {status}: {said}")).collect()
}

/// What holds for every script, even for one that says yes to everybody.
fn whatever(outcome: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    if outcome.passed.is_none() && !is_refusal(outcome) {
        wrong.push("a denial is no longer one".into());
    }
    if !(200..=599).contains(&outcome.status.as_u16()) {
        wrong.push("no status of an answer".into());
    }
    for (name, value) in &outcome.headers {
        let own = name.as_str().starts_with("x-keyward-") && name != "x-keyward-hint";
        let framing = ["connection", "transfer-encoding", "content-length", "upgrade", "trailer"];
        if own || framing.contains(&name.as_str()) || name.as_str().contains("injected") {
            wrong.push(format!("{name} was set"));
        }
        if value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            wrong.push(format!("{name} does not end where it should"));
        }
        if value.as_bytes().windows(SECRET.len()).any(|part| part == SECRET.as_bytes()) {
            wrong.push(format!("{name} holds the secret"));
        }
    }
    let told = [String::from_utf8_lossy(&outcome.body).into_owned(), outcome.detail.clone()];
    if told.iter().any(|text| text.contains(SECRET)) {
        wrong.push("the secret was told".into());
    }
    wrong
}

fn is_refusal(outcome: &Outcome) -> bool {
    (400..=599).contains(&outcome.status.as_u16())
}

/// What came of a script that nobody knows anything about.
#[derive(Default)]
pub struct Judged {
    /// The places where it loads.
    pub loaded: usize,
    /// What is wrong.
    pub wrong: Vec<String>,
}

/// Judges a script that nobody knows anything about, with a request of its own if there is one: what follows the first NUL is path and query, and
/// what follows the second the credential.
pub fn any(data: &[u8]) -> Judged {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let path = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let credential = parts.next().unwrap_or_default();
    let mut judged = Judged::default();
    for place in PLACES {
        let Ok(arena) = Arena::load(place, &text) else { continue };
        judged.loaded += 1;
        let mut attempts = arena.attempts();
        let path = format!("/orders?{path}");
        attempts.push(arena.attempt("its own request", Right::Nobodys, &path, credential));
        for attempt in attempts {
            let outcome = arena.run(&attempt);
            let mut wrong = whatever(&outcome);
            // An authentication type may say yes to whom it likes.
            let may_say = arena.place == Kind::Auth;
            if attempt.right == Right::Nobodys && outcome.passed.is_some() && !may_say {
                wrong.push(format!("passed as {:?}", outcome.passed));
            }
            let (name, status) = (attempt.name, outcome.status);
            let said = wrong.into_iter().map(|said| format!("{place}, {name}, {status}: {said}"));
            judged.wrong.extend(said);
        }
    }
    judged
}
