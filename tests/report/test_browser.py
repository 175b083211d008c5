"""The pages in a real browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from pipeline.report.neighbours import find_neighbours, find_query, neighbours_page
from pipeline.report.report import ReportSettings, write_report
from tests.report.pages import HOSTILE, make_dataset

NAMES = [f"photo-{index:02d}.jpg" for index in range(20)]
# The relative luminance and the contrast of WCAG 2.2, for each visible text, with the background that lies below it.
CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((level) => level / 255)
    .map((level) => level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4)
    .reduce((sum, level, index) => sum + level * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.body.querySelectorAll("*:not(script, style, option, #map *)")]
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
    .filter((element) => element.checkVisibility())
    .map((element) => {
      const [a, b] = [parse(getComputedStyle(element).color), ground(element)].map(luminance);
      return [element.outerHTML.slice(0, 80), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
}"""

PLACE_OF_KEY = """(key) => {
  const { x, y, key: keys } = Bokeh.documents[0].get_model_by_name("points").data;
  const { frame } = Object.values(Bokeh.index.roots)[0];
  const index = keys.indexOf(key);
  return [frame.x_scale.compute(x[index]), frame.y_scale.compute(y[index])];
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose first image has a hostile key and label."""
    names = [*NAMES, HOSTILE]
    output = make_dataset(tmp_path_factory.mktemp("report"), names, ["odd", "even"] * 10 + [HOSTILE])
    return Path(write_report(str(output), ReportSettings()).path)


@contextmanager
def opened(
    browser: Browser, path: Path, *, width: int = 1280, scheme: str = "light", ready: bool = True
) -> Iterator[Page]:
    """Opens a page; afterwards, it must have made no request and reported no error."""
    problems = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else 0)
        page.on("pageerror", lambda error: problems.append(str(error)))
        address = path.as_uri()

        def refuse(route):
            if route.request.url.partition("#")[0] == address:
                route.continue_()
            elif not route.request.url.startswith("data:"):
                problems.append(route.request.url)
                route.abort()

        page.route("**/*", refuse)
        page.goto(address)
        if ready:
            page.wait_for_selector("html[data-ready=map]")
        yield page
    finally:
        context.close()
    assert problems == []


def search(page: Page, text: str) -> None:
    page.get_by_label("Key of an image").fill(text)
    page.get_by_role("button", name="Find").click()


def found(page: Page) -> list[str]:
    return page.locator("#result ol .name").all_text_contents()


def test_the_search_finds_the_neighbours_and_walks_on_to_theirs(browser, report):
    with opened(browser, report) as page:
        search(page, "photo-00.jpg")
        assert found(page)[:3] == ["photo-01.jpg", "photo-02.jpg", "photo-03.jpg"]
        assert page.locator("#result .query img").get_attribute("alt") == "photo-00.jpg"
        assert page.locator("#result img").count() == 13
        page.locator("#result ol button").nth(2).click()
        assert page.locator("#result .query strong").text_content() == "photo-03.jpg"
        assert found(page)[:1] == ["photo-02.jpg"]
        search(page, "PHOTO-1")  # a part of a key
        assert page.locator("#result .query strong").text_content() == "photo-10.jpg"
        search(page, "no such key")
        assert page.locator("#result").text_content() == "No key on this page contains “no such key”."


def test_the_map_shows_all_vectors_and_their_colours(browser, report):
    with opened(browser, report) as page:
        points = "Bokeh.documents[0].get_model_by_name('points')"
        assert len(page.evaluate(f"[...{points}.data.x]")) == 21
        assert page.locator("#legend li").all_text_contents() == ["even", "odd", HOSTILE]
        colours = set(page.evaluate(f"[...{points}.data.colour]"))
        assert len(colours) == 3
        page.get_by_label("Colour by").select_option("length of the vector")
        assert page.locator("#legend li").count() == 1
        # A click on a point shows its neighbours.
        page.evaluate(f"{points}.selected.indices = [{points}.data.key.indexOf('photo-05.jpg')]")
        assert page.locator("#result .query strong").text_content() == "photo-05.jpg"
        search(page, "photo-07.jpg")
        selected = page.evaluate(f"{points}.selected.indices.map((index) => {points}.data.key[index])")
        assert selected == ["photo-07.jpg", *found(page)]


def test_texts_from_strangers_stay_texts(browser, report):
    with opened(browser, report) as page:
        search(page, HOSTILE)
        assert page.locator("#result .query strong").text_content() == HOSTILE
        page.locator("#failures summary").click()
        assert page.locator("#failures th[scope=row]").text_content() == HOSTILE
        assert page.locator("#failures td").all_text_contents() == [HOSTILE, f"/in/{HOSTILE}"]
        # The tooltip of Bokeh.
        x, y = page.evaluate(PLACE_OF_KEY, HOSTILE)
        page.locator("#map").scroll_into_view_if_needed()
        box = page.locator("#map").bounding_box()
        page.mouse.move(box["x"] + x, box["y"] + y)
        tooltip = page.locator(".bk-Tooltip strong").first
        tooltip.wait_for()
        assert tooltip.text_content() == HOSTILE
        assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("width", [390, 800, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_any_width_and_is_readable_in_both_schemes(browser, report, width, scheme):
    with opened(browser, report, width=width, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for details in page.locator("details").all():
            details.evaluate("(element) => { element.open = true; }")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 100
        assert [item for item in contrasts if item[1] < 4.5] == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(18, 19, 23)") == (scheme == "dark")


def test_the_keyboard_alone_leads_through_the_search(browser, report):
    with opened(browser, report) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "key":
                break
        page.keyboard.type("photo-00.jpg")
        page.keyboard.press("Enter")
        assert page.locator("#result .query strong").text_content() == "photo-00.jpg"
        page.keyboard.press("Tab")  # to the button of the form
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.title") == "photo-01.jpg"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        assert page.locator("#result .query strong").text_content() == "photo-01.jpg"


def test_a_screen_reader_finds_landmarks_names_and_numbers(browser, report):
    with opened(browser, report) as page:
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.title() == "out · embeddings"
        for role in ("banner", "navigation", "main", "contentinfo", "search"):
            assert page.get_by_role(role).count() == 1, role
        assert page.get_by_role("heading", level=1).text_content() == "out"
        assert page.locator("img:not([alt])").count() == 0
        assert page.locator("img[alt='']").evaluate_all("all => all.every((image) => image.closest('button'))")
        unnamed = "all => all.filter((item) => !item.labels?.length && !item.textContent.trim()).length"
        assert page.locator("input, select, button").evaluate_all(unnamed) == 0
        page.locator("#distances summary").first.click()
        counts = page.locator("#distances table").first.locator("td").all_text_contents()
        assert sum(map(int, counts)) == 21
        assert page.locator("nav a").evaluate_all("all => all.every((a) => document.querySelector(a.hash))")


def test_the_page_of_neighbours(browser, report, tmp_path):
    output = str(report.parent)
    query = find_query(output, HOSTILE)
    path = tmp_path / "neighbours.html"
    path.write_bytes(neighbours_page(output, query, find_neighbours(output, query, 3)))
    with opened(browser, path, width=390, ready=False) as page:
        assert page.get_by_role("heading", level=1).text_content() == HOSTILE
        assert page.locator("#neighbours .name").all_text_contents() == [f"photo-{n}.jpg" for n in (19, 18, 17)]
        assert page.locator("#neighbours img").evaluate_all("all => all.every((image) => image.naturalWidth > 100)")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate("window.hacked") is None
