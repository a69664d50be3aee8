"""Charts as SVG. Pure: numbers in, markup out; colours come from the style sheet by class.

A chart is an image with a text for those who do not see it, and each of its points says its value when pointed at. No
`style` attribute is used, because the console's policy lets none in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from markupsafe import Markup, escape

__all__ = ["Series", "bar", "path", "spark", "stack", "ticks", "timeline"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 8, 20  # around the plot, for labels
_SPARK: Final = (120, 28)


class Series(msgspec.Struct, frozen=True):
    """One line of a chart.

    Args:
        name: as the legend has it.
        values: one for each moment; None where nothing was measured: there the line has a gap.
        tone: a class of the style sheet: main, good, bad, warn, calm.
        area: fill what is below it.
    """

    name: str
    values: Sequence[float | None]
    tone: str = "main"
    area: bool = False


def path(values: Sequence[float | None], width: float, height: float, top: float) -> str:
    """The `d` of a line over a plot; gaps where there are no values.

    Args:
        values: evenly spread over the width.
        width: of the plot.
        height: of the plot; 0 is at its lower end.
        top: the value at the upper end.
    """
    step = width / max(1, len(values) - 1)
    parts, pen = [], "M"
    for index, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        share = min(value / top, 1.0) if top > 0 else 0.0
        parts.append(f"{pen}{_n(index * step)} {_n(height * (1 - share))}")
        pen = "L"
    return "".join(parts)


def spark(values: Sequence[float | None], label: str, *, tone: str = "main", key: str = "") -> Markup:
    """A small line without axes.

    Args:
        values: oldest first.
        label: what it shows, in words.
        tone: as of a series.
        key: of the live values; the sampler then sends the line anew.
    """
    width, height = _SPARK
    line = spark_path(values)
    live = Markup(' data-key="{}" data-to="d"').format(key) if key else ""
    return Markup(
        '<svg class="spark {}" viewBox="-1 -1 {} {}" role="img" aria-label="{}" preserveAspectRatio="none">'
        '<path class="line" d="{}"{}/></svg>'
    ).format(tone, width + 2, height + 2, label, line, live)


def spark_path(values: Sequence[float | None]) -> str:
    """The line of `spark`."""
    return path(
        values, *_SPARK, top=max([value for value in values if value is not None], default=0.0) or 1.0
    )


def ticks(top: float, most: int = 4) -> list[float]:
    """Round numbers from 0 to at least `top`, for an axis."""
    if top <= 0:
        return [0.0, 1.0]
    size = 10.0 ** len(str(int(top))) / 1000 if top >= 1 else 1e-6
    while True:
        for factor in (1, 2, 2.5, 5):
            if size * factor * most >= top:
                count = 1
                while size * factor * count < top * 0.999999:
                    count += 1
                return [round(size * factor * index, 9) for index in range(count + 1)]
        size *= 10


def timeline(
    series: Sequence[Series],
    moments: Sequence[str],
    label: str,
    *,
    unit: Callable[[float], str] = lambda value: f"{value:g}",
    size: tuple[int, int] = (640, 180),
) -> Markup:
    """Lines over time, with axes.

    Args:
        series: all of the same length.
        moments: a name for each place on the time axis, as "14:05".
        label: what it shows, in words.
        unit: how a value is written.
        size: width and height in its own units; it is shown as wide as its place.
    """
    width, height = size[0] - _LEFT - _RIGHT, size[1] - _TOP - _BOTTOM
    highest = max((value for one in series for value in one.values if value is not None), default=0.0)
    marks = ticks(highest)
    top = marks[-1]
    parts = [_grid(marks, width, height, unit), _moments(moments, width, height)]
    for one in series:
        line = path(one.values, width, height, top)
        if one.area and line and None not in one.values:
            area = f"{line}L{_n(width)} {_n(height)}L0 {_n(height)}Z"
            parts.append(Markup('<path class="area {}" d="{}"/>').format(one.tone, area))
        parts.append(Markup('<path class="line {}" d="{}"/>').format(one.tone, line))
    parts.append(_hits(series, moments, width, height, unit))
    return Markup(
        '<figure class="chart" tabindex="0" role="group" aria-label="{}. Arrow keys read its values.">'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<g transform="translate({} {})">{}</g></svg>{}</figure>'
    ).format(label, *size, label, _LEFT, _TOP, Markup("").join(parts), _legend(series))


def _grid(marks: Sequence[float], width: float, height: float, unit: Callable[[float], str]) -> Markup:
    lines = []
    for mark in marks:
        y = _n(height - height * mark / marks[-1])
        lines.append(
            Markup(
                '<line class="grid" x1="0" x2="{}" y1="{}" y2="{}"/><text class="tick" x="-6" y="{}" '
                'text-anchor="end" dominant-baseline="middle">{}</text>'
            ).format(_n(width), y, y, y, unit(mark))
        )
    return Markup("").join(lines)


def _moments(moments: Sequence[str], width: float, height: float) -> Markup:
    if not moments:
        return Markup("")
    last = len(moments) - 1
    places = sorted({round(last * share / 4) for share in range(5)})
    texts = []
    for place in places:
        anchor = "start" if place == 0 else "end" if place == last else "middle"
        x = width * place / last if last else 0
        texts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                _n(x), _n(height + 15), anchor, moments[place]
            )
        )
    return Markup("").join(texts)


def _hits(
    series: Sequence[Series],
    moments: Sequence[str],
    width: float,
    height: float,
    unit: Callable[[float], str],
) -> Markup:
    """A strip for each moment that tells the values when pointed at."""
    step = width / max(1, len(moments) - 1)
    wide, high, strips = _n(step), _n(height), []
    for index, moment in enumerate(moments):
        values = "; ".join(
            f"{one.name} {'none' if one.values[index] is None else unit(one.values[index] or 0.0)}"
            for one in series
        )
        x = _n(index * step)
        strips.append(
            f'<g class="hit"><rect x="{_n(index * step - step / 2)}" y="0" width="{wide}" height="{high}">'
            f"<title>{escape(moment)}: {escape(values)}</title></rect>"
            f'<line class="cursor" x1="{x}" x2="{x}" y1="0" y2="{high}"/></g>'
        )
    return Markup("".join(strips))  # noqa: S704  # numbers, and what was escaped above; format() takes ten times as long


def _legend(series: Sequence[Series]) -> Markup:
    if len(series) < 2:
        return Markup("")
    names = Markup("").join(
        Markup('<li><span class="swatch {}"></span>{}</li>').format(one.tone, one.name) for one in series
    )
    return Markup('<ul class="legend" aria-hidden="true">{}</ul>').format(names)


def stack(parts: Sequence[tuple[str, float, str]], label: str) -> Markup:
    """One bar made of parts.

    Args:
        parts: name, amount and tone of each.
        label: what it shows, in words.
    """
    total = sum(amount for _, amount, _ in parts)
    x, rects = 0.0, []
    for name, amount, tone in parts:
        width = 100 * amount / total if total else 0.0
        if width:
            rects.append(
                Markup('<rect class="{}" x="{}" width="{}" height="8"><title>{}: {:g}</title></rect>').format(
                    tone, _n(x), _n(width), name, amount
                )
            )
        x += width
    said = ", ".join(f"{name} {amount:g}" for name, amount, _ in parts)
    return Markup(
        '<svg class="stack" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{}: {}">'
        '<rect class="rest" width="100" height="8"/>{}</svg>'
    ).format(label, said, Markup("").join(rects))


def bar(share: float, label: str, *, tone: str = "main", key: str = "") -> Markup:
    """A share of a whole, as a bar.

    Args:
        share: from 0 to 1.
        label: what it shows, in words.
        tone: as of a series.
        key: of the live values; the sampler then sends the width, from 0 to 100.
    """
    live = Markup(' data-key="{}" data-to="width"').format(key) if key else ""
    width = _n(100 * max(0.0, min(1.0, share)))
    return Markup(
        '<svg class="stack" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="rest" width="100" height="8"/><rect class="{}" width="{}" height="8"{}/></svg>'
    ).format(label, tone, width, live)


def _n(number: float) -> str:
    text = f"{number:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
