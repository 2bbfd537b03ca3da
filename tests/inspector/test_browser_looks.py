"""Every page can be read and used: contrast, names for what has no words, and the keyboard."""

import pytest

from m3retriever.inspector.app import PAGES

pytestmark = pytest.mark.browser

CONTRAST = 4.5  # WCAG 2.2, level AA, for text; 3 for large text
QUERY = "q=how+do+I+reset+my+password"
VIEWS = {"search": f"?{QUERY}", "pairs": "pairs?a=reset+my+password&b=choose+a+new+password"}
WEAK = """(least) => {
    const channels = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
    const linear = value => value <= 10.31 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4;
    const luminance = ([red, green, blue]) => 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
    const over = (top, alpha, below) => top.slice(0, 3).map((value, at) => value * alpha + below[at] * (1 - alpha));
    const behind = (element, box) => {
        const layers = [], x = box.x + box.width / 2, y = box.y + box.height / 2;
        for (let one = element; one; one = one.parentElement) {
            const place = one.getBoundingClientRect();
            if (one !== document.body && (x < place.left || x > place.right || y < place.top || y > place.bottom)) continue;
            const [red, green, blue, alpha = 1] = channels(getComputedStyle(one).backgroundColor);
            if (alpha > 0) layers.push([[red, green, blue], alpha]);
            if (alpha === 1) break;
        }
        return layers.reverse().reduce((below, [colour, alpha]) => over(colour, alpha, below), [255, 255, 255]);
    };
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement, words = texts.currentNode.textContent.trim();
        const box = element.getBoundingClientRect();
        if (!words || !box.width || !box.height || element.closest('canvas, style, script, noscript, [hidden]')) continue;
        if (element.closest(':disabled, [aria-disabled=true], [data-testid=stIconMaterial]')) continue;
        const style = getComputedStyle(element);
        if (style.visibility !== 'visible' || box.right < 0 || style.clip === 'rect(0px, 0px, 0px, 0px)') continue;
        let opacity = 1;
        for (let one = element; one; one = one.parentElement) opacity *= +getComputedStyle(one).opacity;
        if (opacity === 0) continue;
        const svg = element.closest('svg');
        let below = behind(element, box);
        for (const shape of svg ? svg.querySelectorAll('path, rect') : []) {  // what is drawn before, where the text stands
            const place = shape.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
            const inside = x > place.left && x < place.right && y > place.top && y < place.bottom;
            const after = shape.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING;
            const {fill, fillOpacity, opacity: whole} = getComputedStyle(shape), [red, green, blue, alpha = 1] = channels(fill);
            if (inside && after && fill.startsWith('rgb')) below = over([red, green, blue], alpha * fillOpacity * whole, below);
        }
        const colour = channels(svg ? style.fill : style.color);
        const shown = over(colour, (colour[3] ?? 1) * opacity, below);
        const [dark, light] = [luminance(shown), luminance(below)].sort((one, other) => one - other);
        const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
        const ratio = (light + 0.05) / (dark + 0.05);
        const name = `"${words.slice(0, 40)}" ${element.tagName} ${element.className}`;
        if (ratio < (large ? 3 : least) - 0.005) found.push(`${ratio.toFixed(2)} ${name}`);
    }
    return found;
}"""
NAMELESS = """() => [...document.querySelectorAll(
    'button, a[href], input:not([type=hidden]), textarea, select, [role=button], [role=slider], img, canvas[role]'
)].filter(one => one.getBoundingClientRect().width && !one.closest('[aria-hidden=true], [hidden]')).filter(one => !(
    one.getAttribute('aria-label') || one.getAttribute('aria-labelledby') || one.getAttribute('alt') !== null
    || one.getAttribute('title') || one.textContent.trim() || (one.labels && one.labels.length) || one.closest('[aria-label]')
)).map(one => one.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_all_text_stands_out_and_everything_has_a_name(tab, server, page, scheme):
    app = tab(server, color_scheme=scheme)
    app.open(f"/{VIEWS.get(page, page)}")
    app.page.wait_for_timeout(400)  # colours fade in
    weak = app.page.evaluate(WEAK, CONTRAST)
    assert not weak, "\n".join(weak)
    assert app.page.evaluate(NAMELESS) == []
    for chart in app.page.get_by_test_id("stVegaLiteChart").all():
        assert not chart.is_visible() or (chart.get_attribute("aria-label") or "").strip()


def test_hits_are_judged_with_the_keyboard_alone(app):
    app.open(f"/?{QUERY}")
    first = app.text("title")
    app.page.get_by_test_id("m3-title").click()  # the focus is in no box
    app.page.wait_for_timeout(2_000)  # a page that is drawn does not yet hear its keys on a busy machine
    with app.rerun():
        app.page.keyboard.press("j")
    assert app.text("title") != first
    with app.rerun():
        app.page.keyboard.press("1")
    app.shows(9, 1, "★★")
    with app.rerun():
        app.page.keyboard.press("1")
    app.shows(9, 1, "")
    with app.rerun():
        app.page.keyboard.press("k")
    assert app.text("title") == first
