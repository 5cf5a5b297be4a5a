"""What a run gets of the environment of the server that starts it."""

from __future__ import annotations

import os
import site
from pathlib import Path

from infrastructure.runs.run_processes import environment_of_runs

SOURCES = Path("/somewhere/src")


def test_it_gets_settings_the_keys_of_providers_and_what_python_wants() -> None:
    environ = {
        "CONCLAVE_REDIS_URL": "redis://h",
        "conclave_llm_model": "m",
        "MY_KEY": "k",
        "PATH": "/bin",
        "https_proxy": "http://p",
        "OPENAI_API_KEY": "o",
        "SSL_CERT_FILE": "/c",
    }
    found = environment_of_runs(environ, also=["MY_KEY"], sources=SOURCES)
    assert found == {**environ, "PYTHONPATH": str(SOURCES)}


def test_it_gets_nothing_else() -> None:
    environ = {
        "CONCLAVE_API_KEY": "secret",
        "CONCLAVE_CRASH_AT": "intent.after:1",
        "CONCLAVE_RUN_ID": "x",
        "CONCLAVE_RUN_FOLDER": "/x",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "MY_KEY": "secret",
        "PYTHONSTARTUP": "/x",
        "LD_PRELOAD": "/x",
    }
    assert environment_of_runs(environ, sources=SOURCES).keys() == {"PYTHONPATH"}


def test_packages_that_are_installed_need_no_path_and_others_come_before_what_was_set() -> None:
    installed = Path(site.getsitepackages()[0]).resolve()
    assert environment_of_runs({}, sources=installed) == {}
    found = environment_of_runs({"PYTHONPATH": os.pathsep.join(["/a", str(SOURCES), ""])}, sources=SOURCES)
    assert found["PYTHONPATH"].split(os.pathsep) == [str(SOURCES), "/a"]
