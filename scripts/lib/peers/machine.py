"""What the machine gives: pipes and ports."""

import os
import random
import signal
import socket

FIRST_PORT = 15000


# --- pipes ----------------------------------------------------------------------------------------------------------


def hold_pipes(args):
    os.setgroups([])
    os.setresgid(args.user, args.user, args.user)
    os.setresuid(args.user, args.user, args.user)
    held = [os.pipe() for _ in range(args.count)]
    print(f"held={len(held)}", flush=True)
    signal.pause()


# --- ports ----------------------------------------------------------------------------------------------------------


def print_free_ports(count):
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first_outgoing = int(file.read().split()[0])
    candidates = list(range(FIRST_PORT, max(first_outgoing, FIRST_PORT + 1000)))
    random.shuffle(candidates)
    free = []
    for port in candidates:
        if len(free) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                free.append(port)
            except OSError:
                pass
    print(*free)
