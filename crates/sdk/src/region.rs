//! The memory that a guest and its host share: Regions, and the two exports by which the host reserves and frees.
//!
//! One rule carries all of it: **what crosses the border is allocated with alignment 1 and exactly its capacity**. That
//! is the layout of a `Vec<u8>`, so the data becomes one without a copy, and it is the layout by which [`deallocate`]
//! frees. Regions are allocated the same way, since the host asks for their bytes like for any others, and are therefore
//! read and written unaligned.
//!
//! Nothing here depends on wasm32: the tests run natively, with the native width of an address.
#![expect(unsafe_code, reason = "memory is handed over to the host and taken back as plain addresses")]

use std::alloc::{Layout, alloc, dealloc};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;

/// A piece of this module's memory, as the host is told of it: address, capacity and length.
///
/// In a guest it is 12 bytes: three little-endian u32 in this order, as the ABI has it.
///
/// ```
/// use slung::Region;
/// let query = String::from("AVG:temp:[sensor=1]");
/// let region = Region::build(query.as_bytes());
/// # drop(region);
/// ```
///
/// A Region borrows what it describes, so the host is never pointed at memory that is gone. This does not compile,
/// because the text is dropped at the end of its statement and the Region is used after it:
///
/// ```compile_fail,E0716
/// use slung::Region;
/// let region = Region::build(String::from("AVG:temp:[sensor=1]").as_bytes());
/// drop(region);
/// ```
///
/// Nor does this:
///
/// ```compile_fail,E0505
/// use slung::Region;
/// let query = String::from("AVG:temp:[sensor=1]");
/// let region = Region::build(query.as_bytes());
/// drop(query);
/// drop(region);
/// ```
#[repr(C)]
#[derive(Debug)]
pub struct Region<'a> {
    offset: *const u8,
    capacity: usize,
    length: usize,
    data: PhantomData<&'a [u8]>,
}

#[cfg(target_arch = "wasm32")]
const _: () = assert!(size_of::<Region<'_>>() == slung_abi::Region::SIZE, "a Region is 12 bytes in the ABI");

impl<'a> Region<'a> {
    /// Describes bytes that stay where they are: an argument of a host function. The host reads them during the call and
    /// frees nothing.
    pub fn build(data: &'a [u8]) -> Self {
        Self { offset: data.as_ptr(), capacity: data.len(), length: data.len(), data: PhantomData }
    }
}

impl Region<'static> {
    /// Gives the bytes away: answers the address of a Region that describes them, for a host which reads it and then
    /// calls `deallocate` with that address (or for [`consume`](Self::consume), which takes it back). Until one of them
    /// does, the memory is leaked, which is safe.
    ///
    /// The address need not be aligned.
    ///
    /// # Panics
    /// Where there is no memory for the Region.
    pub fn release_buffer(data: Vec<u8>) -> *mut Self {
        let mut data = ManuallyDrop::new(data);
        let region =
            Self { offset: data.as_mut_ptr(), capacity: data.capacity(), length: data.len(), data: PhantomData };
        let address = allocate(size_of::<Self>()).cast::<Self>();
        assert!(!address.is_null(), "out of memory for a Region");
        // SAFETY: `allocate` has just reserved the size of a Region there; the write does not ask for alignment.
        unsafe { address.write_unaligned(region) };
        address
    }

    /// Takes over the bytes of a Region that the host made (or [`release_buffer`](Self::release_buffer)), without a
    /// copy, and frees the Region itself.
    ///
    /// # Safety
    /// `region` is the address of a Region that nobody has consumed or freed. It and what it describes were reserved by
    /// this module's `allocate`, the data with exactly `capacity` bytes, of which the first `length` have been written;
    /// or it came from [`release_buffer`](Self::release_buffer).
    ///
    /// # Panics
    /// If its length is over its capacity.
    pub unsafe fn consume(region: *mut Self) -> Vec<u8> {
        // SAFETY: by this function's contract a Region is there; the read does not ask for alignment. What is read is
        // plain numbers, so that the copy that stays behind means nothing.
        let Self { offset, capacity, length, .. } = unsafe { region.read_unaligned() };
        assert!(length <= capacity, "the Region's length {length} is over its capacity {capacity}");
        // SAFETY: by this function's contract the Region was reserved by `allocate`, or by `release_buffer` through it,
        // with its own size; and nobody else frees it.
        unsafe { dealloc(region.cast(), layout(size_of::<Self>()).expect("the size of a Region is a layout")) };
        // SAFETY: by this function's contract `offset` was reserved with `capacity` bytes at alignment 1 (which is how
        // `allocate` and every `Vec<u8>` do it; of no bytes, a dangling address suffices), the first `length` are
        // written, `length <= capacity` was checked, and nobody else owns them.
        unsafe { Vec::from_raw_parts(offset.cast_mut(), length, capacity) }
    }
}

/// How `bytes` that cross the border are allocated; `None` where no memory could hold them.
fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, 1).ok()
}

/// Export: reserves that many bytes for the host, and answers the address of the first one; 0 where it can't. For no
/// bytes at all the address is one that is never read.
#[cfg_attr(target_arch = "wasm32", unsafe(no_mangle))]
extern "C" fn allocate(bytes: usize) -> *mut u8 {
    match layout(bytes) {
        None => std::ptr::null_mut(),
        Some(layout) if layout.size() == 0 => std::ptr::dangling_mut(),
        // SAFETY: the layout's size is not 0.
        Some(layout) => unsafe { alloc(layout) },
    }
}

/// Export: frees a Region and the bytes that it describes.
///
/// # Safety
/// That of [`Region::consume`]: the host's part of the contract.
#[cfg_attr(target_arch = "wasm32", unsafe(no_mangle))]
#[cfg_attr(not(any(target_arch = "wasm32", test)), expect(dead_code, reason = "called by the host"))]
unsafe extern "C" fn deallocate(region: *mut Region<'static>) {
    // SAFETY: by this function's contract.
    drop(unsafe { Region::consume(region) });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a host does with a result: reserve data and Region, write both.
    fn answer(data: &[u8], spare: usize) -> *mut Region<'static> {
        let capacity = data.len() + spare;
        let offset = allocate(capacity);
        let region = allocate(size_of::<Region<'_>>()).cast::<Region<'_>>();
        assert!(!offset.is_null() && !region.is_null());
        // SAFETY: `allocate` reserved at least as many bytes at each address as are written there.
        unsafe {
            offset.copy_from_nonoverlapping(data.as_ptr(), data.len());
            region.write_unaligned(Region { offset, capacity, length: data.len(), data: PhantomData });
        }
        region
    }

    #[test]
    fn what_the_host_answers_becomes_a_vec() {
        for (data, spare) in [(&b"{}"[..], 0), (b"", 0), (b"", 9), (b"spare room", 100), (&[7; 300_000], 0)] {
            // SAFETY: `answer` made the Region as a host does.
            let taken = unsafe { Region::consume(answer(data, spare)) };
            assert_eq!(taken, data);
            assert_eq!(taken.capacity(), data.len() + spare, "taken over as it is");
        }
    }

    #[test]
    fn what_is_handed_over_can_be_freed_by_the_host() {
        let mut roomy = Vec::with_capacity(64);
        roomy.extend_from_slice(b"more room than bytes");
        for data in [roomy, b"exact".to_vec(), Vec::new()] {
            // SAFETY: the Region comes from `release_buffer`, or from what plays the host.
            unsafe {
                deallocate(Region::release_buffer(data.clone()));
                deallocate(answer(&data, 3));
                assert_eq!(Region::consume(Region::release_buffer(data.clone())), data);
            }
        }
    }

    #[test]
    fn more_than_any_memory_is_refused() {
        assert!(allocate(usize::MAX).is_null());
        assert!(allocate(isize::MAX as usize + 1).is_null());
        assert!(!allocate(0).is_null(), "no bytes are always there");
    }

    #[test]
    #[should_panic(expected = "length 5 is over its capacity 4")]
    fn a_length_over_the_capacity_is_refused() {
        let region = answer(b"five!", 0);
        // SAFETY: the Region is there, and is about to be refused.
        unsafe {
            let mut broken = region.read_unaligned();
            broken.capacity = 4;
            region.write_unaligned(broken);
            Region::consume(region);
        }
    }

    #[test]
    fn a_built_region_describes_the_bytes_in_place() {
        let data = b"AVG:temp:[]".to_vec();
        let region = Region::build(&data);
        assert_eq!((region.offset, region.capacity, region.length), (data.as_ptr(), data.len(), data.len()));
    }
}
