//! Reads the records of a state document, with the same functions that read single records.

use ipnet::IpNet;
use serde_json::Value;

use super::{TomlDocument, merge::RecordMerge};
use crate::{
    accounts::{
        AccountError, Accounts, DigestFormat, DocumentKey, DocumentPassword, DocumentUser, NewUser,
        STATE_VERSION, StateDocument, Writer,
    },
    api::{
        fields::FieldReader,
        keys::{any_networks, expires},
        records::Editable,
        users,
    },
    model::{
        Application, Digest, Expires, Key, KeyId, MAX_PREFIX, PasswordDigest, Rotation, Scheme,
        Timestamp,
    },
    store::Cancel,
};

const NOT_A_TIME: &str = "This is not a time.";
const TIME_FIX: &str = "Write a time such as 2027-01-01T00:00:00Z (RFC 3339).";

/// Reads a document. If `is_patch` is true, each record is merged into the record that the store
/// has.
///
/// # Errors
/// All violations, each with its location in the document, or an error of the store; or the work
/// was cancelled.
pub(super) fn read(
    toml: &TomlDocument<'_>,
    accounts: &Writer,
    is_patch: bool,
) -> Result<StateDocument, AccountError> {
    let cancel = accounts.cancel();
    let mut reader = FieldReader::new(toml.to_json());
    check_version(&mut reader);
    let mut merge = RecordMerge::new(accounts, is_patch);
    let mut document = StateDocument {
        pepper: fingerprint(&mut reader),
        roles: records(&mut reader, "roles", cancel, &mut merge, Editable::read)?,
        applications: records(&mut reader, "applications", cancel, &mut merge, |reader| {
            Application::fill(reader, accounts);
            Application::read(reader)
        })?,
        resources: records(&mut reader, "resources", cancel, &mut merge, Editable::read)?,
        users: records(&mut reader, "users", cancel, &mut merge, |reader| user(reader, accounts))?,
        keys: records(&mut reader, "keys", cancel, &mut merge, key)?,
        ..StateDocument::default()
    };
    (document.fields, document.bases) = (merge.fields, merge.bases);
    let violations = reader.into_violations();
    if violations.is_empty() { Ok(document) } else { Err(AccountError::Invalid(violations)) }
}

/// Checks the version. The version is required, so that a file of another kind is not mistaken for
/// a state document.
fn check_version(reader: &mut FieldReader) {
    let fix = format!("Write version = {STATE_VERSION} as the first line of the file.");
    match reader.take("version") {
        Some(version) if version == STATE_VERSION => {}
        Some(version) if version.as_u64().is_some_and(|version| version > STATE_VERSION) => {
            let message = "A newer version of Keyward wrote this file.";
            let fix = "Apply the file with that version of Keyward, or with a newer version.";
            reader.reject("version", message, fix);
        }
        Some(_) => reader.reject("version", "This version of the format does not exist.", fix),
        None => reader.reject("version", "The file has no version.", fix),
    }
}

/// Reads a list of records. The location of each violation contains the index of the record.
fn records<T>(
    reader: &mut FieldReader,
    name: &'static str,
    cancel: &Cancel,
    merge: &mut RecordMerge<'_>,
    mut read: impl FnMut(&mut FieldReader) -> T,
) -> Result<Vec<T>, AccountError> {
    let items = match reader.take(name) {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => {
            let fix = format!("Write [[{name}]] above each record.");
            reader.reject(name, "This is not a list of records.", fix);
            return Ok(Vec::new());
        }
    };
    let mut records = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        cancel.check()?;
        let item = merge.record(name, index, item)?;
        records.push(reader.entry(&format!("{name}.{index}"), item, &mut read));
    }
    Ok(records)
}

fn user(reader: &mut FieldReader, accounts: &Accounts) -> DocumentUser {
    let mut draft = accounts.draft_user(NewUser { status: true, ..NewUser::default() });
    let identity = (reader.number::<i64>("uid"), reader.text("uuid"), reader.text("init"));
    let created = time(reader, "created");
    let password = password(reader);
    users::read(reader, &mut draft);
    let (uid, uuid, init) = identity;
    let uuid = uuid.and_then(|text| {
        let read = uuid::Uuid::parse_str(&text).ok();
        if read.is_none() {
            let fix = "Leave this field out, and the server chooses a UUID.";
            reader.reject("uuid", "This is not a UUID.", fix);
        }
        read
    });
    // A negative number becomes 0, which the plan rejects because it is not a valid uid.
    let uid = uid.map(|uid| u64::try_from(uid).unwrap_or(0));
    DocumentUser { user: draft, uid, uuid, init, created, password }
}

fn password(reader: &mut FieldReader) -> DocumentPassword {
    match reader.text("password").as_deref() {
        None => DocumentPassword::Unspecified,
        Some("") => DocumentPassword::None,
        Some(phc) => match parse_slow_digest(phc) {
            Ok(digest) => DocumentPassword::Digest(digest),
            Err(message) => {
                let fix = "Copy the digest from keyward export, write \"\" for no password, or \
                           leave this field out and set the password with keyward user password.";
                reader.reject("password", message, fix);
                DocumentPassword::Unspecified
            }
        },
    }
}

/// Parses a digest that is slow to check. Keyward or another system made the digest.
fn parse_slow_digest(text: &str) -> Result<PasswordDigest, &'static str> {
    DigestFormat::detect(text).ok_or("This is not the digest of a password.")?.parse(text)
}

fn key(reader: &mut FieldReader) -> DocumentKey {
    let owner = reader.required_text("user");
    let prefix = reader.text("prefix");
    if prefix.as_ref().is_some_and(|prefix| {
        prefix.len() > MAX_PREFIX || !prefix.bytes().all(|b| b.is_ascii_graphic())
    }) {
        reader.reject("prefix", "A key cannot begin with this text.", "Leave this field out.");
    }
    let last_four = reader.text("last_four");
    if last_four
        .as_ref()
        .is_some_and(|text| text.chars().count() > 4 || text.chars().any(char::is_control))
    {
        let message = "These are not the last four characters of a key.";
        reader.reject("last_four", message, "Leave this field out.");
    }
    let created = time(reader, "created");
    let scheme = scheme(reader);
    let slow = key_slow(reader, scheme);
    let key = Key {
        id: key_id(reader, "id"),
        user: 0,
        application: reader.text("application"),
        label: reader.text("label").unwrap_or_default(),
        prefix: String::new(),
        last_four: String::new(),
        digest: key_digest(reader),
        scheme,
        slow,
        former_digest: former_digest(reader),
        universal: reader.flag("universal").unwrap_or_default(),
        scopes: reader.words("scopes"),
        created: created.unwrap_or_default(),
        expires: expiry(reader),
        revoked: time(reader, "revoked"),
        rotated: reader.object("rotated", |reader| Rotation {
            to: key_id(reader, "to"),
            until: required_time(reader, "until"),
        }),
        // An older version may have stored and exported a network with any of its addresses.
        networks: any_networks(reader).iter().map(IpNet::trunc).collect(),
        rate_limit: reader.rate_limit(),
        credits: reader.credits(),
    };
    DocumentKey { key, owner, prefix, last_four, created }
}

fn key_id(reader: &mut FieldReader, name: &'static str) -> KeyId {
    let text = reader.required_text(name);
    let id = KeyId::parse(&text);
    if id.is_none() && !text.is_empty() {
        reader.reject(name, "This is not the id of a key.", "Copy the id from keyward key list.");
    }
    id.unwrap_or(KeyId::from_number(0))
}

/// Reads the digest of a key. The digest is required, because the document does not contain the
/// key's text.
fn key_digest(reader: &mut FieldReader) -> Digest {
    let empty = Digest::from_bytes([0; 32]);
    let Some(text) = reader.text("digest") else {
        let fix = "Copy the digest from keyward export. Use keyward key generate for a new key, \
                   and keyward key import for a key of another system.";
        reader.reject("digest", "A key needs its digest.", fix);
        return empty;
    };
    let read = Digest::from_hex(text.as_bytes());
    if read.is_none() {
        let fix = "Copy the 64 hexadecimal digits from keyward export.";
        reader.reject("digest", "This is not a digest.", fix);
    }
    read.unwrap_or(empty)
}

/// Reads the slow digest of a key. Only keys of the scheme `slow` have this field.
fn key_slow(reader: &mut FieldReader, scheme: Scheme) -> Option<PasswordDigest> {
    let text = reader.text("slow");
    if text.is_some() != (scheme == Scheme::Slow) {
        let fix = "Copy the record from keyward export.";
        reader.reject(
            "slow",
            "Keys of the scheme slow need this field. Other keys must not have it.",
            fix,
        );
        return None;
    }
    match parse_slow_digest(&text?) {
        Ok(digest) => Some(digest),
        Err(message) => {
            reader.reject("slow", message, "Copy the digest from keyward export.");
            None
        }
    }
}

fn former_digest(reader: &mut FieldReader) -> Option<Digest> {
    let text = reader.text("former_digest")?;
    let read = Digest::from_hex(text.as_bytes());
    if read.is_none() {
        let fix = "Copy the 64 hexadecimal digits from keyward export.";
        reader.reject("former_digest", "This is not a digest.", fix);
    }
    read
}

fn scheme(reader: &mut FieldReader) -> Scheme {
    let Some(text) = reader.text("scheme") else { return Scheme::Own };
    serde_json::from_value(Value::String(text)).unwrap_or_else(|_| {
        let fix = "Copy the scheme from keyward export. A key that Keyward made needs no scheme.";
        reader.reject("scheme", "There is no such scheme.", fix);
        Scheme::Own
    })
}

/// Reads the fingerprint of the pepper.
fn fingerprint(reader: &mut FieldReader) -> Option<Digest> {
    let text = reader.text("pepper")?;
    let read = Digest::from_hex(text.as_bytes());
    if read.is_none() {
        let fix = "Copy the 64 hexadecimal digits from keyward export.";
        reader.reject("pepper", "This is not a fingerprint.", fix);
    }
    read
}

/// Reads the expiry of a key: a time, a day or `never`.
fn expiry(reader: &mut FieldReader) -> Option<Timestamp> {
    match expires(reader)? {
        Expires::Never => None,
        Expires::At(time) | Expires::EndOfDay(time) => Some(time),
        Expires::In(_) => {
            reader.reject("expires", NOT_A_TIME, TIME_FIX);
            None
        }
    }
}

/// Reads a time. A span such as `90d` is not allowed, because its end would change each time that
/// the file is applied.
fn time(reader: &mut FieldReader, name: &'static str) -> Option<Timestamp> {
    let text = reader.text(name)?;
    let read = Timestamp::parse(&text);
    if read.is_none() {
        reader.reject(name, NOT_A_TIME, TIME_FIX);
    }
    read
}

fn required_time(reader: &mut FieldReader, name: &'static str) -> Timestamp {
    let text = reader.required_text(name);
    let read = Timestamp::parse(&text);
    if read.is_none() && !text.is_empty() {
        reader.reject(name, NOT_A_TIME, TIME_FIX);
    }
    read.unwrap_or_default()
}
