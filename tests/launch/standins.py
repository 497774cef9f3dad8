"""Stand-in programs that record their calls and hide the real programs on PATH."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"

RECORD = """#!{python} -IS
import json, sys
call = [sys.argv[0].rpartition("/")[2], *sys.argv[1:]]
with open({calls!r}, "a") as file:
    file.write(json.dumps(call) + "\\n")
"""


class Standins:
    """A folder of stand-in programs and the calls that they recorded."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.file = folder / "bin", folder / "calls.jsonl"
        self.folder.mkdir()
        self.environment = os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}"}

    def put(self, name: str, rest: str = "") -> None:
        """Adds a program that records its call and then runs `rest`.

        Args:
          name: name of the program.
          rest: Python code, in which `call` is the list of name and arguments.
        """
        program = self.folder / name
        program.write_text(RECORD.format(python=sys.executable, calls=str(self.file)) + rest)
        program.chmod(0o755)

    def calls(self) -> list[list[str]]:
        return (
            [json.loads(line) for line in self.file.read_text().splitlines()]
            if self.file.exists()
            else []
        )


def launch(
    script: str, *arguments: str, environment=None, **options
) -> subprocess.CompletedProcess:
    """Runs a launch script to its end."""
    return subprocess.run(
        [LAUNCH / script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
