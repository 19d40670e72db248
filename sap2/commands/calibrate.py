"""``sap2 calibrate``: make the probabilities of keywords and words true, on utterances whose transcripts are known."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sap2.errors import InputError

if TYPE_CHECKING:
    from sap2.pipeline.calibrating import Fit
    from sap2.pipeline.loading import LoadedModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sap2 calibrate``."""
    parser.epilog = (
        "Writes DIR/pruner.json (keywords, of --pruner spot) and DIR/words.json (words, of --word-timestamps), which "
        "sap2 pipeline and sap2 transcribe read. Use a development set."
    )
    parser.add_argument("--model", required=True, help="base model: a folder or a name of the hub")
    parser.add_argument("--asr-adapter", required=True, metavar="DIR", help="whose spotter is calibrated")
    parser.add_argument("--val-dataset", required=True, metavar="FILE", help="utterances or rows with transcripts")
    parser.add_argument("--term-bank", metavar="FILE", help="terms that are not said (default: those of all lists)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="reliability plot, .png or .svg")
    parser.add_argument("--no-words", action="store_true", help="keywords only; nothing is transcribed")
    parser.add_argument("--device", help="of torch (default: the GPU if there is one)")


def run(args: argparse.Namespace) -> None:
    """Fit, write, and say how reliable the probabilities are."""
    from sap2.pipeline.calibrating import fit_rows, summary
    from sap2.pipeline.loading import LoadedModel
    from sap2.prompts import ASR
    from sap2.shipped import resolve_name

    loaded = LoadedModel(args.model, {ASR: args.asr_adapter}, args.device)
    loaded.check_spotter(ASR, "sap2 calibrate")
    fit = fit_rows(loaded, args.val_dataset, args.term_bank)
    path = fit.calibration.save(
        resolve_name(args.asr_adapter), utterances=fit.utterances, calibration_error=round(fit.error, 4)
    )
    print("\n".join([*summary(fit), f"{path}: {fit.calibration}"]))
    if args.plot:
        plot_reliability(fit, args.plot)
    if not args.no_words:
        print(_calibrate_words(loaded, args))


def _calibrate_words(loaded: LoadedModel, args: argparse.Namespace) -> str:
    """Fit and write the probabilities of words; what was done, in a line."""
    from sap2.pipeline.calibrating_words import fit_words
    from sap2.shipped import resolve_name

    try:
        fit = fit_words(loaded, args.val_dataset)
    except InputError as error:
        return f"no words.json: {error}"
    folder = resolve_name(args.asr_adapter)
    path = fit.calibration.save(folder, words=fit.words, wrong=fit.wrong, calibration_error=round(fit.error, 4))
    return f"{path}: {fit}"


def plot_reliability(fit: Fit, path: Path) -> None:
    """Probability against the share that was spoken; the size of a point is that of its bin."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(4, 4))
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    most = max(one.terms for one in fit.bins)
    sizes = [20 + 180 * (one.terms / most) ** 0.5 for one in fit.bins]
    axis.scatter([one.mean for one in fit.bins], [one.share for one in fit.bins], s=sizes)
    axis.set(xlabel="probability", ylabel="share spoken", title=f"calibration error {fit.error:.3f}")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
