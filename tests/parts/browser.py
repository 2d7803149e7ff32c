"""What a person reads on a page: Chromium, where there is one, driven by Playwright in an environment of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence

import pytest

from tests.parts.environments import installed
from tests.parts.mlflow_server import environment

REQUIREMENT = "playwright==1.65.2"

DRIVE = """
import json, sys
from playwright.sync_api import TimeoutError, sync_playwright
chromium, address, steps = json.load(sys.stdin)
SHOWN = "rows => rows.every(row => { let at = 0; const text = document.body.innerText; return row.every(" \
    "part => { const found = text.indexOf(part, at); at = found + part.length; return found >= 0; }); })"
with sync_playwright() as playwright:
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-proxy-server"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    browser = playwright.chromium.launch(executable_path=chromium, args=options)
    page = browser.new_page(viewport={"width": 1600, "height": 1200})
    page.goto(address, wait_until="domcontentloaded", timeout=60_000)
    for pressed, rows in steps:
        if pressed:
            page.get_by_text(pressed, exact=True).first.click(position={"x": 9, "y": 5}, timeout=30_000)
        try:
            page.wait_for_function(SHOWN, arg=rows, timeout=60_000)
        except TimeoutError:
            sys.exit(f"after {pressed!r}, not in this order: {rows}\\n\\nThe page:\\n{page.inner_text('body')}")
    browser.close()
"""


def see(address: str, steps: Sequence[tuple[str | None, Sequence[Sequence[str]]]]) -> None:
    """Open a page, and wait after each step until it shows what it should; skip the test where there is no browser.

    A page draws its parts as their data comes, so that nothing but waiting for each of them says what it shows.

    Args:
        address: where the page is.
        steps: what to click on, by its whole text, and rows of texts that the page then has, each row in that order.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no browser: apt-get install chromium")
    python = installed(REQUIREMENT) / "python"
    done = subprocess.run(
        [str(python), "-c", DRIVE],
        input=json.dumps([chromium, address, steps]),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6_000:]
