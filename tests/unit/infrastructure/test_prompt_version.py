"""Holds every prompt to the words that its version was recorded with, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from domain.models.question import AnswerKind
from infrastructure.orchestrators import prompt_version as module
from infrastructure.orchestrators import prompts
from infrastructure.orchestrators.prompt_version import prompt_version, specimens
from infrastructure.orchestrators.prompts import PROMPT_VERSION
from tests.prompt_snapshots import VERSION_FILE, folder_of, page_of

_REMEDY = (
    "The words of a prompt are not those that version {version!r} was recorded with: raise PROMPT_VERSION in prompts.py, leave the "
    "folder of the old version as it is, and write the new one with: python -m tests.prompt_snapshots"
)


@pytest.fixture
def unremembered() -> Iterator[None]:
    """The hash is made anew within the test and after it."""
    prompt_version.cache_clear()
    yield
    prompt_version.cache_clear()


@pytest.mark.parametrize("name", sorted(specimens()))
def test_a_prompt_has_the_words_of_its_version(name: str) -> None:
    kept = folder_of(PROMPT_VERSION) / f"{name}.txt"
    expected = kept.read_bytes() if kept.exists() else b""
    assert page_of(specimens()[name]).encode() == expected, _REMEDY.format(version=PROMPT_VERSION)


def test_every_prompt_of_the_version_has_its_snapshot_and_no_other_is_there() -> None:
    kept = {path.stem for path in folder_of(PROMPT_VERSION).glob("*.txt")}
    assert kept == set(specimens()), _REMEDY.format(version=PROMPT_VERSION)


def test_what_is_recorded_is_the_version_and_the_hash_that_it_was_first_recorded_with() -> None:
    recorded = (folder_of(PROMPT_VERSION) / VERSION_FILE).read_text()
    assert f"{prompt_version()}\n" == recorded, _REMEDY.format(version=PROMPT_VERSION)


def test_there_is_a_specimen_of_each_kind_of_answer_and_of_a_free_reply() -> None:
    names = set(specimens())
    assert {kind.value for kind in AnswerKind} | {"free-reply"} <= names
    assert all({f"{kind.value}-without-context", f"{kind.value}-without-persona"} <= names for kind in AnswerKind)


@pytest.mark.usefixtures("unremembered")
@pytest.mark.parametrize(
    "words",
    ["_PREAMBLE", "_BALLOT", "_FREE_REPLY", "_VIEWPOINT", "_NO_VIEWPOINT", "_REMINDER", "_FREE_REMINDER"],
)
def test_a_changed_word_changes_what_is_recorded(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prompt_version()
    prompt_version.cache_clear()
    monkeypatch.setattr(prompts, words, f"{getattr(prompts, words)} Please.")
    assert prompt_version() != before
    assert prompt_version().partition(":")[0] == PROMPT_VERSION


@pytest.mark.usefixtures("unremembered")
def test_a_changed_fence_changes_what_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prompt_version()
    prompt_version.cache_clear()
    monkeypatch.setattr(prompts, "_fenced", lambda name, text, mark: f"[{name} {mark}]\n{text}\n[/{name} {mark}]")
    assert prompt_version() != before


@pytest.mark.usefixtures("unremembered")
def test_a_raised_version_is_another_one_although_no_word_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prompt_version()
    prompt_version.cache_clear()
    for place in (prompts, module):
        monkeypatch.setattr(place, "PROMPT_VERSION", "next")
    assert prompt_version() != before
    assert prompt_version().startswith("next:")
