"""The report in a browser: headless Chromium, where the machine has one, opens the page as a file."""

from __future__ import annotations

import shutil
from io import BytesIO

import pytest
from make_runs import made, make_runs
from PIL import Image

from adbench_tgan.registry import Registry
from adbench_tgan.report import page as pages
from adbench_tgan.report.material import from_store

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

MANY = tuple({f"a_long_name_of_loss_{n}": 30.0 ** (1 - n) / epoch for n in range(9)} for epoch in (1, 2, 3))
HOSTILE = "<img src=x onerror=alert(1)>"
WIDTHS = (360, 768, 1280)
AUDIT = {
    "audit": "one on a",
    "protocol": "one-vs-rest",
    "clean": [0.5, 0.6],
    "batch_statistics": [0.7, 0.6],
    "class_sorted": [0.9, 0.8],
}
# of each line of labels along the bottom of a chart, the least room between two neighbours
ROOM = """[...document.querySelectorAll(".chart svg")].flatMap((chart) => {
  const lines = {};
  for (const text of chart.querySelectorAll(".role-axis-label text")) {
    const box = text.getBoundingClientRect();
    if (getComputedStyle(text).opacity !== "0" && box.width) (lines[Math.round(box.y)] ??= []).push(box);
  }
  const rooms = ([first, ...others]) => others.map((box, i) => box.x - [first, ...others][i].right);
  return Object.values(lines).flatMap((line) => rooms(line.sort((a, b) => a.x - b.x)));
})"""

# of every text on the page, and of the words in an empty field, the contrast with the ground that it is on
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const brightness = (colours) => { // of colours laid over each other; the first is opaque
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((of) => ((of / 255 + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b + .05;
  };
  const grounds = (e) => e ? [...grounds(e.parentElement), getComputedStyle(e).backgroundColor] : [];
  const contrast = (e, part) => {
    const style = getComputedStyle(e, part);
    const [text, ground] = [[e.ownerSVGElement ? style.fill : style.color], []].map((over) => brightness([...grounds(e), ...over]));
    return [Math.max(text, ground) / Math.min(text, ground), part ?? e.textContent.trim().slice(0, 40)];
  };
  const texts = [...document.querySelectorAll("body :not(script)")].filter((e) => e.checkVisibility()
    && [...e.childNodes].some((part) => part.nodeType === Node.TEXT_NODE && part.data.trim()));
  return [...texts.map((e) => contrast(e)), contrast(document.querySelector("[placeholder]"), "::placeholder")];
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page of three detectors and one whose name would run a script, with everything but example images."""
    folder = tmp_path_factory.mktemp("page")
    results = [
        made(detector, category, shift=shift, **more)
        for category in ("a", "b")
        for detector, shift, more in (
            ("good", 3.0, {}),
            ("fair", 1.5, {"pretrained": "resnet50", "losses": MANY}),
            ("seer", 2.0, {"supervision": "labelled", "preset": "quick", "losses": ()}),
            (HOSTILE, 0.2, {}),
        )
    ]
    make_runs(folder / "runs", *results, made("broken", status="failed", error="RuntimeError: boom"))
    (folder / "page.html").write_text(
        pages.render(from_store(folder / "runs", Registry.discover()), audits=[AUDIT])
    )
    return (folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, address):
    """Opens the page; whatever it asks of the network, says on the console or pops up fails the test."""
    wrong, tabs = [], []

    def visit(width=1280, scheme="light"):
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tabs.append(tab)
        tab.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: wrong.append(dialog.message))
        tab.on("request", lambda r: r.url.startswith(("file:", "data:")) or wrong.append(r.url))
        tab.goto(address)
        tab.wait_for_selector("html[data-drawn]", timeout=60_000)
        return tab

    yield visit
    for tab in tabs:
        tab.close()
    assert wrong == []


def names(tab):
    shown = tab.locator("#board tbody tr:visible > th").all_text_contents()
    return [name.removesuffix("\xa0*") for name in shown]  # the star of a remark


def heading(tab, title, table="board"):
    return tab.locator(f"#{table}").get_by_role("button", name=title, exact=True)


def test_opens_from_a_file_with_all_charts(opened):
    tab = opened()
    charts = tab.locator(".chart").count()
    assert charts == 7
    assert tab.locator(".chart svg").count() == charts
    assert tab.locator("#roc .mark-line path").count() == 4
    assert tab.locator(".empty:visible").count() == 0
    assert tab.locator("img[src=x]").count() == 0
    assert HOSTILE in names(tab)
    assert "<img src=x" in tab.locator("#intervals svg").text_content()
    for chart in ("intervals", "roc"):
        assert tab.locator(f"#{chart} .chance_marks line").count() == 1


def test_a_page_that_is_come_back_to_shows_what_its_lists_say(opened):
    tab = opened()
    tab.locator("#curves .choice").select_option("b")
    tab.locator("#filters select[name=supervision]").select_option("labelled")
    before = names(tab)
    tab.goto("about:blank")
    tab.go_back()
    tab.wait_for_selector("html[data-drawn]", timeout=60_000)
    said = "[...document.querySelectorAll('.choice')].map(each => each.value === each.parentElement.dataset.chosen)"
    assert set(tab.evaluate(said)) == {True}
    picked = tab.locator("#filters select[name=supervision]").input_value()
    assert (names(tab) == before) is (picked != "")


def test_sorting_by_mouse(opened):
    tab = opened()
    order = ["good", "fair", HOSTILE]
    heading(tab, "AUROC").click()
    assert [name for name in names(tab) if name in order] == order
    assert names(tab)[-1] == "broken"  # what was not measured comes last either way
    head = tab.locator("#board th[aria-sort]")
    assert (head.count(), head.get_attribute("aria-sort")) == (1, "descending")
    heading(tab, "AUROC").click()
    assert [name for name in names(tab) if name in order] == order[::-1]
    assert names(tab)[-1] == "broken"
    assert head.get_attribute("aria-sort") == "ascending"


@pytest.mark.parametrize("title", ["rank", "fit s", "ms / image"])
def test_first_press_puts_the_least_on_top_where_that_is_the_best(opened, title):
    tab = opened()
    heading(tab, title).click()
    head = tab.locator("#board th[aria-sort]")
    assert (head.text_content().strip(), head.get_attribute("aria-sort")) == (title, "ascending")
    assert "broken" in names(tab)[-1]
    heading(tab, title).click()
    assert head.get_attribute("aria-sort") == "descending"


def test_table_by_category_sorts_too(opened):
    tab = opened()
    before = names(tab)
    rows = tab.locator("#heat tbody th")
    heading(tab, "detector", "heat").click()
    assert rows.all_text_contents() == sorted(rows.all_text_contents())
    heading(tab, "b", "heat").click()
    assert rows.all_text_contents()[-1] == "broken"
    numbers = [float(text) for text in tab.locator("#heat tbody td:nth-child(3)").all_text_contents() if text]
    assert numbers == sorted(numbers, reverse=True)
    assert tab.locator("#heat th[aria-sort=descending]").text_content().strip() == "b"
    assert names(tab) == before


def test_sorting_by_keyboard(opened):
    tab = opened()
    heading(tab, "detector").focus()
    tab.keyboard.press("Enter")
    assert names(tab) == sorted(names(tab))
    assert tab.locator("#board th[aria-sort=ascending]").text_content().strip() == "detector"
    tab.keyboard.press("Tab")  # to the next heading
    tab.keyboard.press("Space")
    assert tab.locator("#board th[aria-sort]").text_content().strip() == "AUROC"


def test_filtering_by_mouse_reaches_charts_and_tables(opened):
    tab = opened()
    tab.locator("#filters").get_by_label("supervision").select_option("labelled")
    assert names(tab) == ["seer"]
    assert tab.get_by_role("status").text_content() == "1 of 5 rows"
    assert tab.locator("#heat tbody tr:visible").count() == 1
    sync_api.expect(tab.locator("#roc .mark-line path")).to_have_count(1)
    sync_api.expect(tab.locator("#roc .legend li")).to_have_text(["seer"])
    tab.get_by_role("button", name="Show all").click()
    sync_api.expect(tab.locator("#roc .mark-line path")).to_have_count(4)
    assert len(names(tab)) == 5


def test_filtering_by_keyboard(opened):
    tab = opened()
    tab.get_by_label("detector").first.focus()
    tab.keyboard.type("GOO")
    assert names(tab) == ["good"]
    tab.keyboard.type("x")
    assert names(tab) == []
    tab.locator("#roc .empty").wait_for(state="visible")
    tab.keyboard.press("Control+A")
    tab.keyboard.press("Delete")
    tab.keyboard.press("Tab")
    tab.keyboard.press("l")  # picks "labelled" in the list of supervisions
    assert names(tab) == ["seer"]


def test_selectors_change_the_charts(opened):
    tab = opened()
    bars = tab.locator("#histogram svg .mark-rect path").first
    before = bars.get_attribute("aria-label")
    tab.locator("#detector").get_by_label("category").select_option("b")
    assert tab.locator("#curves").get_by_label("category").input_value() == "b"
    sync_api.expect(bars).not_to_have_attribute("aria-label", before)
    tab.locator("#detector").get_by_label("detector").select_option("seer")
    tab.locator("#losses .empty").wait_for(state="visible")  # it reports none
    assert "does not train in epochs" in tab.locator("#losses .empty").text_content()


def test_names_beside_points_do_not_lie_on_each_other(opened, tmp_path):
    long = "with_a_long_name_" * 4
    rows = [
        made(name, shift=shift) for name, shift in (("best", 3.0), ("next", 2.99), ("a", 1.0), (long, 2.0))
    ]
    make_runs(tmp_path / "runs", *rows)
    file = tmp_path / "page.html"
    file.write_text(pages.render(from_store(tmp_path / "runs", Registry.discover())))
    tab = opened(1280)
    tab.goto(file.as_uri())
    tab.wait_for_selector("html[data-drawn]")
    drawn = tab.locator("#pareto .names_marks text")
    assert drawn.count() == 4
    assert sorted(name[:8] for name in drawn.locator("visible=true").all_text_contents()) == [
        "a",
        "best",
        "with_a_l",
    ]
    picture, widest = tab.locator("#pareto svg").bounding_box(), drawn.last.bounding_box()
    assert picture["x"] <= widest["x"] < widest["x"] + widest["width"] <= picture["x"] + picture["width"]
    tab.get_by_label("detector").first.fill("next")
    sync_api.expect(drawn.locator("visible=true")).to_have_text(["next"])


def test_many_losses_are_all_named_at_whole_epochs(opened):
    tab = opened(360)
    tab.locator("#detector").get_by_label("detector").select_option("fair")
    entries = tab.locator("#losses .legend li")
    sync_api.expect(entries).to_have_text([f"a_long_name_of_loss_{n}" for n in range(9)])
    for entry in entries.all():
        assert entry.bounding_box()["x"] + entry.bounding_box()["width"] <= 360
    assert tab.locator("#losses .role-axis-label text").all_text_contents()[:3] == ["1", "2", "3"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_fits_phones_and_desks_in_light_and_dark(opened, width, scheme, tmp_path):
    tab = opened(width, scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for chart in tab.locator(".chart svg").all():
        box = chart.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    assert min(tab.evaluate(ROOM)) >= 6
    picture = Image.open(BytesIO(tab.screenshot(path=tmp_path / "page.png", full_page=True))).convert("L")
    assert picture.width == width
    assert (picture.getpixel((2, 2)) < 60) == (scheme == "dark")
    dark = sum(picture.histogram()[:100]) / (picture.width * picture.height)
    assert (dark > 0.5) == (scheme == "dark")


def test_a_phone_shows_the_auroc_beside_the_name(opened):
    tab = opened(360)
    box = heading(tab, "AUROC").bounding_box()
    assert box["x"] + box["width"] < 360


def test_prints_every_column_and_no_controls(opened):
    width = 1020  # pixels of a landscape A4 page between its margins
    tab = opened(width)
    tab.evaluate("document.querySelector('details').open = false")
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details:not([open])").count() == 0
    assert tab.locator("select:visible, form:visible").count() == 0
    assert tab.locator("#detector label").first.get_attribute("data-chosen") in names(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    chart = tab.locator("#intervals .chart svg")
    chart.evaluate("chart => chart.setAttribute('viewBox', '0 0 1000 2000')")  # as of many rows
    assert chart.bounding_box()["height"] < 186 / 25.4 * 96  # pixels between the margins
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details:not([open])").count() == 1


@pytest.mark.parametrize("table", ["board", "heat", "audits table"])
def test_names_and_their_heading_stay_when_a_table_is_scrolled(opened, table):
    tab = opened(360)
    tab.evaluate("name => { document.querySelector(`#${name}`).style.width = '90rem' }", table)
    edge = tab.locator(f".scroll:has(> #{table})" if " " not in table else "#audits .scroll").bounding_box()[
        "x"
    ]
    tab.evaluate("name => { document.querySelector(`#${name}`).parentElement.scrollLeft = 300 }", table)
    for place in ("thead th.fixed", "tbody th"):
        assert tab.locator(f"#{table} {place}").first.bounding_box()["x"] == pytest.approx(edge, abs=2)


def test_everything_has_a_name(opened):
    tab = opened()
    assert tab.locator("html").get_attribute("lang") == "en"
    assert tab.locator("h1").count() == 1
    assert tab.locator("img:not([alt])").count() == 0
    unnamed = """[...document.querySelectorAll("button, select, input, [role=img], [role=region]")]
        .filter((e) => !e.ariaLabel && !e.labels?.length && !(e.tagName === "BUTTON" && e.textContent.trim())).length"""
    assert tab.evaluate(unnamed) == 0
    assert tab.locator("thead button").count() == tab.locator(":is(#board, #heat) thead th").count()
    assert tab.locator(".chart [role=graphics-symbol]:not([aria-label])").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(opened, scheme):
    tab = opened(scheme=scheme)
    tab.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    found = tab.evaluate(CONTRASTS)
    assert len(found) > 200
    assert [(round(contrast, 2), text) for contrast, text in found if contrast < 4.5] == []
