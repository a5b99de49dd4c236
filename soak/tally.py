"""What a fault run has done and found, and how that is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

__all__ = ["BEGIN", "END", "GoOn", "Tally", "always", "between_markers", "table"]

BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"


@dataclass
class Tally:
    """One line of the table.

    Attributes:
        fault: What was done to the writer.
        backend: Which workers it had.
        rounds: How often.
        faults: Faults injected.
        midway: Those of them that came in the middle of a file, where that is known.
        handed: Samples handed over, that is, whose hand-over has returned.
        lost: Samples that are neither stored nor reported, or gone although they were said to be stored.
        duplicated: Samples that are there twice, or both stored and reported as not.
        torn: Files under a final name whose content is not the sample's, whole and alone.
        reported: Samples that a `WriteError` named.
        unrecorded: Those of them whose file is there, whole, since only the manifest found no room for its line.
        troubles: What else was not as promised, in words.
        skipped: Why it could not be run here; empty if it was.
    """

    fault: str
    backend: str
    rounds: int = 0
    faults: int = 0
    midway: int = 0
    handed: int = 0
    lost: int = 0
    duplicated: int = 0
    torn: int = 0
    reported: int = 0
    unrecorded: int = 0
    troubles: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether everything was as promised."""
        return not (self.lost or self.duplicated or self.torn or self.troubles)

    def settle(self, accepted: set[int], stored: Sequence[int], reported: Sequence[int], torn: Iterable[int]) -> None:
        """Enter what became of samples, each of which is to be stored or reported.

        Args:
            accepted: Whose hand-over has returned.
            stored: Of which there is a file, one entry for each.
            reported: That a `WriteError` named, one entry for each time.
            torn: Whose file is not whole or not right.
        """
        self.handed += len(accepted)
        self.reported += len(set(reported))
        self.lost += len(accepted - set(stored) - set(reported))
        self.duplicated += len(stored) + len(reported) - len(set(stored) | set(reported))
        self.torn += len(set(torn))
        if strangers := sorted((set(stored) | set(reported)) - accepted):
            self.troubles.append(f"stored or reported, but not handed over: {strangers[:10]}")

    def __str__(self) -> str:
        what = f"{self.fault}, {self.backend}: round {self.rounds}, {self.faults} faults, {self.handed} samples"
        found = f"lost {self.lost}, duplicated {self.duplicated}, torn {self.torn}"
        return f"{what}; {found}" + (f"; TROUBLE {self.troubles[-1]}" if self.troubles else "")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


GoOn: TypeAlias = Callable[[Tally], bool]
"""Is told of a run after each round, and says whether there is time for another."""


def always(tally: Tally) -> bool:
    """There is."""
    return True


def table(tallies: Sequence[Tally]) -> str:
    """The figures, in Markdown."""
    rows = [
        "| fault | backend | rounds | faults injected | samples handed over | reported | lost | duplicated | torn |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in tallies:
        if one.skipped:
            rows.append(f"| {one.fault} | {one.backend} | not run here: {one.skipped} | | | | | | |")
            continue
        figures = (one.rounds, one.faults, one.handed, one.reported, one.lost, one.duplicated, one.torn)
        rows.append(f"| {one.fault} | {one.backend} | " + " | ".join(f"{figure:,}" for figure in figures) + " |")
    return "\n".join(rows)


def between_markers(page: str, text: str) -> str:
    """A page with what stands between its markers replaced.

    Raises:
        ValueError: It has no markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
