"""The page in a real browser, used by mouse and by keyboard, wide and narrow, light and dark."""

import shutil

import pytest
from runs import finish, sari
from workdirs import HOSTILE, STEPS, hostile_result, hostile_run

from sari_jax.cli import main

CHROMIUM = shutil.which("chromium")
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install it")
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """A function that opens a page. At the end no page may have made a request or logged an error."""
    complaints, contexts = [], []

    def open_page(path, viewport=WIDE, theme="light"):
        context = chromium.new_context(viewport=viewport, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        here = ("file:", "data:", "blob:")
        page.on("request", lambda r: r.url.startswith(here) or complaints.append(r.url))
        page.goto(path.as_uri())
        page.wait_for_selector("[role=option]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture(scope="module")
def of_a_run(whole, tmp_path_factory):
    """The page of a real GRPO run, as a user makes it."""
    out = tmp_path_factory.mktemp("page") / "run.html"
    done = finish(sari("report", whole("grpo", "small_model"), "--out", out))
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def of_hostile_texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    out = folder / "page.html"
    words = [str(hostile_run(folder)), str(hostile_result(folder)), "--out", str(out)]
    assert main(["report", *words]) == 0
    return out


def options(page):
    return page.locator("[role=option]")


def chosen(page):
    return page.locator("[role=option][aria-selected=true]")


def until(page, condition):
    """Waits for a condition by polling here, since the page's own policy forbids Playwright's way within the page."""
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    pytest.fail("waited ten seconds in vain")


def wait_for_charts(page):
    drawn = (
        "[...document.querySelectorAll('[data-chart]')].every((node) => node.querySelector('svg'))"
    )
    until(page, lambda: page.evaluate(drawn))


def test_a_run_can_be_read_and_listened_to(of_a_run, opened):
    page = opened(of_a_run)
    detail = page.locator("#detail")
    # Steps 1, 2, 4 and 6 of four questions each, and five held-out ones after steps 0, 4 and 6.
    assert page.locator("#count").inner_text() == "31 of 31 shown"
    page.locator("#filters [name=split]").select_option("train")
    assert options(page).count() == 16

    options(page).nth(2).click()
    assert chosen(page).count() == 1 and detail.locator(".completion").count() == 2
    assert detail.locator(".choices .right").count() == 1
    assert "advantage" in detail.locator(".completion").first.inner_text()
    assert detail.get_by_role("img", name="Waveform").count() == 1
    assert (
        detail.get_by_role("img", name="spectrogram").evaluate("image => image.naturalHeight") == 64
    )

    played = detail.locator("audio").evaluate(
        """async (audio) => {
            await audio.play();
            await new Promise((done) => audio.addEventListener("timeupdate", done, {once: true}));
            await new Promise((done) => setTimeout(done, 300));
            return audio.currentTime;
        }"""
    )
    assert played > 0
    page.locator("#filters [name=from]").select_option("4")
    page.locator("#filters [name=to]").select_option("4")
    assert options(page).count() == 4
    assert all("step 4" in text for text in options(page).all_inner_texts())
    page.get_by_role("button", name="Clear").click()
    until(page, lambda: options(page).count() == 31)

    page.locator("#filters [name=split]").select_option("held_out")
    times = detail.locator(".times tbody tr")
    options(page).first.click()
    assert times.count() >= 3
    times.last.get_by_role("button").click()
    assert "step 6" in chosen(page).inner_text()


def test_the_keyboard_is_enough(of_a_run, opened):
    page = opened(of_a_run)
    first = chosen(page).get_attribute("id")
    page.keyboard.press("j")
    second = chosen(page).get_attribute("id")
    assert second != first and second == options(page).nth(1).get_attribute("id")
    page.keyboard.press("k")
    assert chosen(page).get_attribute("id") == first
    page.locator("#list").focus()
    page.keyboard.press("End")
    assert chosen(page).get_attribute("id") == options(page).last.get_attribute("id")
    page.keyboard.press("ArrowUp")
    assert page.locator("#list").get_attribute("aria-activedescendant") == (
        options(page).nth(options(page).count() - 2).get_attribute("id")
    )
    page.keyboard.press("/")
    page.keyboard.type("nobody says this")
    assert options(page).count() == 0
    assert "No rollout matches" in page.locator("#detail").inner_text()


def test_a_finger_scrolls_over_charts(of_hostile_texts, chromium):
    """If a chart took the gesture for itself, nobody could scroll past it on a phone."""
    context = chromium.new_context(viewport=NARROW, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(of_hostile_texts.as_uri())
    wait_for_charts(page)
    plot = page.locator("[data-chart] .main-svg").first
    plot.scroll_into_view_if_needed()
    box, before = plot.bounding_box(), page.evaluate("window.scrollY")
    touch = context.new_cdp_session(page).send
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8
    touch("Input.synthesizeScrollGesture", {"x": x, "y": y, "yDistance": -200})
    assert page.evaluate("window.scrollY") > before + 100
    context.close()


def test_the_theme_stays_as_it_was_pressed(of_hostile_texts, opened):
    page = opened(of_hostile_texts)
    page.emulate_media(color_scheme="dark")
    until(page, lambda: page.evaluate("document.documentElement.classList.contains('dark')"))
    button = page.get_by_role("button", name="Dark")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    page.emulate_media(color_scheme="light")
    until(page, lambda: page.evaluate("matchMedia('(prefers-color-scheme: light)').matches"))
    button.click()
    page.emulate_media(color_scheme="dark")
    page.emulate_media(color_scheme="light")
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.classList.contains('dark')")
    assert button.get_attribute("aria-pressed") == "true"


def test_numbers_filter_by_reward(of_hostile_texts, opened):
    page = opened(of_hostile_texts)
    page.locator("#filters [name=low]").fill("0.6")  # in training 0.5 is the mean, held out 1
    assert options(page).count() == STEPS
    page.locator("#filters [name=high]").fill("0.9")
    assert options(page).count() == 0
    page.locator("#filters [name=low]").fill("")
    assert options(page).count() == STEPS
    page.locator("#filters [name=right]").select_option("all")
    assert options(page).count() == 0


def test_hostile_texts_stay_texts(of_hostile_texts, opened):
    page = opened(of_hostile_texts)
    for number in range(options(page).count()):
        options(page).nth(number).click()
    wait_for_charts(page)
    assert page.evaluate("window.taken") is None
    assert page.locator("main img:not(.view img)").count() == 0
    assert f"Which? {HOSTILE}" in page.locator("#detail h3").inner_text()
    assert HOSTILE in page.locator(".completion .text").first.inner_text()
    assert "no audio on this page" in page.locator("#detail").inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_is_fit_for_everyone(viewport, theme, of_a_run, of_hostile_texts, opened):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-…")
    for path in (of_a_run, of_hostile_texts):
        page = opened(path, viewport, theme)
        options(page).nth(1).click()
        wait_for_charts(page)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(20, 24, 28)") == (theme == "dark")
        found = axe.Axe().run(page).response
        assert len(found["passes"]) > 20
        serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
        assert not serious, [(v["id"], v["nodes"][0]["html"][:200]) for v in serious]
        sideways = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert sideways <= 0
