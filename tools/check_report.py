#!/usr/bin/env python3
"""Open a report in headless Chromium and hold it against what a report promises.

    tools/check_report.py REPORT.html [--screenshots FOLDER]

The file is loaded in light, dark, narrow (390 px) and for print. Failures: any message on the console, any request, a
heading out of order, a picture without a name, a table without caption or heads, an id twice, text of a plot that is
clipped or lies on other text, a page wider than the window, contrast below WCAG 2.2 AA, a skip link that does not come
first, series colours that those who see no red or no green could not tell apart. With --screenshots pictures are written
(and the pages of the print, where pdftoppm is installed). Exits with 77 when there is no Chromium.
"""
import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

SIZES = {"light": (1100, "screen", "light"), "dark": (1100, "screen", "dark"), "narrow": (390, "screen", "light"),
         "narrow-dark": (390, "screen", "dark"), "print": (794, "print", "light")}


def find_chromium():
    # The program itself: Debian's wrapper in /usr/bin does not pass file descriptors on.
    for name in ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    return None


class Browser:
    """Chromium, spoken to over a pair of pipes (--remote-debugging-pipe): JSON messages that end with a zero byte."""

    def __init__(self, program, profile):
        read_ours, write_theirs = os.pipe()
        read_theirs, write_ours = os.pipe()
        flags = ["--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
                 "--disable-background-networking", "--force-color-profile=srgb", f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")

        def connect():
            a, b = os.dup(read_theirs), os.dup(write_theirs)  # out of the way of 3 and 4
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen([program, *flags], close_fds=False, preexec_fn=connect,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(read_theirs)
        os.close(write_theirs)
        self.read, self.write = os.fdopen(read_ours, "rb", 0), os.fdopen(write_ours, "wb", 0)
        self.pending, self.last, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def receive(self):
        while b"\0" not in self.pending:
            piece = self.read.read(1 << 20)
            if not piece:
                raise RuntimeError("Chromium ended")
            self.pending += piece
        message, self.pending = self.pending.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.write.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method, seconds=30):
        end = time.monotonic() + seconds
        while not any(e.get("method") == method for e in self.events):
            if time.monotonic() > end:
                raise RuntimeError(f"no {method}")
            self.events.append(self.receive())

    def evaluate(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description", "an exception"))
        return result["result"].get("value")

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(20)
        except (RuntimeError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


# Runs in the page; returns a list of sentences.
CHECKS = r"""(() => {
  const bad = [], say = (text) => bad.push(text);
  const visible = (e) => e.getClientRects().length > 0;
  if (!document.documentElement.lang) say('html has no lang');
  if (!document.title.trim()) say('the page has no title');
  for (const name of ['header', 'main', 'nav', 'footer'])
    if (document.querySelectorAll(name).length !== 1) say('not one ' + name);
  let level = 0;
  for (const h of document.querySelectorAll('h1,h2,h3,h4,h5,h6')) {
    const l = Number(h.tagName[1]);
    if (l > level + 1) say(`heading "${h.textContent}" jumps from ${level} to ${l}`);
    if (!h.textContent.trim()) say('an empty heading');
    level = l;
  }
  if (document.querySelectorAll('h1').length !== 1) say('not one h1');
  const ids = new Set();
  for (const e of document.querySelectorAll('[id]')) { if (ids.has(e.id)) say('id twice: ' + e.id); ids.add(e.id); }
  for (const e of document.querySelectorAll('[aria-labelledby]'))
    for (const id of e.getAttribute('aria-labelledby').split(' '))
      if (!document.getElementById(id)?.textContent.trim()) say('no label ' + id);
  for (const a of document.querySelectorAll('a[href^="#"]'))
    if (!ids.has(a.getAttribute('href').slice(1))) say('link to nowhere: ' + a.getAttribute('href'));
  for (const e of document.querySelectorAll('img')) if (!e.hasAttribute('alt')) say('img without alt');
  for (const e of document.querySelectorAll('svg'))
    if (e.getAttribute('aria-hidden') !== 'true' && !(e.getAttribute('role') === 'img' && e.hasAttribute('aria-labelledby')))
      say('a plot without role or label');
  for (const t of document.querySelectorAll('table')) {
    const name = t.caption?.textContent.trim();
    if (!name) say('a table without caption');
    if (!t.querySelector('thead th')) say(`table "${name}" has no head`);
    for (const th of t.querySelectorAll('thead th')) if (th.scope !== 'col' || !th.textContent.trim()) say(`table "${name}": head without scope or text`);
    for (const row of t.tBodies[0].rows) if (row.cells[0].scope !== 'row') say(`table "${name}": row without head`);
  }
  for (const e of document.querySelectorAll('.scroll,pre')) if (e.tabIndex !== 0) say('a scrolling part without tabindex');
  if (document.querySelector('script,[style],[onclick],[onload],iframe,object,link:not([rel=icon])')) say('active or foreign content');
  if (document.documentElement.scrollWidth > innerWidth + 1) {
    const wide = [...document.querySelectorAll('body *')].filter((e) => !e.parentElement.closest('.scroll,pre,svg') && e.getBoundingClientRect().right > innerWidth + 1).pop();
    say(`the page is ${document.documentElement.scrollWidth} wide in ${innerWidth}, for ${wide?.tagName} ${wide?.className} ${wide?.textContent.slice(0, 60)}`);
  }
  for (const svg of document.querySelectorAll('svg.plot')) {
    if (!visible(svg)) continue;
    const frame = svg.viewBox.baseVal, name = svg.querySelector('title')?.textContent, boxes = [];
    for (const text of svg.querySelectorAll('text')) {
      const b = text.getBBox();
      if (b.x < frame.x - 1 || b.y < frame.y - 1 || b.x + b.width > frame.x + frame.width + 1 || b.y + b.height > frame.y + frame.height + 1)
        say(`"${name}": "${text.textContent}" is clipped`);
      for (const [other, o] of boxes)
        if (b.x + 1 < o.x + o.width && o.x + 1 < b.x + b.width && b.y + 3 < o.y + o.height && o.y + 3 < b.y + b.height)
          say(`"${name}": "${text.textContent}" lies on "${other}"`);
      boxes.push([text.textContent, b]);
    }
  }
  return bad;
})()"""

# Colours of all text with the ground behind it, and the palette.
COLOURS = r"""(() => {
  const pairs = new Map(), opaque = (c) => c && c !== 'transparent' && !/rgba\(.*, 0\)/.test(c);
  for (const e of document.querySelectorAll('body *')) {
    if (e.closest('svg') || !e.getClientRects().length) continue;
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    let ground = e;
    while (ground && !opaque(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
    const style = getComputedStyle(e), back = ground ? getComputedStyle(ground).backgroundColor : 'rgb(255, 255, 255)';
    pairs.set(style.color + '|' + back, e.tagName + '.' + e.className);
  }
  const root = getComputedStyle(document.documentElement), palette = {};
  for (const name of ['page', 'surface', 'ink', 'muted', 'axis', 'accent', 'good', 'bad', 's0', 's1', 's2', 's3', 's4', 's5', 's6', 's7', 's8'])
    palette[name] = root.getPropertyValue('--' + name).trim();
  return {pairs: [...pairs], palette};
})()"""


def channels(colour):
    if colour.startswith("#"):
        return [int(colour[i:i + 2], 16) for i in (1, 3, 5)]
    return [float(x) for x in re.findall(r"[\d.]+", colour)[:3]]


def linear(colour):
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (x / 255 for x in channels(colour))]


def contrast(a, b):
    """WCAG 2: (L1 + 0.05) / (L2 + 0.05) of relative luminances."""
    light, dark = sorted((0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (linear(a), linear(b))), reverse=True)
    return (light + 0.05) / (dark + 0.05)


# Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB.
BLINDNESS = {"none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
             "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
             "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]}


def lab(colour, kind):
    rgb = linear(colour)
    rgb = [min(1, max(0, sum(m * c for m, c in zip(row, rgb)))) for row in BLINDNESS[kind]]
    x, y, z = (sum(m * c for m, c in zip(row, rgb)) for row in
               ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)))
    f = [t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x / 0.9505, y, z / 1.089)]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def check_colours(found, name):
    palette = found["palette"]
    if not all(palette.values()):
        yield f"{name}: the page has no palette"
        return
    for pair, where in found["pairs"]:
        text, ground = pair.split("|")
        if (ratio := contrast(text, ground)) < 4.5:
            yield f"{name}: {where} has contrast {ratio:.2f}, need 4.5"
    for colour in palette:
        if colour in ("page", "surface"):
            continue
        need = 3 if colour == "axis" else 4.5  # words stand in and on every other colour
        for ground in ("page", "surface") if colour not in ("axis",) and not colour.startswith("s") else ("surface",):
            if (ratio := contrast(palette[colour], palette[ground])) < need:
                yield f"{name}: --{colour} on --{ground} has contrast {ratio:.2f}, need {need}"
    for kind in BLINDNESS:
        for i in range(5):
            for k in range(i):
                a, b = lab(palette[f"s{i}"], kind), lab(palette[f"s{k}"], kind)
                apart = sum((x - y) ** 2 for x, y in zip(a, b)) ** 0.5
                if apart < 10:
                    yield f"{name}: --s{k} and --s{i} are {apart:.0f} apart with {kind}, need 10"


def check_events(browser, address, name):
    for event in browser.events:
        method, p = event.get("method", ""), event.get("params", {})
        if method == "Network.requestWillBeSent" and p["request"]["url"] != address and not p["request"]["url"].startswith("data:"):
            yield f"{name}: a request for {p['request']['url']}"
        elif method == "Runtime.consoleAPICalled":
            yield f"{name}: console: {p['args']}"
        elif method == "Runtime.exceptionThrown":
            yield f"{name}: exception: {p['exceptionDetails'].get('text')}"
        elif method == "Log.entryAdded":
            yield f"{name}: console: {p['entry']['text']}"


def check_keyboard(browser):
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    browser.call("Input.dispatchKeyEvent", type="keyUp", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    state = browser.evaluate("(() => { const e = document.activeElement, r = e.getBoundingClientRect();"
                             "return [e.className, r.left >= 0 && r.top >= 0, getComputedStyle(e).outlineStyle]; })()")
    if state[0] != "skip" or not state[1] or state[2] == "none":
        yield f"the first Tab does not show the skip link with a focus ring: {state}"
    browser.call("Accessibility.enable")
    for node in browser.call("Accessibility.getFullAXTree")["nodes"]:
        if node.get("ignored"):
            continue
        role, label = node.get("role", {}).get("value"), node.get("name", {}).get("value", "")
        if role in ("image", "img", "region", "navigation", "table", "link", "DisclosureTriangle") and not label:
            yield f"a {role} has no name for screen readers"


def take_pictures(browser, folder, name, width, slice_height=1500):
    height = browser.evaluate("document.documentElement.scrollHeight")
    for number, top in enumerate(range(0, height, slice_height), 1):
        clip = dict(x=0, y=top, width=width, scale=1, height=min(slice_height, height - top))
        shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True, format="png", clip=clip)
        (folder / f"{name}-{number:02}.png").write_bytes(base64.b64decode(shot["data"]))


def look(browser, report, name, folder):
    width, media, scheme = SIZES[name]
    address = report.resolve().as_uri()
    browser.events.clear()
    browser.call("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.call("Page.navigate", url=address)
    browser.wait_for("Page.loadEventFired")
    problems = [f"{name}: {p}" for p in browser.evaluate(CHECKS)]
    problems += check_colours(browser.evaluate(COLOURS), name)
    if folder:
        take_pictures(browser, folder, name, width)
    if name == "light":
        problems += check_keyboard(browser)
    if name == "print":
        browser.call("Emulation.setEmulatedMedia", media="", features=[])
        pdf = base64.b64decode(browser.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)["data"])
        if not pdf.startswith(b"%PDF"):
            problems.append("print: no PDF came")
        if folder:
            (folder / "print.pdf").write_bytes(pdf)
            if shutil.which("pdftoppm"):
                subprocess.run(["pdftoppm", "-png", "-r", "70", folder / "print.pdf", folder / "page"], check=True)
    problems += check_events(browser, address, name)
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=pathlib.Path)
    parser.add_argument("--screenshots", type=pathlib.Path)
    args = parser.parse_args()
    program = find_chromium()
    if program is None:
        print("skipped: there is no Chromium here")
        return 77
    if not args.report.is_file():
        sys.exit(f"there is no file {args.report}")
    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)
    problems = []
    with tempfile.TemporaryDirectory(prefix="pare-browser-") as profile:
        browser = Browser(program, profile)
        try:
            for name in SIZES:
                problems += look(browser, args.report, name, args.screenshots)
        finally:
            browser.close()
    for problem in problems:
        print(f"FAIL {problem}")
    print(f"{args.report}: {len(SIZES)} views, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
