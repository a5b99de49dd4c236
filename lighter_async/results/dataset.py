"""Results as a data set of torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

if TYPE_CHECKING:
    from lighter_async.results.results import Results

__all__ = ["ResultsDataset"]


class ResultsDataset(Dataset[tuple[str, Any]]):
    """Item i is the name and the value of the i-th sample; as of `Results.dataset`."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        return f"<ResultsDataset of {self.results!r}>"

    def __getitem__(self, number: int) -> tuple[str, Any]:
        return self.results.item(number)
