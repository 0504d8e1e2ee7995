//! Which bytes of one object are there, which are under way, and which nobody has asked for yet. Pure bookkeeping.
//!
//! Bytes become good in extents: a stretch whose bytes are on the volume, with the checksum of what arrived. An extent
//! ends where a part of the object ends, so that each part's checksum can be combined from whole extents, and after
//! [`UNIT_BYTES`] at the latest: that is what a killed process loses of each connection's work.
//!
//! A range that is under way can still be shared: its rear half, cut where an extent ends, becomes another connection's.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

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
    /// Where else extents end, in order: where ranges begin that were asked for before anybody knew of the parts.
    early: Vec<u64>,
}

impl Cuts {
    pub(super) fn new(size_bytes: u64, part_ends: Vec<u64>) -> Self {
        Self { size_bytes, part_ends, early: Vec::new() }
    }

    /// Where the extent that holds this byte ends.
    pub(super) fn after(&self, offset_bytes: u64) -> u64 {
        let next = self.part_ends.partition_point(|end| *end <= offset_bytes);
        let part_begin = next.checked_sub(1).and_then(|before| self.part_ends.get(before)).copied().unwrap_or(0);
        let part_end = self.part_ends.get(next).copied().unwrap_or(self.size_bytes);
        let units = (offset_bytes - part_begin) / UNIT_BYTES + 1;
        let end = units
            .checked_mul(UNIT_BYTES)
            .and_then(|length| part_begin.checked_add(length))
            .map_or(part_end, |end| end.min(part_end));
        let early = self.early.partition_point(|begin| *begin <= offset_bytes);
        self.early.get(early).map_or(end, |begin| end.min(*begin))
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
    /// What is under way, by where it began.
    flights: BTreeMap<u64, Flight>,
    /// Whether the object's head is under way, without which nothing can be summed up.
    awaits_head: bool,
    is_abandoned: bool,
}

/// A range under way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    /// When its first byte is expected.
    since: Instant,
    /// Up to here its extents are on the volume.
    at: u64,
    end: u64,
}

impl Flight {
    /// How long it takes from now on at least, if it goes on as it did. The extent under way counts as if it were whole.
    fn expected(&self, began_at: u64, now: Instant) -> Duration {
        let arrived = self.at - began_at + UNIT_BYTES;
        let left = self.end - self.at;
        now.saturating_duration_since(self.since).mul_f64(left as f64 / arrived as f64)
    }

    /// The first cut in the rear half of what is left; never one within the extent under way.
    fn middle(&self, cuts: &Cuts) -> u64 {
        cuts.after(self.at + ((self.end - self.at) / 2).saturating_sub(1))
    }
}

impl Ledger {
    /// An object of which these extents are there. What overlaps another or the end is not believed.
    pub(super) fn new(cuts: Cuts, extents: impl IntoIterator<Item = (u64, RangeChecksum)>) -> Self {
        let mut ledger = Self {
            cuts,
            gaps: VecDeque::new(),
            extents: BTreeMap::new(),
            flights: BTreeMap::new(),
            awaits_head: false,
            is_abandoned: false,
        };
        let by_offset: BTreeMap<_, _> = extents.into_iter().collect();
        let mut end = 0;
        for (offset, checksum) in by_offset {
            // An extent across a cut was made with other parts, and tells nothing about these.
            let after = offset.checked_add(checksum.len_bytes());
            let fits = offset >= end
                && offset < ledger.cuts.size_bytes
                && after.is_some_and(|after| after <= ledger.cuts.after(offset));
            if fits {
                ledger.gaps.extend(ByteRange::new(end, offset - end));
                end = offset + checksum.len_bytes();
                ledger.extents.insert(offset, checksum);
            }
        }
        ledger.gaps.extend(ByteRange::new(end, ledger.cuts.size_bytes - end));
        // What fills a gap ends with it.
        ledger.cuts.early = ledger.gaps.iter().map(ByteRange::end_bytes).collect();
        ledger
    }

    /// An object of which nothing is there, and of whose parts nobody knows yet: until [`Ledger::head_returned`].
    pub(super) fn without_head(size_bytes: u64) -> Self {
        Self { awaits_head: true, ..Self::new(Cuts::new(size_bytes, Vec::new()), []) }
    }

    /// The object has these parts. What has been asked for meanwhile begins where it begins.
    pub(super) fn learn_parts(&mut self, part_ends: Vec<u64>) {
        let gaps = self.gaps.iter().map(ByteRange::offset_bytes);
        let mut early: Vec<u64> = self.flights.keys().copied().chain(gaps).collect();
        early.sort_unstable();
        self.cuts = Cuts { part_ends, early, ..self.cuts };
    }

    /// The head has come, or will not; whether nothing else is under way.
    pub(super) fn head_returned(&mut self) -> bool {
        self.awaits_head = false;
        !self.is_under_way()
    }

    /// The next bytes to ask for: about so many, up to a cut. They count as under way until [`Ledger::returned`].
    pub(super) fn take(&mut self, about_bytes: u64, first_byte: Instant) -> Option<ByteRange> {
        let gap = self.gaps.pop_front()?;
        let (begin, mut end) = (gap.offset_bytes(), gap.end_bytes());
        // A small rest is taken along.
        if gap.len_bytes() > about_bytes.saturating_add(about_bytes / 2) {
            end = self.cuts.after(begin + about_bytes.max(1) - 1).min(end);
            if let Some(rest) = gap.after(end - begin) {
                self.gaps.push_front(rest);
            }
        }
        self.take_off(begin, end, first_byte)
    }

    /// Of the range that is expected to take longest, which takes longer than `worth`: the rear half. Whoever fetches that
    /// range learns of it with its next extent.
    pub(super) fn share(&mut self, worth: Duration, now: Instant, first_byte: Instant) -> Option<ByteRange> {
        let (began_at, _) = self.longest(now).filter(|(_, expected)| *expected > worth)?;
        let flight = self.flights.get_mut(&began_at)?;
        let middle = flight.middle(&self.cuts);
        let end = std::mem::replace(&mut flight.end, middle);
        self.take_off(middle, end, first_byte)
    }

    /// How long the range takes at least that takes longest, of those that can be shared.
    pub(super) fn expected(&self, now: Instant) -> Option<Duration> {
        self.longest(now).map(|(_, expected)| expected)
    }

    fn longest(&self, now: Instant) -> Option<(u64, Duration)> {
        let can_be = |flight: &Flight| !self.is_abandoned && flight.middle(&self.cuts) < flight.end;
        let flights = self.flights.iter().filter(|(_, flight)| can_be(flight));
        flights
            .map(|(began_at, flight)| (*began_at, flight.expected(*began_at, now)))
            .max_by_key(|(_, expected)| *expected)
    }

    fn take_off(&mut self, begin: u64, end: u64, first_byte: Instant) -> Option<ByteRange> {
        self.flights.insert(begin, Flight { since: first_byte, at: begin, end });
        ByteRange::new(begin, end - begin)
    }

    /// An extent is on the volume. Where the range ends by now that it belongs to.
    pub(super) fn finished(&mut self, offset_bytes: u64, checksum: RangeChecksum) -> u64 {
        let end = offset_bytes + checksum.len_bytes();
        self.extents.insert(offset_bytes, checksum);
        match self.flights.range_mut(..=offset_bytes).next_back() {
            Some((_, flight)) => {
                flight.at = end;
                flight.end
            }
            None => end,
        }
    }

    /// Whoever had taken the range that begins here has done with it; whether that was the last one under way.
    pub(super) fn returned(&mut self, offset_bytes: u64) -> bool {
        self.flights.remove(&offset_bytes);
        !self.is_under_way()
    }

    /// Nothing more is to be asked for.
    pub(super) fn abandon(&mut self) {
        self.gaps.clear();
        self.is_abandoned = true;
    }

    pub(super) fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    pub(super) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.awaits_head || !self.flights.is_empty()
    }

    /// How many bytes are still to come, asked for or not.
    pub(super) fn left_bytes(&self) -> u64 {
        let under_way = self.flights.values().map(|flight| flight.end - flight.at);
        self.gaps.iter().map(ByteRange::len_bytes).chain(under_way).sum()
    }

    /// How many bytes are on the volume.
    pub(super) fn present_bytes(&self) -> u64 {
        self.extents.values().map(RangeChecksum::len_bytes).sum()
    }

    /// Forgets what is there of this range.
    pub(super) fn forget(&mut self, range: ByteRange) {
        self.extents.retain(|offset, _| !(range.offset_bytes()..range.end_bytes()).contains(offset));
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
    fn what_was_asked_for_before_the_parts_were_known_ends_extents_as_parts_do() {
        let mut ledger = Ledger::without_head(40 * MIB);
        assert_eq!(ledger.take(8 * MIB, Instant::now()), Some(range(0, 8 * MIB)));
        assert_eq!(ledger.take(8 * MIB, Instant::now()), Some(range(8 * MIB, 8 * MIB)));
        assert!(!ledger.returned(0), "the head is under way");
        ledger.learn_parts(vec![9 * MIB, 18 * MIB, 40 * MIB]);
        let ends = [0, 4, 8, 9, 13, 16, 17, 18].map(|at| ledger.cuts().after(at * MIB) / MIB);
        assert_eq!(ends, [4, 8, 9, 13, 16, 17, 18, 22]);
        assert!(!ledger.head_returned() && ledger.returned(8 * MIB));
    }

    #[test]
    fn what_an_earlier_run_has_is_not_asked_for_again() {
        let cuts = Cuts::new(10 * MIB, Vec::new());
        let mut ledger = Ledger::new(cuts, [(4 * MIB, zeros(4 * MIB))]);
        assert_eq!(ledger.present_bytes(), 4 * MIB);
        let now = Instant::now();
        assert_eq!(ledger.take(64 * MIB, now), Some(range(0, 4 * MIB)));
        assert_eq!(ledger.take(64 * MIB, now), Some(range(8 * MIB, 2 * MIB)));
        assert_eq!(ledger.take(64 * MIB, now), None);
    }

    #[test]
    fn what_does_not_fit_is_not_believed() {
        let cuts = Cuts::new(10 * MIB, Vec::new());
        for (offset, length) in [(0, 5 * MIB), (MIB, 4 * MIB), (8 * MIB, 3 * MIB), (12 * MIB, 4 * MIB), (u64::MAX, 1)] {
            let ledger = Ledger::new(cuts.clone(), [(offset, zeros(length))]);
            assert_eq!(ledger.present_bytes(), 0, "{offset} {length}");
            assert_eq!(ledger.left_bytes(), 10 * MIB);
        }
    }

    #[test]
    fn what_fills_a_gap_ends_where_the_gap_does() {
        let extents = [(MIB, zeros(2 * MIB)), (6 * MIB, zeros(2 * MIB))];
        let mut ledger = Ledger::new(Cuts::new(10 * MIB, Vec::new()), extents);
        assert_eq!(ledger.take(64 * MIB, Instant::now()), Some(range(0, MIB)));
        assert_eq!(ledger.take(64 * MIB, Instant::now()), Some(range(3 * MIB, 3 * MIB)));
        assert_eq!([0, 3, 4, 8].map(|at| ledger.cuts().after(at * MIB) / MIB), [1, 4, 6, 10]);
    }

    #[test]
    fn a_small_rest_is_taken_along_and_a_larger_one_is_not() {
        let ledger = |size| Ledger::new(Cuts::new(size, Vec::new()), []);
        assert_eq!(ledger(12 * MIB).take(8 * MIB, Instant::now()), Some(range(0, 12 * MIB)));
        assert_eq!(ledger(12 * MIB + 1).take(8 * MIB, Instant::now()), Some(range(0, 8 * MIB)));
    }

    #[test]
    fn a_damaged_part_is_forgotten_and_the_others_are_not() {
        let parts = vec![4 * MIB, 8 * MIB, 12 * MIB];
        let extents = [0, 4, 8].map(|at| (at * MIB, zeros(4 * MIB)));
        let mut ledger = Ledger::new(Cuts::new(12 * MIB, parts), extents);
        ledger.forget(range(4 * MIB, 4 * MIB));
        assert_eq!(ledger.extents().map(|(offset, _)| offset).collect::<Vec<_>>(), [0, 8 * MIB]);
        assert_eq!(ledger.checksum(Algorithm::Crc64Nvme, range(0, 12 * MIB)), None);
        assert!(ledger.checksum(Algorithm::Crc64Nvme, range(8 * MIB, 4 * MIB)).is_some());
    }

    /// 64 MiB, all of it under way since a second in two ranges, of which this much is there of the first.
    fn under_way(there: u64) -> (Ledger, Instant) {
        let mut ledger = Ledger::new(Cuts::new(64 * MIB, Vec::new()), []);
        let began = Instant::now();
        assert_eq!(ledger.take(32 * MIB, began), Some(range(0, 32 * MIB)));
        assert_eq!(ledger.take(32 * MIB, began), Some(range(32 * MIB, 32 * MIB)));
        (0..there / UNIT_BYTES).for_each(|unit| _ = ledger.finished(unit * UNIT_BYTES, zeros(UNIT_BYTES)));
        (0..6).for_each(|unit| _ = ledger.finished(32 * MIB + unit * UNIT_BYTES, zeros(UNIT_BYTES)));
        (ledger, began + Duration::from_secs(1))
    }

    #[test]
    fn the_slowest_range_is_shared_and_its_owner_learns_of_it_with_the_next_extent() {
        let (mut ledger, now) = under_way(8 * MIB);
        // 12 MiB in a second at most, and 24 to go.
        assert_eq!(ledger.expected(now), Some(Duration::from_secs(2)));
        assert_eq!(ledger.share(Duration::from_millis(1900), now, now), Some(range(20 * MIB, 12 * MIB)));
        assert_eq!(ledger.finished(8 * MIB, zeros(UNIT_BYTES)), 20 * MIB);
        assert_eq!(ledger.finished(20 * MIB, zeros(UNIT_BYTES)), 32 * MIB, "the other connection's own range");
        let returned = [0, 32 * MIB, 20 * MIB].map(|offset| ledger.returned(offset));
        assert_eq!(returned, [false, false, true]);
    }

    #[test]
    fn what_will_soon_be_there_is_not_shared() {
        let (mut ledger, now) = under_way(8 * MIB);
        assert_eq!(ledger.share(Duration::from_millis(2100), now, now), None);
        let (mut ledger, now) = under_way(28 * MIB);
        assert_eq!(
            ledger.share(Duration::ZERO, now, now),
            Some(range(60 * MIB, 4 * MIB)),
            "the last extent cannot be halved"
        );
        assert_eq!(ledger.share(Duration::ZERO, now, now), None);
    }

    #[test]
    fn nothing_is_shared_of_an_object_that_has_failed() {
        let (mut ledger, now) = under_way(0);
        ledger.abandon();
        assert_eq!((ledger.expected(now), ledger.share(Duration::ZERO, now, now)), (None, None));
    }

    proptest! {
        #[test]
        fn every_byte_is_taken_once_or_was_there(
            size in 1..200 * MIB,
            abouts in proptest::collection::vec(1..100 * MIB, 1..20),
            there in proptest::collection::btree_set(0_u64..50, 0..20),
            shared in 0..20,
        ) {
            let cuts = Cuts::new(size, Vec::new());
            let there = there.into_iter().map(|unit| unit * UNIT_BYTES).filter(|at| *at < size);
            let extents: Vec<_> = there.map(|at| {
                (at, RangeChecksum::new(Algorithm::Crc64Nvme, 0, cuts.after(at) - at))
            }).collect();
            let mut ledger = Ledger::new(cuts, extents.clone());
            let mut covered: Vec<_> = extents.iter().map(|(at, checksum)| range(*at, checksum.len_bytes())).collect();
            let mut abouts = abouts.iter().cycle();
            let began = Instant::now();
            let mut taken: BTreeMap<u64, u64> = BTreeMap::new();
            while let Some(next) = ledger.take(*abouts.next().unwrap(), began) {
                taken.insert(next.offset_bytes(), next.end_bytes());
            }
            for _ in 0..shared {
                let Some(half) = ledger.share(Duration::ZERO, began + Duration::from_secs(1), began) else { break };
                let (_, end) = taken.range_mut(..half.offset_bytes()).next_back().unwrap();
                prop_assert_eq!(std::mem::replace(end, half.offset_bytes()), half.end_bytes());
                taken.insert(half.offset_bytes(), half.end_bytes());
            }
            covered.extend(taken.iter().map(|(begin, end)| range(*begin, end - begin)));
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
