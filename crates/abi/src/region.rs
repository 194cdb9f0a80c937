//! Region: the one struct that crosses the border, and the one place where anything of it is checked.

use core::fmt;
use core::ops::Range;

/// A piece of a guest's linear memory: 12 bytes, three little-endian u32 in the order of the fields, at any address
/// (no alignment is asked for).
///
/// ```
/// use slung_abi::Region;
/// let mut memory = [0; 64];
/// memory[40..45].copy_from_slice(b"AVG:t");
/// let region = Region { offset: 40, capacity: 8, length: 5 };
/// memory[16..28].copy_from_slice(&region.encode());
/// assert_eq!(Region::data(&memory, 16), Ok(&b"AVG:t"[..]));
/// ```
#[repr(C)] // in a guest, which is little-endian, the struct in memory is its own encoding
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Region {
    /// Address of the first byte of data.
    pub offset: u32,
    /// Bytes reserved there.
    pub capacity: u32,
    /// Bytes in use, at most `capacity`.
    pub length: u32,
}

const _: () = assert!(size_of::<Region>() == Region::SIZE);

/// Why a Region, or the address of one, can't be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegionError {
    /// The Region's address is 0.
    Null,
    /// The 12 bytes of the Region are not all in the memory.
    Outside {
        /// The Region's address.
        address: u32,
        /// Bytes that the memory has.
        memory_bytes: usize,
    },
    /// More bytes in use than reserved.
    LengthOverCapacity {
        /// Bytes said to be in use.
        length: u32,
        /// Bytes said to be reserved.
        capacity: u32,
    },
    /// There is data, but its address is 0.
    NullData {
        /// Bytes said to be reserved there.
        capacity: u32,
    },
    /// What is reserved is not all in the memory.
    DataOutside {
        /// Address of the first byte.
        offset: u32,
        /// Bytes said to be reserved there.
        capacity: u32,
        /// Bytes that the memory has.
        memory_bytes: usize,
    },
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Null => f.write_str("the address of the Region is 0"),
            Self::Outside { address, memory_bytes } => {
                write!(f, "the Region at {address} ends past the memory of {memory_bytes} bytes")
            }
            Self::LengthOverCapacity { length, capacity } => {
                write!(f, "the Region's length {length} is over its capacity {capacity}")
            }
            Self::NullData { capacity } => {
                write!(f, "the Region has {capacity} bytes at address 0")
            }
            Self::DataOutside { offset, capacity, memory_bytes } => {
                write!(f, "the Region's {capacity} bytes at {offset} end past the memory of {memory_bytes} bytes")
            }
        }
    }
}

impl core::error::Error for RegionError {}

impl Region {
    /// Bytes of a Region in memory.
    pub const SIZE: usize = 12;

    /// The 12 bytes in memory.
    pub const fn encode(self) -> [u8; Self::SIZE] {
        let [a, b, c, d] = self.offset.to_le_bytes();
        let [e, f, g, h] = self.capacity.to_le_bytes();
        let [i, j, k, l] = self.length.to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }

    /// The Region that those 12 bytes stand for. Says nothing about whether it can be believed: see
    /// [`validate`](Self::validate).
    #[inline]
    pub const fn decode(bytes: [u8; Self::SIZE]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self {
            offset: u32::from_le_bytes([a, b, c, d]),
            capacity: u32::from_le_bytes([e, f, g, h]),
            length: u32::from_le_bytes([i, j, k, l]),
        }
    }

    /// Where the bytes in use are, in a memory of that many bytes. No field is believed before it is checked, the
    /// capacity included. An empty Region may have any address in the memory, its end and 0 included; a Region with a
    /// capacity never has address 0, which is what "none" looks like in this ABI.
    ///
    /// # Errors
    /// [`RegionError`] says which field is wrong. Never [`RegionError::Null`] or [`RegionError::Outside`], which are
    /// about the Region's own address.
    #[inline]
    pub const fn validate(self, memory_bytes: usize) -> Result<Range<usize>, RegionError> {
        let Self { offset, capacity, length } = self;
        if length > capacity {
            return Err(RegionError::LengthOverCapacity { length, capacity });
        }
        if offset == 0 && capacity > 0 {
            return Err(RegionError::NullData { capacity });
        }
        if span(offset, capacity, memory_bytes).is_none() {
            return Err(RegionError::DataOutside { offset, capacity, memory_bytes });
        }
        let start = offset as usize;
        Ok(start..start + length as usize)
    }

    /// The Region at that address of a memory, not yet validated.
    ///
    /// # Errors
    /// [`RegionError::Null`] and [`RegionError::Outside`].
    #[inline]
    pub fn read(memory: &[u8], address: u32) -> Result<Self, RegionError> {
        if address == 0 {
            return Err(RegionError::Null);
        }
        let bytes = span(address, Self::SIZE as u32, memory.len())
            .and_then(|span| memory.get(span))
            .and_then(|bytes| <[u8; Self::SIZE]>::try_from(bytes).ok());
        bytes.map(Self::decode).ok_or(RegionError::Outside { address, memory_bytes: memory.len() })
    }

    /// The data in use of the Region at that address of a memory: [`read`](Self::read), [`validate`](Self::validate)
    /// and look.
    ///
    /// # Errors
    /// Everything of [`RegionError`].
    #[inline]
    pub fn data(memory: &[u8], address: u32) -> Result<&[u8], RegionError> {
        let region = Self::read(memory, address)?;
        let range = region.validate(memory.len())?;
        let Self { offset, capacity, .. } = region;
        memory.get(range).ok_or(RegionError::DataOutside { offset, capacity, memory_bytes: memory.len() })
    }
}

/// Where `bytes` bytes at `address` are in a memory of `memory_bytes`, or `None` if they are not all in it. Right at the
/// extremes of u32: nothing overflows. Says nothing about address 0.
#[inline]
pub const fn span(address: u32, bytes: u32, memory_bytes: usize) -> Option<Range<usize>> {
    let end = address as u64 + bytes as u64; // at most 2^33
    if end > memory_bytes as u64 {
        return None;
    }
    Some(address as usize..end as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_little_endian_in_order() {
        let region = Region { offset: 0x0403_0201, capacity: 0x0807_0605, length: 0x0c0b_0a09 };
        assert_eq!(region.encode(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(Region::decode(region.encode()), region);
    }

    #[test]
    fn extremes() {
        const MAX: u32 = u32::MAX;
        const FOUR_GIB: usize = 1 << 32;
        let region = |offset, capacity, length| Region { offset, capacity, length };
        let outside = |offset, capacity, memory_bytes| Err(RegionError::DataOutside { offset, capacity, memory_bytes });
        let table = [
            (region(0, 0, 0), 0, Ok(0..0)),
            (region(0, 0, 0), 65536, Ok(0..0)),
            (region(0, 1, 0), 65536, Err(RegionError::NullData { capacity: 1 })),
            (region(0, 1, 1), 65536, Err(RegionError::NullData { capacity: 1 })),
            (region(1, 0, 0), 0, outside(1, 0, 0)),
            (region(1, 0, 0), 65536, Ok(1..1)),
            (region(1, 65535, 3), 65536, Ok(1..4)),
            (region(1, 65536, 3), 65536, outside(1, 65536, 65536)),
            (region(65536, 0, 0), 65536, Ok(65536..65536)),
            (region(65537, 0, 0), 65536, outside(65537, 0, 65536)),
            (region(8, 4, 5), 65536, Err(RegionError::LengthOverCapacity { length: 5, capacity: 4 })),
            (region(MAX, MAX, MAX), FOUR_GIB, outside(MAX, MAX, FOUR_GIB)),
            (region(MAX, 1, 1), FOUR_GIB, Ok(FOUR_GIB - 1..FOUR_GIB)),
            (region(MAX, 2, 0), FOUR_GIB, outside(MAX, 2, FOUR_GIB)),
            (region(1, MAX, MAX), FOUR_GIB, Ok(1..FOUR_GIB)),
            (region(MAX, 0, MAX), FOUR_GIB, Err(RegionError::LengthOverCapacity { length: MAX, capacity: 0 })),
            (region(MAX, 1, 1), 65536, outside(MAX, 1, 65536)),
        ];
        for (region, memory_bytes, expected) in table {
            assert_eq!(region.validate(memory_bytes), expected, "{region:?} in {memory_bytes}");
        }
    }

    #[test]
    fn where_the_region_itself_may_be() {
        let memory = [0; 32];
        let outside = |address| Err(RegionError::Outside { address, memory_bytes: 32 });
        assert_eq!(Region::read(&memory, 0), Err(RegionError::Null));
        assert_eq!(Region::read(&memory, 1), Ok(Region::default()));
        assert_eq!(Region::read(&memory, 20), Ok(Region::default()));
        assert_eq!(Region::read(&memory, 21), outside(21));
        assert_eq!(Region::read(&memory, u32::MAX), outside(u32::MAX));
        assert_eq!(Region::read(&memory, u32::MAX - 11), outside(u32::MAX - 11));
        assert_eq!(Region::read(&[], 1), Err(RegionError::Outside { address: 1, memory_bytes: 0 }));
    }
}
