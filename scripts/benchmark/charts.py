"""The charts: groups of horizontal bars as SVG, the same bytes for the same figures."""

import pathlib
from dataclasses import dataclass

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from .loads import DIRECT  # noqa: E402
from .proxies import L4LB  # noqa: E402
from .results import PINNED, Results  # noqa: E402
from .session import Settings  # noqa: E402

OURS = "#d9480f"
COLOURS = {
    L4LB: OURS,
    "haproxy": "#495057",
    "haproxy-splice": "#868e96",
    "nginx": "#adb5bd",
    "sozu": "#ced4da",
    DIRECT: "#ffffff",
}
BACKGROUND = "#f8f9fa"
INK = "#212529"
RULE = "#ced4da"

STYLE = {
    # Text stays text: small files, and letters that can be searched.
    "svg.fonttype": "none",
    "svg.hashsalt": "l4lb",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": BACKGROUND,
    "axes.facecolor": BACKGROUND,
    "savefig.facecolor": BACKGROUND,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.12,
}

WIDTH_INCHES = 8.0
BAR_INCHES = 0.19
GROUP_GAP_INCHES = 0.2
FRAME_INCHES = 1.35


@dataclass(frozen=True)
class Chart:
    name: str
    title: str
    # With "lower is better" or "higher is better".
    axis: str
    figure: str
    # What a group is called, by the load that it shows.
    groups: dict[str, str]
    factor: float = 1.0


CHARTS = [
    Chart(
        "cpu-per-gb",
        "Processor time of the proxy for a gigabyte",
        "milliseconds per GB, lower is better",
        "proxy_cpu",
        {
            "bulk-1-up": "1 stream up",
            "bulk-8-up": "8 streams up",
            "bulk-1-down": "1 stream down",
            "bulk-8-down": "8 streams down",
        },
    ),
    Chart(
        "throughput",
        "Throughput of streams",
        "Gbit/s, higher is better",
        "rate",
        {
            "bulk-1-up": "1 stream up",
            "bulk-8-up": "8 streams up",
            "bulk-1-down": "1 stream down",
            "bulk-8-down": "8 streams down",
        },
    ),
    Chart(
        "requests",
        "Small requests",
        "requests per second, higher is better",
        "rate",
        {
            "keepalive-1": "keep-alive,\n1 connection",
            "keepalive-64": "keep-alive,\n64 connections",
            "keepalive-1000": "keep-alive,\n1000 connections",
            "short": "a connection\na request",
        },
    ),
    Chart(
        "mixed-p99",
        "99th percentile of small requests beside 8 streams",
        "milliseconds, lower is better",
        "p99",
        {"mixed": "16 connections"},
    ),
    Chart(
        "idle-memory",
        "Memory of an idle session",
        "KiB per session, lower is better",
        "memory",
        {"idle": "5,000 sessions"},
        factor=1 / 1024,
    ),
]


def draw(settings: Settings, results: Results, titles: dict[str, str]) -> list[str]:
    """The names of the charts for which there are figures of the pinned mode."""
    drawn = []
    for chart in CHARTS:
        values = values_of(chart, results, titles)
        if values:
            draw_one(chart, values, titles, settings.out / f"{chart.name}.svg")
            drawn.append(chart.name)
    return drawn


def values_of(chart: Chart, results: Results, titles: dict[str, str]) -> dict[str, dict[str, float]]:
    """By group and proxy, for those that were measured."""
    values = {}
    for load, group in chart.groups.items():
        told = {proxy: results.median(PINNED, load, proxy, chart.figure) for proxy in titles}
        shown = {proxy: value * chart.factor for proxy, value in told.items() if value is not None}
        if shown:
            values[group] = shown
    return values


def draw_one(chart: Chart, values: dict[str, dict[str, float]], titles: dict[str, str], file: pathlib.Path) -> None:
    bars = sum(map(len, values.values()))
    height = FRAME_INCHES + bars * BAR_INCHES + len(values) * GROUP_GAP_INCHES
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(WIDTH_INCHES, height), layout="constrained")
        add_bars(axes, values, titles)
        finish(axes, chart, max(value for group in values.values() for value in group.values()))
        # A date would make every run a change.
        figure.savefig(file, metadata={"Date": None})
        pyplot.close(figure)


def add_bars(axes: Axes, values: dict[str, dict[str, float]], titles: dict[str, str]) -> None:
    place = 0.0
    centres = []
    named = set()
    for shown in values.values():
        centres.append(place + (len(shown) - 1) / 2)
        for proxy, value in shown.items():
            edge = RULE if proxy != DIRECT else "#868e96"
            label = titles[proxy] if proxy not in named else None
            named.add(proxy)
            axes.barh(place, value, 0.86, color=COLOURS[proxy], edgecolor=edge, linewidth=0.6, label=label)
            weight, colour = ("bold", OURS) if proxy == L4LB else ("normal", INK)
            behind = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(short(value), (value, place), size=8, weight=weight, color=colour, **behind)
            place += 1
        place += GROUP_GAP_INCHES / BAR_INCHES
    axes.set_yticks(centres, list(values))


def finish(axes: Axes, chart: Chart, largest: float) -> None:
    axes.invert_yaxis()
    axes.set_xlim(0, largest * 1.12)
    axes.set_title(chart.title, loc="left", weight="bold", size=12, pad=10)
    axes.set_xlabel(chart.axis)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.xaxis.grid(True, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(RULE)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
