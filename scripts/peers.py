"""The peers of the checks: servers and clients that do as the script says.

Each role runs until it is killed. Commands come as lines "ID COMMAND ARGS" on standard input and are answered by
"ID ANSWER" on standard output. Standard library only.
"""

import argparse
import asyncio
import errno
import http.server
import itertools
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import threading
import time

SETTLED_AFTER = 0.5
STICK_AGAIN_AFTER = 1
FIRST_PORT = 15000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    echo = roles.add_parser("echo", help="sends back what it gets")
    echo.add_argument("address", help="HOST or HOST:PORT")
    hold = roles.add_parser("hold", help="opens sessions and keeps them")
    hold.add_argument("address")
    hold.add_argument("count", type=int)
    hold.add_argument("--again", action="store_true", help="open a session again when it is reset")
    hold.add_argument("--at-once", type=int, default=1000, help="sessions that are being opened at a time")
    talk = roles.add_parser("talk", help="keeps sessions with an echo server that never fall silent, and looks at every byte")
    talk.add_argument("address")
    talk.add_argument("count", type=int)
    stick = roles.add_parser("stick", help="opens connections that never finish what they begin, again when they are closed")
    stick.add_argument("address")
    stick.add_argument("count", type=int)
    requests = roles.add_parser("requests", help="one HTTP request a connection, again and again")
    requests.add_argument("address")
    requests.add_argument("--seconds", type=float, default=60)
    ping = roles.add_parser("ping", help="one session with an echo server: a few bytes at a fixed pace; says how long they took")
    ping.add_argument("address")
    ping.add_argument("--seconds", type=float, required=True)
    ping.add_argument("--every", type=float, default=4, metavar="MILLISECONDS")
    bulk = roles.add_parser("bulk", help="both ends of streams from the backend, as many bytes as go through; says how many")
    bulk.add_argument("address", help="of the balancer")
    bulk.add_argument("count", type=int)
    bulk.add_argument("--listen", metavar="ADDRESS", required=True)
    stream = roles.add_parser("stream", help="one connection: sends its pattern, compares what comes, says how it went")
    ends = stream.add_mutually_exclusive_group(required=True)
    ends.add_argument("--listen", metavar="ADDRESS")
    ends.add_argument("--connect", metavar="ADDRESS")
    stream.add_argument("--send", type=int, default=0, metavar="BYTES", help="then the stream ends")
    stream.add_argument("--slice", type=int, default=1 << 16, metavar="BYTES", help="most in one write")
    stream.add_argument("--slow", action="store_true", help="read with pauses, into a small buffer")
    stream.add_argument("--end-last", action="store_true", help="end this stream once the other one has ended")
    stream.add_argument("--leave", action="store_true", help="close when all is sent, without a read")
    crowd = roles.add_parser("crowd", help="both ends of many connections: one sends at once, the other reads when told to")
    crowd.add_argument("address", help="of the balancer")
    crowd.add_argument("--listen", metavar="ADDRESS", required=True)
    crowd.add_argument("--send", type=int, metavar="BYTES", required=True, help="in each connection, then its stream ends")
    hasty = roles.add_parser("hasty", help="clients that send a few bytes and reset, and the backend that counts whose all came")
    hasty.add_argument("address", help="of the balancer")
    hasty.add_argument("--listen", metavar="ADDRESS", required=True)
    hasty.add_argument("--count", type=int, required=True)
    pipes = roles.add_parser("pipes", help="holds pipes as the kernel makes them")
    pipes.add_argument("count", type=int)
    pipes.add_argument("--user", type=int, metavar="UID", required=True, help="whose pipes they are")
    files = roles.add_parser("files", help="HTTP: GET and PUT of the files of a directory")
    files.add_argument("directory")
    ports = roles.add_parser("free-ports")
    ports.add_argument("count", type=int)
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    match args.role:
        case "echo":
            asyncio.run(serve_echo(args.address))
        case "hold":
            asyncio.run(Holder(args).run())
        case "talk":
            asyncio.run(Talker(args).run())
        case "stick":
            asyncio.run(Sticker(args).run())
        case "requests":
            Requests(args).run()
        case "ping":
            send_pings(args)
        case "bulk":
            Bulk(args).run()
        case "stream":
            Stream(args).run()
        case "crowd":
            asyncio.run(Crowd(args).run())
        case "hasty":
            print(f"whole={asyncio.run(count_hasty(args))}", flush=True)
        case "pipes":
            hold_pipes(args)
        case "files":
            serve_files(args.directory)
        case "free-ports":
            print_free_ports(args.count)


def split(address):
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def answer(identity, text):
    print(identity, text, flush=True)


# --- echo ------------------------------------------------------------------------------------------------------------


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def serve_echo(address):
    host, port = split(address) if ":" in address else (address, 0)
    server = await asyncio.get_running_loop().create_server(Echo, host, port, backlog=4096)
    print(f"port={server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


# --- ping ------------------------------------------------------------------------------------------------------------

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


# --- bulk ------------------------------------------------------------------------------------------------------------


class Bulk:
    """Costs little itself: the sources send a file, the sinks have the kernel throw away what has come.

    `mark` tells how many bytes have come since the last mark, and in which time.
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


# --- hold ------------------------------------------------------------------------------------------------------------


class Holder:
    """Sessions through an echo server. One is served once it has got its first bytes back."""

    def __init__(self, args):
        self.address = split(args.address)
        self.count = args.count
        self.again = args.again
        self.gate = asyncio.Semaphore(args.at_once)
        self.keep = True
        self.held = set()
        self.waiting = self.served = self.reset_count = 0
        self.failures = {}
        self.last_change = time.monotonic()
        self.tasks = set()

    async def run(self):
        self.loop = asyncio.get_running_loop()
        self.open(self.count)
        reader = asyncio.StreamReader()
        await self.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async for line in reader:
            identity, command, *args = line.decode().split()
            answer(identity, await getattr(self, "on_" + command)(*args))

    def open(self, count):
        for _ in range(count):
            self.waiting += 1
            task = asyncio.create_task(self.session())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def session(self):
        async with self.gate:
            client = await self.open_session()
        self.waiting -= 1
        self.last_change = time.monotonic()
        if client is None:
            return
        self.served += 1
        if self.keep:
            self.held.add(client)
        else:
            client.close()

    async def open_session(self):
        while True:
            client = socket.socket()
            client.setblocking(False)
            try:
                await self.loop.sock_connect(client, self.address)
                if await self.exchange(client):
                    return client
                raise OSError(errno.ECONNABORTED, "end of file")
            except OSError as error:
                client.close()
                if self.again:
                    self.reset_count += 1
                    await asyncio.sleep(0.1)
                    continue
                name = errno.errorcode.get(error.errno, str(error))
                self.failures[name] = self.failures.get(name, 0) + 1
                return None

    async def exchange(self, client):
        """Whether what was sent came back."""
        sent = random.randbytes(16)
        await self.loop.sock_sendall(client, sent)
        got = b""
        while len(got) < len(sent):
            part = await self.loop.sock_recv(client, len(sent) - len(got))
            if not part:
                return False
            got += part
        return got == sent

    def figures(self):
        failed = sum(self.failures.values())
        errors = ",".join(f"{name}:{count}" for name, count in sorted(self.failures.items())) or "-"
        return (
            f"served={self.served} held={len(self.held)} waiting={self.waiting} failed={failed} "
            f"errors={errors} resets={self.reset_count}"
        )

    async def on_count(self):
        return self.figures()

    async def on_settle(self):
        """Waits until nothing has changed for a while."""
        while time.monotonic() - self.last_change < SETTLED_AFTER:
            await asyncio.sleep(0.05)
        return self.figures()

    async def on_open(self, count):
        began = time.monotonic()
        self.open(int(count))
        while self.waiting:
            await asyncio.sleep(0.005)
        return f"{self.figures()} ms={1000 * (time.monotonic() - began):.0f}"

    async def on_ping(self):
        """Every held session exchanges bytes once more."""
        results = await asyncio.gather(*map(self.exchange, self.held), return_exceptions=True)
        pong = results.count(True)
        return f"pong={pong} lost={len(results) - pong}"

    async def on_send(self):
        """Every held session sends 16 bytes."""
        results = await asyncio.gather(*map(self.send, self.held), return_exceptions=True)
        return f"sent={results.count(None)}"

    async def send(self, client):
        await self.loop.sock_sendall(client, b"sixteen bytes...")

    async def on_receive(self):
        """Every held session gets back what `send` sent."""
        results = await asyncio.gather(*map(self.receive, self.held), return_exceptions=True)
        got = results.count(16)
        return f"got={got} lost={len(results) - got}"

    async def receive(self, client):
        return len(await self.loop.sock_recv(client, 4096))

    async def on_finish(self):
        """Ends the held sessions, and all others as soon as they are served."""
        self.keep = False
        self.end_all(reset=False)
        while self.waiting:
            await asyncio.sleep(0.02)
        return self.figures()

    async def on_reset(self):
        count = len(self.held)
        self.end_all(reset=True)
        return f"reset={count}"

    def end_all(self, reset):
        for client in self.held:
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        self.held.clear()


# --- talk ------------------------------------------------------------------------------------------------------------


class Talker:
    """Sessions that send records with their own number and that of the record, and get the same bytes back: none may be
    lost, none may come twice or from elsewhere, also not at the end. One record is always on its way."""

    AT_ONCE = 200
    PAUSE = 1.0
    # Bytes that have not come by then are lost.
    LATE_AFTER = 30
    LINES_MAX = 50
    # Now and then one that is more than a buffer of the balancer.
    LONG_EVERY = 16
    LONG_LINES = 8192

    def __init__(self, args):
        self.address = split(args.address)
        self.count = args.count
        self.gate = asyncio.Semaphore(self.AT_ONCE)
        self.enough = asyncio.Event()
        self.open = self.right = self.bytes = 0
        self.failures = {}

    async def run(self):
        sessions = [asyncio.create_task(self.session(number)) for number in range(self.count)]
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async for line in reader:
            identity, command = line.decode().split()
            if command == "finish":
                self.enough.set()
                await asyncio.gather(*sessions)
            answer(identity, self.figures())

    def figures(self):
        errors = ",".join(f"{error}:{count}" for error, count in sorted(self.failures.items())) or "-"
        return (
            f"open={self.open} right={self.right} broken={sum(self.failures.values())} bytes={self.bytes} "
            f"errors={errors}"
        )

    async def session(self, number):
        try:
            async with self.gate:
                reader, writer = await asyncio.open_connection(*self.address)
            self.open += 1
            try:
                await self.talk(number, reader, writer)
            finally:
                self.open -= 1
                writer.close()
            self.right += 1
        except (OSError, EOFError, ValueError) as failure:
            error = repr(failure).replace(" ", "_")[:80]
            self.failures[error] = self.failures.get(error, 0) + 1

    async def talk(self, number, reader, writer):
        under_way = b""
        for index in itertools.count():
            record = self.record(number, index)
            writer.write(record)
            await self.expect(reader, under_way)
            under_way = record
            if self.enough.is_set():
                break
            try:
                await asyncio.wait_for(self.enough.wait(), random.uniform(0.5, 1.5) * self.PAUSE)
            except TimeoutError:
                pass
        writer.write_eof()
        await self.expect(reader, under_way)
        if more := await reader.read(100):
            raise ValueError(f"behind the last byte: {more[:20]}")

    def record(self, number, index):
        is_long = (number + index) % self.LONG_EVERY == 0
        return b"%d %d\n" % (number, index) * (self.LONG_LINES if is_long else 1 + index % self.LINES_MAX)

    async def expect(self, reader, record):
        async with asyncio.timeout(self.LATE_AFTER):
            got = await reader.readexactly(len(record))
        if got != record:
            raise ValueError(f"not what was sent: {got[:20]} for {record[:20]}")
        self.bytes += len(got)


# --- stick -----------------------------------------------------------------------------------------------------------


class Sticker:
    """Clients of an HTTP server: some say nothing, some only half of a head, some a head without its body."""

    BEGINNINGS = [
        b"",
        b"GET /v1/status HTTP/1.1\r\nHost: loc",
        b"POST /v1/pools/web/backends HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    ]

    def __init__(self, args):
        self.address = split(args.address)
        self.count = args.count
        self.opened = 0

    async def run(self):
        clients = [asyncio.create_task(self.stick(self.BEGINNINGS[index % 3])) for index in range(self.count)]
        while self.opened < self.count:
            await asyncio.sleep(0.1)
        print("stuck", flush=True)
        await asyncio.gather(*clients)

    async def stick(self, beginning):
        while True:
            try:
                reader, writer = await asyncio.open_connection(*self.address)
                self.opened += 1
                writer.write(beginning)
                await reader.read()
                writer.close()
            except OSError:
                pass
            await asyncio.sleep(STICK_AGAIN_AFTER)


# --- requests --------------------------------------------------------------------------------------------------------


class Requests:
    """A few threads that each make one connection a request. `mark` begins a new count."""

    THREADS = 4
    TIMEOUT = 5

    def __init__(self, args):
        self.address = split(args.address)
        self.deadline = time.monotonic() + args.seconds
        self.lock = threading.Lock()
        self.mark = time.monotonic()
        self.clear()

    def clear(self):
        self.ok = self.failed = self.from_before = 0
        self.slowest = 0.0
        self.errors = {}
        self.ports = {}

    def run(self):
        for _ in range(self.THREADS):
            threading.Thread(target=self.work, daemon=True).start()
        for line in sys.stdin:
            identity, command = line.split()
            with self.lock:
                text = self.figures()
                if command == "mark":
                    self.mark = time.monotonic()
                    self.clear()
            answer(identity, text)

    def work(self):
        while time.monotonic() < self.deadline:
            began = time.monotonic()
            try:
                port, error = self.request(), None
            except (OSError, ValueError) as failure:
                port, error = None, repr(failure).replace(" ", "_")
            with self.lock:
                self.count(began, port, error)
            time.sleep(0.001)

    def request(self):
        with socket.create_connection(self.address, self.TIMEOUT) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: l4lb\r\nConnection: close\r\n\r\n")
            got = b"".join(iter(lambda: client.recv(4096), b""))
        told = re.match(rb"HTTP/1.1 200 .*on port (\d+)", got, re.DOTALL)
        if not told:
            raise ValueError(got[:40])
        return told[1].decode()

    def count(self, began, port, error):
        if began < self.mark:
            self.from_before += error is not None
        elif error:
            self.failed += 1
            self.errors[error] = self.errors.get(error, 0) + 1
        else:
            self.ok += 1
            self.ports[port] = self.ports.get(port, 0) + 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    def figures(self):
        errors = ",".join(f"{error}:{count}" for error, count in self.errors.items()) or "-"
        ports = ",".join(sorted(self.ports)) or "-"
        return (
            f"ok={self.ok} failed={self.failed} from_before={self.from_before} ports={ports} "
            f"slowest_ms={1000 * self.slowest:.0f} errors={errors}"
        )


# --- stream ----------------------------------------------------------------------------------------------------------


class Stream:
    """One end of one connection. Each direction has a pattern that the other end knows."""

    # Where a byte belongs can be told from its surroundings; only a shift by exactly that much goes unnoticed.
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


# --- crowd -----------------------------------------------------------------------------------------------------------


class Crowd:
    """Both ends of many connections, of which one sends. Each stream has a pattern of its own: no byte passes for another."""

    PERIOD = 65_521
    # Small: what is not read has to wait in the balancer.
    BUFFER = 16 << 10

    def __init__(self, args):
        self.address = split(args.address)
        self.length = args.send
        self.listener = socket.create_server(split(args.listen), backlog=4096)
        self.listener.setblocking(False)
        block = random.Random(0).randbytes(self.PERIOD)
        self.block = block + block
        self.readers = []
        self.senders = []
        self.sent = 0
        self.last_change = time.monotonic()

    async def run(self):
        self.loop = asyncio.get_running_loop()
        print("listening", flush=True)
        reader = asyncio.StreamReader()
        await self.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async for line in reader:
            identity, command, *args = line.decode().split()
            answer(identity, await getattr(self, "on_" + command)(*args))

    async def on_open(self, count):
        """Opens connections: by turns the client sends and the backend, as much as is taken."""
        for number in range(int(count)):
            client = self.prepared(socket.socket())
            await self.loop.sock_connect(client, self.address)
            ends = [client, self.prepared((await self.loop.sock_accept(self.listener))[0])]
            self.senders.append(asyncio.create_task(self.send(ends[number % 2], number)))
            self.readers.append(CrowdReader(ends[1 - number % 2], number))
        return f"streams={len(self.readers)}"

    def prepared(self, end):
        end.setblocking(False)
        for buffer in [socket.SO_SNDBUF, socket.SO_RCVBUF]:
            end.setsockopt(socket.SOL_SOCKET, buffer, self.BUFFER)
        return end

    def pattern(self, number, start, length):
        at = (start + 7_919 * number) % self.PERIOD
        return self.block[at : at + length]

    async def send(self, end, number):
        with end:
            sent = 0
            while sent < self.length:
                part = self.pattern(number, sent, min(self.BUFFER, self.length - sent))
                await self.loop.sock_sendall(end, part)
                sent += len(part)
                self.sent += len(part)
                self.last_change = time.monotonic()
            end.shutdown(socket.SHUT_WR)
            if await self.loop.sock_recv(end, 1):
                raise ValueError("the other end sends nothing")

    async def on_settle(self):
        """Waits until nobody has sent anything for a while."""
        while time.monotonic() - self.last_change < SETTLED_AFTER:
            await asyncio.sleep(0.05)
        return f"sent={self.sent}"

    async def on_read(self, count):
        """Reads so many bytes of each stream."""
        return await self.read_all(int(count))

    async def on_finish(self):
        """Reads all streams to their ends."""
        return await self.read_all(self.length + 1)

    async def read_all(self, limit):
        reads = [self.read(reader, limit) for reader in self.readers]
        results = await asyncio.gather(*reads, return_exceptions=True)
        if limit > self.length:
            results += await asyncio.gather(*self.senders, return_exceptions=True)
        errors = {repr(result).replace(" ", "_") for result in results if isinstance(result, Exception)}
        return f"right={results.count(True)} errors={','.join(sorted(errors))[:200] or '-'}"

    async def read(self, reader, limit):
        """Whether there were so many bytes."""
        while reader.received < limit:
            part = await self.loop.sock_recv(reader.end, min(self.PERIOD, limit - reader.received))
            if not part:
                reader.end.close()
                return reader.received == self.length
            if part != self.pattern(reader.number, reader.received, len(part)):
                raise ValueError(f"not what was sent: {len(part)} bytes behind byte {reader.received}")
            reader.received += len(part)
        return True


class CrowdReader:
    def __init__(self, end, number):
        self.end = end
        self.number = number
        self.received = 0


# --- hasty -----------------------------------------------------------------------------------------------------------


async def count_hasty(args):
    """How many of the clients were heard to the last byte. Ends when all were, or when no byte has come for a while."""
    words, settled = b"last words", asyncio.Event()
    whole = 0

    async def listen(reader, writer):
        nonlocal whole
        heard = b""
        try:
            while part := await reader.read(1024):
                heard += part
        except ConnectionError:
            pass
        writer.close()
        whole += heard == words
        settled.set()

    await asyncio.start_server(listen, *split(args.listen), backlog=4096)
    await asyncio.to_thread(send_hastily, split(args.address), words, args.count)
    while whole < args.count:
        try:
            await asyncio.wait_for(settled.wait(), SETTLED_AFTER)
            settled.clear()
        except TimeoutError:
            break
    return whole


def send_hastily(address, words, count):
    for _ in range(count):
        with socket.create_connection(address) as client:
            client.send(words)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# --- pipes -----------------------------------------------------------------------------------------------------------


def hold_pipes(args):
    os.setgroups([])
    os.setresgid(args.user, args.user, args.user)
    os.setresuid(args.user, args.user, args.user)
    held = [os.pipe() for _ in range(args.count)]
    print(f"held={len(held)}", flush=True)
    signal.pause()


# --- files -----------------------------------------------------------------------------------------------------------


class Files(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        left = int(self.headers["Content-Length"])
        with open(self.translate_path(self.path), "wb") as file:
            while left:
                part = self.rfile.read(min(left, 1 << 20))
                if not part:
                    raise ConnectionError(f"{left} bytes are missing")
                file.write(part)
                left -= len(part)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def copyfile(self, source, outputfile):
        shutil.copyfileobj(source, outputfile, 1 << 20)


def serve_files(directory):
    def handler(*args):
        return Files(*args, directory=directory)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    print(f"port={server.server_address[1]}", flush=True)
    server.serve_forever()


# --- ports -----------------------------------------------------------------------------------------------------------


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


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        os._exit(0)
