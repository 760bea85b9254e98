"""Parts of scripts/compare."""


class Unavailable(Exception):
    """A server cannot take part, or cannot do a case: the reason, in one line."""


class Wrong(Exception):
    """A server did not do what it should."""


def number(value):
    """Three digits that count."""
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:.0f}"
    for decimals in range(1, 6):
        if magnitude >= 10 ** (2 - decimals):
            return f"{value:.{decimals}f}"
    return f"{value:.5f}" if magnitude >= 1e-5 else "0"
