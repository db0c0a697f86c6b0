"""The pages that a newcomer follows: commands parse, modules and paths exist, and no verb or file is left out."""

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import tyro

from refiner_ds.cli import VERBS, verb_in
from refiner_ds.verbs.quickstart import _steps

REPO = Path(__file__).parents[1]
PAGES = ["README.md", "ds_configs/README.md", "shards/README.md"]


def commands(page: str) -> list[list[str]]:
    """Every command of a page's bash blocks, continued lines joined, comments cut, words split as a shell does."""
    blocks = re.findall(r"```bash\n(.*?)```", (REPO / page).read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("words", [words for page in PAGES for words in commands(page)], ids=" ".join)
def test_every_command_is_one_that_exists(words):
    if words[0] == "bash":
        assert (REPO / words[1]).exists()
        return
    for launcher, flag in (("deepspeed", "--module"), ("torchrun", "-m"), ("accelerate", "-m"), ("python", "-m")):
        if words[0] == launcher:
            assert importlib.util.find_spec(words[words.index(flag) + 1])
            if "refiner_ds.train" in words:
                words = ["refiner-ds", "train", *words[words.index("refiner_ds.train") + 1 :]]
            elif "refiner_ds" in words:
                words = ["refiner-ds", *words[words.index("refiner_ds") + 1 :]]
    if words[0] == "refiner-ds":
        verb, arguments = verb_in(words[1:])
        options, _ = VERBS[verb]
        if arguments and arguments[-1] == "...":  # the page says that the flags shown before go on
            arguments = [*arguments[:-1], "--pretrained_model_name_or_path", "base", "--output_dir", "out"]
        tyro.cli(options, args=arguments, use_underscores=True)  # raises SystemExit for a flag that does not exist


def test_quickstart_types_commands_that_parse():
    for step in _steps(Path("out")):
        module, *arguments = step.command
        if module == "refiner_ds":
            tyro.cli(VERBS[arguments[0]][0], args=arguments[1:], use_underscores=True)
        else:
            flags = arguments[arguments.index("refiner_ds.train") + 1 :]
            options = tyro.cli(VERBS["train"][0], args=flags, use_underscores=True)
            assert options.deepspeed_config.exists()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = (REPO / page).parent
    for target in re.findall(r"\]\(([^)#]+)\)", (REPO / page).read_text()):
        assert "://" in target or (folder / target).exists(), target


def test_the_readme_tells_every_verb_and_every_folder():
    text = (REPO / "README.md").read_text()
    for verb in VERBS:
        assert re.search(rf"^\| `{verb}[` ]", text, flags=re.MULTILINE), verb
    layout = re.search(r"## Layout\n\n```\n(.*?)```", text, flags=re.DOTALL)[1]
    for folder in ("ds_configs", "launch", "shards", "refiner_ds", "tests"):
        assert re.search(rf"^{folder}/", layout, flags=re.MULTILINE) and (REPO / folder).is_dir()
    for name in re.findall(r"^  (\w+(?:\.py|/))", layout, flags=re.MULTILINE):
        assert (REPO / "refiner_ds" / name).exists(), name


@pytest.mark.parametrize("script", [*sorted(REPO.glob("launch/*.sh")), REPO / ".ci/run"], ids=lambda path: path.name)
def test_scripts_are_sound_shell(script):
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_no_page_or_source_names_a_machine_of_ours():
    tracked = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=True).stdout.split()
    homes = re.compile(r"(?<![\w.])/(?:work|root|home/\w+|opt)/")
    for name in tracked:
        if name.endswith((".py", ".md", ".sh", ".json", ".toml", "run")):
            assert not homes.search((REPO / name).read_text()), name
