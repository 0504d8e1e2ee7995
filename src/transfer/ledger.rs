//! Which bytes of one object are there, which are under way, and which nobody has asked for yet. Pure bookkeeping.
//!
//! Bytes become good in extents: a stretch whose bytes are on the volume, with the checksum of what arrived. An extent
//! ends where a part of the object ends, so that each part's checksum can be combined from whole extents, and after
//! [`UNIT_BYTES`] at the latest: that is what a killed process loses of each connection's work.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    checksum::{Algorithm, RangeChecksum, combine},
    ranges::ByteRange,
    units::MIB,
};

/// The longest extent, but for the end of a part. Small, so that little is lost; not so small that the journal's record
/// for each costs anything.
pub(super) const UNIT_BYTES: u64 = 4 * MIB;

/// Where extents end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cuts {
    size_bytes: u64,
    /// The ends of all parts, in order; empty where the object is taken as one.
    part_ends: Vec<u64>,
}

impl Cuts {
    pub(super) fn new(size_bytes: u64, part_ends: Vec<u64>) -> Self {
        Self { size_bytes, part_ends }
    }

    /// Where the extent that holds this byte ends.
    pub(super) fn after(&self, offset_bytes: u64) -> u64 {
        let next = self.part_ends.partition_point(|end| *end <= offset_bytes);
        let part_begin = next.checked_sub(1).and_then(|before| self.part_ends.get(before)).copied().unwrap_or(0);
        let part_end = self.part_ends.get(next).copied().unwrap_or(self.size_bytes);
        let units = (offset_bytes - part_begin) / UNIT_BYTES + 1;
        units
            .checked_mul(UNIT_BYTES)
            .and_then(|length| part_begin.checked_add(length))
            .map_or(part_end, |end| end.min(part_end))
    }
}

/// The state of one object's bytes.
#[derive(Debug)]
pub(super) struct Ledger {
    cuts: Cuts,
    /// What nobody has asked for, in order.
    gaps: VecDeque<ByteRange>,
    /// What is on the volume, by its offset.
    extents: BTreeMap<u64, RangeChecksum>,
    in_flight: usize,
}

impl Ledger {
    /// An object of which these extents are there. What overlaps another or the end is not believed.
    pub(super) fn new(cuts: Cuts, extents: impl IntoIterator<Item = (u64, RangeChecksum)>) -> Self {
        let mut ledger = Self { cuts, gaps: VecDeque::new(), extents: BTreeMap::new(), in_flight: 0 };
        let by_offset: BTreeMap<_, _> = extents.into_iter().collect();
        let mut end = 0;
        for (offset, checksum) in by_offset {
            // An extent that does not end at a cut was made with other parts, and tells nothing about these.
            let begins_at_a_cut = offset == 0 || ledger.cuts.after(offset - 1) == offset;
            let fits = offset >= end
                && begins_at_a_cut
                && ledger.cuts.size_bytes > offset
                && offset.checked_add(checksum.len_bytes()) == Some(ledger.cuts.after(offset));
            if fits {
                ledger.gaps.extend(ByteRange::new(end, offset - end));
                end = offset + checksum.len_bytes();
                ledger.extents.insert(offset, checksum);
            }
        }
        ledger.gaps.extend(ByteRange::new(end, ledger.cuts.size_bytes - end));
        ledger
    }

    /// The next bytes to ask for: about so many, up to a cut. They count as under way until [`Ledger::returned`].
    pub(super) fn take(&mut self, about_bytes: u64) -> Option<ByteRange> {
        let gap = self.gaps.pop_front()?;
        self.in_flight += 1;
        // A small rest is taken along.
        if gap.len_bytes() <= about_bytes.saturating_add(about_bytes / 2) {
            return Some(gap);
        }
        let end = self.cuts.after(gap.offset_bytes() + about_bytes.max(1) - 1).min(gap.end_bytes());
        let taken = end - gap.offset_bytes();
        if let Some(rest) = gap.after(taken) {
            self.gaps.push_front(rest);
        }
        ByteRange::new(gap.offset_bytes(), taken)
    }

    /// An extent is on the volume.
    pub(super) fn finished(&mut self, offset_bytes: u64, checksum: RangeChecksum) {
        self.extents.insert(offset_bytes, checksum);
    }

    /// Whoever had taken a range has done with it; whether that was the last one under way.
    pub(super) fn returned(&mut self) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.in_flight == 0
    }

    /// Nothing more is to be asked for.
    pub(super) fn abandon(&mut self) {
        self.gaps.clear();
    }

    pub(super) fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    pub(super) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// How many bytes nobody has asked for.
    pub(super) fn unasked_bytes(&self) -> u64 {
        self.gaps.iter().map(ByteRange::len_bytes).sum()
    }

    /// How many bytes are on the volume.
    pub(super) fn present_bytes(&self) -> u64 {
        self.extents.values().map(RangeChecksum::len_bytes).sum()
    }

    /// Forgets what is there of this range, and puts it up to be asked for again. Returns how many bytes that are.
    pub(super) fn forget(&mut self, range: ByteRange) -> u64 {
        let offsets: Vec<u64> =
            self.extents.range(range.offset_bytes()..range.end_bytes()).map(|(at, _)| *at).collect();
        let forgotten = offsets.iter().filter_map(|at| Some((*at, self.extents.remove(at)?.len_bytes())));
        let mut ranges: Vec<ByteRange> = forgotten.filter_map(|(at, length)| ByteRange::new(at, length)).collect();
        let bytes = ranges.iter().map(ByteRange::len_bytes).sum();
        ranges.extend(self.gaps.drain(..));
        ranges.sort_by_key(ByteRange::offset_bytes);
        self.gaps.extend(ranges);
        bytes
    }

    /// The extents, in order.
    pub(super) fn extents(&self) -> impl Iterator<Item = (u64, RangeChecksum)> + '_ {
        self.extents.iter().map(|(offset, checksum)| (*offset, *checksum))
    }

    /// The checksum of a range that begins and ends with extents; `None` where not all of it is there.
    pub(super) fn checksum(&self, algorithm: Algorithm, range: ByteRange) -> Option<RangeChecksum> {
        let inside = self.extents.range(range.offset_bytes()..range.end_bytes()).map(|(_, checksum)| *checksum);
        combine(algorithm, inside).filter(|checksum| checksum.len_bytes() == range.len_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checksum::Running;

    fn range(offset: u64, len: u64) -> ByteRange {
        ByteRange::new(offset, len).unwrap()
    }

    fn zeros(len: u64) -> RangeChecksum {
        let mut running = Running::new(Algorithm::Crc64Nvme);
        running.update(&vec![0; usize::try_from(len).unwrap()]);
        running.finish()
    }

    #[test]
    fn extents_end_with_the_unit_the_part_and_the_object() {
        let whole = Cuts::new(10 * MIB, Vec::new());
        assert_eq!([0, 4 * MIB - 1, 4 * MIB, 9 * MIB].map(|at| whole.after(at)), [4, 4, 8, 10].map(|end| end * MIB));
        let parts = Cuts::new(12 * MIB, vec![5 * MIB, 10 * MIB, 12 * MIB]);
        assert_eq!([0, 4, 5, 9, 10, 11].map(|at| parts.after(at * MIB)), [4, 5, 9, 10, 12, 12].map(|end| end * MIB));
    }

    #[test]
    fn what_an_earlier_run_has_is_not_asked_for_again() {
        let cuts = Cuts::new(10 * MIB, Vec::new());
        let mut ledger = Ledger::new(cuts, [(4 * MIB, zeros(4 * MIB))]);
        assert_eq!(ledger.present_bytes(), 4 * MIB);
        assert_eq!(ledger.take(64 * MIB), Some(range(0, 4 * MIB)));
        assert_eq!(ledger.take(64 * MIB), Some(range(8 * MIB, 2 * MIB)));
        assert_eq!(ledger.take(64 * MIB), None);
    }

    #[test]
    fn what_does_not_fit_is_not_believed() {
        let cuts = Cuts::new(10 * MIB, Vec::new());
        for (offset, length) in [(0, MIB), (MIB, 4 * MIB), (8 * MIB, 3 * MIB), (12 * MIB, 4 * MIB), (u64::MAX, 1)] {
            let ledger = Ledger::new(cuts.clone(), [(offset, zeros(length))]);
            assert_eq!(ledger.present_bytes(), 0, "{offset} {length}");
            assert_eq!(ledger.unasked_bytes(), 10 * MIB);
        }
    }

    #[test]
    fn a_small_rest_is_taken_along_and_a_larger_one_is_not() {
        let ledger = |size| Ledger::new(Cuts::new(size, Vec::new()), []);
        assert_eq!(ledger(12 * MIB).take(8 * MIB), Some(range(0, 12 * MIB)));
        assert_eq!(ledger(12 * MIB + 1).take(8 * MIB), Some(range(0, 8 * MIB)));
    }

    #[test]
    fn a_damaged_part_is_asked_for_again_and_the_others_are_not() {
        let parts = vec![4 * MIB, 8 * MIB, 12 * MIB];
        let extents = [0, 4, 8].map(|at| (at * MIB, zeros(4 * MIB)));
        let mut ledger = Ledger::new(Cuts::new(12 * MIB, parts), extents);
        assert_eq!(ledger.forget(range(4 * MIB, 4 * MIB)), 4 * MIB);
        assert_eq!(ledger.take(u64::MAX), Some(range(4 * MIB, 4 * MIB)));
        assert_eq!(ledger.take(u64::MAX), None);
        assert_eq!(ledger.checksum(Algorithm::Crc64Nvme, range(0, 12 * MIB)), None);
        assert!(ledger.checksum(Algorithm::Crc64Nvme, range(8 * MIB, 4 * MIB)).is_some());
    }

    proptest! {
        #[test]
        fn every_byte_is_taken_once_or_was_there(
            size in 1..200 * MIB,
            abouts in proptest::collection::vec(1..100 * MIB, 1..20),
            there in proptest::collection::btree_set(0_u64..50, 0..20),
        ) {
            let cuts = Cuts::new(size, Vec::new());
            let there = there.into_iter().map(|unit| unit * UNIT_BYTES).filter(|at| *at < size);
            let extents: Vec<_> = there.map(|at| {
                (at, RangeChecksum::new(Algorithm::Crc64Nvme, 0, cuts.after(at) - at))
            }).collect();
            let mut ledger = Ledger::new(cuts, extents.clone());
            let mut covered: Vec<_> = extents.iter().map(|(at, checksum)| range(*at, checksum.len_bytes())).collect();
            let mut abouts = abouts.iter().cycle();
            while let Some(taken) = ledger.take(*abouts.next().unwrap()) {
                covered.push(taken);
            }
            covered.sort_by_key(ByteRange::offset_bytes);
            let mut end = 0;
            for range in covered {
                prop_assert_eq!(range.offset_bytes(), end);
                end = range.end_bytes();
            }
            prop_assert_eq!(end, size);
        }
    }
}
