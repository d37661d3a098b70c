"""Clients of listeners that move: the figures of scripts/checks/moves.sh.

One l4lb, whose file says one set of listeners after the other at one port, while a client comes to each address every
50 ms. It asks and waits for the answer. What counts is exact: whether it was served, refused or reset, and how often its
kernel had to repeat a segment. How long it waited is only shown. Then reloads that are refused, while clients come one
behind the other: each has to be served. Standard library only.
"""

import argparse
import collections
import itertools
import os
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import NamedTuple

EVERY = 0.05
# Longer than a client waits for a SYN that was dropped three times.
PATIENCE = 10
BEFORE = 0.15
REFUSED = 20
# linux/tcp.h: where struct tcp_info has tcpi_total_retrans.
TOTAL_RETRANS = 100

ONE, TWO, ANY = "127.0.0.1", "127.0.0.2", "0.0.0.0"
ONE_V6, ANY_V6 = "[::1]", "[::]"


class Move(NamedTuple):
    name: str
    # One set of addresses after the other; the reloads follow each other at once.
    stages: list
    workers: tuple = ()


MOVES = [
    Move("address to wildcard", [[ONE], [ANY]]),
    Move("wildcard to address", [[ANY], [ONE]]),
    Move("address to address", [[ONE], [TWO]]),
    Move("two to one", [[ONE, TWO], [ANY]]),
    Move("one to two", [[ANY], [ONE, TWO]]),
    Move("removed", [[ONE], []]),
    Move("removed and put back", [[ONE], [], [ONE]]),
    Move("there, back and there again", [[ONE], [ANY], [ONE], [ANY]]),
    Move("IPv6: address to wildcard", [[ONE_V6], [ANY_V6]]),
    Move("IPv6: wildcard to address", [[ANY_V6], [ONE_V6]]),
    Move("IPv6: removed and put back", [[ONE_V6], [], [ONE_V6]]),
    Move("wildcard to the other family", [[ANY], [ANY_V6]]),
    Move("wildcard to the first family", [[ANY_V6], [ANY]]),
    Move("address to the wildcard of both families", [[ONE, ONE_V6], [ANY_V6]]),
    Move("address to wildcard, and a worker less", [[ONE], [ANY]], (2, 1)),
    Move("address to wildcard, and a worker more", [[ONE], [ANY]], (1, 2)),
]


def is_covered(address, binds):
    """Whether a client of `address` is one of a listener's."""
    return address in binds or ANY_V6 in binds or (ANY in binds and ":" not in address)


class Knock(NamedTuple):
    address: str
    began: float
    ended: float
    outcome: str
    repeats: int


def knock(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    began = time.monotonic()
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        outcome = "served"
        try:
            client.connect((address.strip("[]"), port))
            client.sendall(b"?")
            if client.recv(1) != b"?":
                outcome = "cut short"
        except ConnectionRefusedError:
            outcome = "refused"
        except (ConnectionResetError, BrokenPipeError):
            outcome = "reset"
        except TimeoutError:
            outcome = "waits"
        ended = time.monotonic()
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TOTAL_RETRANS + 4)
        (repeats,) = struct.unpack_from("I", info, TOTAL_RETRANS)
        return Knock(address, began, ended, outcome, repeats)


class Clients:
    """A client of each address every 50 ms, until it is stopped."""

    def __init__(self, addresses, port):
        self.knocks = []
        self.over = threading.Event()
        self.visitors = []
        self.callers = [threading.Thread(target=self.call, args=(address, port)) for address in addresses]
        for caller in self.callers:
            caller.start()

    def call(self, address, port):
        due = time.monotonic()
        while not self.over.is_set():
            visitor = threading.Thread(target=lambda: self.knocks.append(knock(address, port)))
            visitor.start()
            self.visitors.append(visitor)
            due += EVERY
            self.over.wait(max(0, due - time.monotonic()))

    def finish(self):
        self.over.set()
        for thread in itertools.chain(self.callers, list(self.visitors)):
            thread.join()
        for visitor in self.visitors:
            visitor.join()
        return self.knocks


class Mover:
    def __init__(self, args):
        self.args = args
        self.file = pathlib.Path(args.config)

    def write(self, binds, workers, others=()):
        names = ["front", "other"]
        listeners = [(name, f"{bind}:{self.args.port}") for name, bind in zip(names, binds)]
        listeners.extend(others)
        listeners.append(("stays", self.args.stays))
        text = f"[global]\nworkers = {workers}\n"
        for name, bind in listeners:
            text += f'[[listener]]\nname = "{name}"\nbind = "{bind}"\n'
        text += f'[[pool]]\nhealth = {{ type = "off" }}\nbackend = [{{ address = "{self.args.backend}" }}]\n'
        self.file.write_text(text, encoding="utf-8")

    def reload(self, binds, workers, others=()):
        self.write(binds, workers, others)
        told = subprocess.run(
            [self.args.l4lb, "ctl", "--socket", self.args.socket, "reload"], capture_output=True, text=True, check=False
        )
        if (told.returncode == 0) == bool(others):
            raise SystemExit(f"moves: the reload to {binds} and {others}: {told.stdout}{told.stderr}")

    def be_refused(self, workers):
        """What is refused because of one listener has let nobody in at another; prints and returns as `move` does."""
        self.reload([ANY], workers)
        over, knocks = threading.Event(), []

        def call():
            while not over.is_set():
                knocks.append(knock(ONE, self.args.port))

        callers = [threading.Thread(target=call) for _ in range(4)]
        with socket.socket() as taken:
            taken.bind((ONE, 0))
            taken.listen()
            for caller in callers:
                caller.start()
            for _ in range(REFUSED):
                self.reload([ONE], workers, [("taken", f"{ONE}:{taken.getsockname()[1]}")])
            over.set()
            for caller in callers:
                caller.join()
        spans = [(0, 0, [ANY])]
        return self.judge(Move(f"{REFUSED} moves that are refused", []), (workers,), knocks, spans)

    def move(self, move, workers):
        """Prints a line; returns what is wrong."""
        workers_of = move.workers or (workers, workers)
        self.reload(move.stages[0], workers_of[0])
        addresses = sorted(
            {
                address
                for binds in move.stages
                for address in (ONE, TWO, ONE_V6)
                if is_covered(address, binds)
            }
        )
        time.sleep(self.args.pause)
        clients = Clients(addresses, self.args.port)
        time.sleep(BEFORE)
        spans = [(time.monotonic(), time.monotonic(), move.stages[0])]
        for binds in move.stages[1:]:
            began = time.monotonic()
            self.reload(binds, workers_of[1])
            spans.append((began, time.monotonic(), binds))
        time.sleep(self.args.after)
        return self.judge(move, workers_of, clients.finish(), spans)

    def judge(self, move, workers_of, knocks, spans):
        wrong = []
        outcomes = collections.Counter()
        longest = 0
        for one in knocks:
            # While a reload is under way either set of listeners may be what serves.
            in_force = [
                binds
                for index, (began, _, binds) in enumerate(spans)
                if (index == 0 or began <= one.ended)
                and (index + 1 == len(spans) or one.began <= spans[index + 1][1])
            ]
            has_to_be_served = all(is_covered(one.address, binds) for binds in in_force)
            may_be_served = any(is_covered(one.address, binds) for binds in in_force)
            outcomes[one.outcome] += 1
            longest = max(longest, one.ended - one.began)
            is_right = one.outcome == "served" if has_to_be_served else True
            is_right = is_right and (may_be_served or one.outcome in ("refused", "reset"))
            if not is_right or one.repeats > 0 or one.outcome in ("waits", "cut short"):
                wrong.append(one)
        resets = sum(1 for one in wrong if one.repeats == 0 and one.outcome in ("reset", "refused"))
        repeated = sum(1 for one in wrong if one.repeats > 0)
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        of = "/".join(str(workers) for workers in dict.fromkeys(workers_of))
        print(
            f"{move.name:42} workers {of:3}: {len(knocks):4} clients ({told}), "
            f"{repeated} had to ask again, {resets} turned away, longest {longest * 1000:.0f} ms",
            flush=True,
        )
        return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--l4lb", required=True)
    parser.add_argument("--socket", required=True, help="of the admin API")
    parser.add_argument("--config", required=True, help="the file that l4lb reads")
    parser.add_argument("--port", type=int, required=True, help="at which the listeners are")
    parser.add_argument("--stays", required=True, help="the address of a listener that is always there")
    parser.add_argument("--backend", required=True, help="an echo server")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before the clients of a move come")
    parser.add_argument("--after", type=float, default=0.3, help="seconds for which they come behind it")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--write-only", action="store_true", help="write the file that l4lb is to start with")
    args = parser.parse_args()
    mover = Mover(args)
    if args.write_only:
        mover.write([], 1)
        return
    has_v6 = os.path.exists("/proc/net/if_inet6") and socket.has_ipv6
    wrong = []
    for _ in range(args.rounds):
        for move in MOVES:
            if not has_v6 and any(":" in bind for binds in move.stages for bind in binds):
                continue
            for workers in [None] if move.workers else [1, 2]:
                wrong += mover.move(move, workers)
        for workers in [1, 2]:
            wrong += mover.be_refused(workers)
    for one in wrong[:10]:
        print(f"wrong: {one.address} {one.outcome} after {(one.ended - one.began) * 1000:.0f} ms, repeats {one.repeats}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
