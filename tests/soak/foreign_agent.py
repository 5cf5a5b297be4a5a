"""An agent that somebody else wrote: it knows the files of the coordination folder and nothing of Conclave, and can be told to misbehave.

Run as a script: `foreign_agent.py FOLDER ID [--leak BYTES] [--slow CYCLE:SECONDS] [--drop CYCLE] [--twice] [--busy]`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path


def write(path: Path, document: object) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(document))
    draft.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("id")
    parser.add_argument("--leak", type=int, default=0)
    parser.add_argument("--slow", default="")
    parser.add_argument("--drop", type=int, default=0)
    parser.add_argument("--twice", action="store_true")
    parser.add_argument("--busy", action="store_true")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    for name in ("messages", "responses", "status"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    slow_cycle, _, slow_s = arguments.slow.partition(":")
    status = {"agentId": arguments.id, "status": "ready", "pid": os.getpid()}
    write(folder / "status" / f"agent-{arguments.id}-status.json", status)
    kept: list[bytearray] = []
    last = ""
    # This and the sleeps below are what it plays, an agent that looks now and then and thinks for a while; it runs isolated, so that
    # it could not wait by anything of ours.
    while True:
        time.sleep(0.005)
        try:
            message = json.loads((folder / "messages" / f"coordination-{arguments.id}.json").read_text())
        except (OSError, ValueError):
            continue
        if message["messageId"] == last:
            continue
        last = message["messageId"]
        if arguments.busy:
            # From its first message on, and for good.
            write(folder / "status" / f"agent-{arguments.id}-status.json", {**status, "status": "working"})
        if message["cycle"] == arguments.drop:
            continue
        if slow_cycle and message["cycle"] == int(slow_cycle):
            time.sleep(float(slow_s))
        kept.append(bytearray(os.urandom(arguments.leak)))
        response = {"agentId": arguments.id, "messageId": last, "timestamp": time.time() * 1e3, "response": {}}
        name = f"response-{arguments.id}-{last}.json"
        write(folder / "responses" / name, response)
        if arguments.twice:
            time.sleep(0.05)
            write(folder / "responses" / name, response)


if __name__ == "__main__":
    main()
