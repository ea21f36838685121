//! Deposit addresses below an account's extended public key, against the library that derives them
//! one by one.

use std::hint::black_box;

use alloy::primitives::{Address, keccak256};
use amanatd::account::{AccountXpub, AddressIndex, Branch, Deriver};
use bip32::{ChildNumber, XPub};
use k256::elliptic_curve::sec1::ToSec1Point;
use k256::{AffinePoint, ProjectivePoint};
use pair::{Bench, Equal, Pair, Random, Side};
use sha2::{Digest, Sha512};

mod pair;

/// An account of a public test seed.
const XPUB: &str = "xpub6CNFa58kEQJu2hwMVoofpDEKVVSg6gfwqBqE2zHAianaUnQkrJzJJ42iLDp7Dmg2aP88qCKoFZ4jidk3tECdQuF4567NGHDfe7iBRwHxgke";
const INDICES: usize = 10_000;
const BATCH: usize = 256;
const SEED: u64 = 1;
/// Steps of a table with one entry for each byte of the tweak.
const COMB_STEPS: usize = 32;

fn main() {
    let bench = Bench::start("derive");
    bench.note(&format!(
        "{INDICES} random indices of 0 to {}, seed {SEED}, change level derived before; batches of {BATCH}",
        AddressIndex::MAX
    ));
    bench.note(&format!(
        "limit: two SHA-512 blocks, {COMB_STEPS} mixed point additions of k256 and one keccak for each address, measured in the run"
    ));
    let mut random = Random::seeded(SEED);
    let indices: Vec<AddressIndex> = (0..INDICES)
        .map(|_| {
            let number = random.below(u64::from(AddressIndex::MAX) + 1);
            AddressIndex::new(u32::try_from(number).expect("below the bound")).expect("below the bound")
        })
        .collect();

    let account: AccountXpub = XPUB.parse().expect("a good xpub");
    let deriver = Deriver::new(&account, Branch::Deposit).expect("a good branch");
    let parent: XPub = XPUB.parse().expect("a good xpub");
    let parent = parent.derive_child(ChildNumber::new(Branch::Deposit.change(), false).expect("not hardened")).expect("a good branch");

    let library = |index: AddressIndex| library_address(&parent, index);
    let single = |index: AddressIndex| deriver.address(index).expect("a valid index");
    let batch = |indices: &[AddressIndex]| deriver.addresses(indices).expect("valid indices");
    let theirs: Vec<Address> = indices.iter().copied().map(library).collect();
    let singles: Vec<Address> = indices.iter().copied().map(single).collect();
    let batches: Vec<Address> = indices.chunks(BATCH).flat_map(batch).collect();
    let single_equal = Equal::proved("single", &singles, &theirs);
    let batch_equal = Equal::proved("batch", &batches, &theirs);

    let baseline = "bip32 0.6 XPub::derive_child";
    // A part of the indices for each call, so that the sides take turns often; over the rounds, all.
    let part = 1_000;
    let mut parts = [(); 4].map(|()| indices.chunks_exact(part).cycle());
    let [single_ours, single_theirs, batch_ours, batch_theirs] = &mut parts;
    bench.compare(
        &Pair { variant: "Deriver::address, one by one", baseline, equal: single_equal },
        Side::timed(part, || next(single_ours).iter().for_each(|index| keep(single(*index)))),
        Side::timed(part, || next(single_theirs).iter().for_each(|index| keep(library(*index)))),
        Some(primitives(part)),
    );
    bench.compare(
        &Pair { variant: "Deriver::addresses, batches", baseline, equal: batch_equal },
        Side::timed(part, || next(batch_ours).chunks(BATCH).for_each(|some| keep(batch(some)))),
        Side::timed(part, || next(batch_theirs).iter().for_each(|index| keep(library(*index)))),
        Some(primitives(part)),
    );
}

fn next<'a>(parts: &mut impl Iterator<Item = &'a [AddressIndex]>) -> &'a [AddressIndex] {
    parts.next().expect("a cycle has no end")
}

/// The optimiser must not see that nobody wants the result.
fn keep<T>(result: T) {
    black_box(result);
}

/// As the library's documentation has it: derive the child, take its public key.
fn library_address(parent: &XPub, index: AddressIndex) -> Address {
    let child = parent.derive_child(ChildNumber::new(index.get(), false).expect("not hardened")).expect("a valid index");
    let point = child.public_key().as_affine().to_sec1_point(false);
    Address::from_raw_public_key(&point.as_bytes()[1..])
}

/// What no derivation on this arithmetic can do without.
fn primitives(items: usize) -> Side<'static> {
    let table: Vec<AffinePoint> = {
        let generator = AffinePoint::GENERATOR;
        let mut sum = ProjectivePoint::GENERATOR;
        (0..COMB_STEPS)
            .map(|_| {
                sum += generator;
                sum.to_affine()
            })
            .collect()
    };
    let mut block = [7_u8; 64];
    Side::timed(items, move || {
        for _ in 0..items {
            let inner = Sha512::digest(block);
            let outer = Sha512::digest(inner);
            let sum = table.iter().fold(ProjectivePoint::GENERATOR, |sum, point| sum + point);
            black_box(sum);
            block.copy_from_slice(&outer);
            black_box(keccak256(block));
        }
    })
}
