"""Every command and snippet of the documentation does what the page says, or says why it cannot be tried."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType

import promql_parser
import pytest

from tests.documentation import kinds
from tests.documentation.blocks import DATA, LANGUAGES, SHELL, Block, all_pages
from tests.documentation.command_tree import problems_of
from tests.documentation.reader import is_done
from tests.documentation.terminal import STAND_INS, agrees

PAGES = all_pages()
BLOCKS = [block for page in PAGES for block in page.blocks]
DONE = [page.name for page in PAGES if is_done(page)]
# Docker, other hosts, keys of real providers, hours of time: what a test run on two cores has not.
NOT_RUN_AT_MOST = 27
BEGINNINGS_OF_COMMANDS = (
    "$ ",
    "conclave ",
    "make ",
    "curl ",
    "docker ",
    "uv ",
    "pip ",
    "pipx ",
    "sqlite3 ",
    "export ",
    "python",
)
WITH_STAND_INS = sorted(path.stem for path in STAND_INS.glob("*.py"))


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def by_place(blocks: list[Block]) -> list[object]:
    return [pytest.param(block, id=block.place) for block in blocks]


@pytest.mark.parametrize("page", DONE)
def test_the_commands_of_a_page_do_what_it_shows(page: str, followed: Mapping[str, Future[None]]) -> None:
    followed[page].result()


def test_every_block_says_its_language() -> None:
    assert [f"{block.place}: {block.language!r}" for block in BLOCKS if block.language not in LANGUAGES] == []


def test_no_command_hides_in_a_block_that_is_only_shown() -> None:
    shown = [block for block in of("text") if "synopsis" not in block.notes]
    found = [
        f"{block.place}: {line}"
        for block in shown
        for line in block.text.splitlines()
        if line.startswith(BEGINNINGS_OF_COMMANDS)
    ]
    assert found == []


def test_what_is_not_run_says_why_and_is_little() -> None:
    left_out = [block for block in BLOCKS if "not run" in block.notes]
    assert [block.place for block in left_out if len(block.notes["not run"]) < 10] == []
    assert len(left_out) <= NOT_RUN_AT_MOST, [f"{block.place}: {block.notes['not run']}" for block in left_out]


@pytest.mark.parametrize("block", by_place(of(*SHELL, "text")))
def test_commands_and_options_are_those_that_there_are(block: Block) -> None:
    if block.is_shell or "synopsis" in block.notes:
        script = block.script if block.is_shell else block.text
        assert list(problems_of(script)) == []


@pytest.mark.parametrize("block", by_place(of(*SHELL)))
def test_a_shell_could_read_it(block: Block) -> None:
    read = subprocess.run(["sh", "-n"], input=block.script, text=True, capture_output=True)
    assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.parametrize("block", by_place(of("python")))
def test_python_could_read_it(block: Block) -> None:
    compile(block.text, block.place, "exec")


@pytest.mark.parametrize("block", by_place(of(*DATA)))
def test_data_are_what_the_page_says_they_are(block: Block, tmp_path: Path) -> None:
    kinds.check(block, tmp_path)


@pytest.mark.parametrize("block", by_place(of("promql")))
def test_prometheus_could_read_it(block: Block) -> None:
    for query in filter(None, block.text.split("\n\n")):
        promql_parser.parse(query.strip())


@pytest.mark.parametrize("program", WITH_STAND_INS)
def test_a_machine_without_a_program_can_do_what_the_pages_ask_of_it(program: str) -> None:
    parser = module(STAND_INS / f"{program}.py").parser()
    calls = [call for block in of(*SHELL) if "not run" not in block.notes for call in calls_of(program, block.script)]
    for call in calls:
        parser.parse_args(call)


def module(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(f"stand_in_{path.stem}", path)
    assert found is not None
    assert found.loader is not None
    made = importlib.util.module_from_spec(found)
    found.loader.exec_module(made)
    return made


def calls_of(program: str, script: str) -> list[list[str]]:
    """The arguments of each call of the program, as far as a shell's words can be told without a shell."""
    lexer = shlex.shlex(
        script.replace("\\\n", " ").replace("$(", " ( ").replace('"( ', " ( "),
        posix=True,
        punctuation_chars="();|&<>\n",
    )
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    found: list[list[str]] = []
    call: list[str] | None = None
    skip = begin = False
    begin = True
    for word in lexer:
        if set(word) <= set("();|&\n"):
            call, begin = None, True
        elif set(word) <= set("<>"):
            skip = True
        elif skip:
            skip = False
        elif begin:
            call = [] if word == program else None
            begin = "=" in word
            if call is not None:
                found.append(call)
        elif call is not None:
            call.append(word)
    return found


# The tools themselves.


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["a", "...", "d"], ["a", "b", "c", "d"]),
        (["a", "...", "d"], ["a", "d"]),
        (["took ... ms"], ["took 12 ms"]),
        (["Id: 20450dcc-fd6a-46e3-b281-5955807414c6"], ["Id: 64e74f21-d44e-4744-9a9e-f3e1ed7c5dc0"]),
    ],
)
def test_an_ellipsis_is_any_text_and_an_id_any_id(shown: list[str], printed: list[str]) -> None:
    assert agrees(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [(["a", "d"], ["a", "b", "d"]), (["a"], ["b"]), (["12 agents"], ["13 agents"]), (["a", "..."], ["b", "a"])],
)
def test_what_is_shown_and_not_printed_is_untrue(shown: list[str], printed: list[str]) -> None:
    assert not agrees(shown, printed)


def test_figures_vary_only_where_that_is_said() -> None:
    assert agrees(["10.7 ms   ██▍ 5"], ["8 ms ███ 1,024"], figures_vary=True)
    assert not agrees(["10.7 ms"], ["8.1 ms"])
    assert not agrees(["10.7 ms"], ["10.7 s"], figures_vary=True)


@pytest.mark.parametrize(
    "line",
    [
        "conclave deliberate Q --optoin a",
        "conclave witness verfy x",
        "ID=$(conclave lst)",
        "conclave halt status · set --why TEXT",
        "make deliberat",
        "conclave swarm run --agents 3 \\\n  --no-such-option",
    ],
)
def test_a_typing_error_is_found(line: str) -> None:
    assert list(problems_of(line)) != []
