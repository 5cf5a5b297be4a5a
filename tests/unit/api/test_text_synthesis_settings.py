"""Which embedder the settings choose."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from api.bootstrap.texts import examine_texts, open_text_synthesis
from domain.errors.configuration import ConfigurationError
from infrastructure.settings import load_settings

FILE = """
[providers.near]
base_url = "https://near.test/v1"

[routes.default]
models = ["near/small"]
"""


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))


async def chosen() -> str | None:
    async with AsyncExitStack() as stack:
        return open_text_synthesis(load_settings(), stack).embedder_name


async def test_without_a_setting_words_are_compared() -> None:
    assert await chosen() is None


async def test_the_model_of_the_one_provider_is_named_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE_LLM_BASE_URL", "http://near.test/v1")
    monkeypatch.setenv("CONCLAVE_EMBEDDING_MODEL", "maker/embed-1")
    assert await chosen() == "maker/embed-1"


async def test_a_model_of_the_file_is_named_with_its_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(FILE)
    monkeypatch.setenv("CONCLAVE_PROVIDERS_FILE", str(file))
    monkeypatch.setenv("CONCLAVE_EMBEDDING_MODEL", "near/embed-1")
    assert await chosen() == "near/embed-1"
    for name in ("far/embed-1", "near/", "embed-1"):
        monkeypatch.setenv("CONCLAVE_EMBEDDING_MODEL", name)
        with pytest.raises(ConfigurationError, match="CONCLAVE_EMBEDDING_MODEL"):
            await chosen()


async def test_an_embedding_model_without_a_provider_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE_EMBEDDING_MODEL", "embed-1")
    with pytest.raises(ConfigurationError, match="CONCLAVE_EMBEDDING_MODEL: 'embed-1' would be a model of a provider"):
        await chosen()


def install(monkeypatch: pytest.MonkeyPatch, *, is_there: bool) -> None:
    monkeypatch.setattr(
        "infrastructure.embedders.packaged_embedder.find_spec", lambda _: object() if is_there else None
    )
    monkeypatch.setenv("CONCLAVE_EMBEDDING_MODEL", "packaged")


async def test_the_packaged_model_needs_no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, is_there=True)
    assert await chosen() == "all-MiniLM-L6-v2"


async def test_a_packaged_model_that_is_not_there_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, is_there=False)
    with pytest.raises(ConfigurationError, match=r"archon-conclave\[embeddings\]"):
        await chosen()


async def test_the_doctor_says_by_what_texts_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await examine_texts(load_settings())).detail == "compared by their words (TF-IDF)"
    install(monkeypatch, is_there=True)
    assert (await examine_texts(load_settings())).detail == "compared by all-MiniLM-L6-v2, on this machine"
    install(monkeypatch, is_there=False)
    check = await examine_texts(load_settings())
    assert (check.works, check.remedy.startswith("CONCLAVE_EMBEDDING_MODEL: Install")) == (False, True)
    monkeypatch.setenv("CONCLAVE_LLM_BASE_URL", "http://near.test/v1")
    monkeypatch.setenv("CONCLAVE_EMBEDDING_MODEL", "maker/embed-1")
    assert (await examine_texts(load_settings())).detail == "compared by maker/embed-1, at its provider"
