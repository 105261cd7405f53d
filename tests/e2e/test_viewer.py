"""The viewer of the study page in a real browser: windows in the image's values, zoom, fingers, wheel, keyboard."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests import synthetic
from tests.phantoms import chest_dataset
from tests.reading_room import PHONE, look
from tests.reading_site import Site, reading_site

pytestmark = [pytest.mark.peer("chromium"), pytest.mark.slow]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with reading_site(tmp_path_factory.mktemp("site"), 60) as made:
        yield made


def _range(number: int) -> tuple[int, int]:
    """Return the smallest and the largest value of an image."""
    values = chest_dataset(seed=number).pixel_array
    return int(values.min()), int(values.max())


def _grey(page: Chrome) -> float:
    """Return the mean grey of what the viewer shows."""
    return float(
        page.execute_script(
            "const c = document.querySelector('canvas'); if (!c.width) return 0;"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "let sum = 0; for (let n = 0; n < d.length; n += 4) sum += d[n]; return sum / (d.length / 4);"
        )
    )


def test_a_radiologist_windows_inverts_and_magnifies_the_image(site: Site) -> None:
    page = site.go(f"/studies/{synthetic.study_uid(0)}")
    WebDriverWait(page, 15, 0.1).until(lambda _: _grey(page) > 5)
    at_first = _grey(page)
    canvas = page.find_element("css selector", "canvas")
    ActionChains(page).move_to_element(canvas).click_and_hold().move_by_offset(0, 60).release().perform()
    WebDriverWait(page, 5, 0.05).until(lambda _: _grey(page) < at_first - 5)
    canvas.send_keys("0")
    WebDriverWait(page, 5, 0.05).until(lambda _: abs(_grey(page) - at_first) < 1)
    canvas.send_keys("i")
    WebDriverWait(page, 5, 0.05).until(lambda _: abs(_grey(page) - at_first) > 5)
    assert page.find_element("css selector", ".invert").get_attribute("aria-pressed") == "true"
    canvas.send_keys("0")
    page.find_element("css selector", ".in").click()
    WebDriverWait(page, 5, 0.05).until(lambda _: abs(_grey(page) - at_first) > 2)
    Select(page.find_element("css selector", ".preset")).select_by_visible_text("full range")
    low, high = _range(0)
    reading = page.find_element("css selector", ".reading")
    assert f"width {high - low}" in reading.text
    assert "zoom 1.3" in reading.text


def test_the_image_begins_with_its_own_window_and_the_keyboard_changes_it_in_the_images_values(
    site: Site,
) -> None:
    page = site.go(f"/studies/{synthetic.study_uid(0)}")
    reading = page.find_element("css selector", ".reading")
    WebDriverWait(page, 15, 0.1).until(lambda _: reading.text == "level 2000, width 3000")
    own = [one.text for one in Select(page.find_element("css selector", ".preset")).options if one.text]
    assert own == ["own: WHOLE", "own 2: LUNG", "full range", "by hand"]
    values = chest_dataset(seed=0).pixel_array.astype(float)
    shown = np.clip((values - 1999.5) / 2999 + 0.5, 0, 1)
    whole = page.execute_script(MEAN_OF_IMAGE.replace("WINDOW", "LINEAR"))
    assert abs(whole - 255 * shown.mean()) < 0.6
    canvas = page.find_element("css selector", "canvas")
    canvas.send_keys("w")
    assert reading.text == "level 800, width 1500"
    step = (values.max() - values.min()) / 100
    canvas.send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    expected = f"level {round(800 + 3 * step)}, width {round(1500 + 3 * step)}"
    site.until(f"document.querySelector('.reading').textContent === '{expected}'")
    assert Select(page.find_element("css selector", ".preset")).first_selected_option.text == "by hand"
    site.until(f"document.querySelector('.spoken').textContent === '{expected}'")
    canvas.send_keys("0")
    assert reading.text == "level 2000, width 3000"


def _touch(page: Chrome, kind: str, *places: tuple[float, float]) -> None:
    """Put fingers, at places from the canvas's middle, on the screen, move them, or (none) take them off."""
    box = page.execute_script("return document.querySelector('canvas').getBoundingClientRect()")
    centre = (box["left"] + box["width"] / 2, box["top"] + box["height"] / 2)
    points = [{"x": centre[0] + x, "y": centre[1] + y, "id": n} for n, (x, y) in enumerate(places)]
    page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def _corner(page: Chrome) -> float:
    """Return how dark the canvas's left edge is in its middle: black where the image does not reach it."""
    return float(
        page.execute_script(
            "const c = document.querySelector('canvas');"
            "return c.getContext('2d').getImageData(2, c.height / 2, 1, 1).data[3];"
        )
    )


def test_fingers_magnify_and_move_the_image_and_scroll_the_page_while_it_is_whole(site: Site) -> None:
    page = site.go(f"/studies/{synthetic.study_uid(0)}")
    look(page, PHONE, light=False)
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
    try:
        site.until("document.querySelector('.reading').textContent === 'level 2000, width 3000'")
        page.execute_script("document.querySelector('canvas').scrollIntoView({block: 'center'})")
        _touch(page, "touchStart", (-40, 0), (40, 0))
        for apart in (60, 80, 100, 120):
            _touch(page, "touchMove", (-apart, 0), (apart, 0))
        _touch(page, "touchEnd")
        site.until("document.querySelector('.reading').textContent.endsWith('width 3000, zoom 3.0')")
        assert _corner(page) == 255
        scrolled = page.execute_script("return scrollY")
        for _ in range(3):
            _touch(page, "touchStart", (-100, 0))
            for x in range(-90, 160, 25):
                _touch(page, "touchMove", (float(x), 0))
            _touch(page, "touchEnd")
        WebDriverWait(page, 5, 0.05).until(lambda _: _corner(page) == 0)
        assert page.execute_script("return scrollY") == scrolled
        page.find_element("css selector", ".fit").click()
        page.execute_script("document.querySelector('canvas').scrollIntoView({block: 'center'})")
        scrolled = page.execute_script("return scrollY")
        _touch(page, "touchStart", (0, 100))
        for y in range(90, -110, -10):
            _touch(page, "touchMove", (0, float(y)))
        _touch(page, "touchEnd")
        site.until(f"scrollY > {scrolled} + 50")
    finally:
        page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_the_wheel_magnifies_where_it_points_and_buttons_move_without_dragging(site: Site) -> None:
    page = site.go(f"/studies/{synthetic.study_uid(0)}")
    site.until("document.querySelector('.reading').textContent === 'level 2000, width 3000'")
    canvas = page.find_element("css selector", "canvas")
    shifts = page.find_element("css selector", ".shifts")
    assert not shifts.is_displayed()
    place = ScrollOrigin.from_element(canvas, 60, -50)
    under = (
        "const c = document.querySelector('canvas'); const d = c.getContext('2d').getImageData("
        "c.width / 2 + 60, c.height / 2 - 50, 1, 1).data; return d[0];"
    )
    before = page.execute_script(under)
    for _ in range(5):
        ActionChains(page).scroll_from_origin(place, 0, -120).perform()
    site.until("/zoom 2\\.5/.test(document.querySelector('.reading').textContent)")
    assert abs(page.execute_script(under) - before) < 12
    was = _corner(page)
    for _ in range(20):
        shifts.find_element("css selector", "button").click()
    assert (was, _corner(page)) == (255, 0)


def test_the_voi_lut_of_an_image_comes_before_its_windows(site: Site) -> None:
    page = site.go(f"/studies/{synthetic.study_uid(6)}")
    reading = page.find_element("css selector", ".reading")
    WebDriverWait(page, 15, 0.1).until(lambda _: reading.text == "VOI LUT")
    values = chest_dataset(seed=6).pixel_array.astype(float)
    far = (values - values.min()) / np.ptp(values)
    assert abs(page.execute_script(MEAN_OF_IMAGE.replace("WINDOW", "LUT")) - 255 * (far**2).mean()) < 0.8
    canvas = page.find_element("css selector", "canvas")
    canvas.send_keys("w")
    assert reading.text == "level 2000, width 3000"
    canvas.send_keys("0", Keys.ARROW_RIGHT)
    site.until("document.querySelector('.reading').textContent.startsWith('level ')")


MEAN_OF_IMAGE = """
const canvas = document.createElement("canvas"), box = document.querySelector(".viewer");
return import(document.body.dataset.root + "/static/grey.js").then(async ({ GreyImage }) => {
  const image = await GreyImage.from(await fetch(box.dataset.source));
  image.draw({ centre: 2000, width: 3000, shape: "WINDOW" }, false);
  const data = image.pixels.data;
  let sum = 0;
  for (let n = 0; n < data.length; n += 4) sum += data[n];
  return sum / (data.length / 4);
});
"""
