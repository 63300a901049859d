//! An allocator that counts, so that a test can say how much memory a call took at its peak.

#![expect(unsafe_code, reason = "an allocator is unsafe by nature; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread holds, and the most that it has held.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn add(bytes: isize) {
    let (held, peak) = HELD.get();
    HELD.set((held + bytes, peak.max(held + bytes)));
}

/// Signed, because what one thread allocates another may free. No layout is beyond `isize`.
fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(signed(layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(signed(layout.size()));
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        add(-signed(layout.size()));
        unsafe { System.dealloc(place, layout) }
    }

    /// Counted as if both blocks were held for a moment, which is the worst case.
    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        add(signed(new_size));
        let moved = unsafe { System.realloc(place, layout, new_size) };
        add(-signed(layout.size()));
        moved
    }
}

/// What `work` gives, and the most bytes that it held at a time.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let (before, _) = HELD.get();
    HELD.set((before, before));
    let result = work();
    let (_, peak) = HELD.get();
    (result, usize::try_from(peak - before).unwrap_or(0))
}
