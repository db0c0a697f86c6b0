"""The export as others use it: through diffusers alone, with the code that lies in it."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refiner_ds.errors import UserError
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip import portable
from refiner_ds.refiners.unclip.options import Adaptation
from refiner_ds.refiners.unclip.portable.unclip_refiner_pipeline import SOURCES, UnclipRefinerPipeline
from refiner_ds.refiners.unclip.refiner import UnclipRefiner

ALONE = """
import sys
sys.modules["refiner_ds"] = None  # as if it were not installed
import numpy, torch
from PIL import Image
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
render, reference = (Image.open(path) for path in sys.argv[2:4])
generator = torch.Generator().manual_seed(int(sys.argv[4]))
picture = pipeline(render, reference, num_inference_steps=3, guidance_scale=2.0, generator=generator).images[0]
picture.save(sys.argv[5])
pipeline.to(torch.bfloat16)
assert pipeline(render, reference).images[0].size == render.size
pipeline.save_pretrained(sys.argv[6])
assert not any(name.startswith("refiner_ds.") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def export(refiner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "refiner"
    refiner.save(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(export):
    refiner = UnclipRefiner(str(export))
    refiner.place(torch.device("cpu"), torch.float32, whole=True)
    return refiner._pipeline


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (45, 70, 3), dtype=np.uint8)) for _ in range(4)]


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def _array(pictures):
    return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


def test_diffusers_loads_the_export_without_refiner_ds_and_repairs_the_same_picture(
    export, pipeline, pictures, tmp_path
):
    paths = [tmp_path / name for name in ("render.png", "reference.png", "repaired.png")]
    for picture, path in zip(pictures, paths[:2], strict=False):
        picture.save(path)
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    command = [sys.executable, script, export, *paths[:2], "7", paths[2], tmp_path / "again"]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ours = pipeline(
        pictures[0], pictures[1], num_inference_steps=3, guidance_scale=2.0, generator=_generator(7)
    ).images[0]
    assert np.array_equal(np.asarray(Image.open(paths[2])), np.asarray(ours))
    for name in SOURCES:  # a folder that was saved again is whole as well
        assert (tmp_path / "again" / name).read_bytes() == (export / name).read_bytes()
    for folder in (export, tmp_path / "again"):
        index = json.loads((folder / "model_index.json").read_text())
        assert index["_class_name"] == ["unclip_refiner_pipeline", "UnclipRefinerPipeline"]


def test_the_code_in_an_export_needs_nothing_of_ours_and_names_all_its_files():
    folder = Path(portable.__file__).parent
    sources = {path.name: path.read_text() for path in folder.glob("*.py")}
    assert {*SOURCES, "__init__.py"} == set(sources)
    assert not any("import refiner_ds" in source or "from refiner_ds" in source for source in sources.values())
    main = sources[SOURCES[0]]  # diffusers copies what this one imports, and no further
    assert all(f"from .{name.removesuffix('.py')} import" in main for name in SOURCES[1:])
    assert set(re.findall(r"^from \.(\w+) import", "".join(sources.values()), re.MULTILINE)) <= {
        name.removesuffix(".py") for name in SOURCES
    }


def test_a_batch_with_its_own_generators_gives_each_picture_as_alone(pipeline, pictures):
    generators = [_generator(1), _generator(2)]
    both = pipeline(pictures[:2], pictures[2:], num_inference_steps=2, generator=generators).images
    alone = pipeline(pictures[1], pictures[3], num_inference_steps=2, generator=_generator(2)).images
    assert np.abs(_array(both[1:]) - _array(alone)).max() <= 1
    values = pipeline(pictures[:2], pictures[2:], num_inference_steps=2, generator=generators, output_type="np").images
    assert values.shape == (2, 45, 70, 3) and values.min() >= 0 and values.max() <= 1


def test_a_second_reference_is_seen(pipeline, pictures):
    render, first, second = pictures[:3]
    seen = [
        _array(pipeline(render, references, num_inference_steps=2, generator=_generator(1)).images)
        for references in (first, [first, first], [first, second])
    ]
    assert not np.array_equal(seen[0], seen[2]) and not np.array_equal(seen[1], seen[2])


@pytest.mark.parametrize("tile_size", [None, 32])
def test_a_batch_with_several_references_gives_each_picture_as_alone(pipeline, pictures, tile_size):
    a, b, c, d = pictures
    options = {"num_inference_steps": 2, "guidance_scale": 3.0, "tile_size": tile_size}
    options["unguided"] = ("embedding", "render", "reference")
    both = pipeline([a, b], [[b, c], [c, d]], generator=[_generator(1), _generator(2)], **options).images
    for render, references, seed, found in ((a, [b, c], 1, both[0]), (b, [c, d], 2, both[1])):
        alone = pipeline(render, references, generator=_generator(seed), **options).images
        assert np.abs(_array(alone) - _array([found])).max() <= 1


def test_memory_savers_of_diffusers_leave_mutual_attention_at_work(export, pictures):
    refiner = UnclipRefiner(str(export))
    refiner.place(torch.device("cpu"), torch.float32, whole=True)
    pipeline, options = refiner._pipeline, {"num_inference_steps": 2, "guidance_scale": 3.0}
    usual = _array(pipeline(*pictures[:2], generator=_generator(1), **options).images)
    for switch in (pipeline.enable_attention_slicing, pipeline.disable_attention_slicing):
        switch()
        found = _array(pipeline(*pictures[:2], generator=_generator(1), **options).images)
        assert np.abs(found - usual).max() <= 1


def test_a_part_that_is_swapped_is_used(export, pictures):
    refiner = UnclipRefiner(str(export))
    refiner.place(torch.device("cpu"), torch.float32, whole=True)
    pipeline = refiner._pipeline
    usual = _array(pipeline(*pictures[:2], generator=_generator(1)).images)
    pipeline.vae = copy.deepcopy(pipeline.vae)
    for parameter in pipeline.vae.decoder.parameters():
        parameter.data.zero_()
    assert _array(pipeline(*pictures[:2], generator=_generator(1)).images).std() == 0 < usual.std()


def test_latents_are_never_clipped_and_a_schedule_without_signal_keeps_it_so(tiny_base, tmp_path):
    refiner = UnclipRefiner(str(tiny_base), adaptation=Adaptation(zero_terminal_snr=True))
    scheduler = refiner._pipeline.scheduler
    assert scheduler.config.clip_sample is False and scheduler.config.thresholding is False
    with pytest.raises(UserError, match=r"take one of") as told:
        refiner.use_scheduler("PNDMScheduler")
    for name in str(told.value).rpartition("take one of ")[2].rstrip(".").split(", "):
        refiner.use_scheduler(name)
        assert refiner._pipeline.scheduler.alphas_cumprod[-1] < 1e-6, name
        assert not refiner._pipeline.scheduler.config.get("clip_sample")


def test_numbers_that_are_not_finite_are_no_picture(export, pictures):
    refiner = UnclipRefiner(str(export))
    refiner.place(torch.device("cpu"), torch.float32, whole=True)
    refiner.network.conv_out.weight.data *= 1e38
    with pytest.raises(ValueError, match=r"not finite, in torch.float32, so there is no picture"):
        refiner._pipeline(*pictures[:2], num_inference_steps=2)


def test_the_scheduler_is_swapped_by_name_and_prompts_and_guidance_matter(export, pictures):
    refiner = UnclipRefiner(str(export))
    refiner.place(torch.device("cpu"), torch.float32, whole=True)
    pipeline = refiner._pipeline
    render, reference = pictures[:2]

    def repaired(**options):
        options = {"num_inference_steps": 4, "guidance_scale": 3.0, **options}
        return _array(pipeline(render, reference, generator=_generator(1), **options).images)

    usual = repaired()
    for options in (
        {"prompt": "a street"},
        {"negative_prompt": "blur"},
        {"unguided": ()},
        {"unguided": ("embedding", "render")},
        {"unguided": ("embedding", "reference")},
    ):
        assert not np.array_equal(usual, repaired(**options)), options
    assert np.array_equal(repaired(guidance_scale=1.0), repaired(guidance_scale=1.0, negative_prompt="blur"))
    prediction = pipeline.scheduler.config.prediction_type
    refiner.use_scheduler("DDIMScheduler")
    assert (
        type(pipeline.scheduler).__name__ == "DDIMScheduler" and pipeline.scheduler.config.prediction_type == prediction
    )
    assert not np.array_equal(usual, repaired())
    with pytest.raises(UserError, match=r"--scheduler Foo cannot take the place of DDIMScheduler; take one of .*Euler"):
        refiner.use_scheduler("Foo")


def test_every_sampler_that_is_offered_gives_one_picture_for_one_seed(export, pictures):
    refiner = UnclipRefiner(str(export))
    refiner.place(torch.device("cpu"), torch.float32, whole=True)
    with pytest.raises(UserError) as told:
        refiner.use_scheduler("Foo")
    names = str(told.value).rpartition("take one of ")[2].rstrip(".").split(", ")
    assert len(names) > 8 and "EulerAncestralDiscreteScheduler" in names
    for name in names:
        refiner.use_scheduler(name)
        first, again = (
            refiner._pipeline(*pictures[:2], num_inference_steps=3, generator=_generator(5)).images for _ in range(2)
        )
        assert np.array_equal(_array(first), _array(again)), name


def test_the_progress_bar_can_be_had(pipeline, pictures, capfd):
    pipeline.set_progress_bar_config(disable=False)
    try:
        pipeline(pictures[0], pictures[1], num_inference_steps=2)
    finally:
        pipeline.set_progress_bar_config(disable=True)
    assert "3/3" in capfd.readouterr().err  # PNDM runs its second step twice


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (([0], [1, 2]), {}, "1 renders came with references for 2 .*give as many"),
        ((0, []), {}, "every render needs the same number"),
        (([0, 1], [[2], [2, 3]]), {}, "every render needs the same number"),
        ((0, "small"), {}, "differ in size \\(20x20, 70x45\\)"),
        (([0, "small"], [1, 2]), {}, "differ in size"),
        ((0, 1), {"num_inference_steps": 0}, "0 sampling steps repair nothing"),
        ((0, 1), {"num_inference_steps": 1001}, "1001 sampling steps .*1 to 1000"),
        ((0, 1), {"guidance_scale": 0.5}, "guidance 0.5 leads away"),
        ((0, 1), {"guidance_scale": float("inf")}, "guidance inf leads"),
        ((0, 1), {"tile_size": 30}, "tiles of 30 pixels .*take a multiple of 4 from 32 on"),
        ((0, 1), {"unguided": ("text",)}, "unguided text is no condition"),
    ],
)
def test_what_does_not_fit_together_is_told_in_one_sentence(pipeline, pictures, arguments, options, words):
    def picture(choice):
        if isinstance(choice, list):
            return [picture(one) for one in choice]
        return Image.new("RGB", (20, 20)) if choice == "small" else pictures[choice]

    with pytest.raises(ValueError, match=words):
        pipeline(*map(picture, arguments), **options)


def test_an_index_is_not_pushed_without_the_code_that_it_names(pipeline, tmp_path):
    with pytest.raises(ValueError, match=r"push with save_pretrained instead"):
        pipeline.save_config(tmp_path, push_to_hub=True)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_a_later_format_is_refused(pipeline):
    parts = {name: part for name, part in pipeline.components.items() if not isinstance(part, (int, float))}
    with pytest.raises(ValueError, match="format 2 and this code knows formats up to 1; upgrade"):
        UnclipRefinerPipeline(**parts, refiner_format=2)


def test_how_a_refiner_is_sampled_travels_with_it(tiny_base, tmp_path):
    refiner = UnclipRefiner(str(tiny_base))
    assert refiner.sampling() == Sampling(1, 1.0)
    refiner.save(tmp_path / "out")
    assert UnclipRefiner(str(tmp_path / "out")).sampling() == Sampling(1, 1.0)
