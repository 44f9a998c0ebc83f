use keyward::{
    accounts::{Accounts, Passwords},
    model::{Entropy, Key, KeyText, Timestamp, User},
    store::{Batch, SledStore, Store, Table, encode},
};
use std::path::Path;
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
fn main() {
    let t = std::time::Instant::now();
    fill(
        Path::new(&std::env::args().nth(1).unwrap()),
        std::env::args().nth(2).unwrap().parse().unwrap(),
    )
    .unwrap();
    println!("{:?}", t.elapsed());
}
/// Makes a store with `users` users and a key each, and returns one of them.
fn fill(path: &Path, users: usize) -> Outcome<(String, String)> {
    let store = std::sync::Arc::new(SledStore::open(path, 64)?);
    let runtime = tokio::runtime::Runtime::new()?;
    let entropy = Entropy::system();
    let pepper = path.with_extension("pepper");
    let accounts = Accounts::open(store.clone(), &pepper, Passwords::new(1))?;
    let first = runtime.block_on(accounts.first_start())?.ok_or("the store is not new")?;
    let mut last = (first.username, first.key.expose().to_owned());
    let pepper = accounts.pepper().clone();
    drop(accounts);
    for chunk in (2..users as u64 + 2).collect::<Vec<_>>().chunks(5_000) {
        let mut batch = Batch::new();
        for uid in chunk {
            let name = format!("machine-{uid}");
            let text = KeyText::generate("kw", &entropy);
            put(&mut batch, *uid, &name, &text, &pepper);
            last = (name, text.text.expose().to_owned());
        }
        runtime.block_on(store.commit(batch))?;
    }
    Ok(last)
}

fn put(batch: &mut Batch, uid: u64, name: &str, text: &KeyText, pepper: &keyward::model::Pepper) {
    let now = Timestamp(1_790_000_000);
    let user = User {
        uid,
        uuid: uuid::Builder::from_random_bytes([uid as u8; 16]).into_uuid(),
        name: name.to_owned(),
        mail: None,
        init: None,
        status: true,
        roles: Vec::new(),
        password: None,
        created: now,
        changed: now,
        access: Timestamp(0),
        login: Timestamp(0),
        langcode: "en".into(),
        preferred_langcode: None,
        preferred_admin_langcode: None,
        timezone: None,
        attributes: std::collections::BTreeMap::new(),
    };
    let key = Key {
        id: text.id,
        user: uid,
        application: None,
        label: String::new(),
        prefix: "kw".into(),
        last_four: text.last_four().to_owned(),
        digest: pepper.digest(text.text.expose()),
        scopes: None,
        created: now,
        expires: None,
        revoked: None,
        rotated: None,
        networks: Vec::new(),
    };
    let (at_user, at_key) = (uid.to_be_bytes(), text.id.number().to_be_bytes());
    batch.put(Table::Users, at_user, encode(&user));
    batch.put(Table::Names, name, encode(&uid));
    batch.put(Table::Keys, at_key, encode(&key));
    batch.put(Table::Owners, [at_user, at_key].concat(), encode(&()));
}
