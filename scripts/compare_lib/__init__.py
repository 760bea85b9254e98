"""Parts of scripts/compare."""


class Unavailable(Exception):
    """A server cannot take part, or cannot do a case: the reason, in one line."""


class Wrong(Exception):
    """A server did not do what it should."""
