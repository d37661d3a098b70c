"""The peers of the checks: servers and clients that do as the script says.

Each role runs until it is killed. Commands come as lines "ID COMMAND ARGS" on standard input and are answered by
"ID ANSWER" on standard output. Standard library only.
"""

import argparse
import asyncio
import os
import resource
import sys

# No folder of compiled files among the sources.
sys.dont_write_bytecode = True

import crowds  # noqa: E402
import machine  # noqa: E402
import names  # noqa: E402
import sessions  # noqa: E402
import streams  # noqa: E402
import web  # noqa: E402


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
    crowd = roles.add_parser("crowd", help="both ends of many connections: one sends at once, the other reads on command")
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
    name_server = roles.add_parser("names", help="a name server whose addresses are as commands say")
    name_server.add_argument("address")
    ports = roles.add_parser("free-ports")
    ports.add_argument("count", type=int)
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    match args.role:
        case "echo":
            asyncio.run(sessions.serve_echo(args.address))
        case "hold":
            asyncio.run(sessions.Holder(args).run())
        case "talk":
            asyncio.run(sessions.Talker(args).run())
        case "stick":
            asyncio.run(web.Sticker(args).run())
        case "requests":
            web.Requests(args).run()
        case "ping":
            streams.send_pings(args)
        case "bulk":
            streams.Bulk(args).run()
        case "stream":
            streams.Stream(args).run()
        case "crowd":
            asyncio.run(crowds.Crowd(args).run())
        case "hasty":
            print(f"whole={asyncio.run(crowds.count_hasty(args))}", flush=True)
        case "pipes":
            machine.hold_pipes(args)
        case "files":
            web.serve_files(args.directory)
        case "names":
            asyncio.run(names.Names(args).run())
        case "free-ports":
            machine.print_free_ports(args.count)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        os._exit(0)
