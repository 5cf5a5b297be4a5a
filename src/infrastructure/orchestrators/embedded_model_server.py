"""Serves one GGUF model on loopback until the parent goes away; a process of its own, started by `embedded_model`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import mmap
import os
import platform
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from infrastructure.orchestrators.gguf_weights import Q8_0, Converter, UnreadableModelError, converted_bytes, rewrite

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_M_ARENA_MAX = -8
_ARENAS = 2
# Beyond this a model is served as it is: the rewritten one is held in memory.
_MAX_CONVERTED_BYTES = 512 * 1024 * 1024
_ERRORS_ONLY = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the end of standard input, whose first line is the key that requests have to bear.

    Writes one line of JSON on standard output: `{"base_url"}` once requests are taken, or `{"failure"}`, a sentence,
    with exit code 1. The log goes to standard error.
    """
    options = _options(arguments)
    _die_with(options.parent)
    _bound_memory(options.memory_limit)
    key = _first_line_of_input()
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    report = _claim_standard_output()
    try:
        server = _serve(options, key)
    except ModuleNotFoundError:
        report({"failure": "xllamacpp is not installed"})
        return 1
    except MemoryError:
        report({"failure": f"it does not fit into {options.memory_limit} bytes of memory"})
        return 1
    except RuntimeError as error:
        report({"failure": f"llama.cpp cannot load the model ({error})"})
        return 1
    report({"base_url": f"{server.listening_address}/v1"})
    threading.Event().wait()
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="embedded_model_server", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--alias", required=True, help="the name that /models shows")
    parser.add_argument("--slots", type=int, required=True, help="how many answers are written at a time")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True, help="tokens a slot holds, prompt and answer together")
    parser.add_argument("--memory-limit", type=int, required=True, help="bytes of memory besides the model's file")
    parser.add_argument("--parent", type=int, required=True, help="the process to end with")
    return parser.parse_args(arguments)


def _die_with(parent: int) -> None:
    """Have the kernel end this process with its parent, where it can; standard input does it elsewhere, a little later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def _bound_memory(limit: int) -> None:
    import resource

    # Not RLIMIT_AS: that counts what is merely reserved, several times of what is used.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def _first_line_of_input() -> str:
    # Not by `sys.stdin`: Python cannot exit while another thread waits in it.
    line = b""
    while not line.endswith(b"\n"):
        character = os.read(0, 1)
        if not character:
            sys.exit(0)
        line += character
    return line.decode().strip()


def _end_with_standard_input() -> NoReturn:
    while os.read(0, 1024):
        pass
    # At once, in whatever the other threads are: there is nothing to tidy up.
    os._exit(0)


def _claim_standard_output() -> Any:
    """Where to report; whatever llama.cpp may print goes to the log instead."""
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def write(line: dict[str, str]) -> None:
        with report:
            report.write(json.dumps(line) + "\n")

    return write


def _serve(options: argparse.Namespace, key: str) -> Any:
    # Read when the library is loaded. Threads that spin while they wait for each other make answers ten times as slow as
    # soon as anything else wants a core.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    # It would start a debugger on this process.
    os.environ["GGML_NO_BACKTRACE"] = "1"
    import xllamacpp

    with _served_file(options.model, xllamacpp.xllamacpp.__file__) as file:
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.model_alias = {options.alias}
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.api_keys = [key]
        params.n_parallel = options.slots
        params.n_ctx = options.context * options.slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
        # Each slot keeps the prompt that it processed last, so that the next one only adds what differs: the persona.
        params.cache_prompt = True
        # Whole prompts kept aside would be 8 GiB of copies, and no member is asked the same twice.
        params.cache_ram_mib = 0
        params.cache_idle_slots = False
        params.warmup = False
        params.offline = True
        params.ui = False
        params.endpoint_slots = False
        params.endpoint_props = False
        params.endpoint_metrics = False
        params.cors_origins = ""
        params.verbosity = _ERRORS_ONLY
        return xllamacpp.Server(params)


@contextlib.contextmanager
def _served_file(model: Path, library: str) -> Iterator[Path]:
    """The file to load: the model's own, or one in memory with the same weights in a form that this processor is faster at."""
    descriptor = None
    if sys.platform == "linux" and platform.machine() == "x86_64":
        try:
            descriptor = _converted(model, _converter(ctypes.CDLL(library)))
        except (AttributeError, OSError, UnreadableModelError) as error:
            sys.stderr.write(f"the model is served as it is: {error}\n")
    if descriptor is None:
        yield model
        return
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _converted(model: Path, convert: Converter) -> int | None:
    """A file in memory that holds the rewritten model, or None where there is nothing to gain or too much to hold."""
    with (
        model.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as content,
    ):
        if not 0 < converted_bytes(content) <= _MAX_CONVERTED_BYTES:
            return None
        descriptor = os.memfd_create("model")
        with os.fdopen(descriptor, "wb", closefd=False) as copy:
            for piece in rewrite(content, convert):
                copy.write(piece)
        return descriptor


def _converter(library: ctypes.CDLL) -> Converter:
    """ggml's own conversion from Q4_1 to Q8_0. Raises `AttributeError` if this build does not offer it."""
    to_floats = library.dequantize_row_q4_1
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    to_floats.restype, to_floats.argtypes = None, [pointer, pointer, count]
    to_blocks = library.ggml_quantize_chunk
    to_blocks.restype, to_blocks.argtypes = (
        ctypes.c_size_t,
        [ctypes.c_int, pointer, pointer, count, count, count, pointer],
    )

    def convert(tensor: memoryview, row: int, rows: int) -> bytes:
        numbers = (ctypes.c_float * (row * rows))()
        blocks = ctypes.create_string_buffer(row * rows // 32 * 34)
        to_floats(bytes(tensor), numbers, row * rows)
        written = to_blocks(Q8_0, numbers, blocks, 0, rows, row, None)
        return blocks.raw[:written]

    return convert


if __name__ == "__main__":
    sys.exit(main())
