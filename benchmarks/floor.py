"""The floor of the saturated runs: bytes that are encoded already go to files by plain calls to the system.

    python floor.py FILE OF BYTES...

A line ``FOLDER FIRST COUNT`` on its input makes it write so many files there, each under a temporary name that is then
changed, and answer with a line.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    contents = []
    for name in sys.argv[1:]:
        with open(name, "rb") as file:
            contents.append(file.read())
    for line in sys.stdin:
        folder, first, count = line.rsplit(maxsplit=2)
        for number in range(int(first), int(first) + int(count)):
            temporary, final = f"{folder}/.part-{number}", f"{folder}/{number}.out"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            os.write(descriptor, contents[number % len(contents)])
            os.close(descriptor)
            os.replace(temporary, final)
        print("done", flush=True)


if __name__ == "__main__":
    main()
