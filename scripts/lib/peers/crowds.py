"""Both ends of many connections."""

import asyncio
import random
import socket
import struct
import sys
import time

from commands import SETTLED_AFTER, answer, split


# --- crowd ----------------------------------------------------------------------------------------------------------


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


# --- hasty ----------------------------------------------------------------------------------------------------------


async def count_hasty(args):
    """The number of clients whose every byte has arrived. Ends when all were, or when no byte has come for a while."""
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
