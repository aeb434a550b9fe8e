"""Rows of vectors of different lengths, one block a record, for some of the records of a set: what is kept of the frozen parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """Blocks of vectors; which record has which block is known by its position in the set."""

    flat: torch.Tensor
    """(all tokens, width)."""
    starts: torch.Tensor
    """(records,) int64, the first row of each record's block; -1 where none is kept."""
    lengths: torch.Tensor
    """(records,) int64."""

    @classmethod
    def of(cls, blocks: Sequence[torch.Tensor], owners: Sequence[int], records: int) -> Ragged:
        """Join blocks (tokens, width), one for each of `owners`, positions in a set of `records`."""
        lengths, starts = torch.zeros(records, dtype=torch.int64), torch.full((records,), -1, dtype=torch.int64)
        sizes = torch.tensor([len(block) for block in blocks], dtype=torch.int64)
        lengths[list(owners)] = sizes
        starts[list(owners)] = sizes.cumsum(0) - sizes
        return cls(flat=torch.cat(list(blocks)), starts=starts, lengths=lengths)

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """(tokens, width): the blocks of `index`, one after another, on the device of `index`.

        Raises:
            KeyError: a record has no block.
        """
        where = index.cpu()
        starts, lengths = self.starts[where], self.lengths[where]
        if bool((starts < 0).any()):
            raise KeyError(f"ragged: {int((starts < 0).sum())} of {len(where)} records were not kept")
        ends = lengths.cumsum(0)
        places = torch.arange(int(ends[-1])) - (ends - lengths - starts).repeat_interleave(lengths)
        return self.flat[places.to(self.flat.device)].to(index.device, non_blocking=True)

    def padded(self, index: torch.Tensor, length: int) -> torch.Tensor:
        """(rows, length, width): the blocks of `index`, zeros behind each."""
        lengths = self.lengths[index.cpu()].to(index.device)
        block = self.flat.new_zeros((len(index), length, self.flat.shape[1]), device=index.device)
        block[torch.arange(length, device=index.device) < lengths[:, None]] = self.rows(index)
        return block
