"""This rank's part of the training state under ZeRO: copied to the host for a checkpoint, and filled from one.

Nothing here asks how many ranks there are: each fills the values that its shards hold from whatever ranks had them.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from refiner_ds.checkpoint.fragments import Cut, Fragment, Placed
from refiner_ds.checkpoint.snapshot import AVERAGE, MASTER, Snapshot
from refiner_ds.checkpoint.state import SavedState
from refiner_ds.train.ema import Ema
from refiner_ds.train.loss_scale import LossScale


class ShardState:
    """The fp32 masters, the optimizer's state and the moving average of one rank.

    Args:
        zero: DeepSpeed's optimizer of stage 1 or 2, which shards what it was given over the ranks.
        ema: moving average of the masters, if one is kept.
    """

    def __init__(self, network: nn.Module, zero: Any, ema: Ema | None) -> None:
        self._zero, self._base, self._ema = zero, zero.optimizer, ema
        self.masters = masters_of(zero)
        self.loss_scale = LossScale(zero)
        names = {parameter: name for name, parameter in network.named_parameters()}
        self.cut: Cut = [[*_placed(group, names)] for group in zero.bit16_groups]
        self._shapes = {names[each]: tuple(each.shape) for group in zero.bit16_groups for each in group}
        self._host: dict[str, Tensor] = {}

    def snapshot(self, counters: dict[str, Any]) -> Snapshot:
        """A copy on the host, in memory that the next call uses again.

        Args:
            counters: plain values that go into it beside the optimizer's and the loss scaler's.
        """
        shards: dict[str, list[Tensor]] = {MASTER: [*self.masters]}
        loose: dict[str, Tensor] = {}
        plain: dict[str, dict[str, Any]] = {}
        for group, master in enumerate(self.masters):
            for name, value in self._base.state.get(master, {}).items():
                if not isinstance(value, Tensor):
                    plain.setdefault(str(group), {})[name] = value
                elif value.shape == master.shape and value.is_floating_point():
                    shards.setdefault(name, []).append(value)
                else:
                    loose[f"{group}.{name}"] = value
        if self._ema:
            shards[AVERAGE] = self._ema.shards
        copied = Snapshot(
            {kind: [self._copied(f"{kind}/{i}", shard) for i, shard in enumerate(of)] for kind, of in shards.items()},
            self.cut,
            self._shapes,
            {name: self._copied(name, value) for name, value in loose.items()},
            {
                **counters,
                "optimizer": plain,
                "scaler": self.loss_scale.state(),
                **({"average": self._ema.updates} if self._ema else {}),
            },
        )
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()  # copies to pinned memory go on by themselves
        return copied

    @torch.no_grad()
    def restore(self, saved: SavedState, rank: int) -> None:
        """Takes over what was saved, by whatever number of ranks. The optimizer's settings stay the present ones."""
        self._fill(saved, MASTER, self.masters)
        moments = sorted(saved.kinds - {MASTER, AVERAGE})
        loose = saved.loose(rank)
        state: dict[int, dict[str, Any]] = {}
        for group, master in enumerate(self.masters):
            state[group] = {kind: torch.zeros_like(master) for kind in moments}
            plain = saved.counters["optimizer"].get(str(group), {})
            wholes = {key.partition(".")[2]: value for key, value in loose.items() if key.startswith(f"{group}.")}
            state[group] |= {**plain, **wholes}
        for kind in moments:
            self._fill(saved, kind, [state[group][kind] for group in state])
        if any(state.values()):  # none yet where no update was made
            groups = self._base.state_dict()["param_groups"]
            self._base.load_state_dict({"state": state, "param_groups": groups})
        if self._ema:
            self._restore_average(self._ema, saved)
        self.loss_scale.restore(saved.counters["scaler"])
        self._zero.update_lp_params()  # from the fp32 shards to the weights of all ranks

    def _restore_average(self, ema: Ema, saved: SavedState) -> None:
        """Of a checkpoint without an average, it starts as the weights of the checkpoint."""
        self._fill(saved, AVERAGE if saved.has_average else MASTER, ema.shards)
        ema.updates = int(saved.counters.get("average", 0))

    def _fill(self, saved: SavedState, kind: str, shards: list[Tensor]) -> None:
        for shard, placed in zip(shards, self.cut, strict=True):
            for each in placed:
                saved.fill(kind, each.fragment, shard.narrow(0, each.offset, each.fragment.count))

    def _copied(self, key: str, source: Tensor) -> Tensor:
        """A copy on the host, pinned where it comes from a GPU."""
        kept = self._host.get(key)
        if kept is None or kept.shape != source.shape or kept.dtype != source.dtype:
            kept = torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)
            self._host[key] = kept
        return kept.copy_(source.detach(), non_blocking=True)


def masters_of(zero: Any) -> list[Tensor]:
    """This rank's flat shards of the fp32 weights, one for each group of parameters."""
    return list(zero.single_partition_of_fp32_groups)


def _placed(group: list[Any], names: dict[nn.Parameter, str]) -> Iterator[Placed]:
    """What this rank's shard holds of a group, in the order in which it lies there."""
    held = [parameter for parameter in group if parameter._hp_mapping is not None]
    for parameter in sorted(held, key=lambda each: each._hp_mapping.hp_fragment_address.start):
        inside, here = parameter._hp_mapping.lp_fragment_address, parameter._hp_mapping.hp_fragment_address
        yield Placed(Fragment(names[parameter], inside.start, inside.numel), here.start)
