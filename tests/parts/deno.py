"""A real Deno with Pyodide, in which ``dspy.PythonInterpreter`` runs code, on a machine that is off line afterwards.

DSPy's own command fetches the reader of its input from a web site when it starts. A local one stands in for it here;
everything else is what it is.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.parts.environments import clean_environ, digest, installed

if TYPE_CHECKING:
    import dspy

REQUIREMENT = "deno==2.9.8"

READ_LINES = """
export async function* readLines(reader) {
  const text = new TextDecoder();
  const buffer = new Uint8Array(65536);
  for (let waiting = "", count; (count = await reader.read(buffer)) !== null; ) {
    waiting += text.decode(buffer.subarray(0, count), { stream: true });
    const lines = waiting.split("\\n");
    waiting = lines.pop();
    yield* lines;
  }
}
"""


@pytest.fixture(scope="session")
def interpreters() -> Callable[..., dspy.PythonInterpreter]:
    """Give what makes interpreters, as ``dspy.PythonInterpreter`` does; skip where Deno or Pyodide cannot be had."""
    import dspy
    from dspy.primitives import python_interpreter

    deno = installed(REQUIREMENT) / "deno"
    runner = Path(python_interpreter.__file__).with_name("runner.js")
    folder = deno.parents[1] / f"for-{digest(runner.read_text(), READ_LINES)}"
    folder.mkdir(exist_ok=True)
    (folder / "read.js").write_text(READ_LINES)
    remote = {"https://deno.land/std@0.186.0/io/mod.ts": "./read.js"}
    (folder / "map.json").write_text(json.dumps({"imports": remote}))
    options = ["--no-config", "--no-lock", "--node-modules-dir=none", f"--import-map={folder / 'map.json'}"]
    environ = {**clean_environ(), "DENO_DIR": str(folder), "DENO_NO_PACKAGE_JSON": "1"}
    fetched = subprocess.run(
        [str(deno), "cache", *options, str(runner)],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if fetched.returncode:
        pytest.skip(f"Pyodide cannot be had: {fetched.stderr.strip().splitlines()[-1]}")
    env = ["env", f"DENO_DIR={folder}", "DENO_NO_PACKAGE_JSON=1"]
    command = [*env, str(deno), "run", "--cached-only", *options, f"--allow-read={os.path.realpath(folder)},{runner}"]
    return lambda **asked: dspy.PythonInterpreter([*command, str(runner), ""], **asked)
