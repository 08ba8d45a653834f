//! Keyed draws: every draw is a hash of (seed, what for, of whom, how many before), so that taking one fault out of a plan
//! leaves every other latency as it was.

/// What a draw is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum For {
    Tie,
    Api,
    Watch,
    Peer,
    Socket,
    Query,
    Task,
    Flush,
    Stream,
    Client,
    Process,
    Swarm,
    SwarmOp,
    Crash,
    Reload,
    Source,
    Kubelet,
}

const KINDS: usize = 17;
/// Entities that draw: members' instances, clients; more share.
const ENTITIES: usize = 32;

/// All draws of a run.
#[derive(Debug, Clone)]
pub(crate) struct Draws {
    seed: u64,
    counters: Vec<u32>,
}

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, counters: vec![0; KINDS * ENTITIES] }
    }

    /// The next number for this use by this entity.
    pub(crate) fn next(&mut self, what: For, entity: usize) -> u64 {
        let index = what as usize * ENTITIES + entity % ENTITIES;
        let counter = &mut self.counters[index];
        *counter = counter.wrapping_add(1);
        mix(mix(self.seed ^ (index as u64) << 40) ^ u64::from(*counter))
    }

    /// Below `n`; 0 for 0.
    pub(crate) fn below(&mut self, what: For, entity: usize, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next(what, entity) % n }
    }

    /// Between the two, both included.
    pub(crate) fn between(&mut self, what: For, entity: usize, low: u64, high: u64) -> u64 {
        low + self.below(what, entity, high.saturating_sub(low) + 1)
    }

    /// True so many times in a thousand.
    pub(crate) fn chance(&mut self, what: For, entity: usize, per_mille: u64) -> bool {
        self.below(what, entity, 1000) < per_mille
    }

    /// Exponentially distributed, by integers only: floating point functions differ between machines.
    pub(crate) fn exponential(&mut self, what: For, entity: usize, mean: u64) -> u64 {
        let x = self.next(what, entity) | 1;
        let zeros = u64::from(x.leading_zeros());
        // -log2 of x / 2^64 in 1/1024, linear between powers of two.
        let mantissa = (x << zeros) >> 54; // 512..=1023
        let log = zeros * 1024 + (1024 - mantissa) * 2;
        // ln 2 = 710/1024.
        mean.saturating_mul(log).saturating_mul(710) >> 20
    }

    /// Between the two, each power of two as likely as the next.
    pub(crate) fn log_uniform(&mut self, what: For, entity: usize, low: u64, high: u64) -> u64 {
        let (mut span, mut steps) = (low.max(1), 0);
        while span.saturating_mul(2) <= high {
            span *= 2;
            steps += 1;
        }
        let base = low.max(1) << self.below(what, entity, steps + 1);
        self.between(what, entity, base, (base * 2 - 1).min(high))
    }
}

/// The finalizer of splitmix64.
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_exponential_draws_is_the_mean() {
        let mut draws = Draws::new(1);
        let sum: u64 = (0..100_000).map(|_| draws.exponential(For::Client, 0, 1000)).sum();
        assert!((96_000_000..104_000_000).contains(&sum), "{sum}");
    }

    #[test]
    fn one_users_draws_do_not_move_anothers() {
        let (mut a, mut b) = (Draws::new(7), Draws::new(7));
        a.next(For::Api, 1);
        assert_eq!(a.next(For::Api, 2), b.next(For::Api, 2));
    }
}
