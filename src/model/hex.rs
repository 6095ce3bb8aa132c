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

/// Sixteen bytes in lower-case hex, computed all at once: ids are written
/// several times in a request.
#[inline]
pub fn digits(bytes: &[u8; 16]) -> [u8; 32] {
    let digit = |half: u8| half + b'0' + if half > 9 { b'a' - b'0' - 10 } else { 0 };
    let pairs = bytes.map(|byte| [digit(byte >> 4), digit(byte & 0x0f)]);
    let mut text = [0; 32];
    text.copy_from_slice(pairs.as_flattened());
    text
}

/// The digits of every byte.
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
        let bytes = *b"\x00\x01\x09\x0a\x0f\x10\x19\x7f\x80\x9a\xa0\xab\xc9\xf0\xfe\xff";
        let mut slowly = [0; 32];
        write(&bytes, &mut slowly);
        assert_eq!(digits(&bytes), slowly);
        assert_eq!(&slowly, b"0001090a0f10197f809aa0abc9f0feff");
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
