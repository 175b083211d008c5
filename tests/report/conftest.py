from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")  # its event loop runs in this thread until the end, and lets no other one run
def browser() -> Iterator[Browser]:
    """Debian's Chromium; `scripts/install_browser.sh` installs it."""
    assert CHROMIUM.exists(), f"{CHROMIUM} is missing; run scripts/install_browser.sh"
    with sync_playwright() as playwright:
        # Chromium's own sandbox refuses to run as root, as in containers.
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()
