//! Hostile scripts: each of the corpus in `tests/hostile/`, and mutants of them, in every place where it loads, before the real Gate.
//!
//! The first line of a script says what is to come of it:
//! - `// expect: refused-load`: it loads nowhere;
//! - `// expect: denied`: it loads somewhere, and there nobody is let in;
//! - `// expect: harmless`: it loads somewhere, and there nobody is let in whom the built-in path would not let in.
//!
//! To try more mutants: `HOSTILE_MUTANTS=100000 cargo test --test hostile mutants`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![allow(clippy::print_stdout, reason = "the name of a script that ends the process is to be seen")]

#[path = "hostile/arena.rs"]
mod arena;
#[path = "hostile/judge.rs"]
mod judge;
#[path = "hostile/mutants.rs"]
mod mutants;

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

use arena::{Arena, PLACES, SECRET};
use judge::Expectation;
use keyward::hooks::Kind;

/// The stack of a thread of tokio's.
const STACK: usize = 2 << 20;
/// How long one request may take. The limits of a script end it much sooner; this is for a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const LEAST: usize = 200;

/// A script of the corpus.
#[derive(Clone)]
struct Specimen {
    name: String,
    text: String,
    expect: Expectation,
}

#[test]
fn no_script_of_the_corpus_gets_anybody_past_the_gate() {
    let watch = Watch::start();
    let corpus = corpus();
    assert!(corpus.len() >= LEAST, "only {} hostile scripts", corpus.len());
    let wrong = on_threads(&corpus, |specimen| {
        println!("{}", specimen.name);
        examine(specimen).into_iter().map(|said| format!("{}: {said}", specimen.name)).collect()
    });
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    watch.is_clean();
}

/// Mutants are many, and what each should come to is not known: but nobody who has no right is let in by a hook or a handler, and nothing panics.
#[test]
fn no_mutant_of_the_corpus_gets_anybody_past_the_gate() {
    let watch = Watch::start();
    let loads = |specimen: &Specimen| specimen.expect != Expectation::RefusedLoad;
    let seeds: Vec<String> = corpus().into_iter().filter(loads).map(|one| one.text).collect();
    let many = std::env::var("HOSTILE_MUTANTS").ok().and_then(|text| text.parse().ok());
    let numbers: Vec<u64> = (0..many.unwrap_or(300)).collect();
    let loaded = AtomicUsize::new(0);
    let wrong = on_threads(&numbers, |number| {
        let mutant = mutants::of(&seeds, *number);
        let judged = judge::any(mutant.as_bytes());
        loaded.fetch_add(judged.loaded, Ordering::Relaxed);
        judged.wrong.into_iter().map(|said| format!("mutant {number}: {said}\n{mutant}")).collect()
    });
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    let loaded = loaded.into_inner();
    println!("{} mutants, loaded {loaded} times", numbers.len());
    // Mutants that never load would try nothing.
    assert!(loaded * 10 > numbers.len(), "only {loaded} of {} load", numbers.len());
    watch.is_clean();
}

/// Where nothing is hostile, whoever has a right is let in: otherwise the tests above would see nothing but a gate that is shut.
#[test]
fn a_script_that_is_not_hostile_lets_in_whom_it_should() {
    let older = "constant_time_eq(credential.secret, user.attributes.legacy)";
    let allows = [
        (Kind::Hooks, "fn on_permit(req, identity, resource) { true }".to_owned()),
        (Kind::Resource, "fn on_request(req) {}".to_owned()),
        (Kind::Handler, "fn handle(req, identity) { \"x\" }".to_owned()),
        (Kind::Auth, format!("fn verify(req, user, credential) {{ {older} }}")),
        (Kind::Auth, "fn header(req) { header(req, \"api-key\") }".to_owned()),
    ];
    let expected: [&[&str]; 5] = [
        &["the right key", "a script decides"],
        &["the right key"],
        &["the right key"],
        &["the older system's key"],
        &["the right key"],
    ];
    for ((place, text), expected) in allows.into_iter().zip(expected) {
        let arena = Arena::load(place, &text).unwrap();
        let mut passed = arena.attempts();
        passed.retain(|attempt| arena.run(attempt).passed == Some(Some(arena.llama)));
        let passed: Vec<&str> = passed.iter().map(|attempt| attempt.name).collect();
        let first = arena.run(&arena.attempts()[0]);
        let why = format!("{} {}: {text}", first.status, first.detail);
        assert_eq!(passed, expected, "{why}");
    }
}

/// What is wrong is seen.
#[test]
fn a_script_that_does_not_keep_its_word_is_found() {
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
        let specimen = Specimen { name: "a liar".into(), text: text.into(), expect };
        assert!(!examine(&specimen).is_empty(), "{text}");
    }
}

/// Puts a script into each place, and tries everything with it. Returns what is wrong.
fn examine(specimen: &Specimen) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut loaded = 0;
    for place in PLACES {
        let begun = Instant::now();
        let Ok(arena) = Arena::load(place, &specimen.text) else {
            wrong.extend(too_long(begun.elapsed(), "the load"));
            continue;
        };
        loaded += 1;
        // Twice: what a script has left behind, an adopted key for example, must open nothing either.
        for _ in 0..2 {
            for attempt in arena.attempts() {
                let outcome = arena.run(&attempt);
                let said = judge::attempt(&arena, &attempt, &outcome, specimen.expect);
                wrong.extend(said.into_iter().chain(too_long(outcome.took, attempt.name)));
            }
        }
    }
    match specimen.expect {
        Expectation::RefusedLoad if loaded > 0 => wrong.push("it loads".into()),
        Expectation::Denied | Expectation::Harmless if loaded == 0 => {
            let why: Vec<_> = PLACES.map(|place| Arena::load(place, &specimen.text).err()).into();
            wrong.push(format!("it loads nowhere: {why:?}"));
        }
        _ => {}
    }
    wrong
}

fn too_long(took: Duration, what: &str) -> Option<String> {
    (took > PATIENCE).then(|| format!("{what} took {took:?}"))
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
            let expect = Expectation::of(&text).unwrap_or_else(|| panic!("{name} expects nothing"));
            Specimen { name, text, expect }
        })
        .collect();
    corpus.sort_by(|a, b| a.name.cmp(&b.name));
    corpus
}

/// Does the work for each item, on threads with the stack that scripts have in the program.
fn on_threads<T: Sync>(items: &[T], work: impl Fn(&T) -> Vec<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, |many| many.get().clamp(2, 8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let run = || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let said = work(item);
                    wrong.lock().unwrap().extend(said);
                }
            };
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run).unwrap();
        }
    });
    wrong.into_inner().unwrap()
}

/// Sees what must not happen anywhere in the process: a panic, also one that is caught; a secret in the log.
struct Watch {
    panics: Arc<AtomicUsize>,
    log: Log,
}

impl Watch {
    fn start() -> Self {
        let panics = Arc::new(AtomicUsize::new(0));
        let (counted, before) = (panics.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |about| {
            counted.fetch_add(1, Ordering::Relaxed);
            before(about);
        }));
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        // The other test of the process may have been faster: its log is the same then, as far as this one is concerned.
        let _ = tracing::subscriber::set_global_default(subscriber);
        Self { panics, log }
    }

    fn is_clean(&self) {
        assert_eq!(self.panics.load(Ordering::Relaxed), 0, "something panicked");
        let log = String::from_utf8_lossy(&self.log.0.lock().unwrap()).into_owned();
        assert!(!log.contains(SECRET), "the secret is in the log");
    }
}

/// The lines of the log. The first many of them: a million are no better.
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
