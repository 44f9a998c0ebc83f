#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
use keyward::store::*;
use std::time::Instant;
unsafe extern "C" {
    fn malloc_trim(pad: usize) -> i32;
}
fn rss() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .unwrap()
}
fn trim() {
    unsafe {
        malloc_trim(0);
    }
}
fn main() {
    let path = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let t = Instant::now();
    let s = SledStore::open(&path, 16).unwrap();
    println!("open {:?} rss {}", t.elapsed(), rss());
    trim();
    println!("trimmed {}", rss());
    let d = Directory::open(&s).unwrap();
    println!("loaded {:?} rss {} {:?}", t.elapsed(), rss(), d.counts());
    trim();
    println!("trimmed {}", rss());
    drop(d);
    trim();
    println!("without directory {}", rss());
    drop(s);
    trim();
    println!("without store {}", rss());
}
