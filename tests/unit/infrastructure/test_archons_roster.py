"""Holds the built-in roster `archons` to its promise: 72 viewpoints that really differ, evenly spread."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from itertools import combinations
from typing import Any

import pytest

# Five axes with two poles each; a temperament is two words from two different axes.
POLES = {
    "cautious": {"cautious", "guarded", "prudent", "wary", "watchful"},
    "bold": {"bold", "daring", "undaunted", "venturesome"},
    "principled": {"exacting", "principled", "steadfast", "upright"},
    "pragmatic": {"flexible", "practical", "pragmatic", "resourceful"},
    "data": {"analytical", "empirical", "methodical", "numerate"},
    "narrative": {"attentive", "empathetic", "interpretive", "story-minded"},
    "individual": {"free-thinking", "independent", "individualistic", "self-reliant"},
    "collective": {"communal", "cooperative", "public-spirited", "team-minded"},
    "short horizon": {"brisk", "decisive", "present-minded", "prompt", "urgent"},
    "long horizon": {"far-sighted", "patient", "persevering", "unhurried"},
}
AXES = [
    {"cautious", "bold"},
    {"principled", "pragmatic"},
    {"data", "narrative"},
    {"individual", "collective"},
    {"short horizon", "long horizon"},
]
POLE_OF = {word: pole for pole, words in POLES.items() for word in words}
NAMES_AN_ANSWER = re.compile(
    r"\b(vot|answer|choos|pick|say)(e|ing)? (yes|no|for|against)\b"
    r"|\boption [a-z0-9]\b"
    r"|\balways (accept|approve|choose|oppose|prefer|refuse|reject|support)\b",
    re.IGNORECASE,
)


def resource(name: str) -> str:
    return files("infrastructure.rosters").joinpath(name).read_text(encoding="utf-8")


@cache
def roster() -> dict[str, Any]:
    return tomllib.loads(resource("archons.toml"))


@cache
def agents() -> list[dict[str, Any]]:
    members: list[dict[str, Any]] = roster()["agents"]
    return members


@cache
def schema() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(resource("roster.schema.json"))
    return document


def agent_schema() -> dict[str, Any]:
    definition: dict[str, Any] = schema()["$defs"]["agent"]
    return definition


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def five_grams(text: str) -> set[tuple[str, ...]]:
    run = words(text)
    return {tuple(run[start : start + 5]) for start in range(len(run) - 4)}


def overlap(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other)


def sentences(text: str) -> list[str]:
    return [sentence.strip() for sentence in re.split(r"(?<=[.?!])\s+", text)]


def poles(agent: dict[str, Any]) -> set[str]:
    return {POLE_OF[word] for word in agent["temperament"].split(" and ")}


def repeated(of: Callable[[dict[str, Any]], str]) -> list[str]:
    return [value for value, count in Counter(of(agent) for agent in agents()).items() if count > 1]


def text_faults(value: object, rules: dict[str, Any]) -> list[str]:
    if not isinstance(value, str):
        return [f"{value!r} is no text"]
    faults = []
    if not rules.get("minLength", 0) <= len(value) <= rules.get("maxLength", len(value)):
        faults.append(f"{value!r} has {len(value)} characters")
    if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
        faults.append(f"{value!r} does not fit {rules['pattern']!r}")
    return faults


def member_faults(agent: dict[str, Any]) -> list[str]:
    rules = agent_schema()["properties"]
    faults = [f"{name!r} is missing" for name in agent_schema()["required"] if name not in agent]
    faults += [f"{name!r} is unknown" for name in agent if name not in rules]
    for name in agent.keys() & rules.keys():
        if rules[name]["type"] == "string":
            faults += text_faults(agent[name], rules[name])
        elif not rules[name]["minItems"] <= len(agent[name]) <= rules[name]["maxItems"]:
            faults.append(f"{name!r} has {len(agent[name])} items")
        else:
            faults += [fault for item in agent[name] for fault in text_faults(item, rules[name]["items"])]
    return faults


def test_the_roster_is_called_archons_and_describes_itself() -> None:
    assert roster()["name"] == "archons"
    assert roster()["description"]


def test_the_roster_has_seventy_two_agents() -> None:
    assert len(agents()) == 72


def test_ids_run_from_archon_1_to_archon_72_in_order() -> None:
    assert [agent["id"] for agent in agents()] == [f"archon-{number}" for number in range(1, 73)]


@pytest.mark.parametrize("field", ["name", "profession", "looks_first_at", "temperament", "persona"])
def test_no_two_agents_share_a(field: str) -> None:
    assert repeated(lambda agent: repr(words(agent[field]))) == []


def test_no_two_agents_hold_the_same_values() -> None:
    assert repeated(lambda agent: repr(sorted(agent["values"]))) == []


def test_every_agent_holds_three_different_values() -> None:
    assert [agent["id"] for agent in agents() if len(agent["values"]) != 3 or len(set(agent["values"])) != 3] == []


def test_no_value_is_held_by_more_than_three_agents() -> None:
    held = Counter(value for agent in agents() for value in agent["values"])
    assert {value: count for value, count in held.items() if count > 3} == {}


def test_no_two_personas_share_a_tenth_of_their_five_word_runs() -> None:
    runs = {agent["id"]: five_grams(agent["persona"]) for agent in agents()}
    close = [(one, other) for one, other in combinations(runs, 2) if overlap(runs[one], runs[other]) >= 0.1]
    assert close == []


def test_no_sentence_stands_in_two_personas() -> None:
    count = Counter(sentence for agent in agents() for sentence in set(sentences(agent["persona"])))
    assert [sentence for sentence, times in count.items() if times > 1] == []


def test_no_two_personas_open_with_the_same_three_words() -> None:
    assert repeated(lambda agent: " ".join(words(agent["persona"])[:3])) == []


def test_every_persona_has_60_to_110_words() -> None:
    lengths = {agent["id"]: len(agent["persona"].split()) for agent in agents()}
    assert {name: length for name, length in lengths.items() if not 60 <= length <= 110} == {}


def test_every_persona_fits_in_a_kilobyte() -> None:
    assert [agent["id"] for agent in agents() if len(agent["persona"].encode()) > 1024] == []


def test_every_persona_speaks_to_the_agent_in_the_second_person() -> None:
    for agent in agents():
        spoken = Counter(words(agent["persona"]))
        assert spoken["you"] >= 2, agent["id"]
        assert not spoken.keys() & {"i", "me", "my", "mine", "we", "us", "our", "ours"}, agent["id"]


def test_no_persona_names_an_answer_to_prefer() -> None:
    assert [agent["id"] for agent in agents() if NAMES_AN_ANSWER.search(agent["persona"])] == []


def test_every_text_is_one_line_of_plain_prose() -> None:
    for agent in agents():
        for text in [agent[key] for key in agent if key != "values"] + agent["values"]:
            assert text == " ".join(text.split()), agent["id"]
            assert re.fullmatch(r"[A-Za-z0-9 ,.;:?'-]+", text), (agent["id"], text)


def test_every_temperament_joins_two_words_from_different_axes() -> None:
    for agent in agents():
        assert len(poles(agent)) == 2, agent["id"]
        assert poles(agent) not in AXES, agent["id"]


def test_temperaments_use_at_least_twelve_words_and_none_more_than_five_times() -> None:
    used = Counter(word for agent in agents() for word in agent["temperament"].split(" and "))
    assert len(used) >= 12
    assert {word: count for word, count in used.items() if count > 5} == {}


def test_every_pole_of_temperament_has_twelve_to_seventeen_agents() -> None:
    spread = Counter(pole for agent in agents() for pole in poles(agent))
    assert spread.keys() == POLES.keys()
    assert {pole: count for pole, count in spread.items() if not 12 <= count <= 17} == {}


def test_every_pair_of_poles_from_different_axes_meets_in_some_agent() -> None:
    met = {frozenset(poles(agent)) for agent in agents()}
    wanted = {frozenset(pair) for pair in combinations(POLES, 2) if set(pair) not in AXES}
    assert wanted - met == set()


def test_the_first_five_agents_already_cover_every_pole() -> None:
    assert {pole for agent in agents()[:5] for pole in poles(agent)} == POLES.keys()


def test_every_agent_states_its_whole_profile_and_leaves_the_model_open() -> None:
    profile = {"id", "name", "profession", "values", "temperament", "looks_first_at", "persona"}
    assert [agent["id"] for agent in agents() if agent.keys() != profile] == []


def test_the_roster_keeps_the_rules_of_its_schema() -> None:
    rules = schema()["properties"]
    assert roster().keys() <= rules.keys()
    assert text_faults(roster()["name"], rules["name"]) == []
    assert text_faults(roster()["description"], rules["description"]) == []
    assert rules["agents"]["minItems"] <= len(agents()) <= rules["agents"]["maxItems"]
    assert {agent["id"]: member_faults(agent) for agent in agents() if member_faults(agent)} == {}


def test_the_schema_is_json_schema_2020_12_and_closed_to_unknown_fields() -> None:
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema()["additionalProperties"] is False
    assert agent_schema()["additionalProperties"] is False


def test_the_schema_asks_a_member_for_id_and_persona_only() -> None:
    assert agent_schema()["required"] == ["id", "persona"]
    assert member_faults({"id": "m-1", "persona": "You keep bees."}) == []


@pytest.mark.parametrize(
    "member",
    [
        {"persona": "You keep bees."},
        {"id": "m-1"},
        {"id": "m-1", "persona": ""},
        {"id": "m-1", "persona": "a\x00b"},
        {"id": "m-1", "persona": "y" * 8193},
        {"id": "m-1", "persona": "You keep bees.", "weight": "2"},
        {"id": "m-1", "persona": "You keep bees.", "model": ""},
        {"id": "m-1", "persona": "You keep bees.", "values": []},
        {"id": "", "persona": "You keep bees."},
        {"id": "-m", "persona": "You keep bees."},
        {"id": "m 1", "persona": "You keep bees."},
        {"id": "m/1", "persona": "You keep bees."},
        {"id": "m-1\n", "persona": "You keep bees."},
        {"id": "\u0430rchon-1", "persona": "You keep bees."},
        {"id": "m" * 65, "persona": "You keep bees."},
    ],
)
def test_the_schema_refuses_a_bad_member(member: dict[str, Any]) -> None:
    assert member_faults(member) != []


@pytest.mark.parametrize("name", ["", "Archons", "-archons", "my roster", "../archons", "a" * 65])
def test_the_schema_refuses_a_bad_roster_name(name: str) -> None:
    assert text_faults(name, schema()["properties"]["name"]) != []
