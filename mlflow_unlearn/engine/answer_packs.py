"""Several answers to one prompt in one pass: the prompt runs once, and each answer behind it sees the prompt and itself, never its siblings.

A pack is the tokens that all prompts share, then the rest of a prompt with its answers behind one another, then the next prompt. Every token has the
position that it has in its own sequence, so that each number is the one of a sequence that runs alone. `packing` does the same for single answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ..protocols import Example
from .batches import collate
from .examples import device_of
from .forward import AnswerStates, head_of, unwrapped
from .packing import PACK_TOKENS, dealt, may_pack

Group = Sequence[Example]
"""The same prompt with one answer or more."""

_ROOT, _FILLING = -1, -2
"""Whose a token is that all prompts share, and one behind the end of a pack."""


def may_share(model: Any, groups: Sequence[Group], pad: int) -> bool:
    """Whether sharing prompts saves work and leaves every number: some prompt has several answers, and the model takes a mask of ours."""
    if all(len(group) == 1 for group in groups) or not all(_one_prompt(group) for group in groups):
        return False
    longest = max((example for group in groups for example in group), key=lambda example: len(example.tokens))
    causal = unwrapped(model)
    return not isinstance(head_of(causal), torch.nn.Identity) and may_pack(causal, collate([longest], [0], pad))


def group_cuts(groups: Sequence[Group], token_budget: int) -> list[list[int]]:
    """Positions of groups of similar size, cut so that their tokens stay within the budget (a single larger group goes alone)."""
    cuts: list[list[int]] = []
    left = 0
    for size, i in sorted((_size(group), i) for i, group in enumerate(groups)):
        if not cuts or size > left:
            cuts.append([])
            left = token_budget
        left -= size
        cuts[-1].append(i)
    return cuts


def group_states(model: Any, groups: Sequence[Group], pad: int) -> AnswerStates:
    """The states that predict every answer token; `rows` counts the answers of all groups in their order."""
    causal, device = unwrapped(model), device_of(model)
    packs = _packs(groups, collate([group[0] for group in groups], range(len(groups)), pad).shared)
    states = causal.base_model(
        input_ids=_table(packs, "tokens", pad).to(device),
        position_ids=_table(packs, "positions", 0).to(device),
        attention_mask=_mask(_table(packs, "owners", _FILLING).to(device), _table(packs, "branches", 0).to(device)),
        use_cache=False,
    ).last_hidden_state
    found = {row: [number * states.shape[1] + place for place in places] for number, pack in enumerate(packs) for row, places in pack.places.items()}
    answers = [example.tokens[example.prompt_length :] for group in groups for example in group]
    return AnswerStates(
        states=states.flatten(0, 1)[torch.tensor([place for row in range(len(answers)) for place in found[row]], device=device)],
        targets=torch.tensor([token for answer in answers for token in answer], device=device),
        rows=torch.tensor([row for row, answer in enumerate(answers) for _ in answer], device=device),
        head=head_of(causal),
    )


@dataclass
class _Pack:
    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    """Of each token its group, or `_ROOT`."""
    branches: list[int] = field(default_factory=list)
    """Of each token 0 in a prompt, else the number of its answer in the group, from 1."""
    places: dict[int, list[int]] = field(default_factory=dict)
    """Row of an answer -> where its tokens are predicted."""

    def add(self, tokens: Sequence[int], position: int, owner: int, branch: int = 0) -> range:
        """Append tokens; where they stand."""
        start, count = len(self.tokens), len(tokens)
        self.tokens += tokens
        self.positions += range(position, position + count)
        self.owners += [owner] * count
        self.branches += [branch] * count
        return range(start, start + count)


def _packs(groups: Sequence[Group], root: int) -> list[_Pack]:
    sizes = [_size(group) - root for group in groups]
    first_rows = [0, *accumulate(len(group) for group in groups)]
    packs = []
    for members in _dealt(sizes, root):
        packs.append(_Pack())
        packs[-1].add(groups[0][0].tokens[:root], 0, _ROOT)
        for owner in members:
            length = groups[owner][0].prompt_length
            prompt = packs[-1].add(groups[owner][0].tokens[root:length], root, owner)
            for branch, example in enumerate(groups[owner], 1):
                answer = packs[-1].add(example.tokens[length:-1], length, owner, branch)
                packs[-1].places[first_rows[owner] + branch - 1] = [prompt[-1], *answer]
    return packs


def _dealt(sizes: list[int], root: int) -> list[list[int]]:
    """Groups to packs of about `PACK_TOKENS`, as many packs as make the fewest tokens with padding: a group may be as large as a pack should be."""
    fewest = max(1, -(-sum(sizes) // max(PACK_TOKENS, *sizes)))
    ways = [dealt(sizes, packs) for packs in range(fewest, min(len(sizes), 2 * fewest) + 1)]
    return min(ways, key=lambda bins: len(bins) * (root + max(sum(sizes[i] for i in members) for members in bins)))


def _table(packs: Sequence[_Pack], name: str, filling: int) -> Tensor:
    """(packs, longest) int64."""
    lines: list[list[int]] = [getattr(pack, name) for pack in packs]
    longest = max(len(line) for line in lines)
    return torch.tensor([line + [filling] * (longest - len(line)) for line in lines])


def _mask(owners: Tensor, branches: Tensor) -> Tensor:
    """(packs, 1, length, length) bool: who sees whom."""
    owner, branch = owners[:, None, :], branches[:, None, :]
    family = (owners[:, :, None] == owner) & ((branch == 0) | (branches[:, :, None] == branch))
    causal = torch.ones(owners.shape[1], owners.shape[1], dtype=torch.bool, device=owners.device).tril()
    return ((family | (owner == _ROOT)) & causal)[:, None]


def _one_prompt(group: Group) -> bool:
    """All have the same prompt, which predicts their first token."""
    length = group[0].prompt_length
    prompt = group[0].tokens[:length]
    return all(0 < length == example.prompt_length < len(example.tokens) and example.tokens[:length] == prompt for example in group)


def _size(group: Group) -> int:
    """Tokens that run: the prompt once, and of each answer all but the last, which predicts nothing."""
    return group[0].prompt_length + sum(len(example.tokens) - example.prompt_length - 1 for example in group)
