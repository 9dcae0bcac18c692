//! The slot of a cluster to which a key belongs.
use crc::{CRC_16_XMODEM, Crc};

/// The number of slots of a cluster.
pub(super) const SLOTS: u16 = 16_384;

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// Returns the slot of a key. If the key has text in braces, only the text in the first braces counts.
pub(super) fn of(key: &str) -> u16 {
    let braced = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(braced, _)| braced);
    CRC.checksum(braced.filter(|braced| !braced.is_empty()).unwrap_or(key).as_bytes()) % SLOTS
}

/// Returns the ending that puts a key without braces into this slot.
pub(super) fn tag(slot: u16) -> String {
    let mut tags = (0_u64..).map(|number| format!("{{{number}}}"));
    tags.find(|tag| of(tag) == slot).expect("each slot has numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_servers() {
        // The numbers are answers of CLUSTER KEYSLOT.
        assert_eq!(of("123456789"), 12739);
        assert_eq!(of("foo{hash_tag}"), of("hash_tag"));
        assert_eq!(of("foo{}{bar}"), 8363);
        assert_eq!(of("foo{{bar}}zap"), of("{bar"));
        assert_eq!(of("foo{bar"), CRC.checksum(b"foo{bar") % SLOTS);
    }

    #[test]
    fn each_slot_has_a_tag() {
        for slot in [0, 1, 5460, 10_923, SLOTS - 1] {
            assert_eq!(of(&format!("rollcall:marker:1{}", tag(slot))), slot);
        }
    }
}
