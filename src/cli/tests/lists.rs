//! Tests of the queries that the options of lists become.

use super::fake::{Fake, run};

#[tokio::test]
async fn options_of_a_list_become_its_query() {
    for (args, query) in [
        ("user list", "users?limit=100"),
        (
            "user list --name an* --blocked --sort -created --limit 7",
            "users?limit=7&name=an*&active=false&sort=-created",
        ),
        ("user list --active --role r", "users?limit=100&role=r&active=true"),
        ("key list --state active --label a&b", "keys?limit=100&state=active&label=a%26b"),
        ("key list --uid 3 --unused-since 90d", "users/3/keys?limit=100&unused_since=90d"),
        ("key list --expires-before 30d", "keys?limit=100&expires_before=30d"),
        ("role list --permission p --limit 1", "roles?limit=1&permission=p"),
        ("app list --type basic --disabled", "applications?limit=100&type=basic&enabled=false"),
        ("resource list --path /o* --host h", "resources?limit=100&path=%2Fo*&host=h"),
        ("audit list --user ann --since 1d", "audit?limit=100&user=ann&since=1d"),
        ("audit list --oldest-first --limit 3", "audit?limit=3&order=oldest"),
    ] {
        let fake = Fake::default();
        run(&fake, &args.split(' ').collect::<Vec<_>>()).await;
        let sent = fake.requests("GET");
        assert_eq!(sent[0].0, format!("/api/v1/{query}"), "{args}");
    }
}

#[tokio::test]
async fn name_with_a_star_is_no_user() {
    let fake = Fake::default();
    let ran = run(&fake, &["user", "show", "a*"]).await;
    assert_eq!((ran.exit(), fake.requests("GET").len()), (3, 0));
}
