//! Calls each function that a script can reach with the largest arguments of its types, in a
//! process with limited memory: no call may take more than its budget.

use std::{any::TypeId, env, process::Command};

use rhai::{Array, Blob, Dynamic, FnPtr, ImmutableString, NativeCallContext};
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

use super::*;
use crate::scripting::{
    compiler::engine::{Variables, build},
    library::SecretText,
    runtime::{
        budget,
        context::{CallContext, ContextHandle, HostContext},
        prepared::{PreparedFn, Tag},
    },
};

/// Tells the child process to make the calls.
const CHILD: &str = "KEYWARD_TEST_NATIVES";
/// The maximum address space of the child process, in bytes.
const ADDRESS_SPACE: u64 = 2 << 30;
/// The maximum memory of one call, in bytes.
const CALL_BYTES: u64 = 64 << 20;
/// The maximum number of calls of one function.
const MAX_CALLS: usize = 100;

/// The time of a call. Debug builds take longer for the same work.
fn budget() -> Duration {
    Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 50 })
}

#[test]
fn each_function_stays_within_its_budget() {
    if env::var_os(CHILD).is_some() {
        return call_all();
    }
    let name = "scripting::tests::natives::each_function_stays_within_its_budget";
    let mut child = Command::new(env::current_exe().unwrap());
    let output = child.args([name, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    assert!(text.contains("functions in"), "the child made no calls: {text}");
    println!("{text}");
}

/// A function of the engine: its name, the types of its parameters, and its signature.
type Native = (String, Vec<TypeId>, String);

fn call_all() {
    let limits = ScriptLimits { time: budget(), ..ScriptLimits::default() };
    let mut engine = build(&limits, Variables::Strict);
    let natives: Vec<Native> = engine.collect_fn_metadata(
        None,
        |function| {
            let about = function.metadata;
            let signature = format!("{}({})", about.name, about.params_info.join(", "));
            Some((about.name.to_string(), about.param_types.to_vec(), signature))
        },
        true,
    );
    engine.register_fn("drive", |context: NativeCallContext, name: &str, arguments: Array| {
        let mut arguments = arguments;
        let mut references: Vec<&mut Dynamic> = arguments.iter_mut().collect();
        context.call_native_fn_raw(name, true, &mut references).is_ok()
    });
    let ast = engine.compile("fn call_one(name, arguments) { drive(name, arguments) }").unwrap();
    let call_one = PreparedFn::find(&ast, "call_one", 2).unwrap();
    let host =
        HostContext::new(Arc::new(NoRecords), Clock::system(), Secrets::default(), limits.clone());
    let context = ContextHandle::new(CallContext::new(Arc::new(host)));
    let unknown: Vec<&str> = natives
        .iter()
        .filter(|(_, types, _)| types.iter().any(|kind| variants(*kind).is_empty()))
        .map(|(_, _, signature)| signature.as_str())
        .collect();
    assert!(unknown.is_empty(), "add arguments for the types of {unknown:#?}");

    let space = Some(ADDRESS_SPACE);
    setrlimit(Resource::As, Rlimit { current: space, maximum: space }).unwrap();
    let (mut calls, mut successes) = (0, 0);
    let (mut slowest, mut largest) = ((Duration::ZERO, ""), (0, ""));
    for (name, types, signature) in &natives {
        for arguments in combinations(types) {
            let (bytes, time) = (reset_peak(), cpu_time());
            let outcome = budget::run_within(limits.inline(), || {
                let arguments = [name.as_str().into(), Dynamic::from(arguments)];
                call_one.call(&engine, Tag::Reusable(&context), arguments)
            });
            successes += usize::from(outcome.is_ok_and(|is_ok| is_ok.as_bool() == Ok(true)));
            calls += 1;
            slowest = slowest.max((cpu_time() - time, signature));
            largest = largest.max((peak().saturating_sub(bytes), signature));
        }
    }
    println!(
        "{} functions in {calls} calls, of which {successes} returned a value; the slowest took {:?} ({}), the largest {} KiB ({})",
        natives.len(),
        slowest.0,
        slowest.1,
        largest.0 / 1024,
        largest.1,
    );
    assert!(natives.len() > 500 && successes * 3 > calls, "too few functions were called");
    assert!(slowest.0 <= 2 * budget(), "{slowest:?}");
    assert!(largest.0 <= CALL_BYTES, "{largest:?}");
}

/// All combinations of the arguments of these types, up to a maximum.
fn combinations(types: &[TypeId]) -> Vec<Array> {
    let mut all = vec![Array::new()];
    for kind in types {
        let variants = variants(*kind);
        let extended = |front: &Array| {
            let front = front.clone();
            variants.clone().into_iter().map(move |last| {
                let mut arguments = front.clone();
                arguments.push(last);
                arguments
            })
        };
        all = all.iter().flat_map(extended).take(MAX_CALLS).collect();
    }
    all
}

/// The largest values of a type, and values that make results large. No value means that the type
/// is not known.
fn variants(kind: TypeId) -> Vec<Dynamic> {
    let limits = ScriptLimits::default();
    let (bytes, items) = (limits.string_bytes, limits.array_items);
    let text = || Dynamic::from("a".repeat(bytes));
    let numbers = || Dynamic::from_array((0..items as i64).map(Dynamic::from).collect());
    let texts = || {
        let one = "\u{1}".repeat(bytes / items);
        Dynamic::from_array((0..items).map(|_| one.as_str().into()).collect())
    };
    let map = || {
        let keys = (0..limits.map_entries).map(|number| format!("{number:0500}"));
        Dynamic::from_map(keys.map(|key| (key.into(), 7_i64.into())).collect())
    };
    let blob = || Dynamic::from_blob(Blob::from(vec![255; items]));
    macro_rules! of {
        ($($kind:ty => [$($value:expr),+];)+) => {
            $(if kind == TypeId::of::<$kind>() { return vec![$(Dynamic::from($value)),+]; })+
        };
    }
    macro_rules! of_numbers {
        ($($kind:ty),+) => {
            $(
                of!($kind => [<$kind>::MAX, <$kind>::MIN];);
                of!(std::ops::Range<$kind> => [<$kind>::MIN..<$kind>::MAX];);
                of!(std::ops::RangeInclusive<$kind> => [<$kind>::MIN..=<$kind>::MAX];);
            )+
        };
    }
    let requests = || {
        let body = Some(Bytes::from(vec![b'['; bytes]));
        let query = Some("a=&".repeat(bytes / 3));
        let mut large = parts();
        (large.path, large.query, large.body) = ("/a".repeat(4000), query, body);
        large.headers.insert("a", HeaderValue::from_bytes(&vec![b','; bytes]).unwrap());
        ScriptRequest::new(large)
    };
    let response = || ResponseParts {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: Some(Bytes::from(vec![b'a'; bytes])),
    };
    let denial = || DenialParts {
        phase: "verify".into(),
        status: StatusCode::FORBIDDEN,
        code: "NO".into(),
        description: "No.".into(),
        body: Some("a".repeat(bytes)),
        content_type: None,
        headers: HeaderMap::new(),
    };
    of! {
        i64 => [bytes as i64 - 1, 1000, i64::MAX, i64::MIN];
        ImmutableString => [text(), "a", "\u{1}".repeat(bytes)];
        Dynamic => [text(), texts(), map(), blob(), "a"];
        Array => [numbers(), texts()];
        rhai::Map => [map()];
        Blob => [blob()];
        FnPtr => [FnPtr::new("to_debug").unwrap()];
        char => ['a', '\u{10ffff}'];
        bool => [true];
        () => [()];
        f64 => [f64::MAX, 1e-300];
        std::ops::Range<f64> => [0.0..f64::MAX];
        f32 => [f32::MAX];
        std::ops::Range<i64> => [0..i64::MAX];
        std::ops::RangeInclusive<i64> => [0..=i64::MAX];
        std::time::Instant => [std::time::Instant::now()];
        ScriptRequest => [requests()];
        IdentityView => [llama_identity()];
        UserView => [llama()];
        KeyView => [LlamaRecords.key_by_id("abcdefgh").unwrap()];
        RoleView => [LlamaRecords.role("herd").unwrap()];
        ResourceView => [resource()];
        ScriptDenial => [ScriptDenial::new(denial())];
        ScriptResponse => [ScriptResponse::new(response())];
        HandlerResponse => [HandlerResponse {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from(vec![b'a'; bytes]),
        }];
        SecretText => [SecretText(Arc::new(Secret::new("a".repeat(60_000))))];
    }
    of_numbers!(i8, u8, i16, u16, i32, u32, u64, i128, u128);
    Vec::new()
}

/// The CPU time of this thread, which does not depend on other programs.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Makes the current memory the peak, and returns it in bytes.
fn reset_peak() -> u64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    peak()
}

/// The largest memory since [`reset_peak`], in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
