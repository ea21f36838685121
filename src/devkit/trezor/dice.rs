//! Randomness with a seed: session ids and PIN grids that a test can repeat.

/// SplitMix64: plenty for a simulator, and nothing that it makes is a secret.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    /// From a seed, or afresh: a simulator that is started again must not hand out the session
    /// ids of the one before, or a host would take a new session for its old one.
    pub(super) fn new(seed: Option<u64>) -> std::io::Result<Self> {
        match seed {
            Some(seed) => Ok(Self(seed)),
            None => Ok(Self(getrandom::u64()?)),
        }
    }

    pub(super) fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_be_bytes());
        }
        bytes
    }

    /// The nine digits in any order.
    pub(super) fn pin_matrix(&mut self) -> String {
        let mut digits = ['1', '2', '3', '4', '5', '6', '7', '8', '9'];
        for last in (1..digits.len()).rev() {
            let bound = u64::try_from(last + 1).expect("there are nine digits");
            let other = usize::try_from(self.next() % bound).expect("there are nine digits");
            digits.swap(last, other);
        }
        digits.iter().collect()
    }

    /// 24 digits in hex, as a device makes itself a name after a wipe.
    pub(super) fn device_id(&mut self) -> String {
        alloy::primitives::hex::encode_upper(&self.bytes()[..12])
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
