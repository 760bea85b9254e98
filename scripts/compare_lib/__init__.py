"""Parts of scripts/compare."""


class Unavailable(Exception):
    """A server cannot take part, or cannot do a case: the reason, in one line."""
