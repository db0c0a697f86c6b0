"""A progress bar for verbs that take a while; silent where there is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(is_shown: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function to tell (what, done, total) as the work goes on; each `what` has its own line."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not is_shown) as progress:
        tasks: dict[str, TaskID] = {}
        progress.disable |= not progress.console.is_terminal

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        yield tell
