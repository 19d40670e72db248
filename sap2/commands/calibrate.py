"""``sap2 calibrate``: make the probabilities of keywords and words true, on utterances whose transcripts are known, and
the times of words, where those are known."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
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
    parser.add_argument(
        "--word-times",
        metavar="CTM",
        help="when the words of these utterances, or of their recordings, are said: fits when words begin and end",
    )
    parser.add_argument("--no-words", action="store_true", help="keywords only; nothing is transcribed")
    parser.add_argument("--no-keywords", action="store_true", help="words only; pruner.json stays as it is")
    parser.add_argument("--device", help="of torch (default: the GPU if there is one)")


def run(args: argparse.Namespace) -> None:
    """Fit, write, and say how reliable the probabilities are."""
    from sap2.pipeline.loading import LoadedModel
    from sap2.prompts import ASR
    from sap2.tables import read_ctm

    _check(args)
    if args.word_times:
        read_ctm(args.word_times)  # what is wrong with it is said before the work begins
    loaded = LoadedModel(args.model, {ASR: args.asr_adapter}, args.device)
    loaded.check_spotter(ASR, "sap2 calibrate")
    if not args.no_keywords:
        _calibrate_keywords(loaded, args)
    if not args.no_words:
        for line in _calibrate_words(loaded, args):
            print(line)


def _check(args: argparse.Namespace) -> None:
    """Refuse options that leave nothing to do for one another."""
    for first, others in (("no_words", ("no_keywords", "word_times")), ("no_keywords", ("term_bank", "plot"))):
        for other in others:
            if getattr(args, first) and getattr(args, other):
                names = [f"--{name.replace('_', '-')}" for name in (first, other)]
                raise InputError(f"{names[0]} and {names[1]} do not go together; allowed: one of them")


def _calibrate_keywords(loaded: LoadedModel, args: argparse.Namespace) -> None:
    """Fit and write the probabilities of keywords; print what was done."""
    from sap2.pipeline.calibrating import fit_rows, summary
    from sap2.shipped import resolve_name

    fit = fit_rows(loaded, args.val_dataset, args.term_bank)
    path = fit.calibration.save(
        resolve_name(args.asr_adapter), utterances=fit.utterances, calibration_error=round(fit.error, 4)
    )
    print("\n".join([*summary(fit), f"{path}: {fit.calibration}"]))
    if args.plot:
        plot_reliability(fit, args.plot)


def _calibrate_words(loaded: LoadedModel, args: argparse.Namespace) -> Iterator[str]:
    """Fit and write probabilities and times of words, as far as there is something to fit them on; what was done, in
    lines. What is not fitted stays as it was."""
    from sap2.pipeline.calibrating_times import fit_times
    from sap2.pipeline.calibrating_words import fit_words
    from sap2.pipeline.confidence import WordCalibration
    from sap2.shipped import resolve_name

    folder, notes = resolve_name(args.asr_adapter), {}
    own = WordCalibration.load(folder)
    calibration = own or WordCalibration()
    if args.word_times:
        times = fit_times(loaded, args.val_dataset, args.word_times)
        calibration = calibration._replace(offsets=times.offsets)
        notes = {"timed_words": times.words, "start_error_seconds": round(times.error, 4)}
        yield f"times: {times}"
    try:
        fit = fit_words(loaded, args.val_dataset)
    except InputError as error:
        if not args.word_times:
            yield f"no words.json: {error}"
            return
        yield f"probabilities of words stay as they were: {error}"
    else:
        calibration = fit.calibration._replace(offsets=calibration.offsets)
        notes = {"words": fit.words, "wrong": fit.wrong, "calibration_error": round(fit.error, 4), **notes}
        yield f"probabilities: {fit}"
    yield f"{calibration.save(folder, **notes)}: {calibration}"


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
