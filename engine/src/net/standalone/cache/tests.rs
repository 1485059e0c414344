//! Neighbours from the first question to the last, floods, forgeries, and the table itself.

use super::*;
use crate::net::Tag;

const SECOND: u64 = 1_000_000_000;
const MAC: Mac = [2, 0, 0, 0, 0, 9];
const EVIL: Mac = [2, 6, 6, 6, 6, 6];

fn key(n: u32) -> Key {
    Key { address: (0xfd00_u128 << 112 | u128::from(n)).to_be_bytes(), tag: Tag::default() }
}

fn resolved(cache: &mut Cache, key: Key, now: u64) {
    cache.resolve(key, now);
    cache.heard(key, MAC, Answer::Solicited, now);
}

fn asks(cache: &mut Cache, now: u64) -> Vec<Ask> {
    std::iter::from_fn(|| cache.next_ask(now)).map(|(_, ask)| ask).collect()
}

#[test]
fn a_neighbour_is_asked_for_used_asked_again_and_given_up() {
    let mut cache = Cache::new(16, 4, 1);
    assert_eq!(cache.next_due(), u64::MAX);
    assert_eq!(cache.resolve(key(1), SECOND), None);
    assert_eq!(cache.next_due(), SECOND);
    assert_eq!(asks(&mut cache, SECOND), [Ask::Everyone]);
    assert_eq!(cache.resolve(key(1), SECOND), None, "asked for already");
    assert_eq!((asks(&mut cache, SECOND), cache.next_due()), (vec![], 2 * SECOND));
    cache.heard(key(1), MAC, Answer::Solicited, SECOND);
    assert_eq!((cache.resolve(key(1), 30 * SECOND), asks(&mut cache, 30 * SECOND)), (Some(MAC), vec![]));
    // Stale after 30 s: used on, asked at its MAC five seconds later, then everybody is asked, then it is gone.
    let t = 40 * SECOND;
    assert_eq!(cache.resolve(key(1), t), Some(MAC));
    assert_eq!((asks(&mut cache, t), cache.next_due()), (vec![], t + 5 * SECOND));
    let mut all = Vec::new();
    for s in 0..12 {
        all.extend(asks(&mut cache, t + s * SECOND));
    }
    let (at, everyone) = (Ask::At(MAC), Ask::Everyone);
    assert_eq!(all, [at, at, at, everyone, everyone, everyone]);
    assert_eq!((cache.len, cache.failed, cache.next_due()), (0, 1, u64::MAX));
}

#[test]
fn nothing_that_arrives_makes_an_entry() {
    let mut cache = Cache::new(16, 4, 1);
    for n in 0..10_000 {
        for answer in [Answer::Solicited, Answer::Claim, Answer::Hint] {
            cache.heard(key(n), EVIL, answer, SECOND);
        }
    }
    assert_eq!((cache.len, cache.pending.len()), (0, 0));
}

#[test]
fn a_gateway_survives_a_flood_and_forgery_and_a_real_move_is_found() {
    let mut cache = Cache::new(64, 16, 7);
    cache.pin(key(0));
    assert_eq!(asks(&mut cache, SECOND), [Ask::Everyone]);
    cache.heard(key(0), MAC, Answer::Solicited, SECOND);
    let mut questions = 0;
    for n in 0..100_000_u64 {
        let now = 3 * SECOND + n * 100_000; // ten seconds of it
        cache.heard(key(0), EVIL, Answer::Solicited, now);
        cache.resolve(key(1 + n as u32), now);
        let mut asked = false;
        while let Some((asks, how)) = cache.next_ask(now) {
            asked |= asks == key(0);
            assert!(asks != key(0) || how == Ask::At(MAC));
        }
        questions += u32::from(asked);
        if asked {
            cache.heard(key(0), MAC, Answer::Solicited, now);
        }
        assert_eq!(cache.resolve(key(0), now), Some(MAC));
    }
    assert!((5..=11).contains(&questions), "{questions}");
    assert!(cache.len <= 64 && cache.pending.len() <= 17);

    // It has moved: the old MAC is silent.
    let t = 100 * SECOND;
    cache.heard(key(0), EVIL, Answer::Claim, t);
    let mut everyone = None;
    for n in 0..10 {
        let now = t + n * CONTEST_NS;
        while let Some((asks, how)) = cache.next_ask(now) {
            if asks == key(0) && how == Ask::Everyone {
                everyone.get_or_insert(now);
            }
        }
    }
    assert_eq!(everyone, Some(t + 3 * CONTEST_NS));
    cache.heard(key(0), EVIL, Answer::Solicited, t + SECOND);
    assert_eq!(cache.resolve(key(0), t + SECOND), Some(EVIL));
}

#[test]
fn a_full_cache_lets_the_unused_go_and_never_a_gateway() {
    let mut cache = Cache::new(100, 1000, 3);
    cache.pin(key(0));
    cache.heard(key(0), MAC, Answer::Solicited, 0);
    for n in 1..5000 {
        resolved(&mut cache, key(n), SECOND);
        assert!(cache.len <= 100);
        // Number one is in use all the time.
        assert!(n < 2 || cache.resolve(key(1), SECOND).is_some() || cache.evicted > 0);
    }
    assert!(cache.evicted > 4000, "{}", cache.evicted);
    assert_eq!(cache.resolve(key(0), SECOND), Some(MAC));
}

#[test]
fn entries_are_found_after_others_went() {
    let mut cache = Cache::new(64, 64, 11);
    let mut there = std::collections::BTreeSet::new();
    let mut random = 1u32;
    for _ in 0..20_000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let n = random >> 16 & 127;
        match cache.find(&key(n)) {
            Some(at) if random & 4 == 0 => {
                cache.remove(at);
                there.remove(&n);
            }
            None if cache.len < 64 => {
                cache.insert(key(n));
                there.insert(n);
            }
            _ => {}
        }
        assert!((0..128).all(|n| cache.find(&key(n)).is_some() == there.contains(&n)));
    }
}
