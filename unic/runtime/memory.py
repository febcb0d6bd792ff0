"""Memory that a job gives back and asks for again."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT = 2**28  # bytes at most that are kept at the end of the heap
_LARGE = 2**25  # bytes from which an array is mapped for itself, the most that glibc allows


def keep_freed_memory() -> bool:
    """Keep freed memory of this process for the arrays that come next, where glibc allocates it.

    Steps of a training free all that they computed, and by default glibc then gives the end of its
    heap back to the system, which fills every page with zeros when the next step asks for it. At
    most 256 MB are kept.

    Returns:
        Whether that was done; other C libraries are left as they are.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    return bool(set_option(_TRIM_THRESHOLD, _KEPT) and set_option(_MMAP_THRESHOLD, _LARGE))
