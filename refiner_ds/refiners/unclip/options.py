"""What a run may change about the refiner: how the base is adapted, and what its loss is made of."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Adaptation:
    """How a base becomes what is trained, beside the surgery; an export makes the same of its base again.

    Attributes:
        trainable: the layers that are trained. conv_in always is, as the base has never seen a render.
        lora_rank: train them through low-rank updates (Hu et al. 2021) of this rank, scaled by 1; in full without it.
        prediction_type: what the network predicts; as the base's scheduler says where not given.
        zero_terminal_snr: rescale the noise so that the last timestep is noise alone (Lin et al. 2024, algorithm 1).
        seed: of the low-rank updates.
    """

    trainable: Literal["all", "attention"] = "all"
    lora_rank: int | None = None
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    zero_terminal_snr: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """What the loss of a sample is made of; the defaults are GaussianRefiner's.

    Attributes:
        condition_dropout: probability of each of the seven cases of dropped conditions.
        source_loss_weight: of the reference rows.
        snr_gamma: cap of the signal-to-noise ratio in the weight of a row (Hang et al. 2023); no weights without it.
        noise_offset: scale of noise that is constant over each channel of a row.
        input_perturbation: scale of noise added to the noise of the input, not to the target (Ning et al. 2023).
    """

    condition_dropout: float = 0.05
    source_loss_weight: float = 1.0
    snr_gamma: float | None = None
    noise_offset: float = 0.0
    input_perturbation: float = 0.0
