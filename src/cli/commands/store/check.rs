//! `keyward store check`: reads every record of the store.

use std::{fs, io, path::Path, sync::atomic::AtomicBool};

use serde_json::{Map, Value, json};

use crate::{
    cli::{
        CliError, Exit, Output,
        instance::refusals,
        terminal::{record, screen::Screen},
    },
    config::Settings,
    store::{self, EngineKind, StoreError, convert::TableReport, store_exists},
};

pub fn run(engine: EngineKind, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let path = &settings.store.path;
    if !store_exists(path) {
        let text = refusals::no_store(settings);
        return Err(CliError::new(Exit::Unreachable, text).into());
    }
    let store = store::open(engine, path, settings.store.cache_mib).map_err(super::unreachable)?;
    let reports = store::convert::check(&*store).map_err(super::unreachable)?;
    let verified = store.verify(&AtomicBool::new(false));
    let sequence = store.snapshot().map_err(super::unreachable)?.sequence();
    drop(store);
    let screen = Screen::process();
    let mut counts: Map<String, Value> = Map::new();
    counts.insert("engine".into(), engine.name().into());
    counts.insert("sequence".into(), sequence.into());
    counts.insert("bytes".into(), folder_size(path)?.into());
    let records: u64 = reports.iter().map(|report| report.records).sum();
    counts.insert("records".into(), records.into());
    let by_table = reports.iter().map(|report| (report.table.name().to_owned(), report.records));
    match output {
        Output::Json => {
            let tables: Map<_, _> = by_table.map(|(name, count)| (name, count.into())).collect();
            counts.insert("tables".into(), tables.into());
            let findings = findings(&reports, &verified);
            counts.insert("findings".into(), json!(findings));
            screen.print(&format!("{:#}\n", Value::from(counts)))?;
        }
        Output::Table => {
            counts.extend(by_table.map(|(name, count)| (name, count.into())));
            screen.print_styled(&record::record(&counts.into(), &screen.display()))?;
        }
    }
    match findings(&reports, &verified).as_slice() {
        [] => {
            if output == Output::Table {
                screen.note("Every record was read.\n");
            }
            Ok(())
        }
        findings => {
            let text = format!(
                "{}. Restore the store from a backup (keyward restore)",
                findings.join("; ")
            );
            Err(CliError::new(Exit::Failed, text).into())
        }
    }
}

/// The damage of single records, and whether all records are those of the last commit.
fn findings(reports: &[TableReport], verified: &Result<(), StoreError>) -> Vec<String> {
    let damaged = reports.iter().filter_map(|report| report.finding.as_ref());
    let findings: Vec<_> = damaged.map(ToString::to_string).collect();
    match verified {
        Err(problem) if findings.is_empty() => vec![problem.to_string()],
        _ => findings,
    }
}

fn folder_size(folder: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { folder_size(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}
