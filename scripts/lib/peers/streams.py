"""A few connections: what a small request waits, how much goes through, and whether each byte comes in its place."""

import os
import random
import select
import socket
import sys
import threading
import time

from commands import answer, split


# --- ping -----------------------------------------------------------------------------------------------------------

PING = bytes(50)
PING_SECONDS_MAX = 10


def send_pings(args):
    """Prints count, p50, p99 and the longest in microseconds. What was due while another one was under way is left out."""
    took = []
    with socket.create_connection(split(args.address), PING_SECONDS_MAX) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = due = time.monotonic()
        while due < began + args.seconds:
            time.sleep(max(0, due - time.monotonic()))
            sent = time.monotonic()
            connection.sendall(PING)
            if connection.recv(len(PING), socket.MSG_WAITALL) != PING:
                sys.exit("another answer than what was sent")
            took.append(time.monotonic() - sent)
            due = max(due + args.every / 1000, time.monotonic())
    took.sort()
    p50, p99, most = (round(took[int(place * (len(took) - 1))] * 1e6) for place in (0.5, 0.99, 1))
    print(f"pings={len(took)} p50={p50} p99={p99} max={most}", flush=True)


# --- bulk -----------------------------------------------------------------------------------------------------------


class Bulk:
    """Costs little itself: the sources send a file, the sinks have the kernel throw away what has come.

    `mark` prints the bytes received since the last mark, and in which time.
    """

    CHUNK = 1 << 20

    def __init__(self, args):
        self.file = os.memfd_create("bulk")
        os.truncate(self.file, self.CHUNK)
        os.write(self.file, bytes(self.CHUNK))
        self.waste = bytearray(self.CHUNK)
        self.poll = select.epoll()
        listener = socket.create_server(split(args.listen), backlog=args.count)
        self.sinks, self.sources = {}, {}
        for _ in range(args.count):
            sink = socket.create_connection(split(args.address), 10)
            # It reads rarely and much at a time.
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, self.CHUNK // 4)
            self.add(self.sinks, sink, select.EPOLLIN)
        for _ in range(args.count):
            self.add(self.sources, listener.accept()[0], select.EPOLLOUT)
        self.came = 0
        self.marked = time.monotonic()

    def add(self, sockets, end, events):
        end.setblocking(False)
        sockets[end.fileno()] = end
        self.poll.register(end, events)

    def run(self):
        print(f"streams={len(self.sinks)}", flush=True)
        self.poll.register(sys.stdin, select.EPOLLIN)
        while True:
            for fd, _ in self.poll.poll():
                self.move(fd)

    def move(self, fd):
        try:
            if fd in self.sinks:
                got = self.sinks[fd].recv_into(self.waste, 0, socket.MSG_TRUNC)
                if got == 0:
                    sys.exit("a stream has ended")
                self.came += got
            elif fd in self.sources:
                os.sendfile(fd, self.file, 0, self.CHUNK)
            else:
                self.mark(sys.stdin.readline().split()[0])
        except BlockingIOError:
            pass

    def mark(self, identity):
        now = time.monotonic()
        answer(identity, f"bytes={self.came} seconds={now - self.marked:.3f}")
        self.came, self.marked = 0, now


# --- stream ---------------------------------------------------------------------------------------------------------


class Stream:
    """One end of one connection. Each direction has a pattern that the other end knows."""

    # The place of a byte follows from its surroundings; only a shift by exactly that much goes unnoticed.
    PERIOD = 1_000_003
    SLICE_MAX = 1 << 16
    TIMEOUT = 60
    SLOW_BUFFER = 16 << 10
    SLOW_READ = 2_000
    SLOW_PAUSE = 0.002

    def __init__(self, args):
        self.args = args
        self.sent = self.received = 0
        self.longest_wait = 0.0
        self.outgoing, self.incoming = self.pattern(bool(args.listen)), self.pattern(not args.listen)

    def pattern(self, of_listener):
        block = random.Random(int(of_listener)).randbytes(self.PERIOD)
        return block + block[: self.SLICE_MAX]

    def run(self):
        with self.connected() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(self.TIMEOUT)
            sender = threading.Thread(target=self.send, args=[connection])
            sender.start()
            if not self.args.leave:
                self.receive(connection)
            sender.join()
            if self.args.end_last:
                connection.shutdown(socket.SHUT_WR)
        print(
            f"sent={self.sent} received={self.received} longest_wait_ms={1000 * self.longest_wait:.0f}", flush=True
        )

    def connected(self):
        end = socket.socket()
        if self.args.slow:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.SLOW_BUFFER)
        if self.args.connect:
            end.connect(split(self.args.connect))
            return end
        with end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            end.bind(split(self.args.listen))
            end.listen()
            print("listening", flush=True)
            return end.accept()[0]

    def send(self, connection):
        while self.sent < self.args.send:
            size = min(self.args.slice, self.SLICE_MAX, self.args.send - self.sent)
            at = self.sent % self.PERIOD
            self.sent += connection.send(self.outgoing[at : at + size])
        if not self.args.end_last:
            connection.shutdown(socket.SHUT_WR)

    def receive(self, connection):
        """Reads until the stream ends, which must be by a FIN."""
        while True:
            began = time.monotonic()
            part = connection.recv(self.SLOW_READ if self.args.slow else self.SLICE_MAX)
            self.longest_wait = max(self.longest_wait, time.monotonic() - began)
            if not part:
                return
            at = self.received % self.PERIOD
            if part != self.incoming[at : at + len(part)]:
                raise ValueError(f"not what was sent: {len(part)} bytes behind byte {self.received}")
            self.received += len(part)
            if self.args.slow:
                time.sleep(self.SLOW_PAUSE)
