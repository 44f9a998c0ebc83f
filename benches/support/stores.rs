//! Compares the storage engines: commits a second, and the size on the disk after many commits.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use keyward::store::{self, Batch, EngineKind, Store, Table};

use super::support::Outcome;

/// The records that the writers overwrite.
const RECORDS: u64 = 10_000;
/// The size of a record in bytes, roughly that of a key.
const SIZE: usize = 400;
const WRITERS: [u64; 3] = [1, 32, 200];

/// Prints a table with one row for each engine and number of writers.
pub fn compare(time: Duration) -> Outcome<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    println!("| engine | writers | commits a second | live data | on the disk | disk / data |");
    println!("|---|---:|---:|---:|---:|---:|");
    for writers in WRITERS {
        for engine in EngineKind::ALL {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("store");
            let store = store::open(engine, &path, 32)?;
            for first in (0..RECORDS).step_by(1000) {
                let mut batch = Batch::new();
                (first..first + 1000).for_each(|number| put(&mut batch, number, 0));
                runtime.block_on(store.commit(batch))?;
            }
            let (count, took) = runtime.block_on(write(&store, writers, time))?;
            drop(store);
            let live = (RECORDS * SIZE as u64) as f64;
            let disk = folder_size(&path)? as f64;
            let mib = |bytes: f64| bytes / (1024.0 * 1024.0);
            println!(
                "| {} | {writers} | {:.0} | {:.1} MiB | {:.1} MiB | {:.1} |",
                engine.name(),
                count as f64 / took.as_secs_f64(),
                mib(live),
                mib(disk),
                disk / live,
            );
        }
    }
    Ok(())
}

/// Overwrites records with `writers` tasks. Returns the number of commits and the time they took.
async fn write(store: &Arc<dyn Store>, writers: u64, time: Duration) -> Outcome<(u64, Duration)> {
    let (begun, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (store, next) = (store.clone(), next.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while begun.elapsed() < time {
                    let number = next.fetch_add(1, Relaxed);
                    let mut batch = Batch::new();
                    // A prime step: neighbouring commits change records that are far apart.
                    put(&mut batch, number * 7919 % RECORDS, number);
                    store.commit(batch).await.map_err(|problem| problem.to_string())?;
                    count += 1;
                }
                Ok::<u64, String>(count)
            })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await??;
    }
    Ok((total, begun.elapsed()))
}

fn put(batch: &mut Batch, number: u64, value: u64) {
    let json = format!("\"{value:0width$}\"", width = SIZE - 2);
    batch.put(Table::Keys, number.to_be_bytes(), json.into_bytes());
}

fn folder_size(folder: &Path) -> Outcome<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { folder_size(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}
