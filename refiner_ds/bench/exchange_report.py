"""What the bench of the exchange says, as JSON and as Markdown, and what we promise of the bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from refiner_ds.bench.exchange import ALONE, Turn
from refiner_ds.bench.goals import Spread
from refiner_ds.bench.report import NOTHING, spread_as_json, table, told

HEAD = ("way", "s a step", "of its pairs/s, ranks keep", "MB a rank sends in a step", "of the MB on paper")
WITHIN = 0.05
"""How far bytes on the card may lie from those on paper: headers and small words go with them."""

Counted = Mapping[str, float]
"""By way, the bytes on paper that each rank sends in a step."""


def kept_of(found: Mapping[str, Sequence[Turn]], name: str) -> Spread | None:
    """Of the pairs/s that ranks would make without an exchange, what they make: one rank's step by theirs."""
    pairs = zip(found[ALONE], found[name], strict=True)
    return Spread.of([alone.seconds / turn.seconds for alone, turn in pairs])


def sent_of(found: Mapping[str, Sequence[Turn]], name: str, counted: Counted) -> Spread | None:
    """Bytes on the card against those on paper; None for one rank, which sends nothing."""
    return Spread.of([turn.sent / counted[name] for turn in found[name] if counted.get(name)])


def is_kept(found: Mapping[str, Sequence[Turn]], counted: Counted) -> bool:
    """Whether what is sent is what paper says, in every round of every way."""
    shares = [turn.sent / sent for name, sent in counted.items() for turn in found[name]]
    return all(abs(share - 1) <= WITHIN for share in shares)


def as_json(found: Mapping[str, Sequence[Turn]], counted: Counted, about: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of every round, what they come to, and the goal."""
    return {
        "about": dict(about),
        "ways": [
            {
                "name": name,
                "seconds": spread_as_json(Spread.of([turn.seconds for turn in turns])),
                "kept": spread_as_json(kept_of(found, name)),
                "counted_bytes": counted.get(name),
                "sent_of_counted": spread_as_json(sent_of(found, name, counted)),
                "rounds": [asdict(turn) for turn in turns],
            }
            for name, turns in found.items()
        ],
        "goal": {"within": WITHIN, "is_kept": is_kept(found, counted)},
    }


def as_markdown(found: Mapping[str, Sequence[Turn]], counted: Counted, about: Mapping[str, Any]) -> str:
    """The page: how it was measured, the ways, the goal."""
    goal = [f"bytes sent, against those on paper, within {WITHIN:.0%}", "yes" if is_kept(found, counted) else "no"]
    parts = [
        f"`{about['command']}`\n\n{about['machine']}; {about['date']}; {about['what']}.",
        table(HEAD, [_line(found, name, counted) for name in found]),
        table(("goal", "kept"), [goal]),
    ]
    return "\n\n".join(parts) + "\n"


def _line(found: Mapping[str, Sequence[Turn]], name: str, counted: Counted) -> list[str]:
    sent = Spread.of([turn.sent / 1e6 for turn in found[name]])
    return [
        name,
        told(Spread.of([turn.seconds for turn in found[name]])),
        told(kept_of(found, name)) if name != ALONE else NOTHING,
        f"{sent.median:.1f}" if sent and name in counted else NOTHING,
        told(sent_of(found, name, counted)),
    ]
