"""``sap2 pipeline``: a test set through both stages in one process."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from sap2.commands.shared import positive, share, true_or_false
from sap2.errors import InputError
from sap2.pipeline.shards import parse_shard
from sap2.pruning import PRUNE_THRESHOLD, PRUNE_TOP
from sap2.spelling import CASES

if TYPE_CHECKING:
    from sap2.pipeline.run import PipelineOptions

EXIT_ROWS_FAILED = 1
_STAGES = "asr | prune,asr | joint | prune (default: prune,asr with a prune adapter or a pruner, else asr)"
_PRUNER = """stage one: generate (the model is asked; default), spot (the spotter looks for each keyword; needs no prune
adapter), attend (the retriever looks for them), match (what the spotter reads is looked up), or several, such as
spot+generate"""


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, as an argparse type."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is not a JSON object, as in {{"tensor_parallel_size": 2}}')
    return value


def add_model_arguments(parser: argparse.ArgumentParser, model_required: bool = True) -> None:
    """What ``transcribe`` and ``pipeline`` share."""
    model = parser.add_argument_group("model")
    decoding = parser.add_argument_group("decoding")
    model.add_argument("--model", required=model_required, help="base model: a folder or a name of the hub")
    model.add_argument("--prune-adapter", metavar="DIR", help="LoRA checkpoint of stage one")
    model.add_argument("--asr-adapter", metavar="DIR", help="LoRA checkpoint of stage two, or of the joint stage")
    decoding.add_argument("--stages", help=_STAGES)
    decoding.add_argument("--pruner", help=_PRUNER)
    decoding.add_argument(
        "--prune-top",
        type=positive,
        default=PRUNE_TOP,
        metavar="N",
        help="most keywords that stage two gets (default: %(default)s)",
    )
    decoding.add_argument(
        "--prune-threshold",
        type=share,
        default=PRUNE_THRESHOLD,
        metavar="P",
        help="least probability of a keyword that is picked (default: %(default)s)",
    )
    decoding.add_argument(
        "--term-bank", metavar="FILE", help="terms to look for in all audio, one a line: Wozniak|woz nee ack :2"
    )
    decoding.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="utterances at a time (default: %(default)s)"
    )
    decoding.add_argument(
        "--max-batch-tokens", type=positive, metavar="N", help="limit of a batch's size times its longest prompt"
    )
    decoding.add_argument(
        "--max-new-tokens", type=positive, default=512, metavar="N", help="longest reply (default: %(default)s)"
    )
    decoding.add_argument(
        "--case",
        choices=CASES,
        help="case of the keywords as the model is told them (default: case and punctuation of its training, where "
        "known; keep: as they stand)",
    )
    decoding.add_argument(
        "--guard-leaks",
        type=true_or_false,
        default=True,
        metavar="BOOL",
        help="decode replies that look like the list, or are far too short, again without it (default: true)",
    )
    decoding.add_argument(
        "--correct-keywords",
        type=true_or_false,
        default=True,
        metavar="BOOL",
        help="with --pruner spot: write a keyword that the spotter hears in the place of a word much like it that the "
        "model wrote (default: true)",
    )
    model.add_argument(
        "--torch-dtype",
        choices=("bfloat16", "float16", "float32"),
        help="type of the numbers (default: what the adapters were trained with, else the model's)",
    )
    model.add_argument("--attn-impl", help="attention implementation of transformers (default: its own choice)")
    model.add_argument(
        "--engine",
        choices=("transformers", "vllm", "auto"),
        default="transformers",
        help="what generates the replies; auto: vLLM where it is installed and can run (default: %(default)s)",
    )
    model.add_argument(
        "--engine-args", type=json_object, metavar="JSON", help='arguments of vLLM, as in {"tensor_parallel_size": 2}'
    )
    model.add_argument("--device", help="device to run on, for example cuda:0 (default: the GPU if there is one)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sap2 pipeline``."""
    files = parser.add_argument_group("files")
    audio = parser.add_argument_group("audio")
    parser.epilog = "Several GPUs: torchrun --nproc_per_node N -m sap2.cli pipeline …"
    files.add_argument("--val-dataset", required=True, metavar="FILE", help="rows or utterances to decode")
    files.add_argument("--result-path", required=True, metavar="FILE", help=".jsonl; an unfinished one is continued")
    add_model_arguments(parser, model_required=False)
    parts = parser.add_argument_group("several machines")
    parts.add_argument(
        "--shard",
        type=parse_shard,
        metavar="I/N",
        help="decode part I of N, in a run of its own that knows of no other, into result.shardIofN.jsonl",
    )
    parts.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="have workers of Ray decode: of a cluster (auto, HOST:PORT), or without ADDRESS of this machine",
    )
    parts.add_argument(
        "--ray-actors",
        type=positive,
        metavar="N",
        help="workers of Ray, which share the CPU cores (default: one for each GPU, or for each machine without any)",
    )
    parts.add_argument("--merge", action="store_true", help="put the parts' results together by id; needs no model")
    audio.add_argument(
        *("--sap-truncate-audio", "--truncate-audio"),
        dest="truncate_audio",
        type=true_or_false,
        nargs="?",
        const=True,
        default=False,
        metavar="BOOL",
        help="hear the beginning of too long an audio (default: false)",
    )
    audio.add_argument(
        "--num-workers", type=positive, default=4, metavar="N", help="threads that read audio (default: %(default)s)"
    )
    files.add_argument(
        "--words", action="store_true", help="results have the words with their times, and how sure they are"
    )
    files.add_argument("--overwrite", action="store_true", help="start afresh, whatever the result file holds")


def options_of(args: argparse.Namespace) -> PipelineOptions:
    """The options of parsed arguments."""
    from sap2.pipeline.run import PipelineOptions

    return PipelineOptions(**{field.name: getattr(args, field.name) for field in dataclasses.fields(PipelineOptions)})


def run(args: argparse.Namespace) -> int:
    """Decode; 1 where a row has no result."""
    from sap2.pipeline.ranks import is_first_rank
    from sap2.pipeline.run import merge_shards, run_pipeline

    if args.merge:
        if args.shard is not None:
            raise InputError("--merge puts all parts together; leave --shard out")
        report = merge_shards(args.val_dataset, args.result_path)
    else:
        if args.model is None:
            raise InputError("--model is missing: the base model, a folder or a name of the hub")
        report = run_pipeline(options_of(args))
    if is_first_rank():
        path = args.result_path if args.shard is None else args.shard.path(args.result_path)
        print(f"{path}: {report}")
    return EXIT_ROWS_FAILED if report.failed else 0
