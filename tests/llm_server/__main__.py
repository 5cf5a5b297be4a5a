"""Runs the test LLM server: one JSON line with its port on standard output, then requests until told to stop."""

import argparse
import asyncio
import gc
import json
import os
import signal
import stat
import sys

from tests.llm_server.behaviour import DEFAULT_MODEL, Behaviour
from tests.llm_server.dialects import DIALECTS
from tests.llm_server.server import Server

PARENT_CHECK_SECONDS = 0.5


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM, SIGINT, the end of standard input (with --leash), or the end of the parent process."""
    parent = os.getppid() if arguments.parent is None else arguments.parent
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if arguments.leash:
        # Only a pipe's end means anything: /dev/null is always at its end, and epoll refuses files.
        if not stat.S_ISFIFO(os.fstat(0).st_mode):
            raise SystemExit("--leash needs a pipe as standard input: leave it out to run by hand")
        loop.add_reader(0, _read_leash, stopped)
    # A journal only grows, and walking it again and again in search of cycles would stall the requests.
    gc.set_threshold(100_000)
    models = tuple(arguments.model or [DEFAULT_MODEL])
    server = Server(behaviour=Behaviour(models=models, dialect=DIALECTS[arguments.dialect]))
    port = await server.start(host=arguments.host, port=arguments.port)
    line = {"port": port, "pid": os.getpid(), "base_url": f"http://{arguments.host}:{port}/v1"}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    # A process that forked with the pipe open would keep the leash tight, so the parent itself is watched as well.
    while not stopped.is_set() and os.getppid() == parent:
        try:
            await asyncio.wait_for(stopped.wait(), PARENT_CHECK_SECONDS)
        except TimeoutError:
            continue
    server.stop()


def _read_leash(stopped: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        stopped.set()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.llm_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 finds a free one")
    parser.add_argument("--model", action="append", help=f"a model id to offer, repeatable (default {DEFAULT_MODEL})")
    parser.add_argument("--dialect", choices=list(DIALECTS), default="openai", help="how it speaks")
    parser.add_argument("--leash", action="store_true", help="stop when standard input, a pipe, ends")
    parser.add_argument("--parent", type=int, help="stop when this is no longer the parent process")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
