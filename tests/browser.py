"""A page in a real browser: Chromium without a window, steered over a pipe, as its DevTools are."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from queue import Queue
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DEADLINE = 60  # seconds; far more than it takes, on a machine with much else to do


class Browser:
    """Chromium with one page.

    What it complains of, such as what a page's policy forbids, and what a page says to its console is in `messages`.
    """

    def __init__(self, profile: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        assert CHROMIUM is not None
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()
        flags = [
            *(
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-extensions",
                "--disable-sync",
            ),
            *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"),
            *("--hide-scrollbars", f"--user-data-dir={profile}", f"--window-size={width},{height}"),
        ]
        # The pipes have to be descriptors 3 and 4 there.
        ends = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 10) for one in (to_browser, from_browser)]
        script = f'exec "$@" 3<&{ends[0]} 4>&{ends[1]} {ends[0]}<&- {ends[1]}>&-'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", CHROMIUM, *flags, "--remote-debugging-pipe", "about:blank"],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for one in (to_browser, from_browser, *ends):
            os.close(one)
        self.messages: list[str] = []
        self._answers: Queue[dict[str, Any] | None] = Queue()
        self._loaded = threading.Event()
        self._session: str | None = None
        self._last = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None
        try:
            self.call("Browser.close")
            self._process.wait(DEADLINE)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(DEADLINE)
            os.close(self._to)
            os.close(self._from)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools' protocol: https://chromedevtools.github.io/devtools-protocol/."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._answers.get(timeout=DEADLINE)
            assert answer is not None, "the browser has ended"
            if answer["id"] == self._last:
                assert "error" not in answer, answer
                return answer["result"]  # type: ignore[no-any-return]

    def open(self, address: str) -> None:
        """Open a page, and wait until it is loaded and drawn."""
        self._loaded.clear()
        self.call("Page.navigate", url=address)
        assert self._loaded.wait(DEADLINE)
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        frame = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 100))))"
        self.evaluate(frame)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys one after the other: a character, or a name such as ``Enter``."""
        for key in keys:
            about: dict[str, Any] = {"key": key}
            if len(key) == 1:
                about["text"] = key
            elif key in _CODES:
                about["windowsVirtualKeyCode"] = _CODES[key]
                if key == "Enter":
                    about["text"] = "\r"
            self.call("Input.dispatchKeyEvent", type="keyDown", **about)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.settle()

    def screenshot(self, file: Path) -> None:
        """A picture of what is seen."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _read(self) -> None:
        rest = b""
        while data := os.read(self._from, 1 << 20):
            *messages, rest = (rest + data).split(b"\0")
            for message in map(json.loads, messages):
                method, about = message.get("method", ""), message.get("params", {})
                if "id" in message:
                    self._answers.put(message)
                elif method == "Page.loadEventFired":
                    self._loaded.set()
                elif method == "Log.entryAdded":
                    self.messages.append(about["entry"]["text"])
                elif method == "Runtime.exceptionThrown":
                    self.messages.append(json.dumps(about["exceptionDetails"]))
                elif method == "Runtime.consoleAPICalled":
                    self.messages.append(json.dumps(about["args"]))
        self._answers.put(None)


_CODES = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
