"""The README's pictures show the inspector as it is: they are taken here, of the demo's index.

`make pictures` takes them anew; otherwise each is compared with what the page looks like now, coarsely enough for
another font, finely enough for a change that a reader would see.
"""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.model]

DOCS = Path(__file__).parents[2] / "docs"
SIZE = {"width": 1500, "height": 940}
PICTURES = {
    "search": "?q=split+a+shell+command+into+its+arguments&threshold=0.35",
    "thresholds": "thresholds?threshold=0.35",
    "tune": "tune",
    "evaluate": "evaluate",
    "compare": "compare?first=mode%3Asparse",
}
PATCH = 20  # pixels of a side: means of patches are compared
SEEN = 14  # of 255: a patch that differs by more looks different
SHARE = 0.08  # of the patches may look different
TRIES = 8


def tuned(app):
    app.page.get_by_role("button", name="Tune", exact=True).click()
    app.page.get_by_test_id("m3-tile-held_out").wait_for(timeout=300_000)


def shows(name):
    """Waits for what a page shows when it is done."""
    return lambda app: app.page.get_by_test_id(f"m3-{name}").first.wait_for(timeout=300_000)


DONE = {"thresholds": shows("tile-held_out"), "tune": tuned, "evaluate": shows("means-hybrid"), "compare": shows("tile-p")}


@pytest.fixture(scope="module")
def demo_server(demo, serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "demo"
    shutil.copytree(demo[0], folder)
    return serve(folder)


def patches(picture):
    """Mean colours of patches, (rows, columns, 3)."""
    values = np.asarray(picture.convert("RGB"), np.float64)
    rows, columns = values.shape[0] // PATCH, values.shape[1] // PATCH
    return values[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH, 3).mean((1, 3))


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_shows_the_page_as_it_is(tab, demo_server, name):
    app = tab(demo_server, viewport=SIZE)
    app.open(f"/{PICTURES[name]}")
    if name in DONE:
        DONE[name](app)
        app.wait()
    app.page.mouse.move(SIZE["width"] - 8, SIZE["height"] - 8)
    app.page.wait_for_timeout(600)  # charts and colours fade in
    path = DOCS / f"inspector-{name}.png"
    if os.environ.get("M3_PICTURES"):
        picture(app).convert("RGB").quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)
    kept = Image.open(path)
    for _ in range(TRIES):
        different = difference(kept, picture(app))
        if different <= SHARE:
            return
        app.page.wait_for_timeout(1_000)  # a busy machine draws late
    pytest.fail(f"{different:.1%} of {path.name} look different: run make pictures")


def picture(app):
    return Image.open(io.BytesIO(app.page.screenshot()))


def difference(kept, taken):
    """The share of patches that look different; all of them where the sizes do."""
    if kept.size != taken.size:
        return 1.0
    return (np.abs(patches(kept) - patches(taken)).max(axis=2) > SEEN).mean()


def test_another_page_looks_different():
    search, evaluate = (Image.open(DOCS / f"inspector-{name}.png") for name in ("search", "evaluate"))
    assert difference(search, evaluate) > 2 * SHARE
    assert difference(search, search) == 0
