"""The DeepSpeed JSON: who owns which number, what "auto" means, and which settings are known to go wrong."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from refiner_ds.config.auto import AUTO, owned, refuse, require_no_autos
from refiner_ds.config.optimizer import OptimizerChoice, take_optimizer
from refiner_ds.config.scheduler import ScheduleChoice, peak_rate, take_schedule
from refiner_ds.config.training import Train
from refiner_ds.errors import UserError

Precision = Literal["no", "fp16", "bf16"]
SPELLINGS: dict[Precision, tuple[str, ...]] = {
    "no": ("fp32", "float32", "float", "torch.float32"),
    "fp16": ("fp16", "float16", "half", "torch.float16"),
    "bf16": ("bf16", "bfloat16", "torch.bfloat16"),
}
"""How DeepSpeed lets `grad_accum_dtype` name a precision."""
SECTIONS = ("bf16", "fp16", "zero_optimization", "optimizer", "scheduler", "torch_autocast", "checkpoint", "data_types")
"""The sections that are read here."""
BUCKET_ELEMENTS = 100_000_000
"""Elements reduced at once where the JSON says auto; the UNet's largest tensor has 29.5 M."""


@dataclass(frozen=True)
class Resolved:
    """The JSON with every "auto" filled, and the numbers that training counts with.

    One optimizer step takes `global_batch_size` = micro_batch_size x accumulation_steps x ranks samples. `json` is
    what DeepSpeed gets; the sections optimizer and scheduler are not in it, for both are ours to make.
    """

    json: dict[str, Any]
    precision: Precision
    stage: int
    micro_batch_size: int
    accumulation_steps: int
    global_batch_size: int
    optimizer: OptimizerChoice
    schedule: ScheduleChoice
    learning_rate: float

    @property
    def num_ranks(self) -> int:
        """Ranks that one optimizer step's samples are dealt to."""
        return self.global_batch_size // (self.micro_batch_size * self.accumulation_steps)

    @property
    def accumulated_in(self) -> Precision:
        """Precision that gradients are added up in over micro-batches: `grad_accum_dtype`, else the network's."""
        return _accumulated_in(self.json, self.precision)

    @property
    def adds_up_whole(self) -> bool:
        """As the function of this name says."""
        return adds_up_whole(self.stage, self.num_ranks, self.offloads)

    @property
    def offloads(self) -> bool:
        """Whether the optimizer's state and step are on the CPU."""
        return _offloads(self.json["zero_optimization"])


def adds_up_whole(stage: int, ranks: int, offloads: bool) -> bool:
    """Whether gradients are kept whole and reduced once an update, by us; else DeepSpeed handles each as it comes.

    At stage 2 a rank has room for its own shard of them only, where there are several.
    """
    return not offloads and (stage == 1 or (stage == 2 and ranks == 1))


def read_json(path: Path) -> dict[str, Any]:
    """The DeepSpeed configuration in a file.

    Raises:
        UserError: the file is missing or holds no JSON object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"--deepspeed_config {path} cannot be read ({error.strerror}), so nothing says how to shard the optimizer; "
            "name one of ds_configs/*.json."
        ) from error
    except ValueError as error:
        raise UserError(
            f"--deepspeed_config {path} is not JSON ({error}); mend it, or take one of ds_configs/."
        ) from error
    if not isinstance(config, dict):
        raise UserError(f"--deepspeed_config {path} holds a {type(config).__name__}, not an object; see ds_configs/.")
    return config


def resolve(config: dict[str, Any], flags: Train, num_ranks: int) -> Resolved:
    """Joins the JSON and the flags: an explicit JSON value stands, a flag fills "auto", and the two may not contradict.

    Raises:
        UserError: a contradiction, an unknown "auto", or a setting that is known to train wrongly.
    """
    _require_objects(config)
    _refuse_known_wrong(config)
    config = copy.deepcopy(config)
    micro = owned(config, "train_micro_batch_size_per_gpu", "--train_batch_size", flags.train_batch_size, 1)
    accumulation = owned(
        config, "gradient_accumulation_steps", "--gradient_accumulation_steps", flags.gradient_accumulation_steps, 20
    )
    for name, value in (("--train_batch_size", micro), ("--gradient_accumulation_steps", accumulation)):
        if type(value) is not int or value < 1:
            raise UserError(f"{name} {value} leaves no sample to train on; give a whole number of at least 1.")
    global_batch = micro * accumulation * num_ranks
    if config.get("train_batch_size", AUTO) not in (AUTO, global_batch):
        raise UserError(
            f"the JSON's train_batch_size {config['train_batch_size']} (DeepSpeed's global batch) is not micro-batch "
            f'{micro} x accumulation {accumulation} x {num_ranks} ranks = {global_batch}; set it to "auto".'
        )
    config["train_batch_size"] = global_batch
    _fill_clipping(config, flags.max_grad_norm)
    zero = config.setdefault("zero_optimization", {})
    for name in ("reduce_bucket_size", "allgather_bucket_size"):
        if zero.get(name, AUTO) == AUTO:
            zero[name] = BUCKET_ELEMENTS
    precision = _precision(config, flags.mixed_precision)
    if _offloads(zero):
        _refuse_skipping_with_offload(precision, flags.max_nonfinite_steps)
    _accumulated_in(config, precision)  # refuses what cannot be
    stage = zero.get("stage", 0)
    if stage not in (1, 2):
        raise UserError(
            f"zero_optimization.stage {stage} is not supported: stage 0 shards nothing, and in 16 bits starts AdamW "
            "one step late; stage 3 saves nothing at this size; take stage 1 or 2."
        )
    optimizer, rate = take_optimizer(config, flags)
    schedule, peak = take_schedule(config, flags)
    learning_rate = peak_rate({"--learning_rate": flags.learning_rate, "optimizer.params.lr": rate, **peak})
    config["zero_allow_untested_optimizer"] = True  # which ones are exact under ZeRO is our own list
    config.setdefault("zero_force_ds_cpu_optimizer", False)
    require_no_autos(config)
    return Resolved(config, precision, stage, micro, accumulation, global_batch, optimizer, schedule, learning_rate)


def _offloads(zero: dict[str, Any]) -> bool:
    return (zero.get("offload_optimizer") or {}).get("device", "none") != "none"


def _refuse_skipping_with_offload(precision: Precision, max_nonfinite_steps: int) -> None:
    """DeepSpeed keeps the gradients of a skipped update on the host, where they spoil those that follow."""
    offload, follows = "zero_optimization.offload_optimizer with", "DeepSpeed skips every update that follows;"
    if precision == "fp16":
        refuse(f"{offload} fp16", f"after the first overflow {follows} take bf16, or no offload")
    if max_nonfinite_steps:
        skipping = f"--max_nonfinite_steps {max_nonfinite_steps}"
        refuse(f"{offload} {skipping}", f"after the first that is not finite {follows} leave the flag out")


def _fill_clipping(config: dict[str, Any], flag: float | None) -> None:
    clipping = owned(config, "gradient_clipping", "--max_grad_norm", flag, 1.0)
    if type(clipping) not in (int, float) or not clipping >= 0:
        raise UserError(
            f"gradient_clipping (--max_grad_norm) {json.dumps(clipping)} is no norm that gradients can be scaled down "
            "to; give a number above 0, or 0 to leave them as they are."
        )


def _accumulated_in(config: dict[str, Any], precision: Precision) -> Precision:
    """The precision that `grad_accum_dtype` names, else the network's, in which gradients come."""
    named = config.get("data_types", {}).get("grad_accum_dtype")
    if named is None:
        return precision
    for accumulated, spellings in SPELLINGS.items():
        if named in spellings and accumulated in ("no", precision):
            return accumulated
    network = SPELLINGS[precision][0]
    raise UserError(
        f"data_types.grad_accum_dtype {json.dumps(named)} is no precision that gradients of a network in {network} can "
        f"be added up in; write fp32, or leave it out for {network}."
    )


def _precision(config: dict[str, Any], flag: Precision | None) -> Precision:
    """Reads bf16.enabled and fp16.enabled, filling "auto" from the flag (bf16 where nothing is said)."""
    states = {name: config.get(name, {}).get("enabled", False) for name in ("bf16", "fp16")}
    for name, state in states.items():
        if not isinstance(state, bool) and state != AUTO:
            raise UserError(
                f"{name}.enabled {json.dumps(state)} in the DeepSpeed JSON says neither yes nor no, so the precision "
                'would be a guess; write true, false or "auto".'
            )
    explicit = [name for name, state in states.items() if state is True]
    if len(explicit) > 1:
        raise UserError("the DeepSpeed JSON enables both bf16 and fp16, and a network has one precision; disable one.")
    open_to_flag = [name for name, state in states.items() if state == AUTO]
    if flag is None and not explicit and open_to_flag == ["fp16"]:
        raise UserError("the DeepSpeed JSON leaves fp16 to --mixed_precision, which is not given; give fp16 or no.")
    precision: Any = explicit[0] if explicit else (flag or "bf16") if open_to_flag else "no"
    possible = explicit or [*open_to_flag, "no"]
    if precision not in possible or (flag is not None and flag != precision):
        raise UserError(
            f"--mixed_precision {flag} contradicts the DeepSpeed JSON, whose sections allow {' or '.join(possible)}; "
            'leave the flag out, take another of ds_configs/, or set "enabled": "auto".'
        )
    for name in ("bf16", "fp16"):
        if name in config:
            config[name]["enabled"] = name == precision
    return precision


def _require_objects(config: dict[str, Any]) -> None:
    for name in SECTIONS:
        if not isinstance(config.get(name, {}), dict):
            raise UserError(
                f"{name} in the DeepSpeed JSON is {json.dumps(config[name])} and not an object, so its settings cannot "
                "be read; see ds_configs/."
            )


def _refuse_known_wrong(config: dict[str, Any]) -> None:
    """Refuses by name what was tried and found to train wrongly, or to do nothing here."""
    zero, checkpoint = config.get("zero_optimization", {}), config.get("checkpoint", {})
    refusals = {
        "bfloat16": "bfloat16" in config and "it is DeepSpeed's other name for bf16; name the section bf16",
        "bf16.check_grad_overflow": (
            config.get("bf16", {}).get("check_grad_overflow") is False
            and "it lets NaN and infinity into the weights; remove it"
        ),
        "torch_autocast": (
            config.get("torch_autocast", {}).get("enabled")
            and "it clips gradients before unscaling them; use bf16 or fp16"
        ),
        "zero_force_ds_cpu_optimizer": (
            config.get("zero_force_ds_cpu_optimizer") is True
            and "it demands an optimizer that compiles an extension; set it to false"
        ),
        "zero_optimization.compute_grad_norm": (
            zero.get("compute_grad_norm") is False and "the norm of the gradients is what tells a broken run; remove it"
        ),
        "zero_optimization.zenflow": "zenflow" in zero and "it cannot handle convolutions; remove it",
        "zero_optimization.elastic_checkpoint": (
            zero.get("elastic_checkpoint") and "with AdamW it saves checkpoints that cannot be loaded; remove it"
        ),
        "wall_clock_breakdown": (
            config.get("wall_clock_breakdown")
            and "its timers wait for the device in every micro-batch, and do not see where gradients are added up; set "
            "it to false, and see train/tflops, train/data_wait and train/rank_spread in the journal"
        ),
        "checkpoint.writer": "writer" in checkpoint and "its writers fail to save or to load; remove it",
    }
    for name, why in refusals.items():
        if why:
            refuse(name, why)
