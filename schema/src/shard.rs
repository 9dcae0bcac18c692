//! The shards of the outbox in Postgres: each is published by one relay at a time.
//!
//! Invariant: [`Shards::of`] gives the same shard as the generated column of the table `outbox`. So a node that commits
//! an event knows which relay to wake.
use crate::ClassroomId;

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shards(u8);

impl Shards {
    /// The number of shards.
    pub const COUNT: u8 = 8;
    /// All shards.
    pub const ALL: Self = Self(u8::MAX);

    /// Returns the shard of a classroom. It is made of two bytes that differ between ids of each usual kind: random
    /// ids, ids made of the time, and ids that were counted up by hand.
    #[must_use]
    pub fn of(classroom: ClassroomId) -> Self {
        let bytes = classroom.0.as_bytes();
        Self::one(bytes[3].wrapping_add(bytes[15]))
    }

    /// Returns the shard with this number, modulo [`Shards::COUNT`].
    #[must_use]
    pub const fn one(number: u8) -> Self {
        Self(1 << (number % Self::COUNT))
    }

    /// Returns the shards that are in one of the sets or in both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the shards of this set that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether a shard is in both sets.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the numbers of the shards in this set, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (0..Self::COUNT).filter(move |number| self.meets(Self::one(*number)))
    }
}

impl FromIterator<Self> for Shards {
    fn from_iter<I: IntoIterator<Item = Self>>(sets: I) -> Self {
        sets.into_iter().fold(Self::default(), Self::with)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let some: Shards = [2, 7, 10].map(Shards::one).into_iter().collect();
        assert_eq!(some.numbers().collect::<Vec<_>>(), [2, 7]);
        assert_eq!(some.without(Shards::one(2)), Shards::one(7));
        assert!(some.meets(Shards::ALL) && !some.meets(Shards::one(3)));
        assert!(Shards::default().is_empty() && Shards::ALL.without(Shards::ALL).is_empty());
    }

    #[test]
    fn ids_of_each_kind_are_in_all_shards() {
        // Ids that are counted up, ids made of a clock in one process, and random ids.
        let kinds: [fn(u128) -> u128; 3] = [
            |n| n,
            |n| (n << 96) | 0x1000_8000_0000_0000_0001,
            |n| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        ];
        for kind in kinds {
            let all: Shards = (0..64).map(|n| Shards::of(ClassroomId(Uuid::from_u128(kind(n))))).collect();
            assert_eq!(all, Shards::ALL);
        }
    }
}
