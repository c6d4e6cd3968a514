"""A headless Chromium, spoken to through two pipes in its DevTools protocol, with nothing to install beside it."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile


def executable() -> str | None:
    """$CHROMIUM, or a browser on the path."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


class Browser:
    """One tab.

    Attributes:
        messages: what pages have written to the console, or thrown.
        requests: the addresses that they have asked for.
    """

    def __init__(self, commands, answers):
        self.commands, self.answers = commands, answers
        self.numbers, self.session = itertools.count(1), None
        self.messages, self.requests, self.events = [], [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for split in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{split}.enable")

    def call(self, method, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        self.commands.flush()
        while (answer := self._read()).get("id") != number:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def show(self, url, *, width, dark=False, height=900, media=""):
        """Loads a page at a width in CSS pixels, under a theme."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.events.clear()
        self.call("Page.navigate", url=url)
        while "Page.loadEventFired" not in self.events:
            self._read()

    def evaluate(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path):
        """The whole page, as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        with open(path, "wb") as stream:
            stream.write(base64.b64decode(found["data"]))

    def _read(self):
        text = b""
        while not text.endswith(b"\0"):
            part = self.answers.read(1)
            assert part, "the browser has closed its pipe"
            text += part
        message = json.loads(text[:-1])
        parameters = message.get("params", {})
        self.events.append(message.get("method"))
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif message.get("method") in (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
        ):
            self.messages.append(parameters)
        return message


@contextlib.contextmanager
def opened():
    """A `Browser`, which is closed with its process and its profile at the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        to_browser, commands = os.pipe()
        answers, from_browser = os.pipe()

        def positions():
            # The protocol's pipes are the file descriptors 3 and 4. Others may be in their place still.
            one, other = os.dup(to_browser), os.dup(from_browser)
            one, other = (os.dup(end) if end in (3, 4) else end for end in (one, other))
            os.dup2(one, 3)
            os.dup2(other, 4)

        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        options += ["--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            [executable(), *options],
            preexec_fn=positions,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            with os.fdopen(commands, "wb") as out, os.fdopen(answers, "rb") as back:
                yield Browser(out, back)
        finally:
            process.terminate()
            process.wait(20)
