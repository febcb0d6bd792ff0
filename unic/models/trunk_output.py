"""What the frozen trunk of a backbone gives to its last block."""

from typing import NamedTuple

from torch import Tensor


class TrunkOutput(NamedTuple):
    """What the last block of a backbone is given, of ``b`` views.

    Where the last block is computed for the class token alone, ``tokens`` are normalized; no
    gradient goes through them, and they can be kept.
    """

    tokens: Tensor  # (b, t, d) normalized tokens, or what the trunk gives (first axis b)
    class_token: Tensor | None = None  # (b, d), not normalized; None on the plain path
    scales: Tensor | None = None  # (b, t) that tokens in int8 are to be multiplied with
