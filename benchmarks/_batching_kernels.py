"""What `batching` needs compiled: events that lie in a ring become readable at one moment."""

from tickrt.compile.intrinsics import clock, load_i64, store_release
from tickrt.compile.jit import kernel


@kernel
def show(feed, count):
    """The next `count` events of the ring become readable now."""
    first, now = load_i64(feed.published), clock()
    for q in range(first, first + count):
        feed.stamps[q & feed.mask] = now
    store_release(feed.published, first + count)
