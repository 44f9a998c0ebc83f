//! The tables of a store and the keys of their records.
//!
//! Keys of numbers are big-endian, so the order of the keys is the order of the numbers.

use crate::model::KeyId;

/// The record in [`Table::Meta`] with the largest uid that a deleted user had.
pub const LAST_UID: &[u8] = b"last-uid";
/// The record in [`Table::Meta`] with the fingerprint of the pepper. A first start, a state file
/// and a restore write it.
pub const PEPPER: &[u8] = b"pepper";

/// A kind of record, or an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Facts about the store itself, by name.
    Meta = b'0',
    /// Applications by id.
    Applications = b'a',
    /// The audit trail by entry number ([`audit`]).
    Audit = b'e',
    /// Index: the digest of a key of another system → its key id.
    Foreign = b'f',
    /// Keys by id ([`key`]).
    Keys = b'k',
    /// Index: the case-folded mail address → uid.
    Mails = b'm',
    /// Index: the case-folded name → uid.
    Names = b'n',
    /// Index: uid and key id ([`owner`]) → nothing.
    Owners = b'o',
    /// Roles by id.
    Roles = b'r',
    /// Resources by id.
    Resources = b's',
    /// Spent credits of users and keys ([`spent`]).
    Spent = b't',
    /// Users by uid ([`user`]).
    Users = b'u',
    /// The usage of keys by key id ([`key`]).
    Usage = b'v',
    /// Expiry notifications already sent for a key, as days before its expiry, by key id ([`key`]).
    Warned = b'w',
    /// Webhooks that are not delivered yet, by their ids.
    Webhooks = b'h',
}

impl Table {
    /// All tables, in the order of a backup.
    pub const ALL: [Self; 15] = [
        Self::Meta,
        Self::Applications,
        Self::Audit,
        Self::Foreign,
        Self::Keys,
        Self::Mails,
        Self::Names,
        Self::Owners,
        Self::Roles,
        Self::Resources,
        Self::Spent,
        Self::Users,
        Self::Usage,
        Self::Warned,
        Self::Webhooks,
    ];

    /// Whether the start loads the table into memory, because decisions read it.
    pub fn is_loaded(self) -> bool {
        matches!(
            self,
            Self::Meta
                | Self::Applications
                | Self::Keys
                | Self::Roles
                | Self::Resources
                | Self::Spent
                | Self::Users
        )
    }

    /// The table with this byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == byte)
    }

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Applications => "applications",
            Self::Audit => "audit",
            Self::Foreign => "foreign",
            Self::Keys => "keys",
            Self::Mails => "mails",
            Self::Names => "names",
            Self::Owners => "owners",
            Self::Roles => "roles",
            Self::Resources => "resources",
            Self::Spent => "spent",
            Self::Users => "users",
            Self::Usage => "usage",
            Self::Warned => "warned",
            Self::Webhooks => "webhooks",
        }
    }
}

/// The key of a user in [`Table::Users`], and the prefix of the user's rows in [`Table::Owners`].
pub fn user(uid: u64) -> [u8; 8] {
    uid.to_be_bytes()
}

/// The key of an API key in [`Table::Keys`], [`Table::Usage`] and [`Table::Warned`].
pub fn key(id: KeyId) -> [u8; 8] {
    id.number().to_be_bytes()
}

/// The key of an entry in [`Table::Audit`].
pub fn audit(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Parses the key of a user, an API key or an audit entry. `None` means that it has not 8 bytes.
pub fn parse_number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().map(u64::from_be_bytes).ok()
}

/// The key of a row in [`Table::Owners`]: the API key `id` belongs to the user `uid`.
pub fn owner(uid: u64, id: KeyId) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&user(uid));
    bytes[8..].copy_from_slice(&key(id));
    bytes
}

/// Parses the key of a row in [`Table::Owners`]. `None` means that it has not 16 bytes.
pub fn parse_owner(bytes: &[u8]) -> Option<(u64, KeyId)> {
    let (uid, id) = bytes.split_at_checked(8)?;
    Some((parse_number(uid)?, KeyId::from_number(parse_number(id)?)))
}

/// The key of a row in [`Table::Spent`]: `of` is [`Table::Users`] or [`Table::Keys`], `number` is
/// the uid or the number of the key id.
pub fn spent(of: Table, number: u64) -> [u8; 9] {
    let mut bytes = [of as u8; 9];
    bytes[1..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Parses the key of a row in [`Table::Spent`]. `None` means that [`spent`] did not make it.
pub fn parse_spent(bytes: &[u8]) -> Option<(Table, u64)> {
    let (table, number) = bytes.split_first()?;
    Some((Table::from_byte(*table)?, parse_number(number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_parsed_as_they_were_made() {
        let id = KeyId::from_number(0x0102);
        assert_eq!(parse_number(&user(7)), Some(7));
        assert_eq!(owner(7, id), *b"\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\x01\x02");
        assert_eq!(parse_owner(&owner(7, id)), Some((7, id)));
        assert_eq!(parse_spent(&spent(Table::Keys, 9)), Some((Table::Keys, 9)));
        assert_eq!(&spent(Table::Users, 1), b"u\0\0\0\0\0\0\0\x01");
    }

    #[test]
    fn malformed_keys_are_not_parsed() {
        for bytes in [&b""[..], b"u", b"1234567", b"123456789"] {
            assert_eq!(parse_number(bytes), None);
            assert_eq!(parse_owner(bytes), None);
        }
        assert_eq!(parse_owner(&[0; 17]), None);
        assert_eq!(parse_spent(b"?12345678"), None);
        assert_eq!(parse_spent(b"u123456789"), None);
    }
}
