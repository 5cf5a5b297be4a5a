"""A reader's terminal: one shell in a folder of its own, what it leaves running, and what it is shown."""

from __future__ import annotations

import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.documentation.blocks import REPOSITORY, Block
from tests.patience import eventually

__all__ = ["Terminal", "UntrueError", "agrees"]

STAND_INS = Path(__file__).parent / "stand_ins"
_PATIENCE_S = 120.0
_STOP_S = 25.0
# Ports of loopback that the pages name; each page is given others, of its own.
_PORTS = re.compile(r"(?<=[:=\s])(8000|8001|8080|8081|8072|9100|9101)(?![\w.])")
_POSTGRES = re.compile(r"postgresql://[\w:]+@db\.internal/conclave")
_REDIS = re.compile(r"redis://(?:127\.0\.0\.1:6379|cache\.internal:6379)(?:/\d)?")
_UUID = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<![0-9a-z])(?=[0-9a-f]*\d)[0-9a-f]{12,64}\b|(?<=conclave show )[0-9a-f]{8}"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"
)
# Where all programs of a user meet: each page has its own.
_SHARED = re.compile(r"""/dev/shm/(?=[a-z])|(?<=SharedMemoryMessageBus\(")(?=\w)|(?<=--bus-name )(?=\w)""")  # noqa: S108 - named, not used
_FIGURE = re.compile(r"\d[\d,.:]*(?<=\d)|[▏▎▍▌▋▊▉█]+")
_FIGURES = r"(?:\d[\d,.:]*|[▏▎▍▌▋▊▉█]*)"


def in_small(block: Block, script: str) -> str:
    """The script with the smaller figures that a test has time for."""
    for change in filter(None, block.notes.get("in small", "").split(";")):
        large, _, small = (part.strip() for part in change.partition("->"))
        if large not in script:
            raise UntrueError(f"{block.place}: {large!r} stands nowhere in it")
        script = script.replace(large, small)
    return script


class UntrueError(AssertionError):
    """A page says something that is not so."""


def agrees(shown: Sequence[str], printed: Sequence[str], *, figures_vary: bool = False) -> bool:
    """Whether the lines were printed: `...` is any text in a line and any lines by itself, an id is any id."""
    if figures_vary:
        # Where longer figures stand, lines are broken elsewhere.
        pattern = _pattern(" ".join(" ".join(shown).split()), figures_vary=True).replace(r"\s+.*?\s+", r"\s.*?")
        return re.fullmatch(pattern, "\n".join(printed).strip(), re.DOTALL) is not None
    lines = [_pattern(line.rstrip(), figures_vary=False) for line in shown]
    wanted = "".join(r"(?:.*\n)*?" if line == ".*?" else rf"{line} *\n" for line in lines)
    return re.fullmatch(wanted, "".join(f"{line}\n" for line in printed)) is not None


def _pattern(text: str, *, figures_vary: bool) -> str:
    pattern, at = "", 0
    figure = _FIGURE.pattern if figures_vary else "(?!)"
    for found in re.finditer(rf"(?P<id>{_UUID.pattern})|(?P<figure>{figure})|(?P<any>\.\.\.)", text):
        pattern += _literal(text[at : found.start()], stretched=figures_vary)
        pattern += r"[0-9a-fTZ:.-]{8,64}" if found["id"] else ".*?" if found["any"] else _FIGURES
        at = found.end()
    return pattern + _literal(text[at:], stretched=figures_vary)


def _literal(text: str, *, stretched: bool) -> str:
    return re.sub(r"(?:\\ )+", r"\\s+", re.escape(text)) if stretched else re.escape(text)


class Terminal:
    """One shell between `with`; whatever it started has ended afterwards. `models` is the address of a model server."""

    def __init__(
        self, folder: Path, *, models: str | None = None, postgres: str | None = None, redis: str | None = None
    ) -> None:
        self.folder = folder / "reader"
        self.folder.mkdir()
        self._aside = folder / "aside"
        self._aside.mkdir()
        self._addresses = {"postgres": postgres, "redis": redis}
        self._ports: dict[str, str] = {}
        if models is not None:
            self._ports["8080"] = models.rpartition(":")[2].partition("/")[0]
        self.environment = self._environment(models)
        self._background: list[tuple[subprocess.Popen[bytes], Path]] = []
        self._count = 0
        self._own = f"page{secrets.token_hex(4)}"

    def _environment(self, models: str | None) -> dict[str, str]:
        home = self._aside / "home"
        home.mkdir()
        own = Path(sys.executable).parent
        tools = self._aside / "tools"
        tools.mkdir()
        path = f"{tools}:{own}:/usr/local/bin:/usr/bin:/bin"
        for tool in STAND_INS.iterdir():
            # On a bare machine there are none of these.
            if tool.suffix == ".py" and not _is_there(tool.stem):
                (tools / tool.stem).write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{tool}" "$@"\n')
                (tools / tool.stem).chmod(0o755)
        given = {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "COLUMNS": "80"}
        if models is None:
            given["CONCLAVE_ORCHESTRATOR"] = "simulated"
        given["CONCLAVE_PORT"] = self._port("8000")
        given["PYTHONPATH"] = str(REPOSITORY / "src")
        return given

    def __enter__(self) -> Self:
        self._shell = subprocess.Popen(
            ["sh"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )
        self._say("set -e")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, _ in reversed(self._background):
            _end(process)
        _end(self._shell)
        for pipe in (self._shell.stdin, self._shell.stdout):
            assert pipe is not None
            pipe.close()
        for left in Path("/dev/shm").glob(f"*{self._own}*"):  # noqa: S108 - what a page left of its own there
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def perform(self, block: Block) -> None:
        """Do what a reader would with a block. Raises `UntrueError` where something else comes of it than the page says."""
        if "given" in block.notes:
            self._run(block, block.notes["given"])
        if "background" in block.notes:
            self._leave_running(block)
        elif block.language == "sh":
            self._run(block, block.script, exit_code=int(block.notes.get("exit", "0")))
        elif block.language == "console":
            self._talk(block)
        elif block.language == "python" and "file" not in block.notes:
            self._run_python(block)
        elif "file" in block.notes:
            path = self.folder / block.notes["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._here(block.text), encoding="utf-8")

    def _talk(self, block: Block) -> None:
        commands = block.commands
        for number, (command, shown) in enumerate(commands, start=1):
            exit_code = int(block.notes.get("exit", "0")) if number == len(commands) else 0
            printed = self._run(block, command, exit_code=exit_code).splitlines()
            wanted = [line.rstrip() for line in shown]
            while wanted and not wanted[-1]:
                wanted.pop()
            while printed and not printed[-1].strip():
                printed.pop()
            if wanted and not agrees(wanted, printed, figures_vary="figures vary" in block.notes):
                raise UntrueError(
                    f"{block.place}: {command!r} prints something else than is shown.\n"
                    f"--- shown\n{chr(10).join(wanted)}\n--- printed\n{chr(10).join(printed)}"
                )

    def _run(self, block: Block, script: str, *, exit_code: int = 0) -> str:
        """What the script prints, when it ends with that code."""
        self._count += 1
        path = self._aside / f"{self._count}.sh"
        path.write_text(self._here(in_small(block, script)) + "\n", encoding="utf-8")
        mark = secrets.token_hex(8)
        if exit_code:
            self._say(f"set +e; . {path} </dev/null; code=$?; set -e; echo; echo {mark} $code")
        else:
            self._say(f". {path} </dev/null; echo; echo {mark} 0")
        printed, code = self._hear(mark, place=block.place)
        text = self._there(printed)
        if code != exit_code:
            raise UntrueError(
                f"{block.place}: ends with {code}, not {exit_code}:\n{script}\n--- printed\n{text}{self._logs()}"
            )
        return text

    def _run_python(self, block: Block) -> None:
        path = self._aside / "block.py"
        path.write_text(self._here(block.text), encoding="utf-8")
        lines = [words.split() for words in block.notes.get("run", "").split("|")]
        environment = {**self.environment, "PYTHONPATH": f"{self.folder}:{REPOSITORY / 'src'}"}
        environment.update(self._exported())
        started: list[subprocess.Popen[bytes]] = []
        for words in lines:
            if started and started[-1].stdout is not None:
                # As a reader does who opens the second terminal once the first one says that it waits.
                started[-1].stdout.readline()
            started.append(
                subprocess.Popen(
                    [sys.executable, str(path), *words],
                    cwd=self.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
        for process in started:
            try:
                printed, _ = process.communicate(timeout=_PATIENCE_S)
            except subprocess.TimeoutExpired:
                for other in started:
                    other.kill()
                    other.communicate()
                raise UntrueError(f"{block.place}: did not end within {_PATIENCE_S} s") from None
            if process.returncode:
                for other in started:
                    if other.poll() is None:
                        other.kill()
                        other.communicate()
                raise UntrueError(f"{block.place}: ends with {process.returncode}\n{printed.decode()}{self._logs()}")

    def _exported(self) -> Mapping[str, str]:
        """What the reader has exported in the shell by now."""
        self._say("env -0; echo")
        mark = secrets.token_hex(8)
        self._say(f"echo; echo {mark} 0")
        printed, _ = self._hear(mark, place="env")
        pairs = (entry.partition("=") for entry in printed.split("\0"))
        return {name.strip(): value for name, _, value in pairs if name.strip().startswith(("CONCLAVE_", "OPENAI_"))}

    def _leave_running(self, block: Block) -> None:
        log = self._aside / f"background-{len(self._background)}.log"
        exported = self._exported()
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-ec", self._here(block.script)],
                cwd=self.folder,
                env={**self.environment, **exported},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._background.append((process, log))
        wanted = self._here(block.notes["background"])

        def said() -> bool:
            if process.poll() is not None:
                raise UntrueError(f"{block.place}: ended with {process.returncode}\n{log.read_text(errors='replace')}")
            return wanted in log.read_text(encoding="utf-8", errors="replace")

        eventually(said, patience_s=_PATIENCE_S)

    def _here(self, text: str) -> str:
        """The text with the addresses of this page in place of those that it names."""
        text = _PORTS.sub(lambda found: self._port(found[0]), text)
        text = _SHARED.sub(lambda found: found[0] + self._own, text)
        for name, pattern in (("postgres", _POSTGRES), ("redis", _REDIS)):
            address = self._addresses[name]
            if address is not None:
                text = pattern.sub(address.replace("\\", "\\\\"), text)
        return text

    def _there(self, text: str) -> str:
        """The text with the ports that the page names in place of its own, and without the reader's folder."""
        for named, own in self._ports.items():
            text = re.sub(rf"\b{own}\b", named, text)
        return text.replace(f"{self.folder}/", "/home/you/").replace(str(self.folder), "/home/you")

    def _port(self, named: str) -> str:
        if named not in self._ports:
            self._ports[named] = str(_free_port())
        return self._ports[named]

    def _say(self, line: str) -> None:
        assert self._shell.stdin is not None
        try:
            self._shell.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise UntrueError("the reader's shell is gone") from None

    def _hear(self, mark: str, *, place: str) -> tuple[str, int]:
        assert self._shell.stdout is not None
        heard = b""
        until = time.monotonic() + _PATIENCE_S
        while f"{mark} ".encode() not in heard or not heard.endswith(b"\n"):
            if not select.select([self._shell.stdout], [], [], max(until - time.monotonic(), 0))[0]:
                raise UntrueError(f"{place}: no end within {_PATIENCE_S} s; printed\n{heard.decode(errors='replace')}")
            piece = os.read(self._shell.stdout.fileno(), 65536)
            if not piece:
                return heard.decode(errors="replace"), self._shell.wait()
            heard += piece
        printed, _, code = heard.decode(errors="replace").partition(f"\n{mark} ")
        return printed, int(code)

    def _logs(self) -> str:
        return "".join(
            f"\n--- {log.name}\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}"
            for _, log in self._background
        )


def _is_there(program: str) -> bool:
    return any(os.access(Path(folder) / program, os.X_OK) for folder in ("/usr/local/bin", "/usr/bin", "/bin"))


def _free_port() -> int:
    """A port that is free now, below those that the kernel gives out by itself."""
    choose: Callable[[int], int] = secrets.randbelow
    while True:
        port = 20000 + choose(10000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever is in its group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    else:
        # What the group's leader left behind.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
