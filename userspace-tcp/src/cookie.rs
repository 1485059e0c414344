//! SYN cookies (RFC 4987, section 3.6; appendix A): the half-open connection is in our sequence number, its options in our
//! timestamp.
//!
//! ```text
//!  ISS    [ count 5 ][ MSS 3 ][ keyed hash of flow, IRS, count and MSS: 24 ]
//!  TSval  [ milliseconds, upper 26 bits ][ ECN 1 ][ SACK 1 ][ window scale 4 ]      before the pair's offset is added
//! ```
//!
//! A SYN without timestamps gets neither window scale nor SACK: there is nowhere to keep them.

use crate::address::FlowKey;
use crate::secret::Secret;
use crate::sequence::Seq;
use crate::time::Instant;

/// The MSS values that three bits can name: the field's common ones (IPv4 and IPv6 minimum, PPPoE, tunnels, Ethernet, jumbo).
const MSS: [u16; 8] = [536, 1220, 1300, 1360, 1400, 1440, 1460, 8960];
/// Length of a count.
const COUNT_MS: u64 = 64_000;
/// A cookie is good in its own count and the next: for 64 to 128 seconds.
const MAX_AGE: u32 = 1;
/// "No window scale" in four bits; shifts end at 14.
const NO_SCALE: u32 = 15;

/// What a cookie remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub mss: u16,
    pub window_scale: Option<u8>,
    pub sack: bool,
    pub ecn: bool,
}

fn count(now: Instant) -> u32 {
    (now.nanos() / 1_000_000 / COUNT_MS) as u32
}

/// Our initial sequence number for a SYN.
pub(crate) fn sequence(secret: &Secret, key: &FlowKey, irs: Seq, mss: u16, now: Instant) -> Seq {
    let index = MSS.iter().rposition(|&m| m <= mss).unwrap_or(0) as u32;
    let count = count(now);
    let hash = secret.cookie(key, irs.0, count, index) & 0xff_ffff;
    Seq((count & 31) << 27 | index << 24 | hash)
}

/// The MSS in a cookie that is right and not too old.
pub(crate) fn check(secret: &Secret, key: &FlowKey, irs: Seq, iss: Seq, now: Instant) -> Option<u16> {
    let newest = count(now);
    let age = newest.wrapping_sub(iss.0 >> 27) & 31;
    let index = iss.0 >> 24 & 7;
    if age > MAX_AGE {
        return None;
    }
    let hash = secret.cookie(key, irs.0, newest.wrapping_sub(age), index) & 0xff_ffff;
    (hash == iss.0 & 0xff_ffff).then(|| MSS[index as usize])
}

/// The clock of a SYN-ACK's timestamp, with the options in it: never later than `ms`.
pub(crate) fn stamp(ms: u32, remembered: &Remembered) -> u32 {
    let bits = remembered.window_scale.map_or(NO_SCALE, u32::from)
        | u32::from(remembered.sack) << 4
        | u32::from(remembered.ecn) << 5;
    let stamped = ms & !63 | bits;
    if stamped > ms { stamped.wrapping_sub(64) } else { stamped }
}

/// The options in an echoed stamp.
pub(crate) fn unstamp(stamp: u32, mss: u16) -> Remembered {
    let scale = stamp & 15;
    Remembered {
        mss,
        window_scale: (scale != NO_SCALE).then_some(scale as u8),
        sack: stamp & 16 != 0,
        ecn: stamp & 32 != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_flow_and_its_time() {
        let secret = Secret::new(&[7; 64]);
        let key = FlowKey { local_port: 80, remote_port: 4000, ..FlowKey::default() };
        let now = Instant::from_millis(5_000_000);
        for (mss, kept) in [(100, 536), (1459, 1440), (1460, 1460), (9000, 8960)] {
            let iss = sequence(&secret, &key, Seq(99), mss, now);
            assert_eq!(check(&secret, &key, Seq(99), iss, now), Some(kept));
            assert_eq!(check(&secret, &key, Seq(99), iss, Instant::from_millis(5_064_000)), Some(kept));
            assert_eq!(check(&secret, &key, Seq(99), iss, Instant::from_millis(5_200_000)), None);
            assert_eq!(check(&secret, &key, Seq(98), iss, now), None);
            assert_eq!(check(&secret, &FlowKey { remote_port: 4001, ..key }, Seq(99), iss, now), None);
            assert_eq!(check(&secret, &key, Seq(99), iss + 1, now), None);
        }
    }

    #[test]
    fn options_survive_the_stamp_which_is_never_in_the_future() {
        for ms in [64, 1_000_000, 1_000_063, u32::MAX] {
            for window_scale in [None, Some(0), Some(7), Some(14)] {
                for (sack, ecn) in [(false, false), (true, false), (false, true), (true, true)] {
                    let kept = Remembered { mss: 1460, window_scale, sack, ecn };
                    let stamped = stamp(ms, &kept);
                    assert!(stamped <= ms && ms - stamped < 128);
                    assert_eq!(unstamp(stamped, 1460), kept);
                }
            }
        }
    }
}
