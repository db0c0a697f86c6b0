"""Flags that a verb does not have: one sentence with the nearest, or with what to use instead; its own all pass."""

import re

import pytest
import tyro

from refiner_ds.cli import VERBS, main
from refiner_ds.config.known import flags_of, require_known_flags
from refiner_ds.config.refused import REFUSED
from refiner_ds.config.training import Train
from refiner_ds.errors import UserError


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_of_a_verb_passes_in_all_spellings(verb, capsys):
    options, _ = VERBS[verb]
    flags = flags_of(options)
    for name in flags:
        for spelling in (name, name.replace("_", "-")):
            require_known_flags(verb, options, [f"--{spelling}", "-1e-3", f"--{spelling}=--x", "--", "-h", "--help"])
    with pytest.raises(SystemExit):
        tyro.cli(options, args=["--help"], use_underscores=True)
    assert set(re.findall(r"(?<![\w-])--(\w+)", capsys.readouterr().out)) == flags | {"help"}


@pytest.mark.parametrize("verb", VERBS)
def test_a_mistyped_flag_names_the_nearest(verb):
    options, _ = VERBS[verb]
    for name in flags_of(options):
        if len(name) > 4:
            wrong = name[:-1] + "qz"
            with pytest.raises(
                UserError, match=rf"^--{wrong} is no flag of {verb}; did you mean --\w+\? All are told by"
            ):
                require_known_flags(verb, options, [f"--{wrong}=1"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--learning-rat", "1"], "--learning-rat is no flag of train; did you mean --learning_rate? All are"),
        (
            ["pack", "m", "o", "--vall", "1"],
            "--vall is no flag of pack; did you mean --val? All are told by `refiner-ds",
        ),
        (["train", "-learning_rate", "1"], "-learning_rate is no flag of train; did you mean --learning_rate? All are"),
        (["verify", "s", "--xyzzy"], "--xyzzy is no flag of verify; all are told by `refiner-ds verify --help`."),
        (["repair", "--report_to", "x"], "--report_to is no flag of repair; "),
        (["train", "--report_to=wandb"], "--report_to is not carried: metrics go to MLflow, see --tracking_uri."),
    ],
)
def test_it_is_one_line_and_exit_code_2(arguments, sentence, capsys):
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert output.err.startswith(f"refiner-ds {arguments[0]}: {sentence}")


@pytest.mark.parametrize("name", REFUSED)
def test_flags_of_other_scripts_are_refused_by_name_with_what_to_use_instead(name):
    assert name not in flags_of(Train)
    for spelling in (name, name.replace("_", "-")):
        with pytest.raises(UserError) as caught:
            require_known_flags("train", Train, [f"--{spelling}", "x"])
        assert str(caught.value) == f"--{spelling} is not carried: {REFUSED[name]}."


def test_what_is_told_to_use_instead_exists():
    for sentence in set(REFUSED.values()):
        assert set(re.findall(r"--(\w+)", sentence)) <= flags_of(Train) | flags_of(VERBS["pack"][0]), sentence
        assert set(re.findall(r"`refiner-ds ([\w-]+)", sentence)) <= VERBS.keys(), sentence
