"""The report: report.md with the tables and the charts, results.json with every figure of every round."""

from collections.abc import Callable
from dataclasses import dataclass

from . import aims, charts
from .aims import BEST_PEER, Verdict
from .loads import DIRECT, Load
from .proxies import L4LB
from .results import PINNED, UNPINNED, Results
from .session import Settings

METHOD = """Each load runs through each proxy in turn, round by round, and a proxy is started anew each time; \
the figures are medians of the rounds. \
Everybody relays plain TCP over loopback with the same number of workers, round robin, without checks of backends and \
without a log of sessions, else as it comes. \
Processor time of the proxy is that of all its threads (`schedstat`); that of the machine is all that was not idle \
meanwhile (`/proc/stat`), and that of the processes is proxy, load and backends without softirqs."""

MODES = {
    PINNED: "One worker, pinned: the proxy has one processor, load and backends share another.",
    UNPINNED: "Two workers, not pinned: the kernel places everything.",
}


@dataclass(frozen=True)
class Column:
    head: str
    cell: Callable[[str], str]


def write(settings: Settings, results: Results, facts: dict[str, str]) -> None:
    settings.out.mkdir(parents=True, exist_ok=True)
    about = {"facts": facts, "rounds": settings.rounds, "seconds": settings.seconds, "quick": settings.quick}
    results.write(settings.out / "results.json", about)
    titles = {proxy.name if proxy else DIRECT: proxy.title if proxy else DIRECT for proxy in settings.proxies}
    drawn = charts.draw(settings, results, titles)
    (settings.out / "report.md").write_text(markdown(settings, results, facts, titles, drawn))


def markdown(
    settings: Settings, results: Results, facts: dict[str, str], titles: dict[str, str], drawn: list[str]
) -> str:
    parts = ["# Benchmark", METHOD]
    parts.append(f"{settings.rounds} round(s) of {settings.seconds} s. Raw figures of every round: `results.json`.")
    if settings.quick:
        parts.append("**Made with `--quick`: it shows that everything works, and nothing about speed.**")
    parts.append(table(["", ""], [[what, fact] for what, fact in facts.items()], words=2))
    parts += [f"![{name}]({name}.svg)" for name in drawn]
    if results.failures():
        parts.append("## Failures")
        parts.append("\n".join(f"- {one.mode}, {one.load}, {one.proxy}: {one.failure}" for one in results.failures()))
    if L4LB in titles:
        for mode in results.modes():
            parts += [f"## Aims, {mode}", MODES[mode], aims_table(aims.verdicts(results, mode), titles)]
    for mode in results.modes():
        parts += [f"## {mode.capitalize()}", MODES[mode]]
        for load in settings.loads_of(mode):
            parts += [f"### {load.name}: {load.title}", load_table(results, mode, load, titles)]
    return "\n\n".join(parts) + "\n"


def aims_table(found: list[Verdict], titles: dict[str, str]) -> str:
    rows = []
    for verdict in found:
        aim = verdict.aim
        sign = "≥" if aim.figure in aims.MORE_IS_BETTER else "≤"
        against = titles.get(aim.against, aim.against) if aim.against else ""
        if aim.against == BEST_PEER:
            against = f"{BEST_PEER} ({titles[verdict.peer]})"
        limit = f"{sign} {number(aim.limit)} {aim.unit} {against}".strip()
        reached = "reached" if verdict.is_reached else "**not reached**"
        rows.append([verdict.load, aim.what, limit, f"{number(verdict.measured)} {aim.unit}", reached])
    reached = sum(verdict.is_reached for verdict in found)
    return f"{reached} of {len(found)} reached.\n\n" + table(["load", "figure", "aim", "measured", ""], rows, words=5)


def load_table(results: Results, mode: str, load: Load, titles: dict[str, str]) -> str:
    def column(head: str, figure: str) -> Column:
        return Column(head, lambda proxy: number(results.median(mode, load.name, proxy, figure)))

    def ratio(head: str, figure: str) -> Column:
        best, _ = aims.best_peer(results, mode, load.name, figure)

        def cell(proxy: str) -> str:
            value = results.median(mode, load.name, proxy, figure)
            return f"{value / best:.2f}" if value is not None and best else "-"

        return Column(head, cell)

    per = {"request": "µs/request", "GB": "ms/GB"}.get(load.unit, "")
    is_bulk = load.name in aims.BULK
    rate = "Gbit/s" if is_bulk else "requests/s"
    columns = {
        "rate": [column(rate, "rate"), ratio("÷ best peer", "rate")],
        "bulk": [column("Gbit/s beside", "bulk"), ratio("÷ best peer", "bulk")],
        "p50": [column("p50 ms", "p50")],
        "p99": [column("p99 ms", "p99"), ratio("÷ best peer", "p99")],
        "proxy_cpu": [column(f"CPU of the proxy, {per}", "proxy_cpu"), ratio("÷ best peer", "proxy_cpu")],
        "processes_cpu": [column(f"of all processes, {per}", "processes_cpu")],
        "machine_cpu": [column(f"of the machine, {per}", "machine_cpu")],
        "start": [column("seconds", "start"), ratio("÷ best peer", "start")],
        "memory": [column("bytes", "memory"), ratio("÷ best peer", "memory")],
    }
    proxies = [proxy for proxy in titles if any(has(results, mode, load, proxy, figure) for figure in columns)]
    told = [figure for figure in columns if any(has(results, mode, load, proxy, figure) for proxy in proxies)]
    shown = [column for figure in told for column in columns[figure]]
    rows = [[titles[proxy], *(column.cell(proxy) for column in shown)] for proxy in proxies]
    return table(["", *(column.head for column in shown)], rows)


def has(results: Results, mode: str, load: Load, proxy: str, figure: str) -> bool:
    return results.median(mode, load.name, proxy, figure) is not None


def number(value: float | None) -> str:
    """Three digits that count, or all in front of the point."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(head: list[str], rows: list[list[str]], words: int = 1) -> str:
    """So many columns of words come before those of numbers."""
    rule = ["---"] * words + ["--:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])
