"""Columns of a population for notebooks: every format says the same, and a file is there as a whole or not at all."""

from __future__ import annotations

import csv
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from domain.errors.population import DamagedRecordError, InvalidPopulationError, PopulationFolderError
from domain.models.archetype import Archetype
from domain.models.population import PopulationSpecification
from infrastructure.population.column_export import write_columns
from infrastructure.population.kept_columns import KeptColumns, Named, columns_in
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.population_folder import PopulationFolder
from infrastructure.population.snapshots import Snapshots
from tests.population.towns import opinions_of, specification, ticked

PAIR = (Archetype("=cmd()", "no", 0.0, 0.9), Archetype("b", "@yes", 1.0, 0.9))


def kept(folder: Path, spec: PopulationSpecification, ticks: int = 3) -> np.ndarray[Any, Any]:
    """A population in `folder` with snapshots after each tick; its opinions at the end."""
    record = PopulationFolder(folder)
    record.start(spec)
    record.close()
    engine = LocalEngine(spec, snapshots=Snapshots(folder / "snapshots"))
    try:
        for number in range(1, ticks + 1):
            ticked(engine, 1)
            engine.save(number)
        engine.settle()
        return opinions_of(engine)
    finally:
        engine.close()


def read_arrow(path: Path) -> Any:
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        return reader.read_all()


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_arrow_and_parquet_hold_all_columns_with_their_types(tmp_path: Path, form: str) -> None:
    spec = specification(agents=1_000, archetypes=PAIR, deliberation="dlb", high_priority=20)
    opinions = kept(tmp_path, spec)
    path = tmp_path / "out" / f"agents.{form}"

    names = write_columns(columns_in(tmp_path), path, form)
    table = pa.parquet.read_table(path) if form == "parquet" else read_arrow(path)

    assert table.column_names == names
    assert table.num_rows == 1_000
    assert table["opinion"].to_numpy().tobytes() == opinions.tobytes()
    assert table["row"].to_pylist() == list(range(1_000))
    assert table["alive"].to_pylist() == [True] * 1_000
    assert table["simulated"].to_pylist() == [True] * 1_000
    assert table["community"].to_pylist() == ["=cmd()"] * 500 + ["b"] * 500
    assert table["began_with"].to_pylist() == ["no"] * 500 + ["@yes"] * 500
    assert set(table["priority"].to_pylist()) == {0, 1}
    about = {name.decode(): value.decode() for name, value in table.schema.metadata.items() if name != b"ARROW:schema"}
    assert about == {
        "simulated": "true",
        "tick": "3",
        "seed": "0",
        "behaviour": "bounded_confidence",
        "deliberation_id": "dlb",
    }


def test_csv_says_the_same_and_no_spreadsheet_computes_it(tmp_path: Path) -> None:
    opinions = kept(tmp_path, specification(agents=1_000, archetypes=PAIR))
    write_columns(columns_in(tmp_path), tmp_path / "agents.csv", "csv")
    with (tmp_path / "agents.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["opinion"]) for row in rows] == opinions.tolist()
    assert {row["community"] for row in rows} == {"'=cmd()", "b"}
    assert {row["began_with"] for row in rows} == {"no", "'@yes"}
    assert {row["simulated"] for row in rows} == {"true"}


def test_the_last_snapshot_is_exported_unless_another_is_named(tmp_path: Path) -> None:
    spec = specification(agents=500)
    kept(tmp_path, spec)
    assert columns_in(tmp_path).tick == 3
    earlier = columns_in(tmp_path, tick=2)
    assert earlier.tick == 2
    assert not np.array_equal(_plain(earlier, "opinion"), _plain(columns_in(tmp_path), "opinion"))
    with pytest.raises(PopulationFolderError, match="There are those of: 1, 2, 3"):
        columns_in(tmp_path, tick=7)


def test_before_the_first_snapshot_everybody_is_as_they_began(tmp_path: Path) -> None:
    record = PopulationFolder(tmp_path)
    record.start(specification(agents=500))
    try:
        found = columns_in(tmp_path)
    finally:
        record.close()
    assert found.tick == 0
    assert np.array_equal(_plain(found, "opinion"), _plain(found, "first_opinion"))


def test_agents_that_came_later_have_no_first_opinion_and_free_rows_are_not_alive(tmp_path: Path) -> None:
    spec = specification(agents=500)
    record = PopulationFolder(tmp_path)
    record.start(spec)
    record.close()
    engine = LocalEngine(spec, snapshots=Snapshots(tmp_path / "snapshots"))
    try:
        ticked(engine, 1)
        engine.slab.retire(np.arange(40, dtype=np.uint32))
        engine.slab.spawn(10, tick=1)
        engine.refresh()
        engine.save(1)
        engine.settle()
    finally:
        engine.close()
    found = columns_in(tmp_path, with_bytes=True)
    assert int(np.isnan(_plain(found, "first_opinion")).sum()) == 10
    assert int(_plain(found, "alive").sum()) == 470
    write_columns(found, tmp_path / "agents.parquet", "parquet")
    table = pa.parquet.read_table(tmp_path / "agents.parquet")
    assert table["state"].type == pa.binary(256)
    assert table["state"][0].as_py() == bytes(256)
    assert "state" not in columns_in(tmp_path).columns


def test_columns_of_several_numbers_are_lists(tmp_path: Path) -> None:
    found = KeptColumns(
        specification(agents=4, degree=2), 0, {"row": np.arange(4), "peers": np.arange(8).reshape(4, 2)}
    )
    write_columns(found, tmp_path / "a.parquet", "parquet")
    assert pa.parquet.read_table(tmp_path / "a.parquet")["peers"].to_pylist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert write_columns(found, tmp_path / "a.csv", "csv") == ["row"]


def test_a_damaged_snapshot_is_not_exported_and_the_last_good_one_offered(tmp_path: Path) -> None:
    kept(tmp_path, specification(agents=500))
    path = Snapshots(tmp_path / "snapshots").path(3)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedRecordError) as caught:
        columns_in(tmp_path)
    assert caught.value.last_good_tick == 2


@pytest.mark.parametrize("form", ["parquet", "arrow", "csv"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, form: str) -> None:
    kept(tmp_path, specification(agents=500))
    found = columns_in(tmp_path)
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / f"a.{form}"
    path.write_text("before")
    # A link to the device that is always full takes the place of the file that is written first.
    (tmp_path / "there" / f".a.{form}.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(PopulationFolderError, match="Make room"):
        write_columns(found, path, form)
    assert path.read_text() == "before"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("form", "said"), [("xml", "must be one of"), ("parquet", "extra `arrow`"), ("arrow", "extra `arrow`")]
)
def test_a_format_that_nothing_here_writes_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, said: str
) -> None:
    monkeypatch.setattr("infrastructure.population.column_export.find_spec", lambda _name: None)
    with pytest.raises(InvalidPopulationError) as caught:
        write_columns(KeptColumns(specification(), 0, {}), tmp_path / "a", form)
    assert said in caught.value.problems[0].message
    assert importlib.util.find_spec("pyarrow") is not None


def _plain(found: KeptColumns, name: str) -> np.ndarray[Any, Any]:
    column = found.columns[name]
    assert not isinstance(column, Named)
    return column
