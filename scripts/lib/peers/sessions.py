"""An echo server, and clients that keep sessions with it."""

import asyncio
import errno
import itertools
import random
import socket
import struct
import sys
import time

from commands import SETTLED_AFTER, answer, split


# --- echo -----------------------------------------------------------------------------------------------------------


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


# --- hold -----------------------------------------------------------------------------------------------------------


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


# --- talk -----------------------------------------------------------------------------------------------------------


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
