//! What packet `n` looks like: its flow and its length, as functions of `n` alone.

use super::payload::HEADER_LEN;
use std::ops::RangeInclusive;

/// Flows and payload lengths of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many flows; packets take turns.
    flows: u64,
    /// Packets of one flow in a row.
    run: u64,
    shortest: usize,
    /// Lengths to choose from, from `shortest` upwards.
    lengths: u64,
}

impl Plan {
    /// A plan over `flows` flows (1 to 65,536), `run` packets of a flow in a row, and payloads of `lengths`
    /// bytes.
    ///
    /// Payloads are at least [`HEADER_LEN`] bytes; what is asked shorter is made so long.
    pub fn new(flows: u32, run: u32, lengths: RangeInclusive<usize>) -> Plan {
        let shortest = (*lengths.start()).max(HEADER_LEN);
        let longest = (*lengths.end()).max(shortest);
        Plan {
            flows: u64::from(flows.clamp(1, 1 << 16)),
            run: u64::from(run.max(1)),
            shortest,
            lengths: (longest - shortest + 1) as u64,
        }
    }

    /// How many flows there are.
    pub fn flows(&self) -> usize {
        self.flows as usize
    }

    /// Bytes of the shortest payload.
    pub fn shortest(&self) -> usize {
        self.shortest
    }

    /// Bytes of the longest payload.
    pub fn longest(&self) -> usize {
        self.shortest + self.lengths as usize - 1
    }

    /// The flow of packet `n`.
    #[inline(always)]
    pub fn flow(&self, n: u64) -> u16 {
        match (self.flows, self.run) {
            (1, _) => 0,
            (flows, run) => (n / run % flows) as u16,
        }
    }

    /// How many packets from `n` on, at most `most`, belong to one flow.
    #[inline]
    pub fn same_flow(&self, n: u64, most: usize) -> usize {
        if self.flows == 1 { most } else { most.min((self.run - n % self.run) as usize) }
    }

    /// Bytes of packet `n`'s payload: spread evenly over the range.
    #[inline(always)]
    pub fn payload_len(&self, n: u64) -> usize {
        if self.lengths == 1 {
            return self.shortest;
        }
        let mixed = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.shortest + ((mixed * self.lengths) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_take_turns_in_runs() {
        let plan = Plan::new(3, 2, 18..=18);
        let flows: Vec<u16> = (0..8).map(|n| plan.flow(n)).collect();
        assert_eq!(flows, [0, 0, 1, 1, 2, 2, 0, 0]);
        assert_eq!(plan.same_flow(0, 64), 2);
        assert_eq!(plan.same_flow(1, 64), 1);
        assert_eq!(Plan::new(1, 2, 18..=18).same_flow(1, 64), 64);
    }

    #[test]
    fn lengths_fill_the_range_evenly() {
        let plan = Plan::new(1, 1, 18..=117);
        let mut counts = [0u32; 100];
        for n in 0..100_000 {
            counts[plan.payload_len(n) - 18] += 1;
        }
        assert!(counts.iter().all(|&count| (800..1200).contains(&count)), "{counts:?}");
    }

    #[test]
    fn payloads_are_never_shorter_than_the_header() {
        let plan = Plan::new(1, 1, 0..=4);
        assert_eq!((plan.payload_len(0), plan.longest()), (HEADER_LEN, HEADER_LEN));
    }
}
