"""Pictures of the tables: SVG written by hand, to be read on light and on dark pages.

A row of bars for each case, a bar for each server, on a logarithmic scale of its own: what is of
interest is how many times more one needs than the other, from microseconds to seconds.
"""

import math
from xml.sax.saxutils import escape

from . import number

_COLOURS = {"ringftpd": "#e4572e", "vsftpd": "#4c78a8", "proftpd": "#72b7b2",
            "pure-ftpd": "#b279a2", "floor": "#8c8c8c"}
_WIDTH, _LEFT, _RIGHT = 900, 270, 120
_BAR, _GAP, _TOP = 9, 12, 66
_STYLE = """<style>
  text { font: 12px Helvetica, Arial, sans-serif; fill: #222 }
  .small { font-size: 10px } .title { font-size: 15px; font-weight: bold }
  .paper { fill: #fff } .grid { stroke: #ddd } .spread { stroke: #222 }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .paper { fill: #16181d } .grid { stroke: #3a3f48 }
    .spread { stroke: #eee }
  }
</style>"""


def all_of(results, cases):
    """The pictures there are values for, by the name of the file."""
    clear, tls = ([case for case in cases if case.tls == over] for over in (False, True))
    pictures = {
        "cpu.svg": ("CPU time of the server per unit of work (less is better)", clear, "cpu",
                    lambda case: case.unit, 1),
        "tls.svg": ("CPU time of the server over TLS (less is better)", tls, "cpu",
                    lambda case: case.unit, 1),
        "latency.svg": ("p99 of a client's round trips (less is better)", cases, "p99",
                        lambda _: "ms", 1e-3),
        "memory.svg": ("Memory per session (less is better)", cases, "memory",
                       lambda _: "KiB", 1),
        "rate.svg": ("Rate with one CPU (more is better)", cases, "rate",
                     lambda case: "MiB/s" if case.unit == "s/GiB" else "per second", 1),
    }
    drawn = {}
    for file, (title, some, what, unit, scale) in pictures.items():
        rows = _rows(results, some, what, unit, scale)
        if rows:
            names = [name for name in results.names() if any(name in row[1] for row in rows)]
            legend = [(results.titles[name], _COLOURS[name]) for name in names]
            drawn[file] = _picture(title, legend, rows)
    return drawn


def _rows(results, cases, what, unit, scale):
    """For each case with values: what it is, and by server the least, median and most."""
    rows = []
    for case in cases:
        bars = {}
        for name in results.names():
            values = [value * scale for value in results.of(case, name, what)]
            if values and min(values) > 0:
                middle = results.median(case, name, what) * scale
                bars[name] = min(values), middle, max(values)
        if bars:
            rows.append((f"{case.title}, {unit(case)}", bars))
    return rows


def _picture(title, legend, rows):
    height = _TOP + sum(_GAP + _BAR * len(bars) for _, bars in rows) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">',
        _STYLE,
        f'<rect class="paper" width="{_WIDTH}" height="{height}"/>',
        _text(16, 24, title, "title"),
    ]
    x = 16
    for name, colour in legend:
        parts.append(f'<rect x="{x}" y="36" width="11" height="11" fill="{colour}"/>')
        parts.append(_text(x + 16, 46, name))
        x += 40 + 7 * len(name)
    # Each row begins at its best: all rows then share one scale, of times the best.
    most = max(high / _best(bars) for _, bars in rows for _, _, high in bars.values())
    decades = max(math.log10(most), 0.3)
    bottom = height - 26
    for times in _ticks(most):
        x = _LEFT + _length(times, decades)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" '
                     f'y2="{bottom}"/>')
        parts.append(_text(x, bottom + 14, f"× {times:g}", "small", "middle"))
    y = _TOP
    for label, bars in rows:
        y = _row(parts, y, label, bars, decades)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(parts, y, label, bars, decades):
    parts.append(_text(_LEFT - 8, y + _BAR * len(bars) / 2 + 4, _short(label), "", "end"))
    best = _best(bars)
    for name, (low, middle, high) in bars.items():
        ends = [_length(value / best, decades) for value in (low, middle, high)]
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="{ends[1]:.1f}" height="{_BAR - 1}" '
                     f'fill="{_COLOURS[name]}"/>')
        if high > low:
            middle_y = y + _BAR / 2 - 0.5
            parts.append(f'<line class="spread" x1="{_LEFT + ends[0]:.1f}" y1="{middle_y}" '
                         f'x2="{_LEFT + ends[2]:.1f}" y2="{middle_y}"/>')
        parts.append(_text(_LEFT + ends[2] + 4, y + _BAR - 1, number(middle), "small"))
        y += _BAR
    return y + _GAP


def _best(bars):
    return min(low for low, _, _ in bars.values())


def _length(times, decades):
    """A bar has some length where it is the best, so that it can be seen."""
    stub = 14
    room = _WIDTH - _LEFT - _RIGHT - stub
    return stub + room * math.log10(max(times, 1)) / decades


def _ticks(most):
    steps = (1, 2, 5) if most < 100 else (1, 10)
    found = [step * 10 ** power for power in range(7) for step in steps]
    return sorted({tick for tick in found if tick <= most * 1.01})


def _short(label):
    return label if len(label) < 46 else label[:44] + "…"


def _text(x, y, words, kind="", anchor="start"):
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(words)}</text>'
