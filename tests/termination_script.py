"""Predictions that SIGTERM ends: a process that imports Lightning once, and is forked for each of them.

It reads lines of JSON: a folder, and what `predict` takes. It answers each with the number of the process that
predicts there, whose output goes to files, and later with its exit status.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import pytorch_lightning  # noqa: E402
from lightning_models import loader, make_hooks, make_model, make_trainer  # noqa: E402

from lighter_async import Encoder, FileWriter  # noqa: E402
from lighter_async.callback import sigterm  # noqa: E402


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.002)


def predict(
    folder: Path,
    *,
    backend: str = "thread",
    grace: float | None = 60.0,
    end: float | None = None,
    writers: int = 1,
    handler: str = "",
    park_batch: int | None = None,
    park_hook: str = "",
    raises: bool = False,
) -> None:
    """Predict twenty batches of four samples.

    Files whose existence tells something: ``at``, when it is where it parks until there is ``go``; ``gate``, without
    which no sample but the first is written.

    Args:
        folder: Where.
        backend: Of the writers.
        grace: Likewise.
        end: Seconds that the process has beyond that.
        writers: How many.
        handler: What the script's own handler of SIGTERM does.
        park_batch: The batch whose step parks.
        park_hook: A hook of the trainer's callbacks that parks.
        raises: Whether the step raises an error after it was parked.
    """

    def park() -> None:
        (folder / "at").touch()
        wait_for(folder / "go")

    def encode(value: Any) -> bytes:
        if int(value):
            wait_for(folder / "gate")
        return str(int(value)).encode()

    def step(batch: Any, index: int, _: int) -> Any:
        (folder / "batches").write_text(str(index))
        if index == park_batch:
            park()
            if raises:
                raise LookupError("mine")
        return {"pred": batch}

    def own(number: int, frame: Any) -> None:
        lock = threading.Lock()  # of the kind that a handler in the middle of anything would find taken
        with lock:
            print("own handler", sorted(path.name for path in (folder / "0").glob("[0-9]*")), "frame", frame)
        if handler == "hang":
            threading.Event().wait()
        if handler == "exit":
            sys.exit(7)
        if handler == "raise":
            raise RuntimeError("of the handler")

    if end is not None:
        sigterm._SECONDS_TO_END = end
    if handler:
        signal.signal(signal.SIGTERM, own)
    callbacks = [
        FileWriter(
            folder / str(number),
            "pred",
            Encoder(encode, suffix="", name="number"),
            backend=backend,  # type: ignore[arg-type]
            max_workers=1,
            sigterm_grace=grace,
            return_predictions=False,
        )
        for number in range(writers)
    ]
    hooks = [make_hooks(pytorch_lightning, **{park_hook: park})] if park_hook else []
    trainer = make_trainer(pytorch_lightning, *callbacks, *hooks)
    trainer.predict(make_model(pytorch_lightning, step), loader(80, 4))
    print("predicted")


def serve() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        if "wait" in wanted:
            _, status = os.waitpid(wanted["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        child = os.fork()
        if child:
            print(child, flush=True)
            continue
        folder = Path(wanted["folder"])
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # As an interpreter's own end would, from a script.
        status = 0
        try:
            predict(folder, **wanted["options"])
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            status = 1
        threading._shutdown()  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
