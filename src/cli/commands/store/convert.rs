//! `keyward store convert`: gives the store another engine.

use clap::Args;
use serde_json::json;

use super::parse_engine;
use crate::{
    cli::{CliError, Exit, Output, instance::accounts::engine_on_disk, terminal::screen::Screen},
    config::Settings,
    store::{
        EngineKind,
        convert::{Conversion, ConvertError, convert},
    },
};

#[derive(Debug, Args)]
pub struct Convert {
    /// The new engine: sled or redb
    #[arg(long, value_name = "ENGINE", value_parser = parse_engine)]
    to: EngineKind,
}

impl Convert {
    pub async fn run(self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let store = &settings.store;
        let converted = convert(&store.path, self.to, store.cache_mib).await.map_err(failure)?;
        let engine = self.to.name();
        let screen = Screen::process();
        let (records, sequence, former) = match converted {
            Conversion::Done { records, sequence, former } => {
                (Some(records), Some(sequence), former)
            }
            Conversion::AlreadyDone => (None, None, None),
        };
        if output == Output::Json {
            let record = json!({
                "engine": engine,
                "records": records,
                "sequence": sequence,
                "former_store": former,
            });
            return Ok(screen.print(&format!("{record:#}\n"))?);
        }
        match records {
            Some(records) => screen.note(&format!(
                "{records} records are in {} now, with the engine {engine}.\n",
                store.path.display()
            )),
            None => screen.note(&format!(
                "{} has the engine {engine} already. Nothing was changed.\n",
                store.path.display()
            )),
        }
        if let Some(former) = former {
            screen.note(&format!("The store that was there is in {} now.\n", former.display()));
        }
        if engine_on_disk(settings) != Some(self.to) {
            screen.note(&format!("Set store.engine = \"{engine}\" before the next start.\n"));
        }
        Ok(())
    }
}

fn failure(problem: ConvertError) -> CliError {
    match problem {
        ConvertError::Store(problem) => super::unreachable(problem),
        ConvertError::Missing(_) => CliError::new(Exit::Unreachable, problem.to_string()),
        problem => CliError::new(Exit::Failed, problem.to_string()),
    }
}
