"""A name server with A records, which are as commands say."""

import asyncio
import random
import struct
import sys
import time

from commands import answer, split

HEADER = struct.Struct(">HHHHHH")
# The name of the question, A, IN, the time to live and the length of an address.
RECORD = struct.Struct(">HHHIH").pack(0xC00C, 1, 1, 1, 4)
TYPE_A = 1
RESPONSE, AUTHORITATIVE, TRUNCATED, RECURSION_DESIRED = 0x8000, 0x0400, 0x0200, 0x0100
SERVFAIL, NXDOMAIN = 2, 3
# Records that are certain to fit into a datagram.
DATAGRAM_RECORDS = 25
# 127.16.0.0/12 is where addresses come from.
FIRST, BITS = 0x7F100000, 20
# Changes are made so often a second.
BEATS = 10


class Names:
    """Answers by UDP and TCP. What does not fit into a datagram is truncated there."""

    def __init__(self, args):
        self.at = split(args.address)
        self.addresses = {}
        self.is_failing = False
        self.questions = 0
        self.random = random.Random(0)
        self.used = set()
        self.changes = 0
        self.stirring = None

    async def run(self):
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: Datagrams(self), local_addr=self.at)
        await asyncio.start_server(self.serve_stream, *self.at)
        print("answers", flush=True)
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async for line in reader:
            identity, command, *args = line.decode().split()
            answer(identity, getattr(self, "on_" + command)(*args))

    def on_set(self, name, *addresses):
        """set NAME ADDRESS...: the name has these addresses."""
        self.addresses[name] = [bytes(map(int, address.split("."))) for address in addresses]
        return "set"

    def on_fill(self, name, count):
        """fill NAME COUNT: the name has so many addresses that no other name has."""
        self.addresses[name] = [self.unused() for _ in range(int(count))]
        return f"addresses={sum(map(len, self.addresses.values()))}"

    def on_fail(self, is_failing):
        """fail yes|no: all questions are answered by SERVFAIL."""
        self.is_failing = is_failing == "yes"
        return "set"

    def on_stir(self, per_minute):
        """stir PER_MINUTE: so many addresses come or go a minute from now on; as many go as come."""
        if self.stirring:
            self.stirring.cancel()
        self.stirring = asyncio.get_running_loop().create_task(self.stir(int(per_minute) / 60))
        return "stirring"

    def on_count(self):
        """count: changes and questions so far."""
        return f"changes={self.changes} questions={self.questions}"

    async def stir(self, per_second):
        began, before = time.monotonic(), self.changes
        while True:
            await asyncio.sleep(1 / BEATS)
            due = before + int((time.monotonic() - began) * per_second)
            while self.changes + 2 <= due:
                addresses = self.random.choice(list(self.addresses.values()))
                place = self.random.randrange(len(addresses))
                self.used.remove(addresses[place])
                addresses[place] = self.unused()
                self.changes += 2

    def unused(self):
        while True:
            address = (FIRST + self.random.getrandbits(BITS)).to_bytes(4, "big")
            if address not in self.used:
                self.used.add(address)
                return address

    def answer(self, question, most):
        """The answer to a question, with so many records at most; None if it is none."""
        if len(question) < HEADER.size + 5:
            return None
        identity, flags, count, *_ = HEADER.unpack_from(question)
        if flags & RESPONSE or count != 1:
            return None
        self.questions += 1
        labels, at = [], HEADER.size
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode())
            at += 1 + question[at]
        (kind,) = struct.unpack_from(">H", question, at + 1)
        known = self.addresses.get(".".join(labels).lower())
        code = SERVFAIL if self.is_failing else NXDOMAIN if known is None else 0
        records = known if code == 0 and kind == TYPE_A else []
        flags = RESPONSE | AUTHORITATIVE | (flags & RECURSION_DESIRED) | code
        if len(records) > most:
            flags, records = flags | TRUNCATED, []
        head = HEADER.pack(identity, flags, 1, len(records), 0, 0) + question[HEADER.size : at + 5]
        return head + b"".join(RECORD + address for address in records)

    async def serve_stream(self, reader, writer):
        try:
            while True:
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                reply = self.answer(await reader.readexactly(length), 0xFFFF // 16)
                if reply is None:
                    break
                writer.write(struct.pack(">H", len(reply)) + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, names):
        self.names = names

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, question, sender):
        reply = self.names.answer(question, DATAGRAM_RECORDS)
        if reply:
            self.transport.sendto(reply, sender)
