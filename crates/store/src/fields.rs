//! Reads numbers that follow one another in bytes that nobody vouches for.

use crate::format::Invalid;

/// What is left to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next so many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Invalid> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Invalid> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Invalid> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Invalid> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Invalid> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Invalid> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Invalid> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn f64(&mut self) -> Result<f64, Invalid> {
        self.array().map(f64::from_le_bytes)
    }

    /// Nothing may be left over.
    pub(crate) fn end(&self) -> Result<(), Invalid> {
        if self.0.is_empty() { Ok(()) } else { Err(Invalid("there is more than there should be")) }
    }
}

const CUT_SHORT: Invalid = Invalid("it is cut short");
