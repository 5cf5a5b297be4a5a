"""The script that is one agent of a soak on its own: `alone.py FOLDER ID [--compress] [--key-file FILE]`."""

import os
import sys

if not __package__:
    # Run by its path, in a process that knows no other.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120 - pathlib is not light

from infrastructure.soak.file_agent_body import run_alone
from infrastructure.soak.native import set_title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["main"]


def main() -> None:
    """Answer until the run is over."""
    folder, agent, *rest = sys.argv[1:]
    configuration: dict[str, Any] = {"compress": "--compress" in rest}
    if "--key-file" in rest:
        with open(rest[rest.index("--key-file") + 1], encoding="ascii") as file:  # noqa: PTH123 - as above
            configuration["key"] = file.read().strip()
    set_title(f"agent-worker-{agent}")
    run_alone(folder, agent, configuration)


if __name__ == "__main__":
    main()
