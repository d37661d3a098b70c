"""What it was measured on, and with which versions."""

import datetime
import os
import pathlib
import platform
import re
import subprocess

from .proxies import Proxy, first_line

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def describe(proxies: list[Proxy]) -> dict[str, str]:
    """In the order in which to show it."""
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "commit": commit(),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "memory": f"{int(memory[1]) / (1 << 20):.0f} GiB" if memory else "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        # Figures of a machine that does something else are worth little.
        "load average before": f"{os.getloadavg()[0]:.1f}",
    }
    facts |= {proxy.title: proxy.version().split(' - ')[0] for proxy in proxies if proxy.name != "haproxy-splice"}
    # wrk says its version and then that nothing is to be done, with exit code 1.
    facts["wrk"] = first_line(["wrk", "-v"]).split(" [")[0]
    facts["iperf3"] = first_line(["iperf3", "--version"]).split(" (")[0]
    return facts


def processor() -> str:
    found = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    told = subprocess.run(command, capture_output=True, text=True)
    return told.stdout.strip() if told.returncode == 0 else "unknown"
