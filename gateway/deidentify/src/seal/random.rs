//! Random numbers to seal with: true ones, and such that the same content is sealed to the same bytes.
//!
//! An instance that is sent again must be the same, bit for bit, or its receiver takes it for another one. So everything
//! random in an envelope may be drawn from a secret key and from what is sealed. **What that reveals**: whoever sees two
//! envelopes that were sealed with one key sees whether their content and recipients are the same, and nothing else. That
//! holds only while different content has different numbers, which [`SealRng::for_content`] sees to; with
//! [`SealRng::from_key`] it is the caller's duty.

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Error, RngCore, SeedableRng as _};
use ring::digest::{SHA256, digest};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::recipient::{Recipient, in_order};

/// Numbers for one envelope.
#[derive(Clone)]
pub struct SealRng(ChaCha20Rng);

/// Its state is a secret.
impl std::fmt::Debug for SealRng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealRng").finish_non_exhaustive()
    }
}

/// The system has no random numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandom;

impl SealRng {
    /// Numbers that nobody can repeat.
    pub fn from_system() -> Result<Self, NoRandom> {
        let mut seed = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *seed).map_err(|_| NoRandom)?;
        Ok(Self(ChaCha20Rng::from_seed(*seed)))
    }

    /// Numbers that key and context determine. The context must hold all that will be sealed, or a digest of it: two
    /// different contents under one context would share key and initialisation vector, and show where they are alike.
    pub fn from_key(key: &[u8; 32], context: &[u8]) -> Self {
        Self::derive(key, b"gantry seal context 1\0", &[context])
    }

    /// Numbers that key, content and recipients determine, the order of recipients apart. The content must be all that is
    /// sealed with them.
    pub fn for_content(key: &[u8; 32], content: &[u8], recipients: &[Recipient]) -> Self {
        let digest = digest(&SHA256, content);
        let recipients = in_order(recipients);
        let mut parts = vec![digest.as_ref()];
        parts.extend(recipients.iter().map(|recipient| recipient.fingerprint().as_slice()));
        Self::derive(key, b"gantry seal content 1\0", &parts)
    }

    fn derive(key: &[u8; 32], label: &[u8], parts: &[&[u8]]) -> Self {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        context.update(label);
        for part in parts {
            context.update(part);
        }
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(context.sign().as_ref());
        Self(ChaCha20Rng::from_seed(*seed))
    }
}

impl RngCore for SealRng {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.try_fill_bytes(bytes)
    }
}

impl CryptoRng for SealRng {}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn first(mut rng: SealRng) -> [u8; 32] {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn the_same_key_and_content_give_the_same_numbers_and_nothing_else_does() {
        let (one, other) = (testing::recipient("one"), testing::recipient("other"));
        let both = [one.clone(), other.clone()];
        let numbers = first(SealRng::for_content(&[1; 32], b"content", &both));

        let swapped = SealRng::for_content(&[1; 32], b"content", &[other, one.clone()]);
        assert_eq!(first(swapped), numbers);
        for different in [
            SealRng::for_content(&[2; 32], b"content", &both),
            SealRng::for_content(&[1; 32], b"contents", &both),
            SealRng::for_content(&[1; 32], b"content", &[one]),
            SealRng::from_key(&[1; 32], b"content"),
            SealRng::from_system().unwrap(),
        ] {
            assert_ne!(first(different), numbers);
        }
    }
}
