//! The rules that faults have broken before, each with the real program.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use keyward::{
    Accounts, Actor, KeyId, NewKey, NewUser, Passwords, SledStore, Store as _,
    store::{Batch, RecordDigest, Table},
};
use serde_json::{Value, json};

use crate::{
    check::{copy_folder, tree},
    harness::{Request, Server, Site},
    model::{Random, runtime},
    preload::{self, EIO, Fault, Files},
    rounds,
};

const USERS: usize = 30;

/// Opens the store of a site in this process.
fn open(site: &Site) -> Accounts {
    let data = site.path().join("data");
    if !data.exists() {
        fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
    }
    let store = Arc::new(SledStore::open(&site.store(), 16).unwrap());
    Accounts::open(store, &data.join("keyward.pepper"), Passwords::new(1)).unwrap()
}

/// A site whose store has 30 users with so many keys each. Returns the administrator's key too.
fn filled_site(keys_per_user: usize) -> (Site, String) {
    let site = Site::new();
    let accounts = open(&site);
    let key = runtime().block_on(async {
        let first = accounts.first_start().await.unwrap().unwrap();
        let writer = accounts.as_actor(Actor::Program);
        let mut uids = Vec::new();
        for number in 0..USERS {
            let name = format!("user {number}");
            let new = NewUser { name, status: true, ..NewUser::default() };
            uids.push(writer.create_user(new).await.unwrap().record.uid);
        }
        for _ in 0..keys_per_user {
            let issues = uids.iter().map(|uid| writer.issue_key(*uid, NewKey::default()));
            for issued in futures_util::future::join_all(issues).await {
                issued.unwrap();
            }
        }
        first.key.expose().to_owned()
    });
    (site, key)
}

/// The ids of all keys that are not the administrator's.
fn key_ids(accounts: &Accounts) -> Vec<KeyId> {
    let keys = accounts.keys(None, usize::MAX).unwrap().items;
    keys.iter().filter(|key| key.record.user != 1).map(|key| key.record.id).collect()
}

fn revoke(accounts: &Accounts, keys: impl IntoIterator<Item = KeyId>) {
    let writer = accounts.as_actor(Actor::Program);
    runtime().block_on(async {
        let revocations = keys.into_iter().map(|key| writer.revoke_key(key));
        for revoked in futures_util::future::join_all(revocations).await {
            revoked.unwrap();
        }
    });
}

/// Runs a command with a system call that fails.
fn run_with_fault(site: &Site, files: &Files, fault: Fault, args: &[&str]) -> Output {
    let _ = fs::remove_file(files.fired());
    let variables = preload::variables(&site.store(), files, Some(fault), false);
    site.command(args).envs(variables).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An I/O error was taken for a torn log, which was then cut.
#[test]
fn f2_read_error_during_a_start_destroys_nothing() {
    let (site, _) = filled_site(20);
    let files = Files::new(&site.path().join("files"));
    let original = site.path().join("original");
    copy_folder(&site.store(), &original);
    let keys = site.json(&["key", "list"]).as_array().unwrap().len();
    assert_eq!(keys, 20 * USERS + 1);
    let turns = (rounds() / 20).clamp(4, 48);
    let (mut refused, mut fired) = (0, 0);
    for (number, call) in
        (0..turns).flat_map(|turn| [(turn, "pread"), (turn, "read"), (turn, "copy")])
    {
        fs::remove_dir_all(site.store()).unwrap();
        copy_folder(&original, &site.store());
        let before = tree(&site.store());
        let at = 1 + number * if call == "pread" { 3 } else { 1 };
        let fault = Fault { call, at, errno: EIO, is_sticky: false };
        let output = run_with_fault(&site, &files, fault, &["user", "list"]);
        if !files.fired().exists() {
            continue;
        }
        fired += 1;
        if !output.status.success() {
            refused += 1;
            assert_eq!(output.status.code(), Some(5), "{fault:?}: {}", text(&output));
            assert!(tree(&site.store()) == before, "{fault:?} changed the store");
        }
        assert_eq!(site.json(&["key", "list"]).as_array().unwrap().len(), keys, "{fault:?}");
    }
    println!("F2: {fired} read errors, {refused} starts refused");
    assert!(refused > 2, "{refused} of {fired}");
}

/// A damaged part of the log was skipped, and keys from before their revocation came back.
#[test]
fn f3_flipped_bit_undoes_no_revocation() {
    let (site, _) = filled_site(20);
    let before = fs::read(site.store().join("db")).unwrap();
    let mut before_last = Vec::new();
    let revoked: BTreeSet<String> = {
        let accounts = open(&site);
        let mut random = Random::new(5);
        let keys: Vec<_> =
            key_ids(&accounts).into_iter().filter(|_| random.below(4) == 0).collect();
        // Each revocation is a commit of its own, like those of single requests.
        for (number, key) in keys.iter().enumerate() {
            if number + 1 == keys.len() {
                before_last = fs::read(site.store().join("db")).unwrap();
            }
            revoke(&accounts, [*key]);
        }
        keys.into_iter().map(|key| key.to_string()).collect()
    };
    assert!(revoked.len() > 100);
    assert_eq!(revoked_keys(&site).unwrap(), revoked);
    let original = site.path().join("original");
    copy_folder(&site.store(), &original);
    let after = fs::read(original.join("db")).unwrap();
    let written = (0..after.len()).filter(|at| before.get(*at) != Some(&after[*at]));
    let written: Vec<usize> = written.collect();
    let mut random = Random::new(6);
    let (flips, mut refused) = ((rounds() / 5).clamp(10, 200), 0);
    for flip in 0..flips {
        fs::remove_dir_all(site.store()).unwrap();
        copy_folder(&original, &site.store());
        let mut bytes = after.clone();
        // A start without the last commit is always refused.
        let last_commit = (0..after.len()).find(|at| before_last.get(*at) != Some(&after[*at]));
        let last_commit = last_commit.filter(|_| flip == 0);
        let at = last_commit.unwrap_or_else(|| *random.pick(&written).unwrap());
        bytes[at] ^= 1 << random.below(8);
        fs::write(site.store().join("db"), bytes).unwrap();
        let files = tree(&site.store());
        match revoked_keys(&site) {
            Ok(found) => assert_eq!(found, revoked, "byte {at}"),
            Err(code) => {
                assert_eq!(code, Some(5), "byte {at}");
                assert!(tree(&site.store()) == files, "byte {at}: a refused start changed it");
                refused += 1;
            }
        }
    }
    println!("F3: {flips} flipped bits, {refused} starts refused");
    assert!(refused > 0);
}

/// The records of all keys came back as they were before their revocation. Each of them is intact,
/// and the number of the last commit is right.
#[test]
fn f3_older_records_are_refused() {
    let (site, _) = filled_site(5);
    let older = site.path().join("older");
    copy_folder(&site.store(), &older);
    let accounts = open(&site);
    let keys = key_ids(&accounts);
    revoke(&accounts, keys);
    drop(accounts);
    assert_eq!(revoked_keys(&site).unwrap().len(), 5 * USERS);
    let mut count = 0;
    {
        let (older, newer) = (sled::open(&older).unwrap(), sled::open(site.store()).unwrap());
        for entry in older.iter() {
            let (key, value) = entry.unwrap();
            if key.first() == Some(&(Table::Keys as u8)) && newer.contains_key(&key).unwrap() {
                newer.insert(key, value).unwrap();
                count += 1;
            }
        }
        newer.flush().unwrap();
    }
    assert!(count > 0, "no records were set back");
    let before = tree(&site.store());
    let output = site.run(&["key", "list"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output));
    assert!(text(&output).contains("not those of the last commit"), "{}", text(&output));
    assert!(tree(&site.store()) == before, "a refused start has changed the store");
}

/// The ids of the revoked keys, or the exit code.
fn revoked_keys(site: &Site) -> Result<BTreeSet<String>, Option<i32>> {
    let output = site.run(&["key", "list", "--output", "json"]);
    if !output.status.success() {
        return Err(output.status.code());
    }
    let keys: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let revoked = keys.iter().filter(|key| !key["revoked"].is_null());
    Ok(revoked.map(|key| key["id"].as_str().unwrap().to_owned()).collect())
}

/// After a failed sync, reads showed a revocation that was not in force.
#[test]
fn f4_reads_show_committed_records_after_a_failed_sync() {
    for call in ["fsync", "write"] {
        let mut site = Site::new();
        fs::create_dir(site.path().join("data")).unwrap();
        let files = Files::new(&site.path().join("files"));
        let fault = Fault { call, at: 1, errno: EIO, is_sticky: true };
        for (name, value) in preload::variables(&site.store(), &files, Some(fault), true) {
            site = site.with_env(name, &value);
        }
        let server = site.start();
        let uid = server.add_user("victim", &[]);
        let key = server.generate_key("victim", &[]);
        let target = format!("/api/v1/keys/{}", key.id);
        let state = |server: &Server| server.admin_api("GET", &target).send().json();
        // A valid key of a user without permissions gets 403, an invalid key gets 401.
        let passes = |server: &Server| {
            let request = Request::new(server.admin, "GET", "/api/v1/users");
            match request.header("API-KEY", &key.credential).send().status {
                403 => true,
                401 => false,
                other => panic!("{other}"),
            }
        };
        let before = state(&server);
        let audit = server.site.json(&["audit", "list"]);
        let export = server.site.run(&["export"]).stdout;
        assert!(passes(&server));
        fs::write(files.arm(), "").unwrap();
        let response =
            server.admin_api("POST", &format!("{target}/revoke")).json(&json!({})).send();
        assert_eq!(response.status, 503, "{call}: {}", response.body);
        assert!(files.fired().exists());
        assert!(passes(&server), "{call}: the revocation was not acknowledged");
        assert_eq!(state(&server), before, "{call}");
        assert_eq!(server.site.json(&["key", "show", &key.id]), before, "{call}");
        let listed = server.site.json(&["key", "list"]);
        assert!(listed.as_array().unwrap().contains(&before), "{call}: {listed}");
        assert_eq!(server.site.json(&["audit", "list"]), audit, "{call}");
        assert!(server.site.run(&["export"]).stdout == export, "{call}");
        let again = server.admin_api("DELETE", &format!("/api/v1/users/{uid}")).send();
        assert_eq!(again.status, 503, "{call}: {}", again.body);
        // After a restart, the record and the decision agree.
        let admin_key = server.key.clone();
        let mut site = server.kill();
        for (name, _) in preload::variables(&site.store(), &files, None, false) {
            site = site.with_env(name, "");
        }
        let server = Server::start(site, admin_key);
        assert_eq!(state(&server)["revoked"].is_null(), passes(&server), "{call}");
    }
}

/// A scan missed records that look-ups found, so an export ended early without an error.
#[test]
fn f5_export_of_the_audit_trail_is_complete() {
    let (site, key) = filled_site(40);
    // Records of sessions that were closed, and of several commits in one group.
    for part in 0..3 {
        let accounts = open(&site);
        let keys = key_ids(&accounts);
        revoke(&accounts, keys.into_iter().skip(part * 200).take(200));
    }
    let verified = site.json(&["audit", "verify"]);
    assert_eq!(verified["state"], "intact");
    let entries = verified["entries"].as_u64().unwrap();
    assert_eq!(entries as usize, 1 + USERS + 40 * USERS + 600);
    assert_eq!(exported_entries(&site), entries);
    assert_eq!(site.json(&["key", "list"]).as_array().unwrap().len(), 40 * USERS + 1);
    let server = Server::start(site, key);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (admin, credential, is_over) = (server.admin, server.admin_credential(), &is_over);
        scope.spawn(move || {
            for number in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let request = Request::new(admin, "POST", "/api/v1/users");
                let name = json!({ "name": format!("later {number}") });
                let response = request.header("API-KEY", &credential).json(&name).send();
                assert_eq!(response.status, 201, "{}", response.body);
            }
        });
        let counts = (0..3).map(|_| exported_entries(&server.site)).collect::<Vec<_>>();
        is_over.store(true, Ordering::Relaxed);
        assert!(counts.is_sorted() && counts[0] >= entries, "{counts:?} of {entries}");
    });
}

/// Exports the trail, whose numbers must have no gap. Returns the number of entries.
fn exported_entries(site: &Site) -> u64 {
    let output = site.run(&["audit", "export"]);
    assert!(output.status.success(), "{}", text(&output));
    let mut count = 0;
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        count += 1;
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry["number"].as_u64(), Some(count));
    }
    count
}

/// A store that had many records takes little space after a start.
#[test]
fn space_of_removed_records_is_given_back_at_a_start() {
    let (site, key) = filled_site(1);
    {
        let store = SledStore::open(&site.store(), 16).unwrap();
        let filler = serde_json::to_vec(&"x".repeat(6000)).unwrap();
        for is_removed in [false, true] {
            for part in 0_u64..130 {
                let mut batch = Batch::new();
                for number in part * 100..part * 100 + 100 {
                    let row = number.to_be_bytes();
                    match &filler {
                        _ if is_removed => batch.delete(Table::Warned, row),
                        json => batch.put(Table::Warned, row, json.clone()),
                    };
                }
                runtime().block_on(store.commit(batch)).unwrap();
            }
        }
    }
    let live = live_bytes(&site) as usize;
    let limit = 3 * live + (64 << 20);
    let before = size_of(&site.store());
    assert!(before > limit, "{before} bytes are no test of the limit {limit}");
    let users = site.json(&["user", "list"]);
    let after = size_of(&site.store());
    println!("space: {live} bytes of records took {before} bytes, and {after} after a start");
    assert!(after < limit, "{after} bytes, and the limit is {limit}");
    assert_eq!(users.as_array().unwrap().len(), USERS + 1);
    let server = Server::start(site, key);
    assert_eq!(server.site.json(&["audit", "verify"])["state"], "intact");
}

/// The size of all keys and records.
fn live_bytes(site: &Site) -> u64 {
    let copy = site.path().join("copy");
    copy_folder(&site.store(), &copy);
    let store = SledStore::open(&copy, 16).unwrap();
    let mut digest = RecordDigest::random();
    let snapshot = store.snapshot().unwrap();
    for table in Table::ALL {
        let mut add = |key: &[u8], record: keyward::store::RecordRef<'_>| {
            digest.add(table, key, record.revision, record.json);
            Ok(())
        };
        snapshot.each(table, &mut add).unwrap();
    }
    digest.bytes()
}

fn size_of(folder: &Path) -> usize {
    tree(folder).values().flatten().map(Vec::len).sum()
}
