"""What has to hold before anything is trained: the ranks agree, the base fits, and it is known where to continue."""

import platform
from datetime import timedelta

from refiner_ds.checkpoint.place import Place
from refiner_ds.checkpoint.store import sweep
from refiner_ds.errors import UserError, note
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.supervise.link import Link
from refiner_ds.train.about import common_settings
from refiner_ds.train.hooks import BASE
from refiner_ds.train.meeting import gathered, require_agreement
from refiner_ds.train.plan import Plan
from refiner_ds.train.resume import newest_whole
from refiner_ds.train.side import SideChannel
from refiner_ds.versions import versions


def meet(plan: Plan, link: Link, timeout: timedelta) -> None:
    """Lets the wardens know each other, and ends ranks that were started differently before any model is loaded."""
    hub, host = gathered((link.hub, platform.node()))[0]
    link.join(hub, host, timeout.total_seconds())
    require_agreement(versions(), "install the same versions on all hosts.")
    require_agreement(
        {**plan.identity, "steps": plan.times.last},
        "put shards, base and output folder where all nodes see them, and start all with one command.",
    )
    require_agreement(common_settings(plan), "start all with one command.")


def continued(plan: Plan, place: Place, side: SideChannel) -> Plan:
    """The plan from the newest checkpoint on that is whole for all ranks, once what a killed run began is ended."""
    folder, tell = plan.flags.output_dir, note if plan.world.is_main else lambda _: None
    if place.leads:
        sweep(folder, tell)
    side.gathered(None)
    return plan.continued_from(
        newest_whole(folder, plan.candidates(), place, side.gathered, plan.names_checkpoint, tell)
    )


def require_base(plan: Plan, refiner: UnclipRefiner) -> None:
    """Refuses a base that is no longer the one of the checkpoint that is continued. All ranks must call.

    Raises:
        UserError: it is not, or the ranks do not see the same.
    """
    if plan.checkpoint and plan.checkpoint.commit.get(BASE, refiner.base_fingerprint) != refiner.base_fingerprint:
        raise UserError(
            f"{plan.checkpoint.path} was trained from other weights than --pretrained_model_name_or_path "
            f"{plan.flags.pretrained_model_name_or_path} has now; put the base back as it was, or name its --revision."
        )
    require_agreement({"base": refiner.base_fingerprint}, "put the same base where all nodes see it.")


def require_encoding(plan: Plan, refiner: UnclipRefiner) -> None:
    """Refuses latents that other encoders than the base's have made.

    Raises:
        UserError: they are.
    """
    encoding = plan.shards.index.encoding
    if encoding and encoding.encoders != refiner.encoders_fingerprint:
        raise UserError(
            f"the latents in {plan.shards.location} were made by other encoders than those of "
            f"--pretrained_model_name_or_path {plan.flags.pretrained_model_name_or_path}, so the network would learn "
            "in a space that its VAE does not know; train from the base that they were encoded with, or encode again."
        )
