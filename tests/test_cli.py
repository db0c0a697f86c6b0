"""The command line: help at once, promised flags in the guide's spelling, one sentence for a verb that is not there."""

import re
import resource

import pytest

from refiner_ds import __version__
from refiner_ds.cli import VERBS, main

PROMISED = {
    "example": ["--frames", "--streets", "--shapes", "--baseline", "--seed"],
    "base": ["--size"],
    "pack": [
        *("--val", "--workers", "--shard_size", "--add", "--split", "--scene_pattern", "--order", "--seed"),
        "--on_error",
    ],
    "verify": ["--workers"],
    "index": ["--val", "--split", "--scene_pattern", "--seed", "--on_error", "--workers"],
    "train": [
        *("--shards", "--pretrained_model_name_or_path", "--output_dir", "--deepspeed_config"),
        *("--train_batch_size", "--gradient_accumulation_steps", "--num_train_epochs", "--max_train_steps"),
        *("--mixed_precision", "--checkpointing_steps", "--checkpoints_total_limit", "--resume_from_checkpoint"),
        *("--validation_epochs", "--learning_rate", "--scale_lr", "--lr_scheduler", "--lr_warmup_steps", "--seed"),
        *("--tracking_uri", "--source_loss_weight"),
    ],
    "status": ["--json"],
    "tracking sync": ["--tracking_uri", "--experiment"],
    "tracking register": ["--name", "--run", "--tracking_uri"],
    "checkpoints": ["--verify", "--json"],
    "encode": ["--pretrained_model_name_or_path", "--buckets", "--crops", "--windows", "--flips", "--dtype"],
    "export": [],
    "import-legacy": ["--pretrained_model_name_or_path", "--revision", "--variant"],
    "repair": ["--model", "--render", "--cond", "--manifest", "--output", "--seed"],
    "evaluate": ["--model", "--manifest", "--shards", "--output"],
    "replay": ["--checkpoint", "--device", "--precision", "--json", "--pretrained_model_name_or_path"],
    "bench step": [
        *("--device", "--size", "--resolution", "--train_batch_size", "--gradient_accumulation_steps", "--precision"),
        *("--shards", "--buckets", "--dataloader_num_workers", "--compile", "--rounds", "--json", "--markdown"),
    ],
    "bench exchange": [
        "--reduce_bucket_size",
        "--link",
        "--gradient_accumulation_steps",
        "--precision",
        "--steps",
        "--rounds",
        "--json",
    ],
    "bench encode": [
        *("--device", "--size", "--resolution", "--train_batch_size", "--precision", "--rounds", "--json"),
        "--markdown",
    ],
    "bench repair": [
        *("--device", "--size", "--resolution", "--batch_size", "--steps", "--precision", "--rounds", "--json"),
        "--markdown",
    ],
    "bench crops": ["--shards", "--pretrained_model_name_or_path", "--buckets", "--windows", "--samples", "--json"],
    "bench all": ["--output", "--only", "--rounds", "--device"],
    "bench checkpoint": ["--parameters", "--rounds", "--json", "--markdown", "--output"],
    "bench data": [
        *("--json", "--markdown", "--output", "--manifest", "--samples", "--rounds", "--workers", "--peers_python"),
        "--only",
    ],
    "doctor": [
        *("--hostfile", "--shards", "--pretrained_model_name_or_path", "--output_dir", "--tracking_uri", "--json"),
        *("--master_port", "--deepspeed_config", "--train_batch_size", "--gradient_accumulation_steps"),
    ],
    "plan": [
        *("--pretrained_model_name_or_path", "--size", "--ranks", "--gpu_memory", "--deepspeed_config", "--buckets"),
        *("--train_batch_size", "--gradient_accumulation_steps", "--max_train_steps", "--use_ema", "--lora_rank"),
        *("--gradient_checkpointing", "--checkpointed_blocks", "--shards", "--checkpoints_total_limit", "--json"),
        *("--pairs_per_second", "--rate_from"),
    ],
    "quickstart": [],
}
"""The flags that DESIGN.md and the guide promise, by verb."""


def help_of(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*verb.split(), "--help"])
    assert caught.value.code == 0
    output = capsys.readouterr()
    assert output.err == ""
    return re.sub(r"\x1b\[[0-9;]*m", "", output.out)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["evaluate", "--help"], ["doctor", "--help"], ["plan", "--help"]],
    ids=" ".join,
)
def test_help_takes_less_than_a_second(refiner_ds_command, arguments):
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = refiner_ds_command(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # of a processor: what else runs meanwhile does not count
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert (done.returncode, done.stderr) == (0, "") and "usage: refiner-ds" in done.stdout
    assert min(seconds) < 1


def test_every_verb_is_promised_and_the_overview_names_each_with_what_it_does(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert PROMISED.keys() == VERBS.keys()
    for verb in VERBS:
        (line,) = (line for line in lines if line.startswith(f"  {verb} "))
        assert len(line.split(maxsplit=1)[1]) > 15


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_help_lists_what_is_promised_in_snake_case(verb, capsys):
    text = help_of(verb, capsys)
    flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) - {"--help"}
    assert set(PROMISED[verb]) <= flags
    assert not [flag for flag in flags if "-" in flag.removeprefix("--")]
    described = re.findall(r"^[│| ]{1,2}(?:-h, )?(--\w+)", text, re.MULTILINE)
    negations = {flag for flag in flags if flag.startswith("--no_")}
    assert sorted(set(described) - {"--help"}) == sorted(flags - negations), "each flag has its line"


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        *(
            ("pack", "MANIFEST OUT"),
            ("verify", "SHARDS"),
            ("index", "FOLDER"),
            ("encode", "SHARDS OUT"),
            ("export", "CHECKPOINT OUT"),
        ),
        *(("import-legacy", "LEGACY OUT"), ("example", "OUT"), ("base", "OUT")),
        ("status", "RUN"),
        ("tracking sync", "RUN"),
        ("tracking register", "MODEL"),
        ("checkpoints", "RUN"),
        ("replay", "EVENT"),
    ],
)
def test_help_calls_positional_arguments_by_what_they_are(verb, names, capsys):
    usage = help_of(verb, capsys).splitlines()[0]
    assert f"{names} " in f"{usage} " and "PATH" not in usage.split(" [--")[0]


@pytest.mark.parametrize("spelling", ["--shard_size", "--shard-size"])
def test_flags_are_understood_with_underscores_and_with_hyphens(dataset, tmp_path, capsys, spelling):
    manifest = dataset(tmp_path, [(64, 48)] * 2)
    assert main(["pack", str(manifest), str(tmp_path / "out"), "--val", "1", spelling, "0"]) == 2
    assert "--shard_size 0 and --workers 2 must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 1])
def test_what_the_deepspeed_launcher_adds_is_no_flag_of_a_verb(tmp_path, capsys, place):
    arguments = ["verify", str(tmp_path)]
    arguments.insert(place, "--local_rank=1")
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"refiner-ds verify: shards {tmp_path} has no readable index.json")


@pytest.mark.parametrize("verb", ["pakc", "Train", "--val", "bench"])
def test_a_verb_that_is_not_there_gets_one_sentence_and_the_list(verb, capsys):
    assert main([verb]) == 2
    output = capsys.readouterr()
    assert output.out == "" and len(output.err.splitlines()) == 1
    assert output.err == f"refiner-ds: there is no verb '{verb}'; there are {', '.join(VERBS)}.\n"


def test_no_verb_at_all_shows_the_overview_and_is_no_success(capsys):
    assert main([]) == 2
    assert "usage: refiner-ds VERB" in capsys.readouterr().out


def test_the_version_is_told(capsys, refiner_ds_command):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"refiner-ds {__version__}\n"
    assert refiner_ds_command("--version").stdout == f"refiner-ds {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pack"], "MANIFEST, OUT are missing; see `refiner-ds pack --help`."),
        (["base"], "OUT is missing; see `refiner-ds base --help`."),
        (
            ["base", "o", "--size", "x"],
            "invalid choice 'x' for argument '--size'. Expected one of ('tiny', 'full'); see",
        ),
        (["train", "--shards"], "Missing value for argument '--shards'"),
    ],
)
@pytest.mark.parametrize("columns", ["60", "200"])
def test_arguments_that_do_not_parse_are_told_in_one_line(arguments, sentence, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"refiner-ds {arguments[0]}: {sentence}") and told.count("\n") == 1
