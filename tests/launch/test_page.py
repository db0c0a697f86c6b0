"""launch/README.md: what it names exists, its commands parse, and its messages are those of the sources."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import tyro

from refiner_ds.cli import VERBS
from refiner_ds.config.training import Train
from tests.test_readme import commands
from tests.train.launch import REPO

LAUNCH = REPO / "launch"
PAGE = (LAUNCH / "README.md").read_text()
FLAGS = shlex.split(re.search(r'FLAGS="(.*)"', PAGE)[1])
COMMANDS = [words for words in commands("launch/README.md") if not words[0].startswith("FLAGS=")]
MESSAGES = [
    part
    for row in re.findall(r"^\| (`.*?) \| [^|]+ \|$", PAGE.partition("## The five")[2], flags=re.MULTILINE)
    for part in re.findall(r"`([^`]+)`", row)
] + re.findall(r"^`(the launcher ended[^`]+)`", PAGE, flags=re.MULTILINE)


def source(package: str, *path: str) -> str:
    """A file of an installed package, which need not be imported for it."""
    return Path(importlib.util.find_spec(package).origin).parent.joinpath(*path).read_text()


def knows(started: list[str], option: str) -> bool:
    """Whether what a command starts has an option, as far as its source tells."""
    if started[0] == "bash":
        script = (REPO / started[1]).read_text() + (LAUNCH / "jobs.sh").read_text()
        return f"take_option {option[2:]} " in script
    if started[0] == "sbatch":
        return option == "--time" or f"#SBATCH {option}=" in (LAUNCH / "slurm.sbatch").read_text()
    path = {"deepspeed": ("launcher", "runner.py"), "accelerate": ("commands", "launch.py")}[started[0]]
    return f'"{option}"' in source(started[0], *path)


def test_the_flags_are_those_of_training():
    options = tyro.cli(Train, args=FLAGS, use_underscores=True)
    assert (REPO / options.deepspeed_config).exists()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_one_that_exists(words):
    assert words[-1] == "$FLAGS" or words[0] == "kubectl"
    for word in words:
        assert (REPO / word).exists() or not word.startswith("launch/"), word
    if words[0] in ("bash", "sbatch", "deepspeed", "accelerate"):
        options = [word for word in words if word.startswith("--")]
        assert [option for option in options if not knows(words, option)] == []
    elif words[0] == "refiner-ds":
        assert words[1] in VERBS
    else:
        assert words[0] in ("srun", "kubectl")


def test_every_file_of_the_folder_is_on_the_page_and_every_link_leads_to_one():
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert all((LAUNCH / target).exists() for target in links)
    own = {"README.md", "common.sh", "jobs.sh", "quickstart.sh", "test.sh"}  # no launchers
    assert {path.name for path in LAUNCH.iterdir() if path.is_file()} - own == set(links)


def test_every_flag_and_variable_of_the_text_is_one_that_exists():
    text = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    scripts = "".join(path.read_text() for path in LAUNCH.iterdir() if path.is_file() and path.name != "README.md")
    for flag in re.findall(r"`--(?!help)(\w+)`", text):
        assert flag in Train.__dataclass_fields__ or f"take_option {flag} " in scripts, flag
    python = "".join(path.read_text() for path in (REPO / "refiner_ds").rglob("*.py"))
    for variable in re.findall(r"`([A-Z]+_[A-Z_]+)`", text):
        assert variable in scripts + python, variable


def skeleton(text: str) -> str:
    """A text with X for what differs from run to run: what a source fills in, and what stands there on the page."""
    text = re.sub(r'"\s*\n\s*f?"|" \\\n\s*"', "", text)  # literals that continue
    text = re.sub(r"\$?\{[^{}]*\}|\$\w+|(?<![\w.])(?:node\d|hostfile|SIGKILL|\d+)(?!\w)", "X", text)
    return re.sub(r"\(Host key[^()]*\)", "(X)", text)


def test_there_are_five_failures():
    assert len(re.findall(r"^\| `", PAGE.partition("## The five")[2], flags=re.MULTILINE)) == 5


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_is_one_of_ours(message):
    paths = [*LAUNCH.glob("*.sh"), *(REPO / "refiner_ds").rglob("*.py")]
    sources = "\n".join(skeleton(path.read_text()) for path in paths)
    # how a rank ended, and why, are sentences of their own that the first words lead to
    first, _, rest = re.match(r"(rank \d+ of \d+ on node\d(?! could)|)( ?)(.*)", message).groups()
    how, _, why = rest.partition(" (by hand")
    for part in (first, how, f" (by hand{why}" if why else ""):
        assert skeleton(part) in sources, part
