"""README.md of an export: a model card as the Hugging Face hub reads it, of nothing but what is known."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CARD = "README.md"
SD_2_1 = re.compile(r"stable-diffusion-2-1")
LICENSE_OF_SD_2_1 = "openrail++"
"""CreativeML Open RAIL++-M, as the bases of Stable Diffusion 2.1 have it."""
METRICS = {"psnr": ("PSNR, dB", 2), "ssim": ("SSIM", 4), "lpips": ("LPIPS", 4), "dino": ("DINO", 4)}
TAGS = ("gaussian-splatting", "novel-view-synthesis", "image-restoration", "refiner_ds")


def write_card(folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Writes the card of an export beside it.

    Args:
        name: what the refiner is called.
        facts: as export.json has them.
    """
    parts = [_front_matter(name, facts), _purpose(name), _usage(name, facts), _training(facts)]
    parts += [_figures(facts), LIMITS, _licence(facts)]
    (folder / CARD).write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _front_matter(name: str, facts: Mapping[str, Any]) -> str:
    """YAML, of which JSON is a part."""
    front: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "image-to-image", "tags": [*TAGS]}
    base = _base(facts)
    if base and not Path(base).is_absolute():
        front["base_model"] = base
    front["license"] = license_of(base)
    if front["license"] == "other":
        front["license_name"] = "that of the base"
    if found := [(metric, facts["figures"][f"val/{metric}"]) for metric in METRICS if _has(facts, metric)]:
        front["model-index"] = [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "image-to-image"},
                        "dataset": {"name": "held-out split of the training shards", "type": "custom"},
                        "metrics": [{"type": metric, "value": value} for metric, value in found],
                    }
                ],
            }
        ]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()]
    return "\n".join(["---", *lines, "---"])


def license_of(base: str | None) -> str:
    """The licence of weights that were trained from a base, by the hub's names; "other" where it is not known here."""
    return LICENSE_OF_SD_2_1 if base and SD_2_1.search(base) else "other"


def _base(facts: Mapping[str, Any]) -> str | None:
    return facts.get("base", {}).get("base")


def _has(facts: Mapping[str, Any], metric: str) -> bool:
    return f"val/{metric}" in facts.get("figures", {})


def _purpose(name: str) -> str:
    return (
        f"# {name}\n\n"
        "Repairs degraded renders of 3D Gaussian Splatting scenes (holes, needles, blur, as they come where the camera "
        "leaves the recorded path) with the help of a real photograph from a nearby view. It is a latent diffusion "
        "model after GaussianRefiner: the render joins the input channels of the UNet of Stable Diffusion 2.1 unCLIP, "
        "and the photograph enters by mutual attention. It was trained with refiner_ds."
    )


def _usage(name: str, facts: Mapping[str, Any]) -> str:
    command = f"refiner-ds repair --model {name} --render render.png --cond reference.png --output repaired.png"
    shell = f"```bash\n{command}\n```"
    if facts.get("lora") == "adapter":
        return (
            "## Use\n\nThis folder holds low-rank updates and the weights of conv_in, without the base that "
            f"`export.json` names; refiner_ds merges them:\n\n{shell}"
        )
    return (
        "## Use\n\nWith diffusers and transformers alone, as the folder carries the pipeline's code. Render and "
        "photograph are of one size.\n\n```python\nfrom diffusers import DiffusionPipeline\nfrom PIL import Image\n\n"
        f'refiner = DiffusionPipeline.from_pretrained("{name}", trust_remote_code=True)  # .to("cuda") on a GPU\n'
        'render, reference = Image.open("render.png"), Image.open("reference.png")\n'
        'refiner(render, reference).images[0].save("repaired.png")\n```\n\nOr with refiner_ds:\n\n' + shell
    )


def _training(facts: Mapping[str, Any]) -> str:
    rows = [(name, value) for name, value in _facts_of_training(facts) if value is not None]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _facts_of_training(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    adaptation, told = facts.get("adaptation", {}), facts.get("training", {})
    yield "base", _base(facts)
    yield "trained layers", adaptation.get("trainable")
    yield "rank of low-rank updates", adaptation.get("lora_rank")
    yield "optimizer steps", facts.get("step")
    yield "pairs seen", facts.get("images_seen")
    yield "global batch size", told.get("global_batch_size")
    yield "learning rate", told.get("learning_rate")
    yield "weights", {"ema": "moving average", "trained": "as trained"}.get(facts.get("weights", ""))
    yield "precision of the files", facts.get("dtype")
    yield "buckets (key:width x height)", told.get("buckets")
    yield "data", f"shards of digest {told['shards_digest']}" if "shards_digest" in told else None
    yield "seed", told.get("seed")
    yield "imported from", facts.get("imported_from")


def _figures(facts: Mapping[str, Any]) -> str:
    """The last validation's, beside those of the renders."""
    rows = []
    for metric, (name, digits) in METRICS.items():
        if _has(facts, metric):
            after, before = (facts["figures"].get(f"val/{kind}{metric}") for kind in ("", "render_"))
            rows.append(f"| {name} | {'' if before is None else f'{before:.{digits}f}'} | {after:.{digits}f} |")
    if not rows:
        return ""
    head = ["## Figures", "", "On the held-out split, against the photograph.", ""]
    return "\n".join([*head, "| | render | repaired |", "|---|---|---|", *rows])


LIMITS = (
    "## Limits\n\n"
    "- It invents what neither render nor photograph shows. What it paints into a hole is plausible, and no "
    "measurement: do not take distances, signs or number plates from it.\n"
    "- It knows scenes like those that it was trained on; for other cameras, cities or weather evaluate it first "
    "(`refiner-ds evaluate` tells how many pictures got worse, and whether it harms what was right).\n"
    "- Pictures are repaired one by one: successive frames of a video may differ in detail.\n"
    "- It needs a photograph from a nearby view, and renders of the kind that it was trained on."
)


def _licence(facts: Mapping[str, Any]) -> str:
    if license_of(_base(facts)) == LICENSE_OF_SD_2_1:
        return (
            "## Licence\n\nThe weights were made from Stable Diffusion 2.1 and are under its licence, CreativeML Open "
            "RAIL++-M, with its restrictions of use."
        )
    return "## Licence\n\nThe weights were made from the base named above, whose licence holds for them too."
