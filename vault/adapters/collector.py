"""Python's collector of cycles, told that what a server starts with stays until its end."""

import gc

#: So many objects more than before, and it looks again; by default 700, a few requests' worth.
YOUNG_MAX = 10_000
#: Every so many looks at the young it looks at the middle-aged, and so on.
MIDDLE_EVERY = OLD_EVERY = 10


def look_less() -> None:
    """Leave alone what there is now, such as every module, and look at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, MIDDLE_EVERY, OLD_EVERY)
