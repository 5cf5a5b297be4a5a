"""The wheel that is handed out: whole, with its bill of materials, and able to show itself without the checkout."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

_FOLDERS = ("domain/", "application/", "infrastructure/", "api/", "conclave_client/")


@pytest.fixture(scope="module")
def built(repository_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what `make package` builds."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([repository_root / "scripts/package.sh", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_the_wheel_carries_packages_migrations_pages_and_the_demonstration_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    metadata = {name.split("/")[0] for name in names if ".dist-info/" in name}
    assert len(metadata) == 1
    foreign = [name for name in names if not name.startswith((*_FOLDERS, f"{next(iter(metadata))}/"))]
    assert foreign == []
    for wanted in (
        "api/dashboard/templates/layout.html",
        "api/dashboard/static/page.css",
        "infrastructure/persistence/migrations/env.py",
        "infrastructure/rosters/archons.toml",
        "infrastructure/demonstration/voices.json",
        "conclave_client/py.typed",
    ):
        assert wanted in names


def test_the_bill_of_materials_names_what_the_image_installs(built: Path, wheel: Path, repository_root: Path) -> None:
    lock = (repository_root / "requirements-image.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9_.-]+)==([^ ;\\]+)", lock, re.MULTILINE))
    bill = json.loads((built / "conclave.cdx.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "archon-conclave")
    assert {(each["name"], each["version"]) for each in bill["components"]} == locked
    inside = [name for name in zipfile.ZipFile(wheel).namelist() if "/sboms/" in name]
    assert [json.loads(zipfile.ZipFile(wheel).read(name)) for name in inside] == [bill]


def test_no_bill_is_left_for_a_wheel_of_other_sources(built: Path, repository_root: Path) -> None:
    assert (built / "conclave.cdx.json").is_file()
    assert not (repository_root / "build" / "sbom" / "conclave.cdx.json").exists()


def test_the_same_sources_give_the_same_bytes(built: Path, wheel: Path, repository_root: Path, tmp_path: Path) -> None:
    subprocess.run([repository_root / "scripts/package.sh", tmp_path], check=True, capture_output=True)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {
        each.name: each.read_bytes() for each in built.iterdir()
    }


def test_the_demonstration_of_the_wheel_asks_twice_and_verifies_both_records(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    # Before all else on the path, so that the checkout, which is installed in this environment, is not what runs.
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import api, api.cli.main as main; "
        "assert api.__path__[0].startswith(sys.path[0]); main.run()"
    )
    command = [
        sys.executable,
        "-I",
        "-c",
        code,
        str(tmp_path / "unpacked"),
        "demo",
        "--once",
        "--seconds",
        "0",
        "--json",
    ]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    document = json.loads(shown.stdout)
    counted = [(each["status"], each["roll_call"]["asked"], each["verified"]) for each in document["deliberations"]]
    assert counted == [("completed", 72, True), ("completed", 24, True)]
    assert all(each["roll_call"]["failed"] == 0 for each in document["deliberations"])
