"""`refiner-ds import-legacy`: what GaussianRefiner's own training saved becomes a refiner's folder like any other."""

from refiner_ds.config.verbs.models import ImportLegacy
from refiner_ds.folders import made_whole, require_free
from refiner_ds.refiners.unclip.legacy import read_legacy, require_same_network
from refiner_ds.refiners.unclip.origin import Origin
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.verbs.model_card import write_card


def run(options: ImportLegacy) -> None:
    """Puts the weights among the frozen parts of the base that they were trained from."""
    require_free(options.out, "an import is never mixed")
    weights = read_legacy(options.legacy)
    base = options.pretrained_model_name_or_path
    refiner = UnclipRefiner(base, options.revision, options.variant)
    require_same_network(options.legacy, weights, base, refiner.network)
    refiner.load_weights(weights.items())
    with made_whole(options.out) as scratch:
        refiner.save(scratch)
        facts = {**Origin(base, options.revision, options.variant).described(), "imported_from": "GaussianRefiner"}
        write_card(scratch, options.out.resolve().name, {**facts, "dtype": "fp32"})
    print(
        f"refiner in {options.out}: repair with --model {options.out}, or train it further with "
        f"--pretrained_model_name_or_path {options.out}"
    )
