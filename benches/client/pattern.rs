//! What files hold: a pattern without a period, of which every part can be made by itself.

/// Fills `buffer` with the pattern as it is at `offset`, a multiple of 8.
pub(crate) fn fill(buffer: &mut [u8], offset: u64) {
    assert!(offset.is_multiple_of(8), "the pattern consists of words");
    for (index, word) in (offset / 8..).zip(buffer.chunks_mut(8)) {
        word.copy_from_slice(&splitmix64(index).to_le_bytes()[..word.len()]);
    }
}

/// The first byte of `found` that is not the one of the pattern at `offset`, a multiple of 8.
pub(crate) fn difference(found: &[u8], offset: u64) -> Option<u64> {
    assert!(offset.is_multiple_of(8), "the pattern consists of words");
    let mut at = offset;
    for word in found.chunks(8) {
        let right = &splitmix64(at / 8).to_le_bytes()[..word.len()];
        if word != right {
            let place = word.iter().zip(right).position(|(a, b)| a != b);
            return place.map(|place| at + place as u64);
        }
        at += 8;
    }
    None
}

/// Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators" (2014), with the index as
/// the state.
const fn splitmix64(index: u64) -> u64 {
    let z = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Of the memory that big uploads are sent from, again and again.
pub(crate) const PERIOD: usize = 1 << 20;
