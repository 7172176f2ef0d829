"""The page in a real browser: what a person does with it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.report.making import EVIL, make_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install Debian's package chromium"),
]
QUIET = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMES = 'const times = {"train": {"seconds": 4000, "megabytes": 1043, "price": 2.0, "on": "2 processors"}};'


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_page(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET, chromium_sandbox=os.geteuid() != 0)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.as_uri())
    yield page
    assert not errors
    assert page.evaluate("window.broken") is None, "a caption ran as a script"
    context.close()


def test_pictures_load(page: Page) -> None:
    assert page.evaluate("[...document.images].every((i) => { i.loading = 'eager'; return true })")
    page.wait_for_function("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")


def test_from_a_sample_to_where_it_comes_from(page: Page) -> None:
    page.click("[data-sample='trained/000-0.png']")
    dialog = page.locator("dialog")
    assert "a red square, drawn by trained" in dialog.inner_text()
    assert "It is nearer to one of them" in dialog.inner_text()
    assert dialog.locator(".near figure").count() == 3
    assert EVIL in dialog.inner_text()  # the caption, as text
    page.keyboard.press("ArrowRight")
    assert "seed\n1" in dialog.locator("dl").first.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.dataset.sample") == "trained/000-1.png"


def test_arrow_keys_go_from_sample_to_sample(page: Page) -> None:
    page.focus("[data-sample='base/000-0.png']")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.dataset.sample") == "base/001-1.png"
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()


def test_the_slider_shows_one_preview(page: Page) -> None:
    slider = page.locator(".slider")
    assert slider.locator("figure:visible").count() == 1
    assert slider.locator("output").inner_text() == "4"
    slider.locator("input").focus()
    page.keyboard.press("ArrowLeft")
    assert slider.locator("output").inner_text() == "2"
    assert slider.locator("figure:visible").count() == 1


def test_a_pair_leads_to_its_sample(page: Page) -> None:
    page.locator("#memorised ~ .pictures button").first.click()
    assert "It is nearer to one of them" in page.locator("dialog").inner_text()


@pytest.mark.parametrize("width", [320, 768, 1200])
def test_nothing_sticks_out(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("[data-sample='base/000-0.png']")
    assert page.evaluate("document.querySelector('dialog').getBoundingClientRect().right") <= width
    assert page.evaluate("(d => d.scrollWidth - d.clientWidth)(document.querySelector('dialog'))") <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(page: Page, scheme: Any) -> None:
    """Contrast of at least 4.5 to 1, as WCAG 2 asks of small text."""
    page.emulate_media(color_scheme=scheme)
    ratio = page.evaluate(
        """() => {
        const luminance = (text) => {
          const rgb = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
          return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
        };
        const ground = luminance(getComputedStyle(document.body).backgroundColor);
        return ["p", ".soft", "a", "small"].map((name) => {
          const ink = luminance(getComputedStyle(document.querySelector(name)).color);
          return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
        });
      }"""
    )
    assert min(ratio) >= 4.5


def test_times_show_where_they_are_known(page: Page, file: Path) -> None:
    assert not page.locator("#times").is_visible()
    beside = file.with_name("times.js")
    beside.write_text(TIMES)
    try:
        page.reload()
        assert "1 h 7 min in all, which cost 2.22" in page.locator("#times").inner_text()
    finally:
        beside.unlink()


def test_without_scripts_all_pictures_are_there(browser: Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator(".slider figure:visible").count() == 3
    assert page.locator(".samples img").count() == 12
    context.close()
