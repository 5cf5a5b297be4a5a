"""The file of roles: what it gives each, and for what cannot be used the place, the problem and the remedy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from application.services.pantheon.asked_mind import Inquiry
from domain.errors.configuration import ConfigurationError
from domain.models.pantheon import Role
from infrastructure.pantheon.roles_file import RoleFunction, read_roles_file

Written = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """Writes a file of roles beside a module of functions of its own name."""
    before, modules = list(sys.path), set(sys.modules)
    (tmp_path / "own_roles_of_a_test.py").write_text(
        "class Roles:\n    @staticmethod\n    def reason(brief):\n        return ['echo']\n\n"
        "def observe(brief):\n    return 'seen'\n\nNUMBER = 7\n"
    )
    (tmp_path / "broken_roles_of_a_test.py").write_text("raise SystemExit('leaving')\n")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def written(text: str) -> Path:
        file = tmp_path / "roles.toml"
        file.write_text(text, encoding="utf-8")
        return file

    yield written
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        if name.endswith("_roles_of_a_test"):
            del sys.modules[name]


def test_each_role_is_given_a_function_a_model_or_a_deliberation(write: Written) -> None:
    roles = read_roles_file(
        write(
            '[observer]\nfunction = "own_roles_of_a_test:observe"\ntimeout_s = 2\n'
            '[reasoner]\nmodel = "openai/small"\npersona = "careful"\nquestion = "Which?"\noptions = ["echo", "sha256"]\n'
            '[validator]\ndeliberation = { agents = 9, question = "May it?" }\ntimeout_s = 60\n'
            "[learner]\ndeliberation = {}\n"
            '[actor]\nfunction = "own_roles_of_a_test:Roles.reason"\n'
        )
    )
    observer = roles[Role.OBSERVER]
    assert isinstance(observer, RoleFunction)
    assert (observer.name, observer.timeout_s, observer.function({})) == ("own_roles_of_a_test:observe", 2.0, "seen")
    assert roles[Role.REASONER] == Inquiry("openai/small", "careful", question="Which?", options=("echo", "sha256"))
    assert roles[Role.VALIDATOR] == Inquiry(agents=9, question="May it?", timeout_s=60.0)
    assert roles[Role.LEARNER] == Inquiry(agents=72)
    actor = roles[Role.ACTOR]
    assert isinstance(actor, RoleFunction)
    assert actor.function({}) == ["echo"]
    assert Role.EXECUTOR not in roles


def test_an_empty_file_gives_nobody_anything(write: Written) -> None:
    assert read_roles_file(write("\ufeff# nothing\n")) == {}


def test_a_file_beside_it_cannot_stand_in_for_a_module_of_pythons(write: Written, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("def loads(brief):\n    return 'stolen'\n")
    role = read_roles_file(write('[observer]\nfunction = "json:loads"\n'))[Role.OBSERVER]
    assert isinstance(role, RoleFunction)
    assert role.function.__module__ == "json"
    with pytest.raises(TypeError):
        role.function({})


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ('[seer]\nmodel = "a/b"\n', 1, "there is no role 'seer'"),
        ('[observer]\nmodel = "a/b"\n\nfunction = "m:f"\n', 4, "it has model and function"),
        ('[observer]\nmodel = "a/b"\ndeliberation = {agents = 2}\n', 3, "it has model and deliberation"),
        ("\n[observer]\n", 2, "it is given to nobody"),
        ('observer = "m:f"\n', 1, "observer is no table"),
        ('[observer]\nfunction = "os.system"\n', 2, "function names none"),
        ('[observer]\nfunction = "m:f; import os"\n', 2, "function names none"),
        ("[observer]\nfunction = 3\n", 2, "function names none"),
        ('[observer]\nfunction = "no_such_module_of_a_test:f"\n', 2, "cannot be imported (ModuleNotFoundError"),
        ('[observer]\nfunction = "broken_roles_of_a_test:f"\n', 2, "cannot be imported (SystemExit: leaving)"),
        ('[observer]\nfunction = "own_roles_of_a_test:gone"\n', 2, "has no 'gone'"),
        ('[observer]\nfunction = "own_roles_of_a_test:NUMBER"\n', 2, "cannot be called"),
        ('[observer]\nfunction = "own_roles_of_a_test:observe"\npersona = "x"\n', 3, "has no setting 'persona'"),
        ("[observer]\nmodel = 3\n", 2, "model is no text"),
        ('[observer]\nmodel = " "\n', 2, "model must not be empty"),
        ('[observer]\nmodel = "a/b"\nmodell = "c/d"\n', 3, "has no setting 'modell'"),
        ('[observer]\nmodel = "a/b"\ntimeout_s = 0\n', 3, "timeout_s is no number"),
        ('[observer]\nmodel = "a/b"\ntimeout_s = nan\n', 3, "timeout_s is no number"),
        ('[observer]\nmodel = "a/b"\ntimeout_s = true\n', 3, "timeout_s is no number"),
        ("[observer]\ndeliberation = 9\n", 2, "deliberation is no table"),
        ("[observer]\ndeliberation = {agents = 0}\n", 2, "agents is no whole number from 1 to 72"),
        ("[observer]\ndeliberation = {agents = 73}\n", 2, "agents is no whole number from 1 to 72"),
        ('[observer]\ndeliberation = {roster = "../x"}\n', 2, "roster names none"),
        ('[observer]\ndeliberation = {rooster = "a"}\n', 2, "has no setting 'rooster'"),
        ('[reasoner]\nmodel = "a/b"\noptions = ["echo"]\n', 3, "has 1 option, 2 to 50 are taken"),
        ('[reasoner]\nmodel = "a/b"\noptions = ["echo", "Echo"]\n', 3, "options/1 reads the same as option number 1"),
        ('[reasoner]\nmodel = "a/b"\noptions = "echo"\n', 3, "options is no list of texts"),
        ('[validator]\nmodel = "a/b"\noptions = ["yes", "no"]\n', 3, "asked for a verdict"),
        ('[observer]\nmodel = "a/b"\n[observer]\n', 3, "it is no TOML from there on"),
        ("[observer\n", 1, "it is no TOML from there on"),
        ('[observer]\nmodel = "a/b', 2, "it is no TOML from there on"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(write: Written, text: str, line: int, problem: str) -> None:
    path = write(text)
    with pytest.raises(ConfigurationError) as refused:
        read_roles_file(path)
    assert refused.value.variable == "--roles"
    assert f"{str(path)!r}, line {line}: " in refused.value.problem
    assert problem in refused.value.problem
    assert refused.value.remedy


def test_a_file_that_is_away_a_folder_or_no_text_is_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'[observer]\nmodel = "\xe9"\n')
    for path, problem in ((tmp_path / "away.toml", "cannot be read"), (tmp_path, "cannot be read"), (latin, "line 2")):
        with pytest.raises(ConfigurationError, match=problem):
            read_roles_file(path)


def test_a_huge_file_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    huge = tmp_path / "huge.toml"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigurationError, match="more than 262144 bytes"):
        read_roles_file(huge)


def test_deep_nesting_is_refused(write: Written) -> None:
    with pytest.raises(ConfigurationError):
        read_roles_file(write("observer = " + "[" * 100_000))
