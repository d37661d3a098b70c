"""Clients: they resolve the name of the balancers by its ttl, as a program with /etc/resolv.conf would."""

import random
import socket
import struct
import threading
import time

from engines import NAME, RESOLVERS

DNS_SECONDS, DNS_ROUNDS = 1.0, 3
VISIT_SECONDS = 10
REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"


def query(name, server, seconds=DNS_SECONDS):
    """The A records of a name and the shortest of their ttl; fails as OSError."""
    asked = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0" + struct.pack("!2H", 1, 1)
    number = random.randrange(1 << 16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(seconds)
        s.connect(server)
        s.send(struct.pack("!6H", number, 0x100, 1, 0, 0, 0) + asked)
        answer = s.recv(4096)
    got, flags, _, records, _, _ = struct.unpack("!6H", answer[:12])
    if got != number or flags & 15 not in (0, 3):
        raise OSError(f"{server[0]}: answer code {flags & 15}")
    at, found, ttls = 12 + len(asked), [], [1]
    for _ in range(records):
        while 0 < answer[at] < 0xC0:
            at += 1 + answer[at]
        at += 1 if answer[at] == 0 else 2
        kind, _, ttl, size = struct.unpack("!2HIH", answer[at : at + 10])
        at += 10
        if kind == 1:
            found.append(socket.inet_ntoa(answer[at : at + size]))
            ttls.append(ttl)
        at += size
    return sorted(found), min(ttls)


class Resolver:
    """Asks each server in turn, and keeps an answer for its ttl. Several threads may use it."""

    def __init__(self, servers=None):
        self.servers = servers or list(RESOLVERS.values())
        self.lock = threading.Lock()
        self.known, self.end = [], 0.0
        self.answers, self.unanswered = 0, 0

    def addresses(self):
        """Those of the balancers; the last ones where no server answers."""
        with self.lock:
            if time.monotonic() >= self.end or not self.known:
                for server in self.servers * DNS_ROUNDS:
                    try:
                        found, ttl = query(NAME, server)
                    except OSError:
                        continue
                    self.answers += 1
                    self.known, self.end = found, time.monotonic() + ttl
                    break
                else:
                    self.unanswered += 1
                    self.end = time.monotonic() + 0.2
            return list(self.known)


def read_answer(s):
    """One HTTP answer with a Content-Length; fails as OSError when the stream ends before."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += receive(s)
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise OSError(f"answer {head[:40]!r}")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += receive(s)


def receive(s):
    some = s.recv(65536)
    if not some:
        raise OSError("the stream ended within an answer")
    return some


class Load:
    """Clients that request something over a new connection, again and again. Where a balancer fails one, it tries the
    other ones: `first` counts requests whose first balancer failed, `failed` those that all of them failed."""

    PAUSE = 0.015

    def __init__(self, port, clients=3):
        self.port, self.resolver = port, Resolver()
        self.lock, self.over = threading.Lock(), threading.Event()
        self.clear()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(clients)]

    def clear(self):
        self.requests, self.first, self.failed, self.reasons = 0, 0, 0, []

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(30)

    def since(self):
        """What has happened since the last call: requests, those with a failed first try, failed ones, reasons."""
        with self.lock:
            found = (self.requests, self.first, self.failed, self.reasons[:5])
            self.clear()
        return found

    def run(self):
        while not self.over.wait(self.PAUSE):
            addresses = self.resolver.addresses()
            random.shuffle(addresses)
            reasons = []
            for address in addresses:
                try:
                    with socket.create_connection((address, self.port), VISIT_SECONDS) as s:
                        s.sendall(REQUEST)
                        read_answer(s)
                    break
                except OSError as error:
                    reasons.append(f"{address}: {error}")
            with self.lock:
                self.requests += 1
                self.first += bool(reasons) or not addresses
                self.failed += len(reasons) == len(addresses)
                self.reasons += reasons


class Sessions:
    """Sessions that stay open, with a request now and then. `broken` lists what ended one of them."""

    REQUEST_SECONDS = 1.0

    def __init__(self, port):
        self.port, self.resolver = port, Resolver()
        self.open, self.broken, self.lock = [], [], threading.Lock()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def open_more(self, count):
        """Opens so many more, each at a balancer by chance."""
        for _ in range(count):
            address = random.choice(self.resolver.addresses())
            s = socket.create_connection((address, self.port), VISIT_SECONDS)
            s.sendall(REQUEST)
            read_answer(s)
            with self.lock:
                self.open.append((s, address))

    def close(self, count):
        """Closes so many of them, the oldest first."""
        with self.lock:
            ended, self.open = self.open[:count], self.open[count:]
        for s, _ in ended:
            s.close()

    def addresses(self):
        with self.lock:
            return [address for _, address in self.open]

    def run(self):
        while not self.over.wait(self.REQUEST_SECONDS):
            with self.lock:
                kept = []
                for s, address in self.open:
                    try:
                        s.sendall(REQUEST)
                        read_answer(s)
                        kept.append((s, address))
                    except OSError as error:
                        self.broken.append(f"{address}: {error}")
                self.open = kept

    def stop(self):
        self.over.set()
        self.thread.join(30)
        self.close(len(self.open))
