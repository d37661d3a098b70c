"""Arguments -> Settings; what is missing; the exit code: 0 measured, 1 a measurement failed, 2 cannot measure."""

import argparse
import importlib.util
import os
import pathlib
import resource
import shutil
import signal
import sys

from . import machine, proxies, report, session
from .loads import CORE_LOADS, DIRECT, Load, all_loads
from .proxies import L4LB, PEERS, Haproxy, HaproxySplice, L4lb, Nginx, Proxy, Sozu
from .results import PINNED, UNPINNED, Results
from .session import Settings

# A thousand connections through a proxy, five thousand sessions through HAProxy with its pipes.
OPEN_FILES_MIN = 16_000
INTERRUPTED = 130

# command, Debian package
TOOLS = [
    ("wrk", "wrk"),
    ("iperf3", "iperf3"),
    ("nginx", "nginx"),
    ("haproxy", "haproxy"),
    ("openssl", "openssl"),
    ("taskset", "util-linux"),
    ("setpriv", "util-linux"),
]

EXAMPLES = """examples:
  scripts/bench                                       all of it, in about twenty minutes
  scripts/bench --quick                               what the gate runs
  scripts/bench --loads short,mixed --proxies l4lb,haproxy --mode pinned --rounds 5
"""


def main(about: str) -> int:
    # Whatever ends the benchmark ends what it has started.
    for number in [signal.SIGTERM, signal.SIGHUP]:
        signal.signal(number, signal.default_int_handler)
    settings = parse(about)
    facts = machine.describe([proxy for proxy in settings.proxies if proxy])
    results = Results()
    try:
        session.run(settings, results)
    except KeyboardInterrupt:
        print("bench: interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    report.write(settings, results, facts)
    print(f"\nbench: {len(results.measurements)} measurements; the report is {settings.out / 'report.md'}")
    failures = results.failures()
    for failed in failures:
        print(f"bench: FAILED: {failed.mode} {failed.load} {failed.proxy}: {failed.failure}", file=sys.stderr)
    return 1 if failures else 0


def parse(about: str) -> Settings:
    loads = {load.name: load for load in all_loads()}
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=about,
        epilog=epilog(list(loads.values())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", machine.ROOT / "target"))
    parser.add_argument("--quick", action="store_true", help="is all right? every load, once and short; peers in part")
    parser.add_argument("--mode", choices=[PINNED, UNPINNED, "both"], help="[default: both; with --quick: pinned]")
    parser.add_argument("--loads", metavar="A,B", help="only these, in every mode")
    parser.add_argument("--proxies", metavar="A,B", help=f"only these: {DIRECT}, {L4LB}, {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=positive, metavar="N", help="[default: 3; with --quick: 1]")
    parser.add_argument("--seconds", type=positive, metavar="N", help="of a load [default: 3; with --quick: 1]")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="for the report [default: bench in target]")
    parser.add_argument("--l4lb", type=pathlib.Path, metavar="FILE", help="[default: the release build]")
    parser.add_argument("--sozu", type=pathlib.Path, metavar="FILE", help="measure Sozu too; Debian does not have it")
    args = parser.parse_args()

    l4lb = (args.l4lb or target / "release" / "l4lb").resolve()
    known: dict[str, Proxy | None] = {DIRECT: None}
    known |= {proxy.name: proxy for proxy in [L4lb(str(l4lb)), Haproxy(), HaproxySplice(), Nginx()]}
    if args.sozu:
        known["sozu"] = Sozu(str(args.sozu.resolve()))
    chosen = [known[name] for name in pick(parser, "proxies", args.proxies, list(known))]
    modes = [PINNED, UNPINNED] if args.mode == "both" or not (args.mode or args.quick) else [args.mode or PINNED]
    settings = Settings(
        modes=modes,
        loads=[loads[name] for name in pick(parser, "loads", args.loads, list(loads))],
        are_chosen=args.loads is not None,
        proxies=chosen,
        rounds=args.rounds or (1 if args.quick else 3),
        seconds=args.seconds or (1 if args.quick else 3),
        quick=args.quick,
        out=args.out or target / "bench",
    )
    if not any(settings.proxies_of(load) for load in settings.loads):
        parser.error("these loads are not for these proxies")
    lacking = missing(settings, [l4lb, *([args.sozu] if args.sozu else [])])
    if lacking:
        parser.exit(2, "".join(f"bench: missing: {what}\n" for what in lacking))
    return settings


def epilog(loads: list[Load]) -> str:
    lines = [f"  {load.name:15} {load.title}{'' if load.name not in CORE_LOADS else ' *'}" for load in loads]
    return EXAMPLES + "\nloads (* also unpinned, unless loads are named):\n" + "\n".join(lines)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def pick(parser: argparse.ArgumentParser, what: str, wanted: str | None, known: list[str]) -> list[str]:
    """The known names that are wanted, in the order in which they are known."""
    names = wanted.split(",") if wanted else known
    strange = [name for name in names if name not in known]
    if strange:
        parser.error(f"--{what}: there is no {' and no '.join(strange)}; there are: {' '.join(known)}")
    return [name for name in known if name in names]


def missing(settings: Settings, programs: list[pathlib.Path]) -> list[str]:
    """What has to be there first, and where it comes from."""
    lacking = [f"{tool} (Debian package {package})" for tool, package in TOOLS if not shutil.which(tool)]
    if importlib.util.find_spec("matplotlib") is None:
        lacking.append(f"matplotlib for {sys.executable} (Debian package python3-matplotlib)")
    if shutil.which("nginx") and not proxies.has_stream():
        lacking.append("the stream module of nginx (Debian package libnginx-mod-stream)")
    for program in programs:
        if not os.access(program, os.X_OK):
            lacking.append(f"the program {program}" + (" (cargo build --release)" if program.name == "l4lb" else ""))
    if PINNED in settings.modes and len(os.sched_getaffinity(0)) < 2:
        lacking.append("a second processor (without one: --mode unpinned)")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < OPEN_FILES_MIN:
        lacking.append(f"a limit of {OPEN_FILES_MIN} open files; it is {most}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return lacking
