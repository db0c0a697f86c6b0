"""The refiner written a second time, as plainly as possible: what the parity tests hold the product to.

Shares no code with refiner_ds: stock diffusers parts, explicit loops over pairs, attention as separate softmaxes, and
the arithmetic of both schedules written out.
"""

import json
import math
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection


def cumulative_alphas():
    """scaled_linear from 0.00085 to 0.012 over 1000 steps, in double precision."""
    alphas, product = [], 1.0
    for i in range(1000):
        beta = (math.sqrt(0.00085) + (math.sqrt(0.012) - math.sqrt(0.00085)) * i / 999) ** 2
        product *= 1 - beta
        alphas.append(product)
    return alphas


def level_zero():
    """Cumulative alpha of level 0 of squaredcos_cap_v2 (Nichol and Dhariwal 2021, eq. 17)."""

    def bar(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    return 1 - min(1 - bar(1 / 1000) / bar(0), 0.999)


class PlainPairs:
    """Self-attention over rows (source, target, source, target, ...), one pair and one head at a time."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        out = []
        for first in range(0, len(hidden_states), 2):
            source, target = hidden_states[first], hidden_states[first + 1]
            out.append(self._attend(attn, source, [source]))
            out.append(self._attend(attn, target, [target, source]))
        return torch.stack(out)

    def _attend(self, attn, queries, token_rows):
        q = attn.to_q(queries)
        k = torch.cat([attn.to_k(row) for row in token_rows])
        v = torch.cat([attn.to_v(row) for row in token_rows])
        size = q.shape[1] // attn.heads
        heads = []
        for h in range(attn.heads):
            part = slice(h * size, (h + 1) * size)
            heads.append(torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), dim=1) @ v[:, part])
        return attn.to_out[0](torch.cat(heads, dim=1))


class Plain:
    """Stock parts of a base folder, with the UNet's weights taken from `network` once it was perturbed."""

    def __init__(self, base: Path, network: torch.nn.Module):
        self.vae = AutoencoderKL.from_pretrained(base, subfolder="vae").eval()
        self.text_encoder = CLIPTextModel.from_pretrained(base, subfolder="text_encoder").eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")
        config = dict(UNet2DConditionModel.load_config(base, subfolder="unet"))
        self.unet = UNet2DConditionModel.from_config({**config, "in_channels": 8}).eval()
        self.unet.load_state_dict(network.state_dict())
        for name, module in self.unet.named_modules():
            if name.endswith("attn1"):
                module.set_processor(PlainPairs())
        self.image_encoder = CLIPVisionModelWithProjection.from_pretrained(base, subfolder="image_encoder").eval()
        self.image_settings = json.loads((base / "feature_extractor" / "preprocessor_config.json").read_text())
        statistics = load_file(base / "image_normalizer" / "diffusion_pytorch_model.safetensors")
        self.mean, self.std = statistics["mean"][0], statistics["std"][0]
        self.prediction = json.loads((base / "scheduler" / "scheduler_config.json").read_text())["prediction_type"]
        self.alphas = cumulative_alphas()

    @torch.no_grad()
    def latent(self, picture):
        """(3, H, W) uint8 to (4, h, w)."""
        unit = picture.float()[None] / 127.5 - 1
        return self.vae.encode(unit).latent_dist.mode()[0] * self.vae.config.scaling_factor

    @torch.no_grad()
    def text(self, prompt):
        tokens = self.tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
        return self.text_encoder(tokens).last_hidden_state

    @torch.no_grad()
    def embedding(self, picture):
        """(3, H, W) uint8, cut square from the middle; resized by torch as the product does, the rest by hand."""
        size = self.image_encoder.config.image_size
        short = min(picture.shape[1:])
        shape = [round(side * size / short) for side in picture.shape[1:]]
        resized = torch.nn.functional.interpolate(picture[None].float(), shape, mode="bicubic", antialias=True)[0]
        top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
        square = resized.round().clamp(0, 255)[:, top : top + size, left : left + size]
        for channel in range(3):
            mean, std = self.image_settings["image_mean"][channel], self.image_settings["image_std"][channel]
            square[channel] = (square[channel] / 255 - mean) / std
        return self.image_encoder(square[None]).image_embeds[0]

    def class_vector(self, embedding, noise):
        """Normalised, noised, put back; then the sinusoids of level 0, all ones before all zeros."""
        a = level_zero()
        half = len(embedding) // 2
        noised = math.sqrt(a) * (embedding - self.mean) / self.std + math.sqrt(1 - a) * noise
        return torch.cat([noised * self.std + self.mean, torch.ones(half), torch.zeros(half)])

    def micro_step(self, render, gt, cond, draws):
        """Every intermediate of one micro-step, by name, from the product's draws."""
        seen = {"noisy": [], "target": [], "class": [], "latents": []}
        rows, times = [], []
        for i in range(len(gt)):
            keep_render, keep_embedding, keep_reference = draws.keep[i].tolist()
            latents = {"cond": self.latent(cond[i]), "render": self.latent(render[i]), "gt": self.latent(gt[i])}
            vector = self.class_vector(self.embedding(cond[i]), draws.embedding_noise[i]) * keep_embedding
            for row, clean in enumerate((latents["cond"] * keep_reference, latents["gt"])):
                t = int(draws.timesteps[2 * i + row])
                noise = draws.noise[2 * i + row]
                signal, spread = math.sqrt(self.alphas[t]), math.sqrt(1 - self.alphas[t])
                noisy = signal * clean + spread * noise
                seen["noisy"].append(noisy)
                seen["target"].append(signal * noise - spread * clean if self.prediction == "v_prediction" else noise)
                seen["class"].append(vector)
                rows.append(torch.cat([noisy, latents["render"] * keep_render]))
                times.append(t)
            seen["latents"].append(latents)
        out = self.unet(
            torch.stack(rows),
            torch.tensor(times),
            self.text("").repeat(len(rows), 1, 1),
            class_labels=torch.stack(seen["class"]),
        ).sample
        errors = [(out[i] - seen["target"][i]).pow(2).mean() for i in range(len(rows))]
        seen["loss"] = sum(errors) / len(errors)
        seen["loss_source"] = sum(errors[0::2]) / len(gt)
        seen["loss_target"] = sum(errors[1::2]) / len(gt)
        return seen

    @torch.no_grad()
    def sample(self, render, cond, embedding_noise, start, steps, guidance, prompts):
        """The pseudo linear multistep loop (Liu et al. 2022, eq. 12) on one pair; (4, h, w) of the target."""
        source, fixed, target = self.latent(cond), self.latent(render), start
        vector = self.class_vector(self.embedding(cond), embedding_noise)
        stride = 1000 // steps
        grid = [1 + stride * i for i in range(steps)]
        times = [*reversed(grid[-1:]), grid[-2], *reversed(grid[:-1])]
        history, kept = [], None
        for call, t in enumerate(times):
            predicted = []
            for prompt, label in zip(prompts, (torch.zeros_like(vector), vector), strict=True):
                rows = torch.stack([torch.cat([source, fixed]), torch.cat([target, fixed])])
                text = self.text(prompt).repeat(2, 1, 1)
                labels = torch.stack([label, label])
                predicted.append(self.unet(rows, torch.tensor([0, t]), text, class_labels=labels).sample[1])
            bad, good = predicted
            output = bad + guidance * (good - bad)
            before, after = t, t - stride
            if call == 1:
                before, after = t + stride, t
            else:
                history = [*history[-3:], output]
            if call == 0:
                kept = target
            elif call == 1:
                output, target = (output + history[-1]) / 2, kept
            elif len(history) == 2:
                output = (3 * history[-1] - history[-2]) / 2
            elif len(history) == 3:
                output = (23 * history[-1] - 16 * history[-2] + 5 * history[-3]) / 12
            else:
                output = (55 * history[-1] - 59 * history[-2] + 37 * history[-3] - 9 * history[-4]) / 24
            a, b = self.alphas[before], self.alphas[after] if after >= 0 else self.alphas[0]
            if self.prediction == "v_prediction":
                output = math.sqrt(a) * output + math.sqrt(1 - a) * target
            scale = a * math.sqrt(1 - b) + math.sqrt(a * (1 - a) * b)
            target = math.sqrt(b / a) * target - (b - a) * output / scale
        return target
