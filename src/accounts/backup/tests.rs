//! Tests of backups: the comparison with the present store, the schedule, and left-over files.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    compare,
    narrow::Narrow,
    schedule::BackupSchedule,
    write::{WriteLimits, write},
};
use crate::{
    accounts::{AccountError, Accounts, NewKey, NewUser, Passwords, Writer},
    model::{
        Actor, Ambiguous, Application, AuthType, Clock, Credits, Entropy, Key, KeySource,
        MethodRules, PasswordDigest, Pepper, PermissionSource, RateLimit, Resource, Role, Rotation,
        Rules, Timestamp, User,
    },
    store::{MemoryStore, archive::ArchiveError},
};

const NOW: Timestamp = Timestamp(1_700_000_000);
const HOUR: i64 = 3600;

struct Fixture {
    folder: tempfile::TempDir,
    clock: Clock,
    accounts: Writer,
}

impl Fixture {
    async fn new() -> Self {
        let clock = Clock::fixed(NOW);
        let (store, pepper) = (Arc::new(MemoryStore::new()), Pepper::from_bytes([7; 32]));
        let entropy = Entropy::seeded(1);
        let accounts = Accounts::with(store, pepper, Passwords::new(1), clock.clone(), entropy);
        let accounts = accounts.unwrap().as_actor(Actor::Program);
        accounts.first_start().await.unwrap().unwrap();
        Self { folder: tempfile::tempdir().unwrap(), clock, accounts }
    }

    fn schedule(&self) -> BackupSchedule {
        BackupSchedule {
            every: Duration::from_secs(HOUR as u64),
            keep: 3,
            dir: self.folder.path().join("backups"),
            create_dir: true,
            name: "keyward".into(),
        }
    }

    /// The names of the files in the schedule's folder.
    fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.folder.path().join("backups")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    async fn user(&self, name: &str) -> User {
        let new = NewUser { name: name.into(), status: true, ..NewUser::default() };
        self.accounts.create_user(new).await.unwrap().record
    }

    async fn key(&self, uid: u64) -> Key {
        self.accounts.issue_key(uid, NewKey::default()).await.unwrap().key.record
    }

    fn compare(&self, file: &Path) -> Vec<String> {
        let key = self.accounts.pepper().backup_key();
        let Ok(found) = compare::compare(file, &key, self.accounts.store(), self.clock.now())
        else {
            panic!("both can be read")
        };
        let line = |it: &super::Revival| {
            format!("{} {} {}: {}", it.kind, it.id, it.name, it.changes.join("; "))
        };
        found.revivals.iter().map(line).collect()
    }
}

/// A part of the text of a change, and the change of the present record.
type Narrowing<'a, T> = (&'a str, &'a dyn Fn(&mut T));

/// Checks that each change makes the present record narrower, that it is found, and that the
/// narrowed record has no further difference. In the other direction there is nothing to find.
#[track_caller]
fn check_each<T: Narrow + PartialEq + std::fmt::Debug>(wide: &T, changes: &[Narrowing<'_, T>]) {
    assert_eq!(wide.clone().narrow(wide, NOW), Vec::<String>::new());
    for (expected, change) in changes {
        let mut present = wide.clone();
        change(&mut present);
        let mut narrowed = wide.clone();
        let found = narrowed.narrow(&present, NOW);
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
        assert_ne!(&narrowed, wide, "{expected}");
        assert_eq!(narrowed.clone().narrow(&present, NOW), Vec::<String>::new(), "{expected}");
        let mut narrow = present.clone();
        // A changed password or attribute is another one, not a narrower one.
        if !["password was changed", "attribute tenant was changed", "path or host", "type was"]
            .iter()
            .any(|other| expected.contains(other))
            && !expected.contains("source of")
        {
            assert_eq!(narrow.narrow(wide, NOW), Vec::<String>::new(), "{expected}");
            assert_eq!(narrow, present, "{expected}");
        }
    }
}

fn rate(text: &str) -> Option<RateLimit> {
    Some(RateLimit::parse("", text).unwrap())
}

fn credits(text: &str) -> Option<Credits> {
    Some(Credits::parse("", text).unwrap())
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

#[tokio::test]
async fn every_narrower_field_of_a_key_is_found() {
    let fixture = Fixture::new().await;
    let mut key = fixture.key(1).await;
    key.expires = Some(NOW.plus(10 * HOUR));
    key.universal = true;
    key.rate_limit = rate("100/1m");
    key.credits = credits("100/day");
    let to = key.id;
    let until = |until| Some(Rotation { to, until });
    check_each(
        &key,
        &[
            ("it was revoked", &|it| it.revoked = Some(NOW.plus(-1))),
            ("it expired at", &|it| it.expires = Some(NOW.plus(-1))),
            ("it expires at", &|it| it.expires = Some(NOW.plus(HOUR))),
            ("it expired at", &|it| it.rotated = until(NOW)),
            ("it expires at", &|it| it.rotated = until(NOW.plus(9))),
            ("fewer scopes", &|it| it.scopes = Some(vec!["a".into()])),
            ("fewer scopes", &|it| it.scopes = Some(Vec::new())),
            ("other networks", &|it| it.networks = vec!["10.0.0.0/8".parse().unwrap()]),
            ("bound to an application", &|it| it.application = Some("a".into())),
            ("no longer universal", &|it| it.universal = false),
            ("its rate limit is 99/1m", &|it| it.rate_limit = rate("99/1m")),
            ("its credits are 99/day", &|it| it.credits = credits("99/day")),
        ],
    );
    key.rate_limit = None;
    key.credits = None;
    key.expires = None;
    key.scopes = Some(vec!["a".into(), "b".into()]);
    key.networks = vec!["10.0.0.0/8".parse().unwrap(), "192.168.1.0/24".parse().unwrap()];
    check_each(
        &key,
        &[
            ("it expires at", &|it| it.expires = Some(NOW.plus(HOUR))),
            ("fewer scopes", &|it| it.scopes = Some(vec!["b".into()])),
            ("other networks", &|it| it.networks = vec!["10.1.0.0/16".parse().unwrap()]),
            ("its rate limit is", &|it| it.rate_limit = rate("1000000/1s")),
            ("its credits are", &|it| it.credits = credits("1000000/day")),
        ],
    );
    // A key that is revoked in the backup stays revoked.
    let mut revoked = Key { revoked: Some(NOW), ..key };
    let present = Key { scopes: Some(Vec::new()), ..revoked.clone() };
    assert!(revoked.narrow(&present, NOW).is_empty());
}

#[tokio::test]
async fn every_narrower_field_of_a_user_a_role_and_an_application_is_found() {
    let fixture = Fixture::new().await;
    let mut user = fixture.user("bob").await;
    user.roles = vec!["a".into(), "b".into()];
    user.password = Some(PasswordDigest::new("$1"));
    user.attributes.insert("tenant".into(), "x".into());
    check_each(
        &user,
        &[
            ("the user was blocked", &|it| it.status = false),
            ("the user lost the roles b", &|it| it.roles = vec!["a".into()]),
            ("the password was changed", &|it| it.password = Some(PasswordDigest::new("$2"))),
            ("the password was removed", &|it| it.password = None),
            ("the attribute tenant was changed", &|it| it.attributes.clear()),
            ("its rate limit is", &|it| it.rate_limit = rate("1/1m")),
            ("its credits are", &|it| it.credits = credits("1/day")),
        ],
    );
    let permissions = set(&["x", "y"]);
    let admin = true;
    let role = Role { id: "r".into(), label: "R".into(), weight: 0, is_admin: admin, permissions };
    check_each(&role, &[("no longer an administrator's", &|it: &mut Role| it.is_admin = false)]);
    let role = Role { is_admin: false, ..role };
    check_each(
        &role,
        &[("it lost the permissions y", &|it: &mut Role| it.permissions = set(&["x"]))],
    );
    let application = Application {
        key_source: KeySource::Universal,
        universal_administrators: true,
        ..Application::api_key("a", "A")
    };
    check_each(
        &application,
        &[
            ("it was disabled", &|it| it.enabled = false),
            ("no longer act as administrators", &|it| it.universal_administrators = false),
            ("no longer accepts universal keys", &|it| it.key_source = KeySource::PerUser),
            ("its type was changed to basic", &|it| it.auth_type = AuthType::Basic),
            ("its rate limit is", &|it| it.rate_limit = rate("1/1m")),
        ],
    );
}

#[test]
fn every_narrower_field_of_a_resource_is_found() {
    let stricter = "its methods, applications or permissions are stricter";
    let change_rules = |resource: &mut Resource, change: &dyn Fn(&mut MethodRules)| {
        let mut rules = resource.rules.of("GET").unwrap();
        change(&mut rules);
        let mut methods: std::collections::BTreeMap<_, _> = ["POST", "PATCH", "DELETE"]
            .map(|method| (method.to_owned(), resource.rules.of(method).unwrap()))
            .into();
        methods.insert("GET".into(), rules);
        resource.rules = Rules::Method { methods };
    };
    let mut resource = Resource::entity_user();
    if let Rules::Resource { authentication, .. } = &mut resource.rules {
        authentication.insert("anonymous".into());
    }
    check_each(
        &resource,
        &[
            ("it was disabled", &|it| it.enabled = false),
            ("path or host", &|it| it.host = Some("a.example".into())),
            ("the source of its permissions", &|it| it.permission = PermissionSource::Script),
            (stricter, &|it| change_rules(it, &|rules| rules.permissions = set(&["p"]))),
            (stricter, &|it| change_rules(it, &|rules| rules.authentication = set(&["*"]))),
            (stricter, &|it| change_rules(it, &|rules| rules.authentication = set(&["default"]))),
            (stricter, &|it| change_rules(it, &|rules| rules.authentication = set(&["anonymous"]))),
            (stricter, &|it| {
                if let Rules::Resource { methods, .. } = &mut it.rules {
                    methods.remove("DELETE");
                }
            }),
            ("its rate limit is", &|it| it.rate_limit = rate("1/1m")),
        ],
    );
    // Nothing that both allow is left.
    let mut narrowed = resource.clone();
    let present = Resource {
        rules: Rules::Method { methods: [("PUT".to_owned(), MethodRules::default())].into() },
        ..resource
    };
    assert_eq!(narrowed.narrow(&present, NOW).len(), 1);
    assert!(narrowed.routes().is_empty());
}

#[test]
fn any_method_and_kept_characters_are_narrowed() {
    let text = r#"{"id": "r", "enabled": true, "handler": "decide", "path": "/r",
        "semicolons": "keep", "encoded_slashes": "keep", "granularity": "resource",
        "methods": ["any"], "formats": ["any"], "authentication": ["*"]}"#;
    let resource: Resource = serde_json::from_str(text).unwrap();
    let stricter = "its methods, applications or permissions are stricter";
    let change_rules = |resource: &mut Resource, method: &str, permission: Option<&str>| {
        let Rules::Resource { methods, permissions, .. } = &mut resource.rules else {
            unreachable!()
        };
        *methods = set(&[method]);
        permissions.extend(permission.map(|name| ("PURGE".to_owned(), set(&[name]))));
    };
    check_each(
        &resource,
        &[
            ("it refuses ambiguous", &|it| it.path_options.semicolons = Ambiguous::Refuse),
            ("it refuses ambiguous", &|it| it.path_options.encoded_slashes = Ambiguous::Refuse),
            (stricter, &|it| change_rules(it, "PURGE", None)),
            (stricter, &|it| change_rules(it, "any", Some("purge"))),
        ],
    );
    let mut narrowed = resource.clone();
    let mut present = resource;
    change_rules(&mut present, "any", Some("purge"));
    narrowed.narrow(&present, NOW);
    assert_eq!(narrowed.rules.of("PURGE").unwrap().permissions, set(&["purge"]));
    assert!(narrowed.rules.of("GET").unwrap().permissions.is_empty());
}

#[tokio::test]
async fn comparison_finds_what_a_restore_would_bring_back() {
    let fixture = Fixture::new().await;
    let accounts = &fixture.accounts;
    let (bob, eve) = (fixture.user("bob").await, fixture.user("eve").await);
    let (revoked, kept) = (fixture.key(bob.uid).await, fixture.key(bob.uid).await);
    let of_eve = fixture.key(eve.uid).await;
    accounts.revoke_key(kept.id).await.unwrap();
    let file = fixture.folder.path().join("a.backup");
    accounts.operator().unwrap().backup(file.clone()).await.unwrap();
    // Later additions are not in the backup, and nothing comes back.
    fixture.user("late").await;
    assert_eq!(fixture.compare(&file), [""; 0]);

    accounts.revoke_key(revoked.id).await.unwrap();
    let block = |user: &mut User| {
        user.status = false;
        Ok::<_, AccountError>(())
    };
    accounts.change_user(bob.uid, None, block).await.unwrap();
    accounts.delete_user(eve.uid, None).await.unwrap();
    let found: BTreeSet<String> = fixture.compare(&file).into_iter().collect();
    let expected = BTreeSet::from([
        format!("key {} bob: it was revoked at {NOW}", revoked.id),
        format!("key {} eve: it was deleted", of_eve.id),
        format!("user {} bob: the user was blocked", bob.uid),
        format!("user {} eve: it was deleted", eve.uid),
    ]);
    assert_eq!(found, expected);
}

#[tokio::test]
async fn another_user_with_the_same_number_is_not_the_same_user() {
    let fixture = Fixture::new().await;
    fixture.user("bob").await;
    let file = fixture.folder.path().join("a.backup");
    fixture.accounts.operator().unwrap().backup(file.clone()).await.unwrap();
    let other = Fixture::new().await;
    other.clock.set(NOW.plus(1));
    other.user("carl").await;
    assert_eq!(other.compare(&file), ["user 2 bob: it was deleted"]);
}

#[tokio::test]
async fn schedule_writes_when_due_and_keeps_the_newest() {
    let fixture = Fixture::new().await;
    let schedule = fixture.schedule();
    let attempt = || fixture.accounts.keep_backups(&schedule, &WriteLimits::default());
    let every = schedule.every;
    assert_eq!(attempt().unwrap(), every);
    assert_eq!(fixture.names(), set(&["keyward-20231114T221320Z.backup"]));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&schedule.dir.join("keyward-20231114T221320Z.backup")), 0o600);
    assert_eq!(mode(&schedule.dir), 0o700);
    // Not due yet.
    fixture.clock.set(NOW.plus(HOUR - 60));
    assert_eq!(attempt().unwrap(), Duration::from_secs(60));
    assert_eq!(fixture.names().len(), 1);
    // Files with other names are not touched, however old their names look.
    let others = [
        "keyward-20001114T221320Z.backup.old",
        "keyward-2-20001114T221320Z.backup",
        "keyward-20001114T221320.backup",
        "keyward-20001399T221320Z.backup",
        "other-20001114T221320Z.backup",
        "other-20001114T221320Z.backup.part",
        "keyward-by-hand.backup",
        "keyward-by-hand.backup.part",
    ];
    for name in others {
        fs::write(schedule.dir.join(name), "x").unwrap();
    }
    fs::create_dir(schedule.dir.join("keyward-20001114T221320Z.backup")).unwrap();
    for hours in 1..=4 {
        fixture.clock.set(NOW.plus(hours * HOUR));
        assert_eq!(attempt().unwrap(), every);
    }
    let newest = [
        "keyward-20231115T001320Z.backup",
        "keyward-20231115T011320Z.backup",
        "keyward-20231115T021320Z.backup",
    ];
    let mut expected: BTreeSet<String> = set(&others);
    expected.extend(set(&newest));
    expected.insert("keyward-20001114T221320Z.backup".into());
    assert_eq!(fixture.names(), expected);
    // A clock that was set back before a start makes a backup due, whose name is still the newest.
    fixture.clock.forget_newest();
    fixture.clock.set(NOW);
    assert_eq!(attempt().unwrap(), every);
    assert!(fixture.names().contains("keyward-20231115T021321Z.backup"));
    assert!(!fixture.names().contains(newest[0]));
}

#[tokio::test]
async fn schedule_removes_the_rest_of_a_killed_attempt_and_nothing_that_is_being_written() {
    let fixture = Fixture::new().await;
    let schedule = fixture.schedule();
    fs::create_dir(&schedule.dir).unwrap();
    let [old, busy] =
        ["20231114T201320Z", "20231114T211320Z"].map(|time| format!("keyward-{time}.backup.part"));
    fs::write(schedule.dir.join(&old), "half").unwrap();
    let writer = File::create(schedule.dir.join(&busy)).unwrap();
    writer.try_lock().unwrap();
    fixture.accounts.keep_backups(&schedule, &WriteLimits::default()).unwrap();
    assert_eq!(fixture.names(), set(&[&busy, "keyward-20231114T221320Z.backup"]));
}

#[tokio::test]
async fn schedule_reports_a_failure_until_a_backup_is_written() {
    let fixture = Fixture::new().await;
    let dir = fixture.folder.path().join("not mounted");
    let schedule = BackupSchedule { dir, create_dir: false, ..fixture.schedule() };
    let schedule = BackupSchedule { every: Duration::from_millis(5), ..schedule };
    assert!(schedule.check_dir().unwrap_err().contains("not mounted (backup.dir): No such file"));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let (accounts, schedule) = ((*fixture.accounts).clone(), schedule.clone());
        async move {
            let end = async {
                let _ = stopped.await;
            };
            accounts.write_backups_periodically(schedule, end).await;
        }
    });
    let wait_for = async |is_failing: bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while fixture.accounts.backup_problem().is_some() != is_failing {
            assert!(Instant::now() < deadline, "the state does not become {is_failing}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    wait_for(true).await;
    assert!(fixture.accounts.backup_problem().unwrap().contains("not mounted"));
    assert!(!schedule.dir.exists(), "a folder of the operator is not created");
    fs::create_dir(&schedule.dir).unwrap();
    wait_for(false).await;
    assert!(fs::read_dir(&schedule.dir).unwrap().count() > 0);
    drop(stop);
    running.await.unwrap();
}

#[tokio::test]
async fn leftover_of_a_killed_backup_is_replaced_unless_it_is_being_written() {
    let fixture = Fixture::new().await;
    let path = |name: &str| fixture.folder.path().join(name);
    fs::write(path("a.backup.part"), vec![b'x'; 100_000]).unwrap();
    fs::set_permissions(path("a.backup.part"), fs::Permissions::from_mode(0o644)).unwrap();
    let operator = fixture.accounts.operator().unwrap();
    let written = operator.backup(path("a.backup")).await.unwrap();
    assert!(written.replaced_leftover && !path("a.backup.part").exists());
    assert_eq!(fs::metadata(path("a.backup")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!operator.backup(path("b.backup")).await.unwrap().replaced_leftover);
    assert_eq!(fs::read(path("a.backup")).unwrap(), fs::read(path("b.backup")).unwrap());

    let busy = File::create(path("c.backup.part")).unwrap();
    busy.try_lock().unwrap();
    let problem = operator.backup(path("c.backup")).await.unwrap_err().to_string();
    assert!(problem.contains("another process is writing it now"), "{problem}");
    assert!(path("c.backup.part").exists() && !path("c.backup").exists());
    // A link leads to a file that is not ours.
    fs::write(path("precious"), "precious").unwrap();
    std::os::unix::fs::symlink(path("precious"), path("d.backup.part")).unwrap();
    operator.backup(path("d.backup")).await.unwrap_err();
    assert_eq!(fs::read_to_string(path("precious")).unwrap(), "precious");
}

#[tokio::test]
async fn a_backup_ends_when_the_server_stops_or_changes_wait_too_long() {
    let fixture = Fixture::new().await;
    let (store, key) = (fixture.accounts.store(), fixture.accounts.pepper().backup_key());
    let file = fixture.folder.path().join("a.backup");
    let stopped = WriteLimits::default();
    stopped.is_stopped.cancel();
    let slow = WriteLimits { longest_wait: Some(Duration::ZERO), ..WriteLimits::default() };
    for (limits, expected) in [(stopped, "the server stops"), (slow, "the folder is too slow")] {
        let problem = write(store, &key, &file, &limits).unwrap_err();
        assert!(matches!(problem, ArchiveError::Io(_)), "{problem}");
        assert!(problem.to_string().contains(expected), "{problem}");
        assert_eq!(fs::read_dir(fixture.folder.path()).unwrap().count(), 0);
    }
}
