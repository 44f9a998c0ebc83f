//! What a document says, read by the same forms as every other record that a client sends.

use serde_json::Value;

use super::Source;
use crate::{
    accounts::{
        Accounts, DigestFormat, NewUser, STATE_VERSION, State, StatedKey, StatedPassword, StatedUser,
    },
    api::{fields::FieldReader, keys::networks, records::Editable, users},
    model::{
        Digest, Key, KeyId, MAX_PREFIX, PasswordDigest, Rotation, Scheme, Timestamp, Violation,
    },
};

const NO_MOMENT: &str = "This is not a moment.";
const MOMENT: &str = "Write one such as 2027-01-01T00:00:00Z (RFC 3339).";

/// Reads a document.
///
/// # Errors
/// What is wrong with it: all of it, each with its place.
pub(super) fn read(source: &Source<'_>, accounts: &Accounts) -> Result<State, Vec<Violation>> {
    let mut form = FieldReader::new(source.value());
    check_version(&mut form);
    let state = State {
        pepper: digest(&mut form, "pepper"),
        roles: records(&mut form, "roles", Editable::read),
        applications: records(&mut form, "applications", Editable::read),
        resources: records(&mut form, "resources", Editable::read),
        users: records(&mut form, "users", |form| user(form, accounts)),
        keys: records(&mut form, "keys", key),
    };
    let found = form.end();
    if found.is_empty() { Ok(state) } else { Err(found) }
}

/// A file that does not say what it is is taken for nothing.
fn check_version(form: &mut FieldReader) {
    let fix = format!("Write version = {STATE_VERSION} above everything else.");
    match form.take("version") {
        Some(version) if version == STATE_VERSION => {}
        Some(version) if version.as_u64().is_some_and(|version| version > STATE_VERSION) => {
            let said = "A newer Keyward wrote this file.";
            form.reject("version", said, "Apply it with that version, or a newer one.");
        }
        Some(_) => form.reject("version", "There is no such version.", fix),
        None => form.reject("version", "The file does not say its version.", fix),
    }
}

/// A list of records. What is wrong with one is told with its number.
fn records<T>(
    form: &mut FieldReader,
    name: &'static str,
    mut read: impl FnMut(&mut FieldReader) -> T,
) -> Vec<T> {
    let items = match form.take(name) {
        None => return Vec::new(),
        Some(Value::Array(items)) => items,
        Some(_) => {
            let fix = format!("Write [[{name}]] above each record.");
            form.reject(name, "This is not a list of records.", fix);
            return Vec::new();
        }
    };
    let items = items.into_iter().enumerate();
    items.map(|(at, item)| form.entry(&format!("{name}.{at}"), item, &mut read)).collect()
}

fn user(form: &mut FieldReader, accounts: &Accounts) -> StatedUser {
    let mut draft = accounts.draft_user(NewUser { status: true, ..NewUser::default() });
    let stated = (form.number::<i64>("uid"), form.text("uuid"), form.text("init"));
    let created = moment(form, "created");
    let password = password(form);
    users::read(form, &mut draft);
    let (uid, uuid, init) = stated;
    let uuid = uuid.and_then(|text| {
        let read = uuid::Uuid::parse_str(&text).ok();
        if read.is_none() {
            form.reject("uuid", "This is not a UUID.", "Leave it out: the server gives one.");
        }
        read
    });
    // What is no number of a user is told with the others.
    let uid = uid.map(|uid| u64::try_from(uid).unwrap_or(0));
    StatedUser { user: draft, uid, uuid, init, created, password }
}

fn password(form: &mut FieldReader) -> StatedPassword {
    match form.text("password").as_deref() {
        None => StatedPassword::Unsaid,
        Some("") => StatedPassword::None,
        Some(phc) => match slow(phc) {
            Ok(digest) => StatedPassword::Digest(digest),
            Err(said) => {
                let fix = "Copy it from keyward export, write \"\" for none, or leave it out and set it with keyward user password.";
                form.reject("password", said, fix);
                StatedPassword::Unsaid
            }
        },
    }
}

/// A digest of ours or of another system that is slow to check.
fn slow(text: &str) -> Result<PasswordDigest, &'static str> {
    DigestFormat::detect(text).ok_or("This is not the digest of a password.")?.parse(text)
}

fn key(form: &mut FieldReader) -> StatedKey {
    let owner = form.needed_text("user");
    let prefix = form.text("prefix");
    if prefix.as_ref().is_some_and(|prefix| {
        prefix.len() > MAX_PREFIX || !prefix.bytes().all(|b| b.is_ascii_graphic())
    }) {
        form.reject("prefix", "A key cannot begin with this.", "Leave it out.");
    }
    let last_four = form.text("last_four");
    if last_four
        .as_ref()
        .is_some_and(|text| text.chars().count() > 4 || text.chars().any(char::is_control))
    {
        form.reject("last_four", "These are not the last four characters.", "Leave it out.");
    }
    let created = moment(form, "created");
    let scheme = scheme(form);
    let slow = key_slow(form, scheme);
    let key = Key {
        id: key_id(form, "id"),
        user: 0,
        application: form.text("application"),
        label: form.text("label").unwrap_or_default(),
        prefix: String::new(),
        last_four: String::new(),
        digest: key_digest(form),
        scheme,
        slow,
        former_digest: former_digest(form),
        universal: form.flag("universal").unwrap_or_default(),
        scopes: form.words("scopes"),
        created: created.unwrap_or_default(),
        expires: moment(form, "expires"),
        revoked: moment(form, "revoked"),
        rotated: form.object("rotated", |form| Rotation {
            to: key_id(form, "to"),
            until: needed_moment(form, "until"),
        }),
        networks: networks(form),
        rate_limit: form.rate_limit(),
        credits: form.credits(),
    };
    StatedKey { key, owner, prefix, last_four, created }
}

fn key_id(form: &mut FieldReader, name: &'static str) -> KeyId {
    let text = form.needed_text(name);
    let id = KeyId::parse(&text);
    if id.is_none() && !text.is_empty() {
        form.reject(name, "This is not the id of a key.", "Copy it: keyward key list shows it.");
    }
    id.unwrap_or(KeyId::from_number(0))
}

/// A key without a digest would be nobody's: its text is nowhere.
fn key_digest(form: &mut FieldReader) -> Digest {
    let nothing = Digest::from_bytes([0; 32]);
    let Some(text) = form.text("digest") else {
        let fix = "Copy the digest from keyward export. A new key is made with keyward key generate, one of another system comes with keyward key import.";
        form.reject("digest", "A key is known by its digest alone, and there is none.", fix);
        return nothing;
    };
    let read = Digest::from_hex(text.as_bytes());
    if read.is_none() {
        let fix = "Copy its 64 hexadecimal digits from keyward export.";
        form.reject("digest", "This is not a digest.", fix);
    }
    read.unwrap_or(nothing)
}

/// What a key is checked against that is slow to check: it has that, or nothing else has.
fn key_slow(form: &mut FieldReader, scheme: Scheme) -> Option<PasswordDigest> {
    let text = form.text("slow");
    if text.is_some() != (scheme == Scheme::Slow) {
        let fix = "Copy the record from keyward export.";
        form.reject("slow", "A key of the scheme slow has this field, and no other has.", fix);
        return None;
    }
    match slow(&text?) {
        Ok(digest) => Some(digest),
        Err(said) => {
            form.reject("slow", said, "Copy it from keyward export.");
            None
        }
    }
}

fn former_digest(form: &mut FieldReader) -> Option<Digest> {
    let text = form.text("former_digest")?;
    let read = Digest::from_hex(text.as_bytes());
    if read.is_none() {
        let fix = "Copy its 64 hexadecimal digits from keyward export.";
        form.reject("former_digest", "This is not a digest.", fix);
    }
    read
}

fn scheme(form: &mut FieldReader) -> Scheme {
    let Some(text) = form.text("scheme") else { return Scheme::Own };
    serde_json::from_value(Value::String(text)).unwrap_or_else(|_| {
        let fix = "Copy it from keyward export, or leave it out for a key of Keyward's own.";
        form.reject("scheme", "There is no such scheme.", fix);
        Scheme::Own
    })
}

/// The digest with this name.
fn digest(form: &mut FieldReader, name: &'static str) -> Option<Digest> {
    let text = form.text(name)?;
    let read = Digest::from_hex(text.as_bytes());
    if read.is_none() {
        let fix = "Copy its 64 hexadecimal digits from keyward export.";
        form.reject(name, "This is not a fingerprint.", fix);
    }
    read
}

/// A moment. Not a span: it would be another one each time that the file is applied.
fn moment(form: &mut FieldReader, name: &'static str) -> Option<Timestamp> {
    let text = form.text(name)?;
    let read = Timestamp::parse(&text);
    if read.is_none() {
        form.reject(name, NO_MOMENT, MOMENT);
    }
    read
}

fn needed_moment(form: &mut FieldReader, name: &'static str) -> Timestamp {
    let text = form.needed_text(name);
    let read = Timestamp::parse(&text);
    if read.is_none() && !text.is_empty() {
        form.reject(name, NO_MOMENT, MOMENT);
    }
    read.unwrap_or_default()
}
