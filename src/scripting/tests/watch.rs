//! Tests of the reload when files change.

use tokio::sync::mpsc;

use super::*;

/// Starts to watch the folder in the background. The receiver gets the result of each reload; an
/// error is the number of problems.
fn start_watching(scripts: &Scripts) -> mpsc::UnboundedReceiver<Result<LoadSummary, usize>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let scripts = scripts.clone();
    tokio::spawn(watch(scripts, move |outcome| {
        let _ = sender.send(outcome.clone().map_err(|problems| problems.len()));
    }));
    receiver
}

async fn next(
    reloads: &mut mpsc::UnboundedReceiver<Result<LoadSummary, usize>>,
) -> Result<LoadSummary, usize> {
    tokio::time::timeout(Duration::from_secs(20), reloads.recv()).await.unwrap().unwrap()
}

const ONE: &str = "fn on_request(req) {}";
const TWO: &str = "fn on_request(req) { req.set(\"a\", 1); }";

#[tokio::test]
async fn valid_change_is_loaded_and_invalid_one_is_reported() {
    let folder = Folder::of(&[("hooks.rhai", ONE)]);
    let scripts = folder.load().unwrap();
    let mut reloads = start_watching(&scripts);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Replaces the file, as editors do.
    folder.write("hooks.rhai.new", TWO);
    fs::rename(folder.path().join("hooks.rhai.new"), folder.path().join("hooks.rhai")).unwrap();
    assert!(next(&mut reloads).await.unwrap().is_new);
    folder.write("hooks.rhai", "fn");
    assert_eq!(next(&mut reloads).await, Err(1));
    assert!(scripts.current().has_hooks());
    folder.write("auth/a.rhai", "fn header(req) {}");
    folder.write("hooks.rhai", ONE);
    loop {
        if let Ok(loaded) = next(&mut reloads).await
            && loaded.scripts == 2
        {
            break;
        }
    }
    fs::remove_dir_all(folder.path()).unwrap();
    while scripts.current().has_hooks() {
        let _ = next(&mut reloads).await;
    }
    folder.write("hooks.rhai", TWO);
    while !scripts.current().has_hooks() {
        let _ = next(&mut reloads).await;
    }
}

#[tokio::test]
async fn many_touches_cause_no_reload() {
    let folder = Folder::of(&[("hooks.rhai", ONE)]);
    let scripts = folder.load().unwrap();
    let first = scripts.current();
    let mut reloads = start_watching(&scripts);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let path = folder.path().join("hooks.rhai");
    tokio::task::spawn_blocking(move || {
        for _ in 0..20_000 {
            fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .unwrap()
                .set_modified(std::time::SystemTime::now())
                .unwrap();
        }
    })
    .await
    .unwrap();
    folder.write("hooks.rhai", TWO);
    assert!(next(&mut reloads).await.unwrap().is_new);
    assert!(reloads.try_recv().is_err(), "a touched file is reported as changed");
    assert!(!Arc::ptr_eq(&first, &scripts.current()));
}

#[tokio::test]
async fn folder_that_is_created_later_is_found() {
    let folder = Folder::of(&[]);
    let later = folder.path().join("scripts");
    let scripts = Scripts::load(&later, limits(), host()).unwrap();
    let mut reloads = start_watching(&scripts);
    tokio::time::sleep(Duration::from_millis(300)).await;
    folder.write("scripts/hooks.rhai", ONE);
    assert!(next(&mut reloads).await.unwrap().is_new);
    assert!(scripts.current().has_hooks());
}
