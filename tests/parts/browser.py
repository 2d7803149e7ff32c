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
from playwright.sync_api import sync_playwright
chromium, address, steps = json.load(sys.stdin)
SHOWN = "texts => texts.every(text => document.body.innerText.includes(text))"
with sync_playwright() as playwright:
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-proxy-server"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    browser = playwright.chromium.launch(executable_path=chromium, args=options)
    page = browser.new_page(viewport={"width": 1600, "height": 1200})
    page.goto(address, wait_until="domcontentloaded", timeout=60_000)
    read = []
    for pressed, awaited in steps:
        if pressed:
            page.get_by_text(pressed, exact=True).first.click(position={"x": 9, "y": 5}, timeout=30_000)
        page.wait_for_function(SHOWN, arg=awaited, timeout=60_000)
        read.append(page.inner_text("body"))
    browser.close()
print(json.dumps(read))
"""


def read(address: str, steps: Sequence[tuple[str | None, Sequence[str]]]) -> list[str]:
    """Open a page and return all its text after each step; skip the test where there is no browser.

    Args:
        address: where the page is.
        steps: what to click on, by its whole text, and the texts to wait for.
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
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    found: list[str] = json.loads(done.stdout)
    return found


def in_order(texts: Sequence[str], page: str) -> bool:
    """Return whether `page` has all of these texts, one after the other."""
    at = 0
    for text in texts:
        at = page.find(text, at)
        if at < 0:
            return False
        at += len(text)
    return True
