"""Holds the roster files to their promise: exactly what a file says, or what is wrong in it, and no harm to the others."""

import json
import logging
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.ports.roster_source import RosterSource
from domain.errors.deliberation import InvalidRosterError, RosterNotFoundError
from domain.models.agent import Agent, CrewReference, Persona, Roster
from infrastructure.rosters.file_roster_source import MAX_ROSTER_BYTES, FileRosterSource

BOARD = """
name = "board"
description = "Three who decide."

[[agents]]
id = "chair"
name = "The chair"
persona = "You chair the board and look for what all can live with."
values = ["calm", "order"]

[[agents]]
id = "treasurer"
persona = "You count."
model = "openai/small"
"""


def agent(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "persona": "You look twice.", **fields}


def document(*agents: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "board", "agents": list(agents) or [agent()], **fields}


def write(folder: Path, name: str, content: str | bytes | dict[str, Any]) -> Path:
    path = folder / name
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def problem_of(folder: Path, name: str) -> str:
    with pytest.raises(InvalidRosterError) as caught:
        FileRosterSource(folder).get(name)
    return caught.value.problem


def test_the_built_in_roster_has_seventy_two_agents_in_the_order_of_its_file() -> None:
    source: RosterSource = FileRosterSource(None)
    roster = source.get("archons")
    assert [one.id for one in roster.agents] == [f"archon-{number}" for number in range(1, 73)]
    assert roster.agents[0].persona.name == "Emergency-room nurse"
    assert roster.agents[0].persona.text.startswith("Twelve-hour shifts in emergency")
    assert roster.description
    assert list(source.names()) == ["archons"]


def test_a_roster_of_the_operators_own_is_read_field_by_field(tmp_path: Path) -> None:
    write(tmp_path, "board.toml", BOARD)
    source = FileRosterSource(tmp_path)
    assert source.get("board") == Roster(
        "board",
        (
            Agent("chair", Persona("You chair the board and look for what all can live with.", "The chair"), None),
            Agent("treasurer", Persona("You count."), "openai/small"),
        ),
        "Three who decide.",
    )
    assert list(source.names()) == ["archons", "board"]


def test_json_says_the_same_as_toml(tmp_path: Path) -> None:
    write(tmp_path, "one.json", b"\xef\xbb\xbf" + json.dumps(document(agent(model="m"), name="one")).encode())
    assert FileRosterSource(tmp_path).get("one").agents == (Agent("a", Persona("You look twice."), "m"),)


def test_a_file_without_a_name_is_asked_for_by_its_file_name(tmp_path: Path) -> None:
    write(tmp_path, "jury-2.json", {"agents": [agent()]})
    assert FileRosterSource(tmp_path).get("jury-2").name == "jury-2"


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path, "board.toml", BOARD)
    for name in ("nobody", "../board", "board.toml", ""):
        with pytest.raises(RosterNotFoundError) as caught:
            FileRosterSource(tmp_path).get(name)
        assert caught.value.known == ("archons", "board")


def test_a_broken_file_harms_no_other_and_says_what_is_wrong_when_it_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "broken.toml", "name = \n")
    write(tmp_path, "board.toml", BOARD)
    source = FileRosterSource(tmp_path)
    assert list(source.names()) == ["archons", "board"]
    assert source.get("board").agents
    with pytest.raises(InvalidRosterError, match=r"roster 'broken.toml' cannot be used: cannot be parsed: .*line 1"):
        source.get("broken")
    assert [problem.source for problem in source.problems()] == ["broken.toml"]


def test_a_broken_file_is_found_by_its_file_name_and_by_the_name_in_it(tmp_path: Path) -> None:
    write(tmp_path, "file.json", document(agent(id=""), name="called"))
    assert problem_of(tmp_path, "file") == problem_of(tmp_path, "called")


def test_a_broken_file_is_logged_once_not_at_every_look(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "broken.toml", "name = ")
    source = FileRosterSource(tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            source.names()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "broken.toml" in caplog.text


PROBLEMS: list[tuple[dict[str, Any] | str | bytes, str]] = [
    (document(colour="red"), "it has the unknown field 'colour'"),
    (document(agent(colour="red")), "/agents/0 has the unknown field 'colour'"),
    (document(agent(), {"id": "b"}), "/agents/1 has no 'persona'"),
    ({"name": "board"}, "it has no 'agents'"),
    (document(agents={}), "/agents is not a list"),
    (document(agents=[]), "/agents has 0 entries, 1 to 72 are taken"),
    (document(agents=[agent(id=f"a{n}") for n in range(73)]), "/agents has 73 entries, 1 to 72 are taken"),
    (document(agents=["a"]), "/agents/0 is not a table"),
    (document(agent(), agent()), "/agents/1/id stands twice in the roster"),
    (document(agent(id=7)), "/agents/0/id is not a text"),
    (document(agent(id="a\n")), "/agents/0/id is 'a\\n', which does not match ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    (document(agent(id="a b")), "/agents/0/id is 'a b', which does not match ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    (document(agent(persona="")), "/agents/0/persona must not be empty"),
    (document(agent(persona=" \n")), "/agents/0/persona must not be empty"),
    (document(agent(persona="a\x00b")), "/agents/0/persona must not hold a NUL character"),
    (document(agent(persona="\ud800")), "/agents/0/persona must not hold a lone surrogate"),
    (document(agent(persona="a" * 8193)), "/agents/0/persona has 8193 characters, at most 8192 are taken"),
    (document(agent(persona="é" * 4097)), "/agents/0/persona is 8194 bytes long, at most 8192 are taken"),
    (document(agent(name="\udfff")), "/agents/0/name must not hold a lone surrogate"),
    (document(agent(model=None)), "/agents/0/model is not a text"),
    (document(agent(model="m" * 257)), "/agents/0/model has 257 characters, at most 256 are taken"),
    (document(agent(values=["calm", "calm"])), "/agents/0/values has an entry twice"),
    (document(agent(values=[["calm"]])), "/agents/0/values/0 is not a text"),
    (document(description="d" * 1025), "/description has 1025 characters, at most 1024 are taken"),
    (document(name="Board"), "/name is 'Board', which does not match ^[a-z0-9][a-z0-9_-]{0,63}$"),
    (document(name="archons"), "the name 'archons' belongs to a built-in roster: choose another"),
    ("[]", "does not hold a table with the fields 'name' and 'agents'"),
    ('{"name": "x", "name": "y"}', "cannot be parsed: the key 'name' stands twice in a table"),
    ('{"name": NaN}', "cannot be parsed: NaN is no number"),
    ('{"name": ' + "[" * 100_000, "is nested too deeply"),
    (b'{"name": "\xff"}', "is not UTF-8 at byte 10"),
    (b" " * (MAX_ROSTER_BYTES + 1), f"is longer than {MAX_ROSTER_BYTES} bytes"),
]


@pytest.mark.parametrize(("content", "problem"), PROBLEMS, ids=[problem for _, problem in PROBLEMS])
def test_the_first_problem_is_named_with_its_place(
    tmp_path: Path, content: dict[str, Any] | str | bytes, problem: str
) -> None:
    write(tmp_path, "file.json", content)
    assert problem_of(tmp_path, "file") == problem


@pytest.mark.parametrize("content", ['name = "x"\nname = "y"', "name = 1979-05-27", "x = " + "[" * 5000, "a.b = 1"])
def test_toml_is_held_to_the_same_strictness(tmp_path: Path, content: str) -> None:
    write(tmp_path, "file.toml", content)
    assert problem_of(tmp_path, "file")


def test_a_user_file_cannot_take_the_place_of_the_built_in_roster(tmp_path: Path) -> None:
    write(tmp_path, "archons.json", document(name="archons"))
    source = FileRosterSource(tmp_path)
    assert len(source.get("archons").agents) == 72
    assert [str(problem) for problem in source.problems()] == [
        "roster 'archons.json' cannot be used: the name 'archons' belongs to a built-in roster: choose another."
    ]


def test_two_files_of_one_name_are_both_refused_and_the_rest_is_not(tmp_path: Path) -> None:
    write(tmp_path, "a.toml", BOARD)
    write(tmp_path, "b.json", document())
    write(tmp_path, "c.json", document(name="other"))
    source = FileRosterSource(tmp_path)
    assert list(source.names()) == ["archons", "other"]
    with pytest.raises(InvalidRosterError, match="another file has a roster named 'board' too: rename one"):
        source.get("board")


def test_links_folders_hidden_and_foreign_files_are_not_looked_at(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    rosters = tmp_path / "rosters"
    for folder in (outside, rosters, rosters / "folder.toml"):
        folder.mkdir()
    write(outside, "secret.json", document(name="secret"))
    (rosters / "secret.json").symlink_to(outside / "secret.json")
    write(rosters, ".hidden.json", document(name="hidden"))
    write(rosters, "notes.txt", "name = ")
    os.mkfifo(rosters / "pipe.toml")
    source = FileRosterSource(rosters)
    assert list(source.names()) == ["archons"]
    assert list(source.problems()) == []


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(tmp_path: Path) -> None:
    path = write(tmp_path, "board.json", document())
    source = FileRosterSource(tmp_path)
    first = source.get("board")
    assert source.get("board") is first
    write(tmp_path, "board.json", document(agent(id="somebody-else")))
    assert [one.id for one in source.get("board").agents] == ["somebody-else"]
    path.unlink()
    with pytest.raises(RosterNotFoundError):
        source.get("board")


def test_a_repaired_file_can_be_used_without_a_restart(tmp_path: Path) -> None:
    write(tmp_path, "board.json", "{")
    source = FileRosterSource(tmp_path)
    assert list(source.names()) == ["archons"]
    write(tmp_path, "board.json", document())
    assert source.get("board").agents
    assert list(source.problems()) == []


def test_a_folder_that_is_away_leaves_the_built_in_roster_and_is_named(tmp_path: Path) -> None:
    source = FileRosterSource(tmp_path / "gone")
    assert len(source.get("archons").agents) == 72
    assert list(source.names()) == ["archons"]
    with pytest.raises(InvalidRosterError, match="roster 'gone' cannot be used: the folder cannot be read"):
        source.get("board")


def test_the_schema_uses_no_keyword_that_the_check_would_pass_over() -> None:
    checked = {"type", "additionalProperties", "required", "properties", "items", "$ref", "pattern", "uniqueItems"}
    checked |= {"minLength", "maxLength", "minItems", "maxItems"}
    told = {"$schema", "$defs", "$comment", "title", "description"}

    def look(schema: dict[str, Any]) -> None:
        assert set(schema) <= checked | told
        if schema.get("type") == "object":
            assert schema["additionalProperties"] is False
        if schema.get("type") == "array":
            assert {"minItems", "maxItems", "items"} <= set(schema)
        for inner in (*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()):
            look(inner)

    look(json.loads(files("infrastructure.rosters").joinpath("roster.schema.json").read_text(encoding="utf-8")))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.builds(
        lambda fields, agents: json.dumps({**fields, "agents": agents}).encode(),
        st.dictionaries(st.sampled_from(["name", "description", "x"]), JSON_VALUES),
        st.lists(
            st.dictionaries(st.sampled_from(["id", "persona", "model", "values", "name"]), JSON_VALUES) | JSON_VALUES,
            max_size=4,
        ),
    ),
    st.sampled_from(["file.json", "file.toml"]),
)
def test_no_content_breaks_more_than_its_own_roster(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    folder = tmp_path_factory.mktemp("rosters")
    write(folder, name, content)
    source = FileRosterSource(folder)
    usable = set(source.names())
    assert "archons" in usable
    assert len(usable) + len(source.problems()) == 2


def crewed(source: str = "crews/board.py:crew", **fields: Any) -> dict[str, Any]:
    return document(agent(crew=source, **fields))


@pytest.fixture
def with_crews(tmp_path: Path) -> Path:
    (tmp_path / "rosters" / "crews").mkdir(parents=True)
    for path in (tmp_path / "rosters" / "crews" / "board.py", tmp_path / "outside.py"):
        path.write_text("raise RuntimeError('this is not read before it is asked')")
    (tmp_path / "rosters" / "link.py").symlink_to(tmp_path / "outside.py")
    return tmp_path / "rosters"


def test_a_member_may_have_a_crew_of_the_operators_own_where_crews_are_asked(with_crews: Path) -> None:
    write(with_crews, "board.json", crewed(tools=["look_up"]))
    (member,) = FileRosterSource(with_crews, takes_crews=True).get("board").agents
    assert member.crew == CrewReference("crews/board.py:crew", ("look_up",))


def test_a_crew_is_refused_where_nobody_could_ask_it(with_crews: Path) -> None:
    write(with_crews, "board.json", crewed())
    assert "CONCLAVE_ORCHESTRATOR=crewai" in problem_of(with_crews, "board")


@pytest.mark.parametrize(
    "source",
    [
        "../outside.py:crew",
        "crews/../../outside.py:crew",
        "link.py:crew",
        "nowhere.py:crew",
        "crews:crew",
        "crews/board.py",
        "crews/board.py:",
        "crews/board.py:a.b",
        "crews.board:crew",
    ],
)
def test_a_crew_lies_in_a_python_file_below_the_folder_of_the_rosters(with_crews: Path, source: str) -> None:
    write(with_crews, "board.json", crewed(source))
    with pytest.raises(InvalidRosterError, match="/agents/0/crew"):
        FileRosterSource(with_crews, takes_crews=True).get("board")


def test_a_crew_is_not_named_by_an_absolute_path(with_crews: Path) -> None:
    write(with_crews, "board.json", crewed(f"{with_crews}/crews/board.py:crew"))
    with pytest.raises(InvalidRosterError, match="CONCLAVE_ROSTERS_DIR"):
        FileRosterSource(with_crews, takes_crews=True).get("board")


def test_tools_without_a_crew_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "board.json", document(agent(tools=["look_up"])))
    assert "/agents/0/tools" in problem_of(tmp_path, "board")
