//! Fixed-width lower-case hex, both ways.

/// Reads exactly `2 * N` lower-case hex digits.
pub fn read<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// As [`read`], and not all zero: an id.
pub fn read_id<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    read(text).filter(|id| id != &[0; N])
}

const fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

/// Writes lower-case hex. `text` must be twice as long as `bytes`; what does
/// not fit is left alone.
pub fn write(bytes: &[u8], text: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair.copy_from_slice(&PAIRS[usize::from(*byte)]);
    }
}

/// The digits of every byte: ids are written several times in a request.
static PAIRS: [[u8; 2]; 256] = {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0x0f]];
        byte += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_lower_case_and_fixed_width() {
        let mut text = [0; 6];
        write(&[0x00, 0xab, 0x0f], &mut text);
        assert_eq!(&text, b"00ab0f");
        assert_eq!(read(&text), Some([0x00, 0xab, 0x0f]));
        assert_eq!(read::<3>(b"00AB0F"), None);
        assert_eq!(read::<3>(b"00ab0"), None);
        assert_eq!(read::<3>(b"00ab0f0"), None);
        assert_eq!(read_id::<2>(b"0000"), None);
    }
}
