"""The documents name files and tests that exist."""

import re

import pytest

from tests.environments import REPOSITORY

PAGES = sorted(path for path in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
TEST = re.compile(r"`((?:[\w/]+/)?test_\w+\.py)((?:::\w+)*)`(?:, `(::\w+)`)*")
FILE = re.compile(r"`((?:pipeline/)?[a-z_]+/[\w/]*\w\.py)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tests_that_a_page_names_exist(page):
    for path, names in [(found[1], found[2]) for found in TEST.finditer(page.read_text())]:
        file = REPOSITORY / "tests" / path.removeprefix("tests/")
        assert file.exists(), path
        for name in names.split("::")[1:]:
            assert re.search(rf"^\s*(?:class|def) {name}\b", file.read_text(), re.MULTILINE), f"{path}::{name}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "extending.md"], ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page):
    for name in FILE.findall(page.read_text()):
        if not re.search(r"(?:^|/)test_\w+\.py$", name) and not name.startswith(("tests/", "scripts/", "benchmarks/")):
            assert (REPOSITORY / "pipeline" / name.removeprefix("pipeline/")).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", prose):
        assert (page.parent / target).exists(), target
