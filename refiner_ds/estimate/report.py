"""A plan as a table for people."""

from collections.abc import Iterator, Sequence

from refiner_ds.estimate.advice import USABLE
from refiner_ds.estimate.findings import Column, Findings
from refiner_ds.estimate.memory import SNAPSHOT, Bill
from refiner_ds.estimate.time import Rate
from refiner_ds.estimate.traffic import Traffic

UNITS = (("GB", 1e9), ("MB", 1e6))
"""A report has one of them: of 1000 or 1000 * 1000 kB; the first of which the device takes at least one."""
MOMENTS = {"encoding": "encoding", "backward": "forth and back", "update": "update"}


class Report:
    """Writes a plan's lines, all sizes in one unit."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        most = max(column.bill.total for column in found.columns)
        self._unit, self._scale = next((unit for unit in UNITS if most >= unit[1]), UNITS[-1])

    def text(self) -> str:
        """All of it."""
        parts = (self._head(), self._memory(), self._activations(), self._rest())
        return "\n\n".join("\n".join(part) for part in parts)

    def _head(self) -> Iterator[str]:
        counts, run = self._found.counts, self._found.run
        frozen = ", ".join(f"{name} {number:,}" for name, number in counts.frozen.items())
        held = f", {counts.held:,} of the network frozen" if counts.held else ""
        yield f"{self._found.base}: {counts.trained:,} weights trained{held}; frozen: {frozen}"
        yield (
            f"global batch {run.global_batch_size} = micro-batch {run.micro_batch_size} x accumulation "
            f"{run.accumulation_steps} x {self._found.ranks} ranks, precision {self._found.precision}"
        )

    def _memory(self) -> Iterator[str]:
        columns, crop = self._found.columns, self._found.batches[self._found.checkpointed][0].crop
        yield f"memory per rank in {self._unit}, crops of {crop}x{crop}:"
        names = [f"{column.name}{'*' if column.refused else ''}" for column in columns]
        rows: list[Sequence[str]] = [["", *names]]
        for title, parts in (("", "always"), *((said, name) for name, said in MOMENTS.items())):
            rows += self._rows(title, parts, columns)
        rows.append(["most", *(self._size(column.bill.total) for column in columns)])
        for name in dict.fromkeys(name for column in columns for name in column.bill.host):
            rows.append([f"host: {name}", *(self._size(column.bill.host.get(name, 0)) for column in columns)])
        yield from _table(rows)
        yield f"yours: {', '.join(column.name for column in columns if column.is_yours)}"
        yield from (f"* {column.name}: {column.refused}" for column in columns if column.refused)
        yield "not counted: the driver's context, NCCL's and cuDNN's workspaces, fragmentation, validation"

    def _rows(self, title: str, parts: str, columns: Sequence[Column]) -> Iterator[Sequence[str]]:
        """A row for each part that any column has, and the sum of a moment with all that is there always."""
        bills = [_parts(column.bill, parts) for column in columns]
        for name in dict.fromkeys(name for bill in bills for name in bill):
            yield [f"  {name}" if title else name, *(self._size(bill.get(name, 0)) for bill in bills)]
        if title:
            yield [f"= {title}", *(self._size(column.bill.moments[parts]) for column in columns)]

    def _activations(self) -> Iterator[str]:
        found = self._found
        yield (
            f"one micro-batch by crop and --checkpointed_blocks, in {self._unit}, its arithmetic as a multiple; yours: "
            f"{found.checkpointed}"
        )
        head = ("crop", "computed twice", "activations", "workspace", "encoders", "arithmetic")
        rows: list[Sequence[str]] = [head]
        for number, plain in enumerate(found.batches["nothing"]):
            for blocks, batches in found.batches.items():
                batch = batches[number]
                sizes = map(self._size, (batch.kept, batch.workspace, batch.encoding))
                rows.append([f"{batch.crop}x{batch.crop}", blocks, *sizes, f"{batch.flops / plain.flops:.2f}"])
        yield from _table(rows)

    def _rest(self) -> Iterator[str]:
        found, run, disk = self._found, self._found.run, self._found.disk
        if run.steps is None:
            yield "length: not known; give --max_train_steps, or --shards for --num_train_epochs"
        else:
            epochs = f", {run.epochs:.2f} epochs of {run.samples:,} samples" if run.epochs is not None else ""
            yield f"length: {run.steps:,} optimizer steps, {run.pairs:,} pairs{epochs}"
        if found.hours is not None and found.rate:
            yield f"time: {found.hours:.1f} hours at {self._rate(found.rate)}; without checkpoints and validations"
        most = f"at most {disk.count} at once, {self._size(disk.most)} {self._unit}" if disk.most else "all are kept"
        yield f"checkpoints: {self._size(disk.one)} {self._unit} each, {most}"
        yield f"saving: {self._snapshot()}"
        told = "; ".join(f"{name} {self._traffic(one)}" for name, one in found.exchange.items())
        yield f"traffic per rank and optimizer step (rings): {told}" if found.ranks > 1 else "traffic: none"
        if found.advice and found.memory:
            room = f"{USABLE:.0%} of {self._size(found.memory)} {self._unit}"
            name = f"ds_configs/{found.advice.file}" if found.advice.file else "nothing"
            yield f"take {name} in {room}: {found.advice.reason}"
        else:
            yield "which ds_configs file to take: not known without a GPU here; give --gpu_memory, such as 80GB"

    def _traffic(self, one: Traffic) -> str:
        link = self._found.link_gigabits
        seconds = f" in {one.seconds(link):.3g} s at {link:g} Gb/s" if link else ""
        sizes = f"{self._size(one.reduced)} {self._unit} reduced, {self._size(one.gathered)} gathered"
        return f"{sizes}, {self._size(one.sent)} sent{seconds}"

    def _snapshot(self) -> str:
        size = next(column.bill.host[SNAPSHOT] for column in self._found.columns if column.is_yours)
        room = f"{self._size(size)} {self._unit} of its host's memory"
        return f"from the first checkpoint on a rank takes {room}, pinned with a GPU, and trains while it is written"

    def _rate(self, rate: Rate) -> str:
        ranks = self._found.ranks
        others = f", if {ranks} ranks are {ranks} times as fast" if ranks > 1 else ""
        return f"{rate.per_rank:.3g} pairs/s and rank ({rate.source}){others}"

    def _size(self, size: int | None) -> str:
        if not size:
            return "-"
        told = f"{size / self._scale:.2f}"
        return "<0.01" if told == "0.00" else told


def _parts(bill: Bill, name: str) -> dict[str, int]:
    return getattr(bill, name)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first cell of a row to the left, the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([f"{first:<{widths[0]}}", *cells]).rstrip()
