//! What the compressed sections of an ELF file unpack to, all together: each is bounded where it is read, but
//! there may be many.

use crate::guard::Malformed;

/// All of them are in memory at once while a file is read.
const MOST: u64 = 2 << 30;
/// How many times its file all may be, when they are larger than this.
const MOST_PACKED: u64 = 16;
const LEAST: u64 = 64 << 20;
const COMPRESSED: u64 = 0x800;

/// Refuses a file whose sections claim to unpack to too much. They unpack to what they claim, or are not read.
pub(crate) fn check(data: &[u8]) -> Result<(), Malformed> {
    let claimed = claimed(data).unwrap_or(0);
    let most = (data.len() as u64).saturating_mul(MOST_PACKED).clamp(LEAST, MOST);
    if claimed > most {
        return Err(Malformed::new(format_args!(
            "the compressed sections claim to be {} MiB, and at most {} are unpacked",
            claimed >> 20,
            most >> 20
        )));
    }
    Ok(())
}

/// None for what is no ELF file, or ends early.
fn claimed(data: &[u8]) -> Option<u64> {
    let rest = data.strip_prefix(b"\x7fELF")?;
    let (wide, little) = (*rest.first()? == 2, *rest.get(1)? == 1);
    let number = |at: u64, size: usize| -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = data.get(at..at.checked_add(size)?)?;
        let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    };
    let word = if wide { 8 } else { 4 };
    let table = number(if wide { 40 } else { 32 }, word)?;
    let size = number(if wide { 58 } else { 46 }, 2)?;
    let count = match number(if wide { 60 } else { 48 }, 2)? {
        // More than fit here: the first section has them.
        0 => number(table.checked_add(if wide { 32 } else { 20 })?, word)?,
        count => count,
    };
    let mut sum = 0_u64;
    for section in 0..count.min(data.len() as u64 / size.max(1)) {
        let at = table.checked_add(section.checked_mul(size)?)?;
        let Some(flags) = number(at.checked_add(8)?, word) else { break };
        let begin = number(at.checked_add(if wide { 24 } else { 16 })?, word)?;
        let unpacked = if flags & COMPRESSED != 0 {
            number(begin.checked_add(if wide { 8 } else { 4 })?, word)
        } else {
            // As it was done before there was a flag: `ZLIB` and the size, its first byte first.
            let from = usize::try_from(begin).ok()?;
            let head = data.get(from..from.saturating_add(12));
            head.and_then(|head| head.strip_prefix(b"ZLIB"))
                .and_then(|size| <[u8; 8]>::try_from(size).ok())
                .map(u64::from_be_bytes)
        };
        sum = sum.saturating_add(unpacked.unwrap_or(0));
    }
    Some(sum)
}
