//! Sets of permissions, as bits. The directory assigns a bit to each permission.

/// The permissions that Keyward's own routes and rules require.
pub const SHIPPED: &[&str] = &[
    "administer permissions",
    "administer users",
    "access user profiles",
    "view user email addresses",
    "change own username",
    "cancel account",
    "administer rest resources",
    "administer site configuration",
    "use key authentication",
    "generate own api key",
    "view audit log",
];

/// A set of permissions, in which each permission is identified by a bit number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions(Vec<u64>);

impl Permissions {
    /// The empty set.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds the permission with this bit number.
    pub fn insert(&mut self, bit: u32) {
        let word = (bit / 64) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (bit % 64);
    }

    /// Whether the set contains the permission with this bit number.
    pub fn contains(&self, bit: u32) -> bool {
        self.0.get((bit / 64) as usize).is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }

    /// Adds all permissions of `other`.
    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, added) in self.0.iter_mut().zip(&other.0) {
            *word |= added;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_contains_exactly_the_added_bits() {
        let mut one = Permissions::none();
        one.insert(3);
        one.insert(64);
        let mut two = Permissions::none();
        two.insert(130);
        one.add(&two);
        let bits: Vec<u32> = (0..200).filter(|bit| one.contains(*bit)).collect();
        assert_eq!(bits, [3, 64, 130]);
    }
}
