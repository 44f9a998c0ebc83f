//! Runs hostile scripts: each script of the corpus in `tests/hostile/`, and mutants of these
//! scripts.
//!
//! Each script is loaded as every kind (hooks, resource hooks, handler, authentication type), and
//! requests are sent through the real pipeline with this script. The first line of a script states
//! the expected result:
//! - `// expect: refused-load`: the script loads as no kind;
//! - `// expect: denied`: the script loads as at least one kind, and every response is a denial;
//! - `// expect: harmless`: the script loads as at least one kind, and a request passes only if the
//!   built-in checks would let it pass.
//!
//! To test more mutants: `HOSTILE_MUTANTS=100000 cargo test --test hostile mutants`.

#![allow(clippy::unwrap_used, reason = "a panic shows where the test failed")]
#![allow(clippy::print_stdout, reason = "shows which script ended the process")]

#[path = "hostile/checks.rs"]
mod checks;
#[path = "hostile/mutants.rs"]
mod mutants;
#[path = "hostile/scripted_gate.rs"]
mod scripted_gate;

use std::{
    fs,
    io::Write,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use checks::Expectation;
use keyward::scripting::ScriptKind;
use scripted_gate::{KINDS, SECRET, ScriptedGate};

/// The stack size of a tokio worker thread.
const STACK: usize = 2 << 20;
/// Timeout of one request. Scripts are stopped much earlier, but a debug build on a busy machine
/// may need this time.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The test fails if the corpus has fewer scripts.
const MIN_SCRIPTS: usize = 200;

/// A script of the corpus.
#[derive(Clone)]
struct Specimen {
    name: String,
    text: String,
    expect: Expectation,
}

#[test]
fn hostile_scripts_do_not_let_requests_bypass_the_gate() {
    let monitor = ProcessMonitor::start();
    let corpus = corpus();
    assert!(corpus.len() >= MIN_SCRIPTS, "only {} hostile scripts", corpus.len());
    let violations = on_threads(&corpus, |specimen| {
        println!("{}", specimen.name);
        let violations = check_specimen(specimen).into_iter();
        violations.map(|violation| format!("{}: {violation}", specimen.name)).collect()
    });
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
    monitor.assert_clean();
}

/// Mutants do not state an expected result. The test checks the rules that hold for every script:
/// hooks and handlers let only entitled requests pass, and nothing panics.
#[test]
fn mutants_do_not_let_requests_bypass_the_gate() {
    let monitor = ProcessMonitor::start();
    let loads = |specimen: &Specimen| specimen.expect != Expectation::RefusedLoad;
    let seeds: Vec<String> =
        corpus().into_iter().filter(loads).map(|specimen| specimen.text).collect();
    let count = std::env::var("HOSTILE_MUTANTS").ok().and_then(|text| text.parse().ok());
    let numbers: Vec<u64> = (0..count.unwrap_or(300)).collect();
    let loaded = AtomicUsize::new(0);
    let violations = on_threads(&numbers, |number| {
        let mutant = mutants::mutant(&seeds, *number);
        let check = checks::check_script(mutant.as_bytes());
        loaded.fetch_add(check.loaded, Ordering::Relaxed);
        let violations = check.violations.into_iter();
        violations.map(|text| format!("mutant {number}: {text}\n{mutant}")).collect()
    });
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
    let loaded = loaded.into_inner();
    println!("{} mutants, loaded {loaded} times", numbers.len());
    // A mutant that does not load tests nothing. So enough mutants must load.
    assert!(loaded * 10 > numbers.len(), "only {loaded} of {} load", numbers.len());
    monitor.assert_clean();
}

/// Without this test, a pipeline that denies every request would pass the tests above.
#[test]
fn harmless_scripts_let_entitled_requests_pass() {
    let legacy_check = "constant_time_eq(credential.secret, user.attributes.legacy)";
    let scripts = [
        (ScriptKind::Hooks, "fn on_permit(req, identity, resource) { true }".to_owned()),
        (ScriptKind::Resource, "fn on_request(req) {}".to_owned()),
        (ScriptKind::Handler, "fn handle(req, identity) { \"x\" }".to_owned()),
        (ScriptKind::Auth, format!("fn verify(req, user, credential) {{ {legacy_check} }}")),
        (ScriptKind::Auth, "fn header(req) { header(req, \"api-key\") }".to_owned()),
    ];
    let expected: [&[&str]; 5] = [
        &["the right key", "the right key, permission by script"],
        &["the right key"],
        &["the right key"],
        &["the older system's key"],
        &["the right key"],
    ];
    for ((kind, text), expected) in scripts.into_iter().zip(expected) {
        let gate = ScriptedGate::load(kind, &text).unwrap();
        let mut passed = gate.attempts();
        passed.retain(|attempt| gate.run(attempt).passed == Some(Some(gate.llama_id)));
        let passed: Vec<&str> = passed.iter().map(|attempt| attempt.name).collect();
        let first = gate.run(&gate.attempts()[0]);
        let detail = format!("{} {}: {text}", first.status, first.detail);
        assert_eq!(passed, expected, "{detail}");
    }
}

#[test]
fn violated_expectations_are_reported() {
    for (expect, text) in [
        (Expectation::Harmless, "fn verify(req, user, credential) { true }"),
        (
            Expectation::Harmless,
            "fn lookup(req, credential) { 1 } fn verify(req, user, credential) { true }",
        ),
        (Expectation::Denied, "fn handle(req, identity) { 1.to_string() }"),
        (Expectation::Denied, "fn on_request(req) {}"),
        (Expectation::RefusedLoad, "fn on_request(req) {}"),
        (Expectation::Harmless, "fn on_request(req) { let }"),
        (
            Expectation::Harmless,
            "fn on_response(req, identity, response) { response.set_header(\"injected\", \"1\"); }",
        ),
    ] {
        let specimen = Specimen { name: "violated expectation".into(), text: text.into(), expect };
        assert!(!check_specimen(&specimen).is_empty(), "{text}");
    }
}

/// Loads a script as each kind and sends all attempts. Returns the violations.
fn check_specimen(specimen: &Specimen) -> Vec<String> {
    let mut violations = Vec::new();
    let mut loaded = 0;
    for kind in KINDS {
        let begun = Instant::now();
        let Ok(gate) = ScriptedGate::load(kind, &specimen.text) else {
            violations.extend(check_duration(begun.elapsed(), "the load"));
            continue;
        };
        loaded += 1;
        // A script can leave state behind, for example a key that it made Keyward store. The second
        // round checks that this state lets no request pass.
        for _ in 0..2 {
            for attempt in gate.attempts() {
                let outcome = gate.run(&attempt);
                violations.extend(checks::check_attempt(
                    &gate,
                    &attempt,
                    &outcome,
                    specimen.expect,
                ));
                violations.extend(check_duration(outcome.took, attempt.name));
            }
        }
    }
    match specimen.expect {
        Expectation::RefusedLoad if loaded > 0 => violations.push("the script loads".into()),
        Expectation::Denied | Expectation::Harmless if loaded == 0 => {
            let errors: Vec<_> =
                KINDS.map(|kind| ScriptedGate::load(kind, &specimen.text).err()).into();
            violations.push(format!("the script does not load: {errors:?}"));
        }
        _ => {}
    }
    violations
}

fn check_duration(took: Duration, operation: &str) -> Option<String> {
    (took > TIMEOUT).then(|| format!("{operation} took {took:?}"))
}

fn corpus() -> Vec<Specimen> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let mut corpus: Vec<Specimen> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "rhai"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let expect =
                Expectation::parse(&text).unwrap_or_else(|| panic!("{name} has no expectation"));
            Specimen { name, text, expect }
        })
        .collect();
    corpus.sort_by(|a, b| a.name.cmp(&b.name));
    corpus
}

/// Runs `work` for each item, on threads with the same stack size as in the server.
fn on_threads<T: Sync>(items: &[T], work: impl Fn(&T) -> Vec<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let violations = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let run = || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = work(item);
                    violations.lock().unwrap().extend(found);
                }
            };
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run).unwrap();
        }
    });
    violations.into_inner().unwrap()
}

/// Detects panics (including caught panics) anywhere in the process, and a secret in the log.
struct ProcessMonitor {
    panics: Arc<AtomicUsize>,
    log: Log,
}

impl ProcessMonitor {
    fn start() -> Self {
        let panics = Arc::new(AtomicUsize::new(0));
        let (counter, previous_hook) = (panics.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |info| {
            counter.fetch_add(1, Ordering::Relaxed);
            previous_hook(info);
        }));
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        // Another test of this process may have set its subscriber first. In this case all lines go
        // to the log of the other test, which searches these lines for the secret when it ends.
        let _ = tracing::subscriber::set_global_default(subscriber);
        Self { panics, log }
    }

    fn assert_clean(&self) {
        assert_eq!(self.panics.load(Ordering::Relaxed), 0, "something panicked");
        let log = String::from_utf8_lossy(&self.log.0.lock().unwrap()).into_owned();
        assert!(!log.contains(SECRET), "the secret is in the log");
    }
}

/// Collects the log, up to 256 MiB.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut log = self.0.lock().unwrap();
        if log.len() < 256 << 20 {
            log.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
