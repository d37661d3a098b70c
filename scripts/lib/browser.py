#!/usr/bin/python3
"""Looks at the page of a running l4lb as people do: in a browser, by keyboard, on a phone, by day and by night.

Chromium is driven through its own driver; nothing is loaded from elsewhere. Prints a line for each thing that held, and
ends with the first that did not. `page` expects the pool "web" with the backends a, b and c, and requests that go through
it; `sources` expects it with two backends of a name server, which takes commands; `many` only measures what a page of very many backends costs; `pictures` are what README.md shows from
src/manual/assets/. With --shots DIR the page is left there as it looked.
"""

import argparse
import base64
import io
import json
import os
import pathlib
import signal
import sys
import time
import urllib.request

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PATIENCE = 15
POLL = 0.05
# Processor time that a page of a thousand backends may take to show a sample, or what a filter finds.
SAMPLE_MS_MAX = 150
FILTER_MS_MAX = 800
SAMPLES = 5
# Seconds of history that a picture is to have.
PICTURE_SECONDS = 75
LOOKS = [("desktop", 1280, 900, "light"), ("desktop", 1280, 900, "dark"), ("phone", 360, 780, "light"), ("phone", 360, 780, "dark")]
CONTRAST_MIN = 4.5
NAMES = ".pool tbody tr:not([hidden]) .name"

# Each text with the contrast that it has against the first ground behind it, lowest first.
CONTRAST = """
const parse = (color) => color.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const color = parse(getComputedStyle(node).backgroundColor);
    if (color[3] === undefined || color[3] > 0.9) return color;
  }
  return [255, 255, 255];
};
const found = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const node = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !node.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
  if (node.closest('.unseen, .skip')) continue;
  const style = getComputedStyle(node);
  const ink = parse(node.closest('svg') ? style.fill : style.color);
  const [a, b] = [light(ink), light(ground(node))].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), texts.currentNode.data.trim().slice(0, 40), node.className.baseVal ?? node.className]);
}
return found.sort((a, b) => a[0] - b[0]);
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["page", "sources", "many", "pictures"])
    parser.add_argument("url", help="http://HOST:PORT/")
    parser.add_argument("token_file", type=pathlib.Path)
    parser.add_argument("--pid", type=int, help="of l4lb: it is stopped for a while, and has to be waited for")
    parser.add_argument("--config", type=pathlib.Path, help="of l4lb: it is spoilt, read again and put right")
    parser.add_argument("--read-token-file", type=pathlib.Path, help="a token that permits no changes")
    parser.add_argument("--names", type=pathlib.Path, help="where the name server `names` of scripts/lib/peers takes commands")
    parser.add_argument("--shots", type=pathlib.Path, help="where pictures of the page go")
    args = parser.parse_args()
    page = Page(args.url, args.token_file.read_text().strip())
    try:
        {"page": look_at_page, "sources": look_at_sources, "many": look_at_many, "pictures": take_pictures}[args.what](page, args)
    except Missing as missing:
        page.shoot(args.shots, "failed")
        sys.exit(f"FAILED: {missing}; the console says {page.console()}")
    finally:
        page.browser.quit()


def look_at_page(page, args):
    refuses_wrong_tokens(page)
    takes_the_token_from_the_address(page)
    moves_under_load(page)
    drains_by_keyboard(page)
    warns_before_the_last(page)
    changes_weight_and_health(page)
    filters(page)
    opens_with_the_past(page)
    shows_what_else_there_is(page)
    if args.config:
        shows_reloads(page, args.config, args.pid)
    for look in LOOKS:
        fits(page, look, args.shots)
    heeds_reduced_motion(page)
    expect(page.console() == [], "nothing is in the console")
    if args.pid:
        waits_for_l4lb(page, args.pid)
    if args.read_token_file:
        permits_no_changes(page, args.read_token_file.read_text().strip())


# --- what has to hold ------------------------------------------------------------------------------------------------


def refuses_wrong_tokens(page):
    page.browser.get(page.url)
    page.until("the page asks for a token", lambda: page.is_shown("#token-form"))
    expect(not page.is_shown("#dashboard"), "it shows nothing without one")
    expect(page.focused() == "token", "the field has the focus")
    page.type("#token", "not the token" + Keys.ENTER)
    page.until("a wrong token is reported", lambda: "does not know" in page.text("#token-error"))
    # The browser itself notes each answer of 401, and nothing else was wrong.
    notes = page.console()
    expect(notes and all("401" in note for note in notes), "the console has the refusal and no more", notes)


def takes_the_token_from_the_address(page):
    page.browser.get(f"{page.url}#token={page.token}")
    page.until("the dashboard is shown", lambda: page.is_shown("#dashboard"))
    expect(page.token not in page.browser.current_url, "the token is out of the address")
    page.browser.refresh()
    page.until("a reload keeps it", lambda: page.is_shown("#dashboard") and page.text("#link") == "live")


def moves_under_load(page):
    page.until("three backends are up", lambda: page.texts("tr .badge.health") == ["up"] * 3)
    tile = ".tile:nth-child(2)"
    page.until("sessions are opened", lambda: leading(page.text(f"{tile} dd")) > 0)
    seen = {page.text(f"{tile} .sub")}
    page.until("the total moves twice", lambda: seen.add(page.text(f"{tile} .sub")) or len(seen) > 2)
    page.until("every backend has its part", lambda: all(leading(text) > 0 for text in page.texts(".pool tr .opened")))
    page.until("the charts have lines", lambda: len(page.js("return document.querySelector('.chart .line').getAttribute('d')")) > 30)
    page.until("the events say who came up", lambda: sum("up" in text for text in page.texts("#events .message")) >= 3)


def drains_by_keyboard(page):
    button = page.row("a").find_element(By.CSS_SELECTOR, ".quick")
    page.js("arguments[0].focus()", button)
    page.press(Keys.ENTER)
    page.until("the change is to be confirmed", lambda: page.is_shown("#change"))
    expect("It gets no new sessions; 2" in page.text("#change-effect"), "its effect is shown before", page.text("#change-effect"))
    expect(page.api("a")["admin"] == "ready", "nothing has happened yet")
    page.press(Keys.ENTER)
    page.until("the API says drain", lambda: page.api("a")["admin"] == "drain")
    page.until("so does the row", lambda: page.row_text("a", ".badge.admin") == "drain")
    page.until("the result is announced", lambda: "web/a is now: drain" in page.text("#said"))
    page.until("it is an event", lambda: any("ready -> drain" in text for text in page.texts("#events .message")))
    expect(page.js("return document.activeElement === arguments[0]", button), "the focus is back on its button")
    expect(button.text == "Ready", "which now takes it back")


def warns_before_the_last(page):
    page.change("b", admin="drain")
    page.row("c").find_element(By.CSS_SELECTOR, ".quick").click()
    page.until("the last one is pointed out", lambda: "It is the last one" in page.text("#change-effect"))
    expect(page.text("#change-apply") == "Apply all the same", "the button says so too")
    page.press(Keys.ESCAPE)
    page.until("Escape leaves it", lambda: not page.is_shown("#change"))
    expect(page.api("c")["admin"] == "ready", "as it was")
    expect("in drain" in page.text("#problems"), "what is drained is listed")
    for name in "ab":
        page.change(name, admin="ready")


def changes_weight_and_health(page):
    page.row("b").find_element(By.CSS_SELECTOR, ".more").click()
    apply = page.find("#change-apply")
    expect(apply.get_attribute("aria-disabled") == "true", "without a change there is nothing to apply")
    expect(page.text("#change-effect") == "Nothing is changed yet.", "and it says why")
    apply.click()
    expect(page.is_shown("#change"), "a press does nothing then")
    page.set("#weight", "300")
    expect("0 to 256" in page.text("#change-effect"), "a weight that is too big is reported")
    page.set("#weight", "5")
    page.find("[name=health][value=down]").click()
    page.press(Keys.ENTER)
    page.until("both are done", lambda: (page.api("b")["weight"], page.api("b")["health"]) == (5, "down"))
    page.until("the row says so", lambda: page.row_text("b", ".badge.health") == "down, forced")
    page.until("it is a problem", lambda: "web / b" in page.text("#problems"))
    page.change("b", health="auto", weight=1)
    page.until("it is up again", lambda: page.row_text("b", ".badge.health") == "up")


def filters(page):
    page.press("/")
    expect(page.focused() == "filter", "/ goes to the filter")
    page.press("web/a up")
    page.until("one row matches", lambda: page.texts(NAMES) == ["a"])
    page.set("#filter", "")
    page.until("all are back", lambda: page.texts(NAMES) == ["a", "b", "c"])


def opens_with_the_past(page):
    page.browser.refresh()
    drawn = "return [document.querySelector('.chart .line').getAttribute('d')?.match(/[ML]/g)?.length ?? 0, performance.now() / 1000]"

    def is_older():
        points, age = page.js(drawn)
        return points > age + 5

    page.until("the charts begin before the page", is_older)
    page.until("so do the sparklines", lambda: len(page.js("return document.querySelector('.pool .spark path').getAttribute('d') ?? ''")) > 60)
    page.until("events from before are there", lambda: any("ready -> drain" in text for text in page.texts("#events .message")))


def shows_what_else_there_is(page):
    page.until("a listener is shown", lambda: len(page.texts("#listeners .name")) == 1)
    page.until("with its rate", lambda: leading(page.text("#listeners .opened")) > 0)
    expect(page.texts("#talkers tr") == [], "sessions are not asked for while they are not looked at")
    page.js("document.querySelector('#talkers-part summary').focus()")
    page.press(Keys.ENTER)
    page.until("sessions are listed", lambda: 10 < len(page.texts("#talkers .client")) <= 20)
    page.js("const by = document.getElementById('talkers-by'); by.value = 'age'; by.dispatchEvent(new Event('change'))")
    page.until("by another order", lambda: page.texts("#talkers .id"))
    page.until("ended sessions are counted by reason", lambda: "done" in page.texts("#ended th"))
    page.until("those of the last minutes too", lambda: any(leading(text) > 0 for text in page.texts("#ended .lately")))
    expect("None since the start" in page.text("#reload-words"), "there was no reload yet")


def shows_reloads(page, config, pid):
    good = config.read_text()
    config.write_text(f"{good}[[pool.backend]]\nname = \"d\"\n")
    os.kill(pid, signal.SIGHUP)
    page.until("a refused reload is a problem", lambda: "reload refused" in page.text("#problems"))
    page.until("with its requester", lambda: "by SIGHUP" in page.text("#reload-words") and page.text("#reload-state") == "refused")
    page.js("document.querySelector('.dismiss').focus()")
    page.press(Keys.ENTER)
    page.until("it can be dismissed", lambda: "reload refused" not in page.text("#problems"))
    page.until("which the part of reloads shows", lambda: "dismissed by" in page.text("#reload-words"))
    os.kill(pid, signal.SIGHUP)
    page.until("another one is shown again", lambda: "reload refused" in page.text("#problems"))
    config.write_text(good.replace('interval = "500ms"', 'interval = "600ms"'))
    os.kill(pid, signal.SIGHUP)
    page.until("what a good one has changed is shown", lambda: "interval" in page.text("#reload-changes"))
    page.until("and the refused one no more", lambda: "reload refused" not in page.text("#problems"))


def permits_no_changes(page, token):
    page.browser.get("about:blank")
    page.browser.get(f"{page.url}#token={token}")
    page.until("the page says that it is read-only", lambda: page.text("#rights") == "read-only" and page.is_shown("#rights"))
    page.until("all backends are shown", lambda: page.texts(NAMES) == ["a", "b", "c"])
    expect(not page.is_shown(".pool td.does"), "there is no button that would be refused")


def fits(page, look, shots):
    name, width, height, scheme = look
    page.look(width, height, scheme)
    page.until(f"a page of {width} px is laid out", lambda: page.js("return innerWidth") == width)
    wide = page.js("return document.documentElement.scrollWidth")
    expect(wide <= width, f"{width} px are wide enough", wide)
    dark = page.js("return getComputedStyle(document.body).backgroundColor") == "rgb(10, 15, 20)"
    expect(dark == (scheme == "dark"), f"it is {scheme}")
    cells = page.names_of_role("cell")
    others = page.js("return [...document.querySelectorAll('.plain tbody td')].filter((cell) => cell.checkVisibility()).length")
    expect(len(cells) == 3 * 8 + others, "a row is a row to a screen reader too", len(cells))
    for role in ["button", "searchbox", "checkbox"]:
        names = page.names_of_role(role)
        expect(names and all(names), f"every {role} has a name", names)
    worst = page.js(CONTRAST)[0]
    expect(worst[0] >= CONTRAST_MIN, f"text has contrast, {width} px, {scheme}", worst)
    if name == "phone":
        order = page.js("return [...document.getElementById('parts').children].map((part) => part.id)")
        expect(order[:3] == ["found", "pools", "now"], "pools come first, behind what is wrong", order)
        small = page.js("return Math.min(...[...document.querySelectorAll('tbody button')].map((b) => b.offsetHeight))")
        expect(small >= 40, "a finger finds the buttons", small)
    page.shoot(shots, f"{name}-{scheme}")


def heeds_reduced_motion(page):
    page.media({"prefers-reduced-motion": "reduce"})
    expect(page.js("return getComputedStyle(document.querySelector('#said')).transitionDuration") == "0s", "nothing moves then")
    page.media({})


def waits_for_l4lb(page, pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        page.until("a silent l4lb is reported", lambda: "no connection" in page.text("#link"))
    finally:
        os.kill(pid, signal.SIGCONT)
    page.until("it is live again", lambda: page.text("#link") == "live")


def look_at_sources(page, args):
    badges, problems = ".sources .badge", "#problems"

    def tell(command):
        with args.names.open("w") as names:
            names.write(f"browser {command}\n")

    page.browser.get(f"{page.url}#token={page.token}")
    page.until("a source is shown as found", lambda: page.texts(badges) == ["found"])
    expect("dns:web.test:80" in page.text(".sources .name"), "by its name", page.text(".sources .name"))
    words = ".sources .words"
    page.until("with its age and the next query", lambda: all(word in page.text(words) for word in ["2 backends", "answered", "quer"]))
    tell("set web.test 127.0.8.2 127.0.8.3")
    page.until("backends come and go", lambda: page.texts(NAMES) == ["127.0.8.2:80", "127.0.8.3:80"])
    page.until("which is an event", lambda: any("lists it no more" in text for text in page.texts("#events .message")))
    tell("fail yes")
    page.until("a failure is shown, and that the list is kept", lambda: page.texts(badges) == ["failed, last good kept"])
    page.until("it is a problem", lambda: "web / dns:web.test:80" in page.text(problems))
    expect(len(page.texts(NAMES)) == 2, "its backends stay")
    for name, width, height, scheme in LOOKS:
        page.look(width, height, scheme)
        page.until(f"a page of {width} px is laid out", lambda: page.js("return innerWidth") == width)
        expect(page.js("return document.documentElement.scrollWidth") <= width, f"{width} px are wide enough")
        worst = page.js(CONTRAST)[0]
        expect(worst[0] >= CONTRAST_MIN, f"text has contrast, {width} px, {scheme}", worst)
        page.js("document.querySelector('.sources').scrollIntoView({ block: 'center' })")
        page.shoot(args.shots, f"sources-{name}-{scheme}")
    tell("fail no")
    page.until("it is found again", lambda: page.texts(badges) == ["found"])
    page.until("and no problem any more", lambda: "All is well" in page.text(problems))
    expect(page.console() == [], "nothing is in the console")


def look_at_many(page, args):
    count_rows = "return document.querySelectorAll('.pool tbody tr:not([hidden])').length"
    page.browser.get(f"{page.url}#token={page.token}")
    page.until("a thousand rows are shown", lambda: page.js(count_rows) == 1000)
    # Of the processor, not of the clock: the machine may have other things to do.
    page.devtools("Performance.enable", timeDomain="threadTicks")
    seen, began = {page.text("#uptime")}, page.cpu_ms()
    page.until("samples are shown", lambda: seen.add(page.text("#uptime")) or len(seen) > SAMPLES)
    each = (page.cpu_ms() - began) / SAMPLES
    expect(each <= SAMPLE_MS_MAX, f"a sample of a thousand backends takes {each:.0f} ms of a processor")
    began = page.cpu_ms()
    page.set("#filter", "b-0999")
    page.until("the filter finds one", lambda: page.texts(NAMES) == ["b-0999"])
    page.set("#filter", "")
    page.until("all are back", lambda: page.js(count_rows) == 1000)
    filtered = page.cpu_ms() - began
    expect(filtered <= FILTER_MS_MAX, f"a filter there and back takes {filtered:.0f} ms of a processor")
    page.shoot(args.shots, "many")
    expect(page.console() == [], "nothing is in the console")


def take_pictures(page, args):
    page.browser.get(f"{page.url}#token={page.token}")
    page.until("the dashboard is shown", lambda: page.is_shown("#dashboard"))
    page.change("b", admin="drain")
    page.until("a minute has passed", lambda: page.js("return document.querySelector('.chart .line').getAttribute('d').length") > 12 * PICTURE_SECONDS, 2 * PICTURE_SECONDS)
    page.until("nothing is said any more", lambda: page.js("return !document.querySelector('.said.shown')"))
    page.js("document.activeElement.blur()")
    for name, width, height, scheme in LOOKS:
        page.look(width, height, scheme)
        page.until(f"a page of {width} px is laid out", lambda: page.js("return innerWidth") == width)
        page.shoot(args.shots, f"dashboard-{name}-{scheme}")
    page.change("b", admin="ready")


# --- the browser -----------------------------------------------------------------------------------------------------


class Missing(Exception):
    """Something did not hold."""


def expect(holds, what, instead=""):
    if not holds:
        raise Missing(f"not so: {what} {instead}".rstrip())
    print(f"ok: {what}", flush=True)


def leading(text):
    """The number that a text begins with; 0 when there is none."""
    digits = text.split("/")[0].replace(",", "")
    return float(digits) if digits.replace(".", "").isdigit() else 0


class Page:
    """The page in its browser, and the API beside it."""

    def __init__(self, url, token):
        self.url, self.token = url, token
        options = Options()
        # As root, Chromium has no sandbox; what it loads is our own page.
        for flag in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars", "--no-proxy-server"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.browser = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
        self.notes = []
        self.look(1280, 900, "light")

    def js(self, script, *args):
        return self.browser.execute_script(script, *args)

    def find(self, css):
        return self.browser.find_element(By.CSS_SELECTOR, css)

    def text(self, css):
        return self.js("return document.querySelector(arguments[0])?.textContent ?? ''", css)

    def texts(self, css):
        return self.js("return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)", css)

    def is_shown(self, css):
        return self.js("return document.querySelector(arguments[0]).checkVisibility()", css)

    def focused(self):
        return self.js("return document.activeElement.id")

    def row(self, name):
        rows = self.browser.find_elements(By.CSS_SELECTOR, ".pool tbody tr")
        return next(row for row in rows if row.find_element(By.CSS_SELECTOR, ".name").text == name)

    def row_text(self, name, css):
        return self.row(name).find_element(By.CSS_SELECTOR, css).text

    def type(self, css, keys):
        self.find(css).send_keys(keys)

    def press(self, keys):
        self.browser.switch_to.active_element.send_keys(keys)

    def set(self, css, value):
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', { bubbles: true }))"
        self.js(script, self.find(css), value)

    def change(self, name, weight=None, **choices):
        """Changes a backend through the dialog."""
        self.row(name).find_element(By.CSS_SELECTOR, ".more").click()
        for key, value in choices.items():
            self.find(f"[name={key}][value={value}]").click()
        if weight is not None:
            self.set("#weight", str(weight))
        self.find("#change-apply").click()
        self.until(f"{name} is changed", lambda: not self.is_shown("#change"))

    def until(self, what, holds, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while not holds():
            if time.monotonic() > deadline:
                raise Missing(f"waited in vain until {what}")
            time.sleep(POLL)
        print(f"ok: {what}", flush=True)

    def api(self, name):
        """The backend as the API has it."""
        request = urllib.request.Request(f"{self.url}v1/pools/web/backends/{name}", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def console(self):
        """What the browser has complained of since."""
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def devtools(self, command, **parameters):
        return self.browser.execute_cdp_cmd(command, parameters)

    def cpu_ms(self):
        """Processor time that the page has used, in milliseconds."""
        metrics = self.devtools("Performance.getMetrics")["metrics"]
        return next(1000 * metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    def look(self, width, height, scheme):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.media({"prefers-color-scheme": scheme})

    def media(self, features):
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": name, "value": value} for name, value in features.items()])

    def names_of_role(self, role):
        """The names that a screen reader has for all that is of this role."""
        nodes = self.devtools("Accessibility.getFullAXTree")["nodes"]
        return [node.get("name", {}).get("value", "") for node in nodes if not node.get("ignored") and node["role"]["value"] == role]

    def shoot(self, folder, name):
        if folder:
            data = base64.b64decode(self.devtools("Page.captureScreenshot", format="png")["data"])
            # A page has few colours: a third of the bytes is enough.
            Image.open(io.BytesIO(data)).convert("RGB").quantize(200).save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
