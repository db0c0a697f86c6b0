"""What the bench of checkpoints says, as JSON and as Markdown, and what we promise of the stall."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from refiner_ds.bench.goals import Spread
from refiner_ds.bench.report import NOTHING, spread_as_json, table, told
from refiner_ds.bench.saving import Saved

NO_SAVE, BACKGROUND, WAITED, DEEPSPEED = (
    *("no save", "ours, in the background", "ours, waited for"),
    "DeepSpeed's save_checkpoint",
)
MOST = 0.2
"""Of a save that is waited for on the same machine, what one in the background may stall."""
HEAD = ("save", "training stands still, s", "ratio to waited for", "steps meanwhile", "s a step", "MB written")


def ratio_of(found: Mapping[str, Sequence[Saved]], name: str) -> Spread | None:
    """Stall of a way against that of our save that is waited for, within each round."""
    pairs = zip(found[name], found[WAITED], strict=True)
    return Spread.of([one.stall_seconds / other.stall_seconds for one, other in pairs])


def as_json(found: Mapping[str, Sequence[Saved]], sizes: Mapping[str, int], about: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of every round, what they come to, and the goal."""
    ratio = ratio_of(found, BACKGROUND)
    return {
        "about": dict(about),
        "ways": [
            {
                "name": name,
                "stall_seconds": spread_as_json(_stall(rounds)),
                "ratio": spread_as_json(ratio_of(found, name)),
                "bytes": sizes.get(name),
                "rounds": [asdict(each) for each in rounds],
            }
            for name, rounds in found.items()
        ],
        "goal": {"at_most": MOST, "measured": spread_as_json(ratio), "is_kept": bool(ratio and ratio.median < MOST)},
    }


def as_markdown(found: Mapping[str, Sequence[Saved]], sizes: Mapping[str, int], about: Mapping[str, Any]) -> str:
    """The page: how it was measured, the ways, the goal."""
    lines = [_line(found, name, sizes.get(name)) for name in found]
    ratio = ratio_of(found, BACKGROUND)
    kept = "yes" if ratio and ratio.median < MOST else "no"
    goal = [f"stall in the background, of a save waited for, < {MOST:.0%}", told(ratio), kept]
    parts = [
        f"`{about['command']}`\n\n{about['machine']}; {about['date']}; {about['what']}.",
        table(HEAD, lines),
        table(("goal", "measured", "kept"), [goal]),
    ]
    return "\n\n".join(parts) + "\n"


def _line(found: Mapping[str, Sequence[Saved]], name: str, size: int | None) -> list[str]:
    steps = Spread.of([each.steps for each in found[name] if each.steps])
    seconds = Spread.of([each.step_seconds for each in found[name] if each.steps])
    return [
        name,
        told(_stall(found[name])) if name != NO_SAVE else NOTHING,
        told(ratio_of(found, name)) if name not in (NO_SAVE, WAITED) else NOTHING,
        f"{steps.median:.0f}" if steps and name != NO_SAVE else NOTHING,
        told(seconds),
        f"{size / 1e6:.0f}" if size else NOTHING,
    ]


def _stall(rounds: Sequence[Saved]) -> Spread | None:
    return Spread.of([each.stall_seconds for each in rounds])
