"""What MLflow runs of a registered refiner, wherever it is loaded: the exported pipeline, without refiner_ds.

MLflow copies this file into the model and executes it there; so it imports nothing of this package.
"""

import io
from typing import Any

import mlflow
import pandas as pd
import torch
from diffusers import DiffusionPipeline
from PIL import Image


class ServedRefiner(mlflow.pyfunc.PythonModel):
    """Takes rows of `render` and `cond`, picture files as bytes and of one size each; gives `repaired`, PNG files."""

    def load_context(self, context: Any) -> None:
        """Loads the pipeline, in fp16 onto a GPU where there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.float16 if device == "cuda" else torch.float32
        folder = context.artifacts["refiner"]
        self._pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, torch_dtype=dtype).to(device)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Repairs each row by itself, from noise of the seed; zero sampling steps are the refiner's own number."""
        given = params or {}
        steps = {"num_inference_steps": given["num_inference_steps"]} if given.get("num_inference_steps") else {}
        repaired = []
        for render, cond in zip(model_input["render"], model_input["cond"], strict=True):
            pictures = [Image.open(io.BytesIO(file)).convert("RGB") for file in (render, cond)]
            noise = torch.Generator().manual_seed(int(given.get("seed", 0)))
            picture = self._pipeline(*pictures, generator=noise, **steps).images[0]
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            repaired.append(buffer.getvalue())
        return pd.DataFrame({"repaired": repaired})


mlflow.models.set_model(ServedRefiner())
