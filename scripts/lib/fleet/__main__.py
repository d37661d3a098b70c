"""A fleet on this machine: three etcd, two CoreDNS, Prometheus, balancers, backends and an orchestrator.

run FOLDER L4LB COREDNS             starts it, prints what to try, and ends it on Ctrl-C
test FOLDER L4LB COREDNS            the short tests, in a network namespace of its own
all FOLDER L4LB COREDNS             all tests
load SESSIONS SECONDS               opens sessions through DNS and holds them, so that the orchestrator starts more
"""

import signal
import sys
import threading
import time

from clients import Sessions
from engines import NAME, PROMETHEUS, RESOLVERS
from fleet import Fleet
from members import LISTENER_PORT, METRICS_PORT
from processes import Failure
from trials import run_trials

BEGAN = time.monotonic()


def say(text):
    print(f"fleet: {time.monotonic() - BEGAN:6.1f} s  {text}", flush=True)


def what_to_try(fleet):
    server, port = RESOLVERS["dns1"]
    one, l4lb = fleet.balancers.address(1), fleet.balancers.l4lb
    return f"""
Names:      dig +short @{server} -p {port} {NAME}
A request:  curl http://{one}:{LISTENER_PORT}/
A balancer: {l4lb} ctl --socket {fleet.balancers.socket(1)} backends
All of them: {l4lb} ctl --socket {fleet.balancers.socket(1)} fleet
Metrics:    http://{PROMETHEUS}/graph    http://{PROMETHEUS}/alerts    http://{one}:{METRICS_PORT}/metrics
Registry:   ETCDCTL_API=3 etcdctl --endpoints 127.0.2.1:2379 get --prefix /
Kill one:   kill -9 {fleet.processes.running["lb2"].pid}    (lb2: it leaves DNS, and the orchestrator starts it anew)
            kill -9 {fleet.processes.running["etcd1"].pid}    (a member of etcd: nothing happens, but an alert)
            kill -9 {fleet.processes.running["b1"].pid}    (backend b1)
Load:       scripts/fleet.sh --load 90 30    (90 sessions for 30 s: more balancers and backends)
Logs:       {fleet.processes.folder}
Ctrl-C stops it.
"""


def run(folder, l4lb, coredns):
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    fleet = Fleet(folder, l4lb, coredns, say)
    try:
        fleet.start()
        print(what_to_try(fleet), flush=True)
        over.wait()
    except Failure as failed:
        sys.exit(f"fleet: {failed}")
    finally:
        fleet.stop()
    return 0


def load(count, seconds):
    sessions = Sessions(LISTENER_PORT)
    try:
        sessions.open_more(int(count))
        say(f"{count} sessions are open")
        time.sleep(float(seconds))
        held = sessions.addresses()
        for address in sorted(set(held)):
            say(f"{held.count(address)} of them through {address}")
        for reason in sessions.broken:
            say(f"broken: {reason}")
    finally:
        sessions.stop()
    return 1 if sessions.broken else 0


def test(folder, l4lb, coredns, everything=False):
    fleet = Fleet(folder, l4lb, coredns, say, tested=True)
    try:
        figures = run_trials(fleet, say, everything)
    except (Failure, OSError) as failed:
        print(f"fleet: FAILED: {failed}", flush=True)
        for name in sorted(path.stem for path in fleet.processes.folder.glob("*.log")):
            for line in fleet.processes.last_words(name, 5):
                print(f"    {name}: {line[:300]}")
        return 1
    finally:
        fleet.stop()
    print(f"fleet: ok in {time.monotonic() - BEGAN:.0f} s: {figures}", flush=True)
    return 0


def main(command="", *rest):
    commands = {"run": run, "test": test, "all": lambda *all_of: test(*all_of, everything=True), "load": load}
    if command not in commands:
        sys.exit(__doc__)
    return commands[command](*rest)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
