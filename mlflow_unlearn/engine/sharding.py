"""A model in shards that several processes hold (FSDP2, torch's `fully_shard`), each working on its own rows of every micro-batch.

Not accelerate: its FSDP2 silently becomes plain data parallelism on processors (1.15). Each decoder layer is a group of its own; the worker itself is
the root group, so that embeddings, final norm and head are whole inside `Worker.forward`, wherever the code that runs there looks at them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import ConfigError
from ..protocols import Batch, Sequences
from .examples import device_of
from .layers import decoder_layers
from .worker import T, Worker

LAUNCHED_BY = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process."""


@contextmanager
def together(device: torch.device) -> Iterator[Callable[[Any], Worker]]:
    """Join the processes that were launched with this one; yields how a model is shared among them.

    Args:
        device: the kind that all work on; of several CUDA devices each process takes its own, unless one is named.

    Raises:
        ConfigError: this process was not launched together with others, all of them were told to use one device, or there is none left for this one.
    """
    with ExitStack() as stack:
        stack.push(_leave_word)
        _join(device)
        stack.callback(dist.destroy_process_group)
        stack.push(_leave_word)  # again, since this one comes before the farewell, which may wait for the others
        yield ShardedWorker


def _join(device: torch.device) -> None:
    missing = [name for name in LAUNCHED_BY if name not in os.environ]
    if missing:
        raise ConfigError(f"environment: {', '.join(missing)} missing; start the processes with torchrun, or set unlearn.processes and let us do it")
    if device.index is not None and int(os.environ["WORLD_SIZE"]) > 1:
        raise ConfigError(f"unlearn.device: '{device}' is one device for {os.environ['WORLD_SIZE']} processes; write auto, or processes: 1")
    if device.type == "cuda":
        _take_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def _leave_word(_kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> bool:
    """Leave the error of a process whose output is not shown to torchrun, which shows it last; the error goes on."""
    if error is not None and os.environ.get("RANK", "0") != "0":
        get_error_handler().record_exception(error)
    return False


def _take_device(local_rank: int) -> None:
    found = torch.cuda.device_count()
    if local_rank >= found:
        raise ConfigError(
            f"unlearn.processes: this is process {local_rank + 1} of this machine and it has {found} CUDA devices; ask for at most {found}"
        )
    torch.cuda.set_device(local_rank)


class ShardedWorker(Worker):
    """One of several processes, which holds its shard of every parameter."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.size, self.rank = dist.get_world_size(), dist.get_rank()
        self.mesh: DeviceMesh = init_device_mesh(device_of(model).type, (self.size,))
        for layer in decoder_layers(model):
            fully_shard(layer, mesh=self.mesh)
        # Without the last word the root group stays whole after a pass without gradient, and an optimiser made then holds the wrong parameters.
        fully_shard(self, mesh=self.mesh, reshard_after_forward=True)

    def part(self, batch: Batch) -> tuple[Batch, float]:
        """Rows rank, rank + size, ... of the micro-batch.

        Gradients are averaged over the processes, so that a loss counts `size` times. A process left without rows repeats the first one and counts
        nothing: all processes have to gather the same layers.
        """
        rows = batch.forget if batch.forget is not None else batch.retain
        idle = rows is None or self.rank >= len(rows.index)
        mine = slice(0, 1) if idle else slice(self.rank, None, self.size)
        own = replace(batch, forget=_rows(batch.forget, mine), alternative=_rows(batch.alternative, mine), retain=_rows(batch.retain, mine))
        return own, 0.0 if idle else float(self.size)

    def summed(self, values: Mapping[str, float]) -> dict[str, float]:
        """Values added up over the processes."""
        names = sorted(values)
        total = torch.tensor([values[name] for name in names], dtype=torch.float64, device=device_of(self))
        dist.all_reduce(total)
        return dict(zip(names, total.tolist(), strict=True))

    def said(self, value: T) -> T:
        """Rank 0's value, known to all."""
        box = [value]
        dist.broadcast_object_list(box, 0)
        return box[0]

    def clip(self, most: float) -> float:
        """Scale all gradients down to the global norm `most` if it is larger; returns the norm before."""
        norm = torch.nn.utils.clip_grad_norm_([p for p in self.parameters() if p.grad is not None], most)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def trained(self) -> dict[str, torch.Tensor]:
        """Copies of the parameters that may change, whole, on the processor of rank 0."""
        return self._gathered({name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad})

    def restore(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put back what `trained` gave rank 0."""
        with torch.no_grad():
            for name in self.said(sorted(weights)):
                parameter = self.model.get_parameter(name)
                parameter.copy_(_scattered(weights.get(name), parameter))

    def optimiser_state(self, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """State dict of the optimiser as one process would have it, on rank 0."""
        state = optimiser.state_dict()
        flat = {(i, name): value for i, each in state["state"].items() for name, value in each.items()}
        whole = self._gathered(flat)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for (i, name), value in whole.items():
            moments.setdefault(i, {})[name] = value
        return {"state": moments, "param_groups": state["param_groups"]} if self.rank == 0 else {}

    def restore_optimiser(self, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Put back what `optimiser_state` gave rank 0, however many processes wrote it."""
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        moments = state.get("state", {})
        names = self.said([(i, name, value.ndim) for i, each in moments.items() for name, value in each.items()])
        local: dict[int, dict[str, torch.Tensor]] = {}
        for i, name, dimensions in names:
            value = moments.get(i, {}).get(name)
            local.setdefault(i, {})[name] = _scattered(value, parameters[i]) if dimensions else self.said(value)
        optimiser.load_state_dict({"state": local, "param_groups": self.said(state.get("param_groups"))})

    def _gathered(self, values: Mapping[Any, Any]) -> dict[Any, torch.Tensor]:
        """Whole copies of sharded tensors on the processor of rank 0; every process has to take part in each."""
        whole = {}
        for name, value in values.items():
            full = value.full_tensor() if isinstance(value, DTensor) else value
            if self.rank == 0:
                whole[name] = full.cpu().clone()
        return whole


def whole(model: Any) -> dict[str, torch.Tensor]:
    """Every parameter of a model, whole, on the processor; where it is held in shards every process must ask, rank 0 gets them, others get {}."""
    found = {}
    for name, p in model.named_parameters():
        full = p.full_tensor() if isinstance(p, DTensor) else p
        if not dist.is_initialized() or dist.get_rank() == 0:
            found[name] = full.detach().cpu()
    return found


def _scattered(value: torch.Tensor | None, like: Any) -> torch.Tensor:
    """Rank 0's tensor, sharded as `like` is."""
    if not isinstance(like, DTensor):
        raise ConfigError("sharding: found a parameter that is not sharded, expected all of them to be; report the model's type")
    full = torch.empty(like.shape, dtype=like.dtype, device=like.device) if value is None else value.to(like.device, like.dtype)
    return distribute_tensor(full, like.device_mesh, like.placements)


def _rows(rows: Sequences | None, mine: slice) -> Sequences | None:
    """Some rows of a micro-batch."""
    if rows is None:
        return None
    names = ("input_ids", "attention_mask", "labels", "index", "classes")
    return replace(rows, **{name: value[mine] for name in names if (value := getattr(rows, name)) is not None})
