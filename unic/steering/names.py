"""Names that people give to classes."""

import unicodedata

MAX_LENGTH = 100  # characters

_NOT_IN_A_LINE = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of pairs, breaks of lines


def check_name(name: str) -> str:
    """The name as it is kept: without spaces at its ends, and in one of Unicode's spellings.

    Commas, quotes, markup and letters of any script stay as they are.

    Raises:
        ValueError: If nothing of it can be seen, it is no single line, or too long.

    Example:
        >>> check_name("  <b>Frösche</b>, grün ")
        '<b>Frösche</b>, grün'
    """
    if not isinstance(name, str):
        raise ValueError(f"a name must be a text, got {name!r}")
    kept = unicodedata.normalize("NFC", name.strip())
    strange = [letter for letter in kept if unicodedata.category(letter) in _NOT_IN_A_LINE]
    if strange:
        raise ValueError(f"a name must be one line of characters, got {strange[0]!r} in {kept!r}")
    if not any(unicodedata.category(letter)[0] not in "CMZ" for letter in kept):
        raise ValueError(f"a name must have a letter, a digit or a sign, got {name!r}")
    if len(kept) > MAX_LENGTH:
        raise ValueError(f"a name must have at most {MAX_LENGTH} characters, got {len(kept)}")
    return kept
