"""Windows of rows as a torch dataset. Imports torch; `Features.torch_dataset` imports it late."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

__all__ = ["Windows"]


class Windows(Dataset):
    """Sample i is the window of rows that ends at row ``samples[i]``, with that row's label.

    Args:
        rows: float32 [n, F]; shared, not copied.
        samples: int64 [m], each at least ``window − 1``.
        labels: int8 [n], or None: then a sample is its window alone.
        window: T.
    """

    def __init__(
        self,
        rows: NDArray[np.float32],
        samples: NDArray[np.int64],
        labels: NDArray[np.int8] | None,
        window: int,
    ) -> None:
        self.samples, self.window = samples, window
        self._rows = torch.from_numpy(rows)
        self._labels = None if labels is None else torch.from_numpy(labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """(float32 [T, F], int64 scalar), or the window alone."""
        last = int(self.samples[i])
        window = self._rows[last + 1 - self.window : last + 1]
        return window if self._labels is None else (window, self._labels[last])
