"""What those who view a deliberation cost the server, alternating with nobody, and how smoothly a browser repaints.

    python -m benchmarks.viewers [--viewers 50] [--repetitions 9] [--browser /usr/bin/chromium] [--out FILE]

The server is a process of its own and stores everything; 72 agents ask the test LLM server. Once everybody views, it lets all answers
go at once: timed is from there to the committed end, and what the server took of the processor until everybody was told.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.measurement import machine
from tests.conclave_fixture import Client
from tests.llm_server.handle import LlmServer

__all__: list[str] = []

REPOSITORY = Path(__file__).parents[1]
AGENTS = 72
_PORT = re.compile(r"http://127\.0\.0\.1:(\d+)")
_BODY = {
    "question": "Should the city centre be closed to private cars?",
    "answer": {"kind": "choice", "options": ["yes", "no", "weekends only"]},
}
_SPREAD = {"lognormal": {"median": 1.6, "sigma": 0.4, "least": 1.0, "most": 3.0}}
# Two refreshes of a screen with 60 a second, which are 30 frames a second; the page's clock tells tenths of a millisecond.
_LONGEST_FRAME_MS = 33.5
_WATCH_FRAMES = """() => {
  window.frames_ = []; let last = performance.now();
  const look = (now) => { window.frames_.push(now - last); last = now; window.watching_ = requestAnimationFrame(look); };
  window.watching_ = requestAnimationFrame(look);
}"""


@dataclass
class Server:
    """The server's process and a client of it."""

    client: Client
    pid: int

    def cpu_s(self) -> float:
        """Seconds of the processor that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Samples:
    """One contender: so many viewers, and for each run the time to the committed end and the processor until all were told."""

    viewers: int
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


@contextmanager
def serving(llm: LlmServer, folder: Path) -> Iterator[Server]:
    """A server over an empty database."""
    settings = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.pathsep.join(["src", "."]),
        "CONCLAVE_DATA_DIR": str(folder / "data"),
        "CONCLAVE_LLM_BASE_URL": llm.base_url,
        "CONCLAVE_LLM_API_KEY": "k",
        "CONCLAVE_LLM_MODEL": "test-model",
    }
    command = [sys.executable, "-m", "api.cli.main", "serve", "--port", "0", "--json"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=settings, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        while (found := _PORT.search(line := process.stdout.readline())) is None:
            assert line, f"the server ended with {process.wait()}: {(folder / 'log').read_text()}"
        yield Server(Client(int(found[1])), process.pid)
    finally:
        process.kill()
        process.wait()


async def view(port: int, deliberation_id: str, ready: asyncio.Event) -> int:
    """Follow it to its end as a browser does; how many bytes came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    path = f"/room/feed?deliberation={deliberation_id}"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n".encode())
    received, tail = 0, b""
    try:
        while piece := await reader.read(2**16):
            received += len(piece)
            tail = (tail + piece)[-(2**17) :]
            if b"event: snapshot" in tail:
                ready.set()
            if b"event: ended" in tail and tail.endswith(b"\r\n0\r\n\r\n"):
                break
    finally:
        writer.close()
    return received


async def once(server: Server, llm: LlmServer, samples: Samples, *, held: bool) -> None:
    """One deliberation with that many viewers."""
    cpu = server.cpu_s()
    answer = await asyncio.to_thread(server.client.post, _BODY)
    assert answer.status == 202, answer
    own = str(answer.document["id"])
    events = [asyncio.Event() for _ in range(samples.viewers)]
    views = [asyncio.create_task(view(server.client.port, own, event)) for event in events]
    await asyncio.gather(*(event.wait() for event in events))
    if held:
        await llm.until(held_at_least=AGENTS)
        # What joining took is over, so that only following is timed.
        await asyncio.sleep(0.3)
        cpu = server.cpu_s()
        began = time.time()
        await asyncio.to_thread(llm.release)
    document = await asyncio.to_thread(lambda: server.client.ask("GET", f"/v1/deliberations/{own}").document)
    while document["finished_at"] is None:
        await asyncio.sleep(0.1)
        document = await asyncio.to_thread(lambda: server.client.ask("GET", f"/v1/deliberations/{own}").document)
    await asyncio.gather(*views)
    await asyncio.sleep(0.2)
    assert document["roll_call"]["asked"] == AGENTS, document["roll_call"]
    started = began if held else datetime.fromisoformat(document["started_at"]).timestamp()
    samples.wall_ms.append(1000 * (datetime.fromisoformat(document["finished_at"]).timestamp() - started))
    samples.cpu_ms.append(1000 * (server.cpu_s() - cpu))


async def compare(llm: LlmServer, *, viewers: int, repetitions: int, held: bool) -> list[dict[str, Any]]:
    """Nobody and everybody in turn, medians."""
    llm.reset()
    llm.configure(**({"fault": "hold"} if held else {"latency_seconds": _SPREAD}))
    contenders = [Samples(0), Samples(viewers)]
    with tempfile.TemporaryDirectory() as folder, serving(llm, Path(folder)) as server:
        for turn in range(repetitions + 1):
            for samples in contenders if turn % 2 else contenders[::-1]:
                await once(server, llm, samples if turn else Samples(samples.viewers), held=held)
    return rows_of(contenders)


def rows_of(contenders: Sequence[Samples]) -> list[dict[str, Any]]:
    """The medians of each, and how much those of the first they are."""
    first = contenders[0]
    return [
        {
            "viewers": each.viewers,
            "wall_ms": statistics.median(each.wall_ms),
            "ratio": statistics.median(each.wall_ms) / statistics.median(first.wall_ms),
            "paired": statistics.median(a / b for a, b in zip(each.wall_ms, first.wall_ms, strict=True)),
            "cpu_ms": statistics.median(each.cpu_ms),
            "runs": len(each.wall_ms),
        }
        for each in contenders
    ]


def repaint(llm: LlmServer, browser: str, *, repetitions: int) -> list[dict[str, Any]]:
    """72 agents that all finish within 100 ms before the eyes of a browser: how long its animation frames took."""
    from playwright.sync_api import sync_playwright

    llm.reset()
    llm.configure(fault="hold")
    rows = []
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(llm, Path(folder)) as server,
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(executable_path=browser, args=arguments)
        for width in (1440, 390):
            frames: list[float] = []
            longest = []
            for _ in range(repetitions):
                page = chromium.new_page(viewport={"width": width, "height": 900})
                own = server.client.post(_BODY).document["id"]
                page.goto(f"http://127.0.0.1:{server.client.port}/deliberations/{own}")
                llm.wait_until(held_at_least=AGENTS)
                page.wait_for_function("() => document.querySelectorAll('.seat.is-asked').length === 72")
                page.wait_for_timeout(500)
                page.evaluate(_WATCH_FRAMES)
                page.wait_for_timeout(300)
                llm.release()
                page.wait_for_selector("#decision")
                page.wait_for_timeout(1200)
                found = page.evaluate("() => { cancelAnimationFrame(window.watching_); return window.frames_; }")[1:]
                frames += found
                longest.append(max(found))
                page.close()
            rows.append(
                {
                    "width": width,
                    "frames": len(frames),
                    "median_ms": statistics.median(frames),
                    "longest_ms": statistics.median(longest),
                    "worst_ms": max(longest),
                    "below_30": sum(each > _LONGEST_FRAME_MS for each in frames),
                }
            )
        chromium.close()
    return rows


def show(title: str, rows: Sequence[dict[str, Any]], out: Path | None) -> None:
    """A table, and a line of JSON beside earlier runs."""
    print(f"\n{title}")
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        told = (f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values())
        print("| " + " | ".join(told) + " |")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as file:
            file.write(json.dumps({"title": title, "machine": machine(), "rows": rows}) + "\n")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--browser", default="")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with LlmServer() as llm:
        for title, held in (
            ("72 answers at once, stored", True),
            ("72 answers from the first to the third second, stored", False),
        ):
            found = asyncio.run(compare(llm, viewers=given.viewers, repetitions=given.repetitions, held=held))
            show(title, found, given.out)
        if given.browser:
            found = repaint(llm, given.browser, repetitions=max(3, given.repetitions // 3))
            show("Animation frames while 72 answers come at once", found, given.out)


if __name__ == "__main__":
    main()
