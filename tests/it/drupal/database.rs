//! A Drupal database in every form in which it can be exported.

use md5::Md5;
use sha2::{Digest, Sha512};

const CRYPT64: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The number of kinds of password digests.
pub const PASSWORDS: usize = 4;
/// The module's universal key.
pub const UNIVERSAL_KEY: &str = "the-universal-key-of-the-module";
/// The digest of `correct horse battery`, by Apache's `htpasswd`.
const BCRYPT: &str = "$2y$05$dJ85Pz.3ei.jVyvuZxjzNeXjlO1L2PIjp9clh2.NGkwJ4r6xnujUy";

/// The rows of a table: its name, its columns and its values. `None` is NULL.
type Table = (&'static str, Vec<&'static str>, Vec<Vec<Option<String>>>);

/// A site with users 1 to `users`: the first is `root`.
pub struct Database {
    users: u64,
    pub has_keys: bool,
    /// Values that replace others: the uid, the column and the value.
    pub overrides: Vec<(u64, &'static str, String)>,
}

pub fn name_of(uid: u64) -> String {
    if uid == 1 { "root".into() } else { format!("user{uid}") }
}

pub fn key_of(uid: u64) -> String {
    hex::encode(&Md5::digest(format!("key {uid}"))[..])
}

pub fn password_of(uid: u64) -> String {
    if uid % PASSWORDS as u64 == 1 {
        "correct horse battery".into()
    } else {
        format!("password of {uid}")
    }
}

impl Database {
    pub fn new(users: u64) -> Self {
        Self { users, has_keys: true, overrides: Vec::new() }
    }

    pub fn is_active(&self, uid: u64) -> bool {
        uid % 10 != 9
    }

    fn tables(&self) -> Vec<Table> {
        let text = |text: &str| Some(text.to_owned());
        let config = vec![
            vec![text(""), text("core.extension"), text("a:0:{}")],
            vec![text(""), text("rest_api_authentication.settings"), Some(settings())],
            vec![
                text(""),
                text("user.role.authenticated"),
                Some(role("authenticated", "Authenticated", &["access content"])),
            ],
            vec![
                text(""),
                text("user.role.editor"),
                Some(role("editor", "Éditeur", &["access user profiles", "edit any page content"])),
            ],
            vec![
                text("language.de"),
                text("user.role.editor"),
                Some(role("editor", "Redakteur", &[])),
            ],
        ];
        let uids = || 0..=self.users;
        let users = uids().map(|uid| {
            vec![
                Some(uid.to_string()),
                Some(format!("00000000-0000-4000-8000-{uid:012}")),
                text("en"),
            ]
        });
        let roles = uids().filter(|uid| *uid > 1 && uid % 3 == 0).map(|uid| {
            let id = Some(uid.to_string());
            vec![text("user"), text("0"), id.clone(), id, text("en"), text("0"), text("editor")]
        });
        let fields = vec![
            "uid",
            "langcode",
            "preferred_langcode",
            "preferred_admin_langcode",
            "name",
            "pass",
            "mail",
            "timezone",
            "status",
            "created",
            "changed",
            "access",
            "login",
            "init",
            "default_langcode",
            "api_key",
        ];
        let columns = fields.clone();
        let people = uids().map(|uid| {
            let mut row = self.person(uid);
            for (other, column, value) in &self.overrides {
                if *other == uid {
                    let index = columns.iter().position(|name| name == column).unwrap();
                    row[index] = Some(value.clone());
                }
            }
            row
        });
        vec![
            ("config", vec!["collection", "name", "data"], config),
            (
                "user__roles",
                vec![
                    "bundle",
                    "deleted",
                    "entity_id",
                    "revision_id",
                    "langcode",
                    "delta",
                    "roles_target_id",
                ],
                roles.collect(),
            ),
            ("users", vec!["uid", "uuid", "langcode"], users.collect()),
            ("users_field_data", fields, people.collect()),
        ]
    }

    fn person(&self, uid: u64) -> Vec<Option<String>> {
        let text = |text: &str| Some(text.to_owned());
        let time = 1_600_000_000 + uid;
        if uid == 0 {
            let mut row = vec![text("0"), text("en"), None, None, text(""), None, None, text("")];
            row.extend([
                text("0"),
                text("1"),
                text("1"),
                text("0"),
                text("0"),
                None,
                text("1"),
                None,
            ]);
            return row;
        }
        vec![
            Some(uid.to_string()),
            text("en"),
            text("en"),
            None,
            Some(name_of(uid)),
            Some(digest(uid)),
            Some(format!("{}@example.com", name_of(uid))),
            text("Europe/Paris"),
            text(if self.is_active(uid) { "1" } else { "0" }),
            Some(time.to_string()),
            Some((time + 1).to_string()),
            Some((time + 2).to_string()),
            text("0"),
            Some(format!("{}@example.com", name_of(uid))),
            text("1"),
            (uid > 1 && self.has_keys).then(|| key_of(uid)),
        ]
    }

    /// As `drush sql-dump` writes it with MariaDB: one line for all rows of a table.
    pub fn mysql(&self) -> String {
        let mut dump = "-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB\n--\n/*!40101 SET NAMES utf8mb4 */;\n\
            DROP TABLE IF EXISTS `cache_config`;\nCREATE TABLE `cache_config` (\n  `cid` varchar(255),\n  `data` longblob\n);\n\
            INSERT INTO `cache_config` VALUES ('a','it\\'s; (');\n"
            .to_owned();
        for (table, columns, rows) in self.tables() {
            let definitions: Vec<String> = columns
                .iter()
                .map(|name| format!("  `{name}` varchar(255) DEFAULT NULL"))
                .collect();
            dump += &format!(
                "DROP TABLE IF EXISTS `{table}`;\nCREATE TABLE `{table}` (\n{},\n  PRIMARY KEY (`{}`)\n) ENGINE=InnoDB;\nLOCK TABLES `{table}` WRITE;\nINSERT INTO `{table}` VALUES ",
                definitions.join(",\n"),
                columns[0]
            );
            let value = |value: &Option<String>| match value {
                Some(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
                None => "NULL".into(),
            };
            let rows: Vec<String> = rows
                .iter()
                .map(|row| format!("({})", row.iter().map(value).collect::<Vec<_>>().join(",")))
                .collect();
            dump += &format!("{};\nUNLOCK TABLES;\n", rows.join(","));
        }
        dump
    }

    /// As `pg_dump` writes it.
    pub fn postgresql(&self) -> String {
        let mut dump =
            "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n".to_owned();
        for (table, columns, rows) in self.tables() {
            dump += &format!("COPY public.{table} ({}) FROM stdin;\n", columns.join(", "));
            for row in rows {
                let value = |(column, value): (&&str, &Option<String>)| match value {
                    None => "\\N".to_owned(),
                    Some(text) if *column == "data" => format!("\\\\x{}", hex::encode(text)),
                    Some(text) => text.replace('\\', "\\\\").replace('\t', "\\t"),
                };
                let values: Vec<String> = columns.iter().zip(&row).map(value).collect();
                dump += &format!("{}\n", values.join("\t"));
            }
            dump += "\\.\n\n";
        }
        dump
    }

    /// As SQLite's `.dump` writes it.
    pub fn sqlite(&self) -> String {
        let mut dump = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n".to_owned();
        for (table, columns, rows) in self.tables() {
            let definitions: Vec<String> =
                columns.iter().map(|name| format!("\"{name}\" TEXT NULL DEFAULT NULL")).collect();
            dump += &format!("CREATE TABLE \"{table}\" (\n{}\n);\n", definitions.join(", \n"));
            for row in rows {
                let value = |(column, value): (&&str, &Option<String>)| match value {
                    None => "NULL".to_owned(),
                    Some(text) if *column == "data" => format!("X'{}'", hex::encode(text)),
                    Some(text) => format!("'{}'", text.replace('\'', "''")),
                };
                let values: Vec<String> = columns.iter().zip(&row).map(value).collect();
                dump += &format!("INSERT INTO {table} VALUES({});\n", values.join(","));
            }
        }
        dump + "COMMIT;\n"
    }

    /// As a spreadsheet writes it: semicolons, and a byte order mark.
    pub fn csv(&self) -> Vec<(&'static str, String)> {
        let value = |value: &Option<String>| {
            format!("\"{}\"", value.clone().unwrap_or_default().replace('"', "\"\""))
        };
        let file = |(table, columns, rows): Table| {
            let rows: Vec<String> = rows
                .iter()
                .map(|row| row.iter().map(value).collect::<Vec<_>>().join(";"))
                .collect();
            (table, format!("\u{FEFF}{}\r\n{}\r\n", columns.join(";"), rows.join("\r\n")))
        };
        self.tables().into_iter().map(file).collect()
    }
}

fn text(text: &str) -> String {
    format!("s:{}:\"{text}\";", text.len())
}

fn role(id: &str, label: &str, permissions: &[&str]) -> String {
    let list: String = permissions
        .iter()
        .enumerate()
        .map(|(index, name)| format!("i:{index};{}", text(name)))
        .collect();
    format!(
        "a:5:{{{}{}{}{}{}i:2;{}b:0;{}a:{}:{{{list}}}}}",
        text("id"),
        text(id),
        text("label"),
        text(label),
        text("weight"),
        text("is_admin"),
        text("permissions"),
        permissions.len()
    )
}

/// The settings of the module: three applications, of which the first is the default.
fn settings() -> String {
    let application = |id: &str, method: u8, auth_type: u8, is_default: u8| {
        format!(
            "{}a:4:{{{}{}{}i:{method};{}i:{auth_type};{}b:{is_default};}}",
            text(id),
            text("name"),
            text(&format!("App {id}")),
            text("authentication_method"),
            text("rest_api_auth_type"),
            text("is_default"),
        )
    };
    format!(
        "a:4:{{{}i:1;{}{}{}{}{}a:3:{{{}{}{}}}}}",
        text("enable_authentication"),
        text("api_token"),
        text(UNIVERSAL_KEY),
        text("default_application_id"),
        text("a1b2c3d4"),
        text("applications"),
        application("a1b2c3d4", 1, 1, 1),
        application("b2c3d4e5", 1, 0, 0),
        application("c3d4e5f6", 0, 0, 0),
    )
}

/// The password digest of a user: the kinds take turns.
fn digest(uid: u64) -> String {
    let password = password_of(uid);
    let salt = format!("{uid:08}");
    match uid % PASSWORDS as u64 {
        0 => format!("$S$5{salt}{}", &stretch::<Sha512>(password.as_bytes(), &salt)[..43]),
        1 => BCRYPT.to_owned(),
        2 => format!("$P$5{salt}{}", stretch::<Md5>(password.as_bytes(), &salt)),
        _ => {
            let md5 = hex::encode(&Md5::digest(&password)[..]);
            format!("U$S$5{salt}{}", &stretch::<Sha512>(md5.as_bytes(), &salt)[..43])
        }
    }
}

/// phpass with 2^7 rounds, written as PHP writes it.
fn stretch<D: Digest>(password: &[u8], salt: &str) -> String {
    let mut sum = D::digest([salt.as_bytes(), password].concat()).to_vec();
    for _ in 0..128 {
        sum = D::digest([&sum[..], password].concat()).to_vec();
    }
    let mut encoded = String::new();
    for part in sum.chunks(3) {
        let value = part.iter().rev().fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
        for digit in 0..=part.len() {
            encoded.push(char::from(CRYPT64[(value >> (6 * digit) & 63) as usize]));
        }
    }
    encoded
}
