"""The picture of a soak: warm tags' latency, answers, memory and descriptors over one time, a PNG."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.bench.latency import percentile

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from tests.bench.mix import Results
    from tests.bench.soak import Flat

BUCKETS = 90  # over the whole time
INK, BLUE, RED, GREY, SHADE = "#1f2933", "#2563eb", "#c2410c", "#7b8794", "#fde8d7"


def draw(results: Results, path: Path) -> None:
    """Four panels over one axis of time."""
    from tests.bench.soak import judged, well  # noqa: PLC0415 - it is the program, and imports this

    minutes = results.seconds >= 300  # from where minutes read better
    unit = 60.0 if minutes else 1.0
    figure = Figure(figsize=(11, 11), layout="constrained")
    FigureCanvasAgg(figure)
    latency, answers, memory, descriptors = figure.subplots(4, 1, sharex=True)
    figure.suptitle(
        f"Soak: 80 clients for {results.seconds:.0f} s, {len(results.seen):,} answers, "
        f"{sum(results.unexpected.values())} unexpected: {'PASS' if well(results) else 'FAIL'}",
        fontsize=14,
        color=INK,
    )
    _latency(latency, results, unit)
    _answers(answers, results, unit)
    flat_memory, flat_descriptors = judged(results)
    at = [one.at / unit for one in results.samples]
    _line(
        memory,
        at,
        [one.mb for one in results.samples],
        flat_memory,
        results.seconds / unit,
        "Memory of the service",
        "MB",
    )
    counted = [float(one.descriptors) for one in results.samples]
    _line(
        descriptors,
        at,
        counted,
        flat_descriptors,
        results.seconds / unit,
        "Open descriptors of the service",
        "descriptors",
    )
    for axes in (latency, answers, memory, descriptors):
        _shade(axes, results, unit)
        axes.grid(visible=True, color="#e4e7eb", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    descriptors.set_xlabel("minutes since the start" if minutes else "seconds since the start")
    descriptors.set_xlim(0, results.seconds / unit)
    figure.savefig(path, format="png", dpi=110)


def _latency(axes: Axes, results: Results, unit: float) -> None:
    width = results.seconds / BUCKETS
    buckets: dict[int, list[float]] = defaultdict(list)
    for one in results.seen:
        if one.kind == "warm tag":
            buckets[int(one.at / width)].append(one.ms)
    at = [(number + 0.5) * width / unit for number in sorted(buckets)]
    for percent, colour in ((50, BLUE), (99, RED)):
        values = [percentile(tuple(buckets[number]), percent) for number in sorted(buckets)]
        axes.plot(at, values, color=colour, linewidth=1.6, label=f"p{percent}")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("milliseconds (log scale)")
    told = []
    for hanging, when in ((False, "no upstream hangs"), (True, "one hangs")):
        times = results.warm(hanging=hanging) or (0.0,)
        told.append(f"p99 {percentile(times, 99):.0f} ms while {when}")
    axes.set_title(f"Warm tags: {', '.join(told)}", loc="left", fontsize=11, color=INK)
    axes.fill_between([], [], color=SHADE, label="an upstream hangs")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)


def _answers(axes: Axes, results: Results, unit: float) -> None:
    """One line a kind."""
    width = results.seconds / BUCKETS * 3
    counted: dict[str, Counter[int]] = defaultdict(Counter)
    for one in results.seen:
        counted[one.kind][int(one.at / width)] += 1
    numbers = range(int(results.seconds / width))
    for kind, count in sorted(counted.items(), key=lambda item: -sum(item[1].values())):
        axes.plot(
            [(number + 0.5) * width / unit for number in numbers],
            [count[number] / width for number in numbers],
            label=kind,
        )
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("answers a second (log scale)")
    axes.set_title("Answers by kind of client", loc="left", fontsize=11, color=INK)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)


def _line(axes: Axes, at: list[float], values: list[float], flat: Flat, end: float, title: str, unit: str) -> None:
    axes.plot(at, values, color=BLUE, linewidth=1.2)
    for left, right, level in ((end / 3, end * 2 / 3, flat.middle), (end * 2 / 3, end, flat.last)):
        axes.plot([left, right], [level, level], color=INK, linewidth=1.6, linestyle="--")
        axes.annotate(f"{level:.0f}", (left, level), textcoords="offset points", xytext=(4, 5), color=INK, fontsize=9)
    axes.set_ylim(0, max([*values, 1.0]) * 1.2)
    axes.set_ylabel(unit)
    axes.set_title(
        f"{title}: {flat.words} (dashed: medians of the middle and the last third)", loc="left", fontsize=11, color=INK
    )


def _shade(axes: Axes, results: Results, unit: float) -> None:
    """Where the upstream was hanging."""
    started: float | None = None
    for one in [*results.samples]:
        if one.hanging and started is None:
            started = one.at
        elif not one.hanging and started is not None:
            axes.axvspan(started / unit, one.at / unit, color=SHADE, zorder=0, linewidth=0)
            started = None
    if started is not None:
        axes.axvspan(started / unit, results.seconds / unit, color=SHADE, zorder=0, linewidth=0)
