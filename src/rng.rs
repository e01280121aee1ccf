//! Random numbers without state: a value is a function of (seed, stream, index), so that any
//! sample, weight or permutation can be computed alone, in any order, on any thread.

/// SplitMix64's output function (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
#[inline(always)]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A family of random values: one per index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The stream numbered `stream` of `seed`. Different numbers give unrelated values.
    pub fn new(seed: u64, stream: u64) -> Self {
        let key = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15))
            ^ mix(stream.wrapping_mul(0xd1b5_4a32_d192_ed03).wrapping_add(0x8cb9_2ba7_2f3d_8dd7));
        Stream { key: mix(key) }
    }

    /// A stream below this one.
    pub fn sub(&self, stream: u64) -> Stream {
        Stream::new(self.key, stream)
    }

    /// 64 random bits.
    #[inline(always)]
    pub fn bits(&self, index: u64) -> u64 {
        mix(mix(self.key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))) ^ self.key)
    }

    /// Uniform in [0, 1), 53 bits.
    #[inline(always)]
    pub fn uniform(&self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal (Box–Muller; the cosine branch only, so that one index is one value).
    pub fn normal(&self, index: u64) -> f64 {
        let u = 1.0 - self.uniform(index.wrapping_mul(2));
        let v = self.uniform(index.wrapping_mul(2).wrapping_add(1));
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Uniform in `0..n`; `n` must not be 0. The bias is below n / 2^64.
    pub fn below(&self, index: u64, n: u64) -> u64 {
        ((self.bits(index) as u128 * n as u128) >> 64) as u64
    }
}

/// A seeded permutation of `0..n` in constant memory: a four-round Feistel network on the next
/// even number of bits, walked until it lands inside (Black and Rogaway 2002, "Ciphers with
/// arbitrary finite domains").
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [Stream; 4],
}

impl Permutation {
    /// The permutation of `0..n` that belongs to `stream`.
    pub fn new(n: u64, stream: Stream) -> Self {
        let bits = 64 - n.saturating_sub(1).leading_zeros();
        Permutation { n, half_bits: bits.div_ceil(2).max(1), keys: std::array::from_fn(|i| stream.sub(i as u64)) }
    }

    /// Where `index` goes. `index` must be below `n`.
    pub fn apply(&self, index: u64) -> u64 {
        assert!(index < self.n, "index {index} outside a permutation of {}", self.n);
        let [mut x] = self.network([index]);
        while x >= self.n {
            [x] = self.network([x]);
        }
        x
    }

    /// One walk through the network for each value; several at once do not wait for each other's products.
    #[inline]
    fn network<const N: usize>(&self, x: [u64; N]) -> [u64; N] {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (x.map(|x| x >> self.half_bits), x.map(|x| x & mask));
        for key in &self.keys {
            let mixed = right.map(|right| key.bits(right) & mask);
            (left, right) = (right, std::array::from_fn(|i| left[i] ^ mixed[i]));
        }
        std::array::from_fn(|i| (left[i] << self.half_bits) | right[i])
    }

    /// Where each of `indices` goes, which must be below `n`. Faster than one after the other: all walk once, then those
    /// that are still outside, eight at a time.
    pub fn apply_all(&self, indices: &mut [u64]) {
        if let Some(index) = indices.iter().find(|&&index| index >= self.n) {
            panic!("index {index} outside a permutation of {}", self.n);
        }
        let mut outside: Vec<u32> = (0..indices.len() as u32).collect();
        while !outside.is_empty() {
            let mut left = 0;
            for first in (0..outside.len()).step_by(8) {
                let here = first..outside.len().min(first + 8);
                // a place that is left over walks from 0
                let mut places = [u32::MAX; 8];
                places[..here.len()].copy_from_slice(&outside[here.clone()]);
                let walked = self.network(places.map(|place| indices.get(place as usize).map_or(0, |&index| index)));
                for (&place, &index) in places[..here.len()].iter().zip(&walked) {
                    indices[place as usize] = index;
                    // without a branch, which would be guessed wrongly half of the time
                    outside[left] = place;
                    left += usize::from(index >= self.n);
                }
            }
            outside.truncate(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_hits_every_index_once() {
        for n in [1, 2, 3, 7, 64, 1000, 4097] {
            let p = Permutation::new(n, Stream::new(5, 9));
            let mut seen = vec![false; n as usize];
            (0..n).for_each(|i| assert!(!std::mem::replace(&mut seen[p.apply(i) as usize], true)));
            let mut all: Vec<u64> = (0..n).collect();
            p.apply_all(&mut all);
            assert!(all.iter().zip(0..n).all(|(&to, i)| to == p.apply(i)));
        }
    }

    /// Runs that began with an earlier version must go on with the same samples.
    #[test]
    fn permutations_stay_what_they_were() {
        for (n, last, all) in [
            (5, 4, 0x8e9d_8408_4c5d_15c4),
            (1000, 103, 0xa148_2925_3b73_5394),
            (470_188, 389_016, 0xc1ac_87da_354b_5a2d),
            (1 << 40, 36_877_017_840, 0x280a_f30a_fc29_82b6u64),
        ] {
            let mut found: Vec<u64> = (0..n.min(1000)).collect();
            Permutation::new(n, Stream::new(1, 2)).apply_all(&mut found);
            assert_eq!(found.last(), Some(&last));
            assert_eq!(found.iter().fold(0, |sum: u64, &x| sum.wrapping_mul(0x100_0000_01b3) ^ x), all, "{n}");
        }
    }

    #[test]
    fn permutations_differ_between_streams() {
        let (a, b) = (Permutation::new(1000, Stream::new(1, 0)), Permutation::new(1000, Stream::new(1, 1)));
        let same = (0..1000).filter(|&i| a.apply(i) == b.apply(i)).count();
        assert!(same < 20, "{same} fixed points in common");
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let s = Stream::new(42, 3);
        let n = 200_000;
        let mean = (0..n).map(|i| s.uniform(i)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 3e-3, "{mean}");
        let (m1, m2) = (0..n).map(|i| s.normal(i)).fold((0.0, 0.0), |(a, b), x| (a + x, b + x * x));
        assert!((m1 / n as f64).abs() < 1e-2 && (m2 / n as f64 - 1.0).abs() < 2e-2, "{m1} {m2}");
        assert!((0..1000).all(|i| s.below(i, 7) < 7));
    }
}
