"""Imports point one way: the standard-library layer → model → ms_swift → commands; data and scoring stay light."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "swift", "peft", "accelerate", "deepspeed"}
RUN_THE_MODEL = {
    "eval.bench_pooling",
    "eval.bench_context",
    "eval.bench_engine",
    "eval.bench_pipeline",
    "eval.bench_search",
    "eval.bench_spotter",
    "eval.prune",
    "eval.explain",
    "eval.noise",
    "eval.confidence",
    "eval.words",
    "eval.word_truth",
    "eval.ablation",
    "eval.ablation_report",
}
"""Commands of eval/ that run the model."""
LIGHT = {
    "spelling",
    "trained",
    "caches",
    "compiling",
    "errors",
    "files",
    "lengths",
    "pages",
    "progress",
    "prompts",
    "rowfiles",
    "rows",
    "shipped",
    "tables",
    "text",
}
"""The first layer: modules of sap2 that need the standard library alone."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path for folder in ("sap2", "data_tools", "eval") for path in (ROOT / folder).rglob("*.py")
}


@cache
def imports(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """Names that a module imports when it is imported, and names that it ever imports."""
    at_import, ever = set(), set()

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            names = []
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                names = [child.module, *(f"{child.module}.{alias.name}" for alias in child.names)]
            ever.update(names)
            if not inside:
                at_import.update(names)
            visit(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    visit(ast.parse(MODULES[module].read_text(encoding="utf-8")), False)
    return frozenset(at_import), frozenset(ever)


def reached(module: str) -> set[str]:
    """Everything outside this repository that importing the module imports, directly or through the repository."""
    seen, outside, queue = set(), set(), [module]
    while queue:
        name = queue.pop()
        if name in seen or name not in MODULES:
            outside.add(name.split(".")[0]) if name not in MODULES else None
            continue
        seen.add(name)
        queue += [part for part in imports(name)[0] if part in MODULES or part.split(".")[0] not in TOP_LEVEL]
        if "." in name:
            queue.append(name.rpartition(".")[0])
    return outside


TOP_LEVEL = {"sap2", "data_tools", "eval", "__future__"} | {path.stem for path in (ROOT / "eval").glob("*.py")}


def within(module: str) -> set[str]:
    """The modules of this repository that a module ever imports, inside of functions too."""
    return {name for name in imports(module)[1] if name in MODULES}


def test_modules_were_found():
    assert {"sap2", "sap2.text", "sap2.model.modeling", "sap2.ms_swift.template", "sap2.data.building"} <= set(MODULES)
    assert "torch" in reached("sap2.model.modeling") and "swift" in reached("sap2.ms_swift.template")
    assert "sap2.model.pooling" in within("sap2.model.inner")


def layers(module: str) -> set[str]:
    """The rooms of sap2 that a module ever imports."""
    return {name.split(".")[1] for name in within(module) if name.startswith("sap2.")}


def in_room(*rooms: str) -> list[str]:
    """The modules of these rooms of sap2; there are some, or the test would check nothing."""
    found = sorted(
        name for name in MODULES if name.split(".")[:1] == ["sap2"] and name.split(".")[1:2] in [[r] for r in rooms]
    )
    assert found, rooms
    return found


@pytest.mark.parametrize("module", ["sap2", "sap2._autoload", *(f"sap2.{name}" for name in sorted(LIGHT))])
def test_the_first_layer_needs_the_standard_library_alone(module):
    assert reached(module) <= sys.stdlib_module_names
    lazily = {"ms_swift"} if module == "sap2._autoload" else set()
    assert layers(module) <= LIGHT | {"_autoload"} | lazily


@pytest.mark.parametrize("module", in_room("model"))
def test_the_model_knows_neither_ms_swift_nor_commands(module):
    assert "swift" not in {name.split(".")[0] for name in imports(module)[1]}
    assert layers(module) <= LIGHT | {"model", "audio"}


@pytest.mark.parametrize("module", in_room("ms_swift"))
def test_the_plug_knows_no_command(module):
    assert layers(module) <= LIGHT | {"_autoload", "ms_swift", "model", "audio", "audio_urls", "augment", "scoring"}


@pytest.mark.parametrize("module", in_room("pipeline"))
def test_the_pipeline_knows_no_ms_swift(module):
    assert "swift" not in {name.split(".")[0] for name in imports(module)[1]}
    assert layers(module) <= LIGHT | {"pipeline", "pruning", "model", "audio", "audio_samples", "audio_urls", "slides"}


@pytest.mark.parametrize("module", in_room("serve"))
def test_the_server_knows_no_ms_swift(module):
    assert "swift" not in {name.split(".")[0] for name in imports(module)[1]}
    assert layers(module) <= LIGHT | {"serve", "pipeline", "audio", "audio_blocks", "audio_samples", "slides"}


def test_workers_that_decode_uploads_load_no_model():
    assert reached("sap2.serve.workers").isdisjoint(HEAVY) and reached("sap2.serve.decoding").isdisjoint(HEAVY)


@pytest.mark.parametrize("module", in_room("pruning"))
def test_pruning_knows_no_pipeline(module):
    assert layers(module) <= LIGHT | {"pruning", "model"}


def test_addresses_are_opened_by_those_who_read_the_rows_of_a_file():
    """Not by the readers of audio, nor by what a server calls with what strangers send."""
    users = {name for name in MODULES if "sap2.audio_urls" in within(name)}
    assert users == {
        *(f"sap2.data.{name}" for name in ("cutting", "recordings", "row_checks", "slidespeech", "talks")),
        *(f"sap2.pipeline.{name}" for name in ("calibrating", "calibrating_times", "calibrating_words", "worker")),
        "sap2.ms_swift.template",
    }
    assert "fsspec" not in reached("sap2.audio")


@pytest.mark.parametrize("module", in_room("explain"))
def test_explaining_knows_no_command(module):
    assert layers(module) <= LIGHT | {"explain", "pipeline", "model", "slides"}


def test_ms_swift_is_imported_in_one_place():
    users = {name for name in MODULES if "swift" in {part.split(".")[0] for part in imports(name)[1]}}
    assert {name for name in users if not name.startswith("sap2.ms_swift")} == {"sap2._probe"}


def test_the_package_never_imports_its_doors():
    users = {name for name in MODULES if name.startswith("sap2") and imports_from(name, "data_tools", "eval")}
    assert not users
    assert imports_from("data_tools.check", "sap2")


def imports_from(module: str, *packages: str) -> bool:
    return not {name.split(".")[0] for name in imports(module)[1]}.isdisjoint(packages)


@pytest.mark.parametrize("module", in_room("data", "slides", "scoring", "augment"))
def test_data_and_scoring_stay_light(module):
    """No torch, not even within a function, and of the other rooms only those that have none either."""
    assert reached(module).isdisjoint(HEAVY)
    assert {name.split(".")[0] for name in imports(module)[1]}.isdisjoint(HEAVY)
    heard = {"audio", "audio_parts", "audio_samples", "audio_urls", "augment"}
    assert layers(module) <= LIGHT | heard | {"commands", "data", "slides", "scoring", "pipeline"}
    assert {name for name in within(module) if name.startswith("sap2.pipeline.")} <= CUT_RECORDINGS


CUT_RECORDINGS = {"sap2.pipeline.segmentation", "sap2.pipeline.voice_activity"}
"""Modules of the pipeline that data tools share: they take numpy alone, unless asked for Silero's network."""


TOOLS = sorted(name for name in MODULES if name.split(".")[0] in {"data_tools", "eval"} and name not in RUN_THE_MODEL)


@pytest.mark.parametrize("module", TOOLS)
def test_doors_stay_light(module):
    assert reached(module).isdisjoint(HEAVY)


def test_commands_start_light():
    """``sap2 --help`` must not wait for torch."""
    assert reached("sap2.cli").isdisjoint(HEAVY)
    assert "torch" in reached("eval.bench_pooling")  # the guard sees what it looks for
