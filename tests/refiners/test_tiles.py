"""Overlapping tiles: they cover everything, blend to what was there, and leave no seam in a repaired picture."""

import itertools

import pytest
import torch

from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.portable.guided_sampling import Conditions, sample
from refiner_ds.refiners.unclip.portable.overlapping_tiles import OVERLAP, Tiles

CPU = torch.device("cpu")


@pytest.mark.parametrize("height", [1, 7, 16, 17, 31, 100])
@pytest.mark.parametrize("size", [8, 16, None])
def test_windows_are_alike_cover_everything_and_share_a_quarter(height, size):
    tiles = Tiles(height, 50, size, CPU)
    seen = torch.zeros(height, 50)
    for rows, columns in tiles.windows:
        seen[rows, columns] += 1
        assert rows.stop - rows.start == min(height, size or height)
        assert columns.stop - columns.start == min(50, size or 50)
    assert seen.min() == 1
    if size:
        starts = sorted({rows.start for rows, _ in tiles.windows})
        assert all(b - a <= size - size // OVERLAP for a, b in itertools.pairwise(starts))
    else:
        assert len(tiles) == 1


@pytest.mark.parametrize("factor", [1, 4])
def test_what_agrees_in_all_tiles_comes_back_as_it_was(factor):
    whole = torch.randn(2, 3, 37 * factor, 50 * factor)
    tiles, fine = Tiles(37, 50, 16, CPU), Tiles(37 * factor, 50 * factor, 16 * factor, CPU)
    pieces = [
        whole[..., rows.start * factor : rows.stop * factor, columns.start * factor : columns.stop * factor]
        for rows, columns in tiles.windows
    ]
    assert len(fine) == len(tiles)
    assert torch.allclose(tiles.blend(lambda number: pieces[number], factor), whole, atol=1e-5)


def test_tiles_that_disagree_change_smoothly_from_one_to_the_next():
    tiles = Tiles(16, 64, 16, CPU)
    blended = tiles.blend(lambda number: torch.full((1, 1, 16, 16), float(number)))[0, 0, 8]
    assert blended[0] == 0 and blended[-1] == len(tiles) - 1
    steps = blended.diff()
    assert steps.min() >= -1e-6 and steps.max() < 0.45  # a hard border would be a step of one


@pytest.fixture
def pictures():
    torch.manual_seed(0)
    low = torch.rand(2, 1, 3, 6, 16)
    return (torch.nn.functional.interpolate(low.flatten(0, 1), (90, 250), mode="bicubic").clamp(0, 1) * 255).to(
        torch.uint8
    )


def test_a_picture_that_fits_one_tile_is_repaired_as_without(refiner, pictures):
    render, reference = pictures[:1], pictures[1:, None]
    whole = refiner.repair(render, reference, [1], Sampling(3, 2.0))
    assert torch.equal(refiner.repair(render, reference, [1], Sampling(3, 2.0, tile_size=256)), whole)


def test_the_network_never_sees_more_than_a_tile_and_runs_each_source_once(refiner, pictures):
    seen = []
    hook = refiner.network.register_forward_pre_hook(lambda module, args: seen.append((args[0].shape, args[1].max())))
    refiner.repair(pictures[:1], pictures[1:, None], [1], Sampling(3, 2.0, tile_size=64))
    hook.remove()
    assert {tuple(shape[-2:]) for shape, _ in seen} == {(16, 16)}
    tiles = 2 * 5  # of 92 x 252 padded pixels, at least 16 of each tile's 64 shared
    assert sum(timestep == 0 for _, timestep in seen) == tiles and len(seen) == tiles * (1 + 4)


def test_every_tile_attends_to_its_own_part_of_the_reference(refiner):
    """The embedding sees the whole reference and would change everything, so latents are sampled without it."""
    pipeline = refiner._pipeline
    tiles = Tiles(16, 40, 16, CPU)
    torch.manual_seed(5)
    render, source, start = torch.randn(3, 1, 4, 16, 40)
    changed = source.clone()
    changed[..., 28:] = 0  # seen by the last of the three tiles alone, which begin at 0, 12 and 24
    conditions = Conditions(torch.randn(2, 77, 32), torch.randn(1, 64), 2.0, ("embedding",))

    def sampled(sources):
        with pipeline.progress_bar(total=1) as bar:  # more steps would carry it on from tile to tile
            return sample(pipeline.unet, pipeline.scheduler, 1, tiles, render, sources, start, conditions, None, bar)

    difference = (sampled(source) - sampled(changed)).abs().amax(dim=(0, 1, 2))
    assert [columns.start for _, columns in tiles.windows] == [0, 12, 24]
    assert difference[:24].max() == 0 and difference[28:].min() > 0


def test_no_seam_is_left_where_tiles_meet(refiner, pictures):
    """The step between neighbouring columns is no larger at the borders of tiles than elsewhere."""
    picture = refiner.repair(pictures[:1], pictures[1:, None], [1], Sampling(3, 2.0, tile_size=64)).float()
    steps = picture.diff(dim=-1).abs().mean(dim=(0, 1, 2))
    windows = Tiles(23, 63, 16, CPU).windows
    borders = sorted({4 * edge for _, side in windows for edge in (side.start, side.stop) if 0 < edge < 62})
    at_borders = torch.stack([steps[border - 1] for border in borders]).mean()
    assert at_borders < 1.5 * steps.mean()
