//! Random numbers that are the same for a seed on every machine and with every version of every library.

/// A sequence of numbers (SplitMix64), wholly determined by its seed. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The sequence that belongs to one place of a larger whole, so that each part can be made without the ones before it.
    pub fn at(seed: u64, place: u64) -> Random {
        let mut random = Random(seed ^ place.wrapping_mul(0xd134_2543_de82_ef95));
        Random(random.number())
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, not including, 1.
    pub fn fraction(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of `0..count`, each as likely; 0 where `count` is 0.
    pub fn below(&mut self, count: usize) -> usize {
        ((self.fraction() * count as f64) as usize).min(count.saturating_sub(1))
    }

    /// One of `0..count`, low ones more often: the first percent is taken in a tenth of the cases.
    pub fn skewed(&mut self, count: usize) -> usize {
        let fraction = self.fraction();
        ((fraction * fraction * count as f64) as usize).min(count.saturating_sub(1))
    }

    /// Whether something happens that does in so many percent of the cases.
    pub fn percent(&mut self, percent: u8) -> bool {
        self.fraction() * 100.0 < f64::from(percent)
    }

    /// One of a list that is not empty.
    pub fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// Brings a list into any order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for place in (1..list.len()).rev() {
            list.swap(place, self.below(place + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_never_changes() {
        let mut random = Random::new(7);
        let first = [random.number(), random.number()];
        assert_eq!(first, [0x63cb_e1e4_5932_0dd7, 0x044c_3cd7_f43c_661c]);
    }

    #[test]
    fn every_choice_is_in_its_range() {
        let mut random = Random::at(1, 2);
        for _ in 0..10_000 {
            assert!(random.below(3) < 3 && random.skewed(5) < 5 && random.fraction() < 1.0);
        }
        assert_eq!((random.below(0), random.skewed(0), random.percent(0)), (0, 0, false));
    }

    #[test]
    fn the_first_percent_is_taken_in_a_tenth_of_the_cases() {
        let mut random = Random::new(3);
        let taken = (0..100_000).filter(|_| random.skewed(10_000) < 100).count();
        assert!((9_000..11_000).contains(&taken), "{taken}");
    }
}
