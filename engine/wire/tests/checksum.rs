//! Checksums against the definition, one 16-bit word after the other (RFC 1071, section 4.1).

use proptest::collection::vec;
use proptest::prelude::*;
use volley_wire::checksum::{Sum, udp_nonzero, update_word};

/// The sum as the RFC's own program makes it, not complemented.
fn naive(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

/// Two sums are the same when they are equal or both forms of zero.
fn same(a: u16, b: u16) -> bool {
    a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
}

#[test]
fn the_example_of_rfc_1071() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(Sum::ZERO.bytes(&bytes).fold(), 0xddf2);
    assert_eq!(Sum::ZERO.fixed(&bytes).fold(), 0xddf2);
    assert_eq!(Sum::ZERO.bytes(&bytes).complement(), 0x220d);
}

#[test]
fn ones_everywhere_carry_at_every_length() {
    let ones = [0xff; 9100];
    for len in (0..300).chain(9000..9100) {
        assert_eq!(Sum::ZERO.bytes(&ones[..len]).fold(), naive(&ones[..len]), "{len} bytes");
    }
    // A sum that has carried as far as it can takes more.
    let mut sum = Sum::ZERO;
    for _ in 0..1000 {
        sum = sum.bytes(&ones[..64]).fixed(&[0xff; 64]).word(0xffff).and(sum);
    }
    assert_eq!(sum.fold(), 0xffff);
}

#[test]
fn zero_is_sent_as_ones() {
    assert!(!Sum::ZERO.holds() && Sum::ZERO.word(0xffff).holds());
    assert_eq!((udp_nonzero(0), udp_nonzero(1), udp_nonzero(0xffff)), (0xffff, 1, 0xffff));
}

proptest! {
    #[test]
    fn any_bytes_from_any_alignment(bytes in vec(any::<u8>(), 0..3000), from in 0usize..8) {
        let bytes = &bytes[from.min(bytes.len())..];
        prop_assert_eq!(Sum::ZERO.bytes(bytes).fold(), naive(bytes));
        prop_assert_eq!(Sum::ZERO.bytes(bytes).complement(), !naive(bytes));
    }

    #[test]
    fn a_sum_holds_when_it_folds_to_ones(bytes in vec(any::<u8>(), 2..500), right: bool) {
        let mut bytes = bytes;
        if right {
            bytes[..2].fill(0);
            let checksum = Sum::ZERO.bytes(&bytes).complement();
            bytes[..2].copy_from_slice(&checksum.to_be_bytes());
        }
        let sum = Sum::ZERO.bytes(&bytes);
        prop_assert_eq!(sum.holds(), naive(&bytes) == 0xffff);
        prop_assert!(sum.holds() || !right);
    }

    #[test]
    fn pieces_of_even_length_add_up(bytes in vec(any::<u8>(), 0..500), at: prop::sample::Index) {
        let at = at.index(bytes.len() + 1) & !1;
        let (a, b) = bytes.split_at(at);
        prop_assert_eq!(Sum::ZERO.bytes(a).bytes(b).fold(), naive(&bytes));
        prop_assert_eq!(Sum::ZERO.bytes(b).and(Sum::ZERO.bytes(a)).fold(), naive(&bytes));
    }

    #[test]
    fn headers_and_words_are_bytes(header: [u8; 20], six: [u8; 16], words: [u16; 9]) {
        prop_assert_eq!(Sum::ZERO.fixed(&header).fold(), naive(&header));
        prop_assert_eq!(Sum::ZERO.fixed(&six).fold(), naive(&six));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        prop_assert_eq!(words.iter().fold(Sum::ZERO, |sum, word| sum.word(*word)).fold(), naive(&bytes));
    }

    #[test]
    fn the_pseudo_header_is_its_bytes(source: [u8; 16], destination: [u8; 16], protocol: u8, length: u32, four: bool) {
        let (source, destination) = if four { (&source[..4], &destination[..4]) } else { (&source[..], &destination[..]) };
        let bytes = [source, destination, &length.to_be_bytes(), &[0, 0, 0, protocol]].concat();
        prop_assert_eq!(Sum::ZERO.pseudo_header(source, destination, protocol, length).fold(), naive(&bytes));
    }

    #[test]
    fn an_update_is_as_good_as_a_new_sum(bytes in vec(any::<u8>(), 2..200), at: prop::sample::Index, new: u16) {
        let mut bytes = bytes;
        bytes.truncate(bytes.len() & !1);
        let at = at.index(bytes.len()) & !1;
        let before = Sum::ZERO.bytes(&bytes).complement();
        let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
        let updated = update_word(before, old, new);
        prop_assert!(same(updated, Sum::ZERO.bytes(&bytes).complement()));
        // And a receiver finds it right: sum and checksum together are all ones.
        prop_assert!(same(Sum::ZERO.bytes(&bytes).word(updated).fold(), 0xffff));
    }
}
