"""Takes the pictures of the report page for the documentation: ``python docs/screenshots.py``, with Chromium on the path."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
PAGE = "--board leaderboards/cifar10-one-vs-rest --timing leaderboards/timing-h200 --audit leaderboards/audit"
PICTURES = {  # width and height, colours, and where on the page
    "desk": (1440, 2500, "light", "html"),
    "tablet": (820, 1287, "light", "#curves"),
    "phone-dark": (390, 1530, "dark", "html"),
}


def main() -> None:
    """Write ``docs/pictures/report-*.png``."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder, "page.html")
        subprocess.run(["adbench", "report", *PAGE.split(), "--out", str(page)], check=True, cwd=ROOT)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for name, (width, height, scheme, part) in PICTURES.items():
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-drawn]", timeout=60_000)  # until the charts are there
            top = tab.locator(part).bounding_box()["y"]
            taken = tab.screenshot(full_page=True, clip={"x": 0, "y": top, "width": width, "height": height})
            small = Image.open(BytesIO(taken)).convert("RGB").quantize(128)  # a third of the size
            small.save(ROOT / f"docs/pictures/report-{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
