"""What the application's role may still do to the record: erase texts once an entry says so, and add to all the rest."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from infrastructure.persistence import tables
from infrastructure.persistence.engine import open_sync_engine
from infrastructure.persistence.migrate import upgrade
from tests.integration.recorded_databases import (
    CHARGE,
    ERASED,
    KEPT,
    MOMENT,
    Ground,
    opened_ground,
    text_of,
    write_record,
)
from tests.servers.postgres import PostgresServer


@pytest.fixture
def sqlite_file(recorded_sqlite_file: Path, tmp_path: Path) -> Path:
    """A SQLite file with the record, of this test's own."""
    return Path(shutil.copy(recorded_sqlite_file, tmp_path / "conclave.db"))


@pytest.fixture
def ground(postgres_server: PostgresServer) -> Iterator[Ground]:
    """A database without tables, of this test's own."""
    with opened_ground(postgres_server) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgres"])
def application_url(request: pytest.FixtureRequest) -> str:
    """A database of each kind with the record, as the application sees it, of this test's own."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('sqlite_file')}"
    opened: Ground = request.getfixturevalue("ground")
    upgrade(text_of(opened.owner), application_url=text_of(opened.application))
    engine = open_sync_engine(opened.application)
    with engine.begin() as connection:
        write_record(connection)
    return text_of(opened.application)


def test_texts_can_be_erased_once_their_erasure_stands_there(application_url: str) -> None:
    engine = open_sync_engine(application_url)
    records = tables.agent_records
    nothing = {"content": None, "reasoning": None, "failure_message": None, "answer": None, "salts": None}
    erase = records.update().where(records.c.deliberation_id == KEPT).values(**nothing)
    with engine.connect() as connection, pytest.raises(Exception, match="agent_records only grows"):
        connection.execute(erase)
    with engine.begin() as connection:
        entry = {"idx": 3, "leaf_hash": b"h" * 32, "deliberation_id": KEPT, "entry": b'{"type":"erased"}'}
        connection.execute(tables.witness_entries.insert(), entry)
        connection.execute(tables.erasures.insert(), {"deliberation_id": KEPT, "idx": 3})
        gone = connection.execute(tables.disclosures.delete().where(tables.disclosures.c.deliberation_id == KEPT))
        assert gone.rowcount == 1
        assert connection.execute(erase).rowcount == 2
    with engine.connect() as connection:
        found = connection.execute(records.select().where(records.c.deliberation_id == KEPT)).mappings().all()
    assert [{name: row[name] for name in nothing} for row in found] == [nothing, nothing]
    assert [row["leaf_index"] for row in found] == [1, 2]


@pytest.mark.parametrize("index", [0, 1, 2, 7])
def test_an_erasure_needs_the_entry_that_says_so(application_url: str, index: int) -> None:
    with (
        open_sync_engine(application_url).connect() as connection,
        pytest.raises(Exception, match="what an entry says"),
    ):
        connection.execute(tables.erasures.insert(), {"deliberation_id": KEPT, "idx": index})


def test_the_texts_of_the_erasure_itself_stay(application_url: str) -> None:
    told, reason, question = "0197-told", "4" * 64, "5" * 64
    deliberation = {
        "id": told,
        "position": 9,
        "status": "completed",
        "created_at": MOMENT,
        "orchestrator": "simulated",
        "simulated": True,
        "cancel_requested": False,
    }
    data = f'{{"reason":{{"sha256":"{reason}"}},"type":"erased"}}'.encode()
    entry = {"idx": 90, "leaf_hash": b"h" * 32, "deliberation_id": told, "entry": data}
    texts = tables.disclosures
    # Never committed, so that the other tests find what they expect.
    with open_sync_engine(application_url).connect() as connection:
        connection.execute(tables.deliberations.insert(), deliberation)
        connection.execute(tables.witness_entries.insert(), entry)
        connection.execute(tables.erasures.insert(), {"deliberation_id": told, "idx": 90})
        for sha256 in (reason, question):
            values = {"sha256": sha256, "deliberation_id": told, "salt": b"s" * 16, "text": "why"}
            connection.execute(texts.insert(), values)
        assert connection.execute(texts.delete().where(texts.c.sha256 == question)).rowcount == 1
        with pytest.raises(Exception, match="disclosures only grows"):
            connection.execute(texts.delete().where(texts.c.sha256 == reason))


def test_an_erased_text_does_not_come_back(application_url: str) -> None:
    engine = open_sync_engine(application_url)
    records = tables.agent_records
    erased = records.update().where(records.c.deliberation_id == ERASED)
    with engine.begin() as connection:
        connection.execute(erased.values(content=None, reasoning=None, failure_message=None, salts=None))
    for change in ({"content": "forged"}, {"answer": "1"}, {"salts": b""}):
        with engine.connect() as connection, pytest.raises(Exception, match="agent_records only grows"):
            connection.execute(erased.values(**change))


def test_the_application_adds_to_the_log_and_moves_its_head(application_url: str) -> None:
    engine = open_sync_engine(application_url)
    with engine.begin() as connection:
        head = connection.execute(tables.witness_head.select().with_for_update()).one()
        entry = {"idx": head.tree_size, "leaf_hash": b"h" * 32, "entry": b"{}"}
        connection.execute(tables.witness_entries.insert(), entry)
        connection.execute(tables.witness_head.update().values(tree_size=head.tree_size + 1, frontier=b"g" * 32))
        connection.execute(tables.deliberations.update().values(status="failed"))
        connection.execute(tables.specifications.update().values(salts=None))
    with engine.connect() as connection:
        assert connection.execute(tables.witness_head.select()).one() == (1, 4, b"g" * 32)


def test_the_application_adds_calls_and_charges_moves_what_is_spent_sets_the_halt_and_forgets_old_keys(
    application_url: str,
) -> None:
    halts, keys = tables.halt_state, tables.idempotency_keys
    call = {"deliberation_id": KEPT, "round_number": 1, "agent_id": "archon-1", "purpose": "answer", "leaf_index": 9}
    key = {"scope": "", "idempotency_key": "k", "body_sha256": "b" * 64, "deliberation_id": KEPT}
    engine = open_sync_engine(application_url)
    with engine.begin() as connection:
        assert connection.execute(halts.select()).one() == (1, False, None, None)
        connection.execute(tables.calls.insert(), {**call, "attempt": 3, "day": "2026-11-20", "held_tokens": 9})
        connection.execute(tables.charges.insert(), {**CHARGE, "deliberation_id": KEPT, "attempt": 3})
        spent = {"key_name": "saver", "day": "2026-11-20", "amount": 9}
        connection.execute(tables.spending.insert(), spent)
        connection.execute(tables.spending.update().values(amount=tables.spending.c.amount - 4))
        connection.execute(halts.update().values(halted=True, reason="drill", since=MOMENT))
        connection.execute(keys.insert(), {**key, "created_at": MOMENT})
    with engine.begin() as connection:
        assert connection.execute(halts.select()).one() == (1, True, "drill", MOMENT)
        assert connection.execute(keys.delete()).rowcount == 1
        calls = connection.execute(tables.calls.select().where(tables.calls.c.deliberation_id == KEPT)).all()
        assert [row.attempt for row in calls] == [1, 2, 3]
        assert connection.execute(tables.spending.select()).one() == ("saver", "2026-11-20", 5)
