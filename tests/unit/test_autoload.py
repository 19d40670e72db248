"""ms-swift learns the model type wherever it is imported, at no cost elsewhere and without ever stopping a program."""

from __future__ import annotations

import importlib
import importlib.util
import os
import runpy
import subprocess
import sys
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

import sap2
from sap2 import _autoload
from sap2.errors import InputError, install_excepthook

ROOT = Path(__file__).parents[2]
PTH = ROOT / "sap2_autoload.pth"
REGISTER = "sap2.ms_swift.register"


def python(code, *flags, **environment):
    """Run code in a fresh interpreter that has site-packages off; its output."""
    command = [sys.executable, "-I", "-S", *flags, "-c", f"import sys; sys.path.append({str(ROOT)!r}); {code}"]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


# --- at the start of every interpreter


def test_importing_the_package_imports_nothing_heavy():
    code = "before = set(sys.modules); import sap2; print(*(set(sys.modules) - before))"
    done = python(code)
    assert done.stderr == ""
    names = set(done.stdout.split())
    assert {name for name in names if name.split(".")[0] not in sys.stdlib_module_names} == {"sap2", "sap2._autoload"}
    assert names.isdisjoint({"typing", "re", "json", "pathlib", "dataclasses", "inspect", "importlib.metadata", "ast"})


def test_the_pth_file_is_one_line_that_site_runs(tmp_path):
    """``site`` runs lines that begin with import, one by one."""
    (line,) = PTH.read_text().splitlines()
    assert line.startswith("import ")
    (tmp_path / PTH.name).write_text(PTH.read_text())
    code = f"import site; site.addsitedir({str(tmp_path)!r}); print('sap2._autoload' in sys.modules, sys.meta_path[0])"
    done = python(code)
    assert done.stderr == "" and done.stdout.startswith("True <class 'sap2._autoload._Finder'>")
    done = python("sys.path.pop(); " + code)
    assert done.stderr == "" and done.stdout.startswith("False"), "nothing happens where the package is gone"


def test_lazy_names():
    assert sap2.SAP2Qwen2AudioProcessor.__module__ == "sap2.model.processing"
    assert set(sap2._LAZY) | {"__version__"} == set(sap2.__all__) == set(dir(sap2))
    for name in sap2.__all__:
        assert getattr(sap2, name) is not None
    with pytest.raises(AttributeError, match="module 'sap2' has no attribute 'nothing'"):
        sap2.nothing  # noqa: B018


# --- the finder, on a small package that stands for ms-swift


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A package ``fakeswift`` of two awaited modules, hooks that note their calls, and an autoloader not yet there."""
    folder = tmp_path / "fakeswift"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "arguments.py").write_text("VALUE = 1\n")
    (folder / "model.py").write_text("from fakeswift import arguments\nVALUE = 2\n")
    register = types.ModuleType(REGISTER)
    register.calls = []
    register.first = lambda: register.calls.append(("first", sys.modules["fakeswift.arguments"].VALUE))
    register.second = lambda: register.calls.append(("second", sys.modules["fakeswift.model"].VALUE))
    monkeypatch.setitem(sys.modules, REGISTER, register)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if finder is not _autoload._Finder])
    monkeypatch.setattr(_autoload, "_HOOKS", {"fakeswift.arguments": "first", "fakeswift.model": "second"})
    monkeypatch.setattr(_autoload, "status", {"installed": False, "done": [], "errors": []})
    monkeypatch.delenv(_autoload.VARIABLE, raising=False)
    yield register
    for name in [name for name in sys.modules if name.startswith("fakeswift")]:
        del sys.modules[name]


def test_a_hook_runs_once_when_its_module_has_been_executed(fake):
    _autoload.install()
    assert sys.meta_path[0] is _autoload._Finder and fake.calls == []
    importlib.import_module("fakeswift.model")
    assert fake.calls == [("first", 1), ("second", 2)]
    assert _autoload._Finder not in sys.meta_path, "it leaves when it has nothing to wait for"
    assert _autoload.status == {"installed": True, "done": ["first", "second"], "errors": []}
    importlib.reload(sys.modules["fakeswift.model"])
    _autoload.install()
    assert len(fake.calls) == 2


def test_the_module_keeps_its_own_loader(fake):
    _autoload.install()
    module = importlib.import_module("fakeswift.arguments")
    assert type(module.__loader__) is type(module.__spec__.loader) is SourceFileLoader
    assert module.__loader__.get_source("fakeswift.arguments") == "VALUE = 1\n"
    assert _autoload._Finder in sys.meta_path, "the other module is still to come"


def test_looking_for_a_module_runs_nothing(fake):
    _autoload.install()
    spec = importlib.util.find_spec("fakeswift.arguments")
    assert spec.origin.endswith("arguments.py") and spec.loader.is_package("fakeswift.arguments") is False
    assert importlib.util.find_spec("fakeswift.nothing") is None
    assert fake.calls == []


def test_modules_that_are_there_already_are_hooked_at_once(fake):
    importlib.import_module("fakeswift.model")
    _autoload.install()
    assert fake.calls == [("first", 1), ("second", 2)]
    assert _autoload._Finder not in sys.meta_path


@pytest.mark.parametrize("value", ["0", "off", "False", "NO"])
def test_it_can_be_turned_off(fake, monkeypatch, value):
    monkeypatch.setenv("SAP2_AUTOLOAD", value)
    _autoload.install()
    importlib.import_module("fakeswift.model")
    assert fake.calls == [] and _autoload._Finder not in sys.meta_path
    assert _autoload.status["installed"] is False


def test_a_failing_hook_stops_nothing_and_is_told(fake, capsys):
    def fail():
        raise RuntimeError("ms-swift has changed")

    fake.first = fail
    _autoload.install()
    assert importlib.import_module("fakeswift.model").VALUE == 2
    assert fake.calls == [("second", 2)]
    assert _autoload.status["done"] == ["second"]
    assert _autoload.status["errors"] == ["first: RuntimeError: ms-swift has changed"]
    error = capsys.readouterr().err
    assert error == (
        "sap2: could not plug into ms-swift (first: RuntimeError: ms-swift has changed); run: sap2 doctor\n"
    )


def test_a_failing_module_fails_as_it_would_without_us(fake, tmp_path):
    (tmp_path / "fakeswift" / "model.py").write_text("raise KeyError('of its own')\n")
    _autoload.install()
    with pytest.raises(KeyError, match="of its own"):
        importlib.import_module("fakeswift.model")
    assert fake.calls == []
    (tmp_path / "fakeswift" / "model.py").write_text("VALUE = 20  # mended\n")
    importlib.invalidate_caches()
    importlib.import_module("fakeswift.model")
    assert ("second", 20) in fake.calls


# --- the other way in


def test_the_plugin_file_registers_everything(monkeypatch):
    calls = []
    monkeypatch.setattr(_autoload, "install", lambda asked=False: calls.append(asked))
    plugin = ROOT / "sap2" / "plugin" / "sap2_plugin.py"
    runpy.run_path(str(plugin))
    assert calls == [True]
    # ms-swift puts the folder of a plugin on sys.path: nothing else may become importable there
    assert [path.name for path in plugin.parent.iterdir() if path.name != "__pycache__"] == ["sap2_plugin.py"]


def test_every_hook_exists():
    from sap2.ms_swift import register

    assert all(callable(getattr(register, function)) for function in _autoload._HOOKS.values())


class Arguments:
    """What ``patch_methods`` needs of ms-swift's ``BaseArguments``."""

    adapters = ()
    model_type = "sap_qwen2_audio"
    strict = False
    use_chat_template = None

    def __init__(self, model_dir, **kwargs):
        self.folder = model_dir
        vars(self).update(kwargs)

    def _init_model_info(self):
        self.model_dir = str(self.folder)
        return "dtype"

    def _init_mixed_precision(self):
        pass

    def get_model_kwargs(self):
        return {"model": "m"}

    def load_dataset(self):
        return None, None

    def get_template(self):
        return types.SimpleNamespace(count_skipped_rows=lambda: setattr(self, "counted", True))


@pytest.fixture
def patched():
    from sap2.ms_swift.arguments import patch_methods

    class Patched(Arguments):
        pass

    patch_methods(Patched)
    patch_methods(Patched)  # the second time changes nothing
    return Patched


def test_without_flags_settings_are_resolved_and_checked(patched, tiny, monkeypatch):
    monkeypatch.setenv("SAP_WINDOW_SIZE", "4")
    args = patched(tiny)
    assert args.get_model_kwargs()["sap_settings"]["sap_window_size"] is None, "asked before the folder is known"
    assert args._init_model_info() == "dtype"
    assert args.sap_window_size == 4 and args.sap_hidden_size == 128
    assert args.get_model_kwargs() == {
        "model": "m",
        "sap_settings": {
            "sap_window_size": 4,
            "sap_min_positions": 0,
            "sap_pooling": "attention",
            "sap_num_heads": 4,
            "sap_hidden_size": 128,
            "sap_spotter": False,
            "sap_retriever": False,
        },
    }
    args.get_template()
    assert args.counted and args.use_chat_template is True


def test_without_flags_backends_are_refused_at_once(patched, tiny):
    message = r"--infer_backend vllm would decode without the context.*: sap2 pipeline --engine vllm"
    with pytest.raises(InputError, match=message):
        patched(tiny, infer_backend="vllm")._init_model_info()


def test_without_flags_other_models_are_left_alone(patched, tiny):
    args = patched(tiny, model_type="qwen2_audio", infer_backend="vllm")
    args._init_model_info()
    assert args.get_model_kwargs() == {"model": "m"}
    args.get_template()
    assert not hasattr(args, "counted")


@pytest.mark.parametrize("late", [False, True])
def test_arguments_are_replaced_before_anybody_has_them(monkeypatch, late):
    from sap2.ms_swift import arguments, register

    class Base(Arguments):
        pass

    class Command(Base):
        pass

    module = types.SimpleNamespace(BaseArguments=Base if late else Command)
    calls = []
    monkeypatch.setitem(sys.modules, "swift.arguments.base_args.base_args", module)
    monkeypatch.setattr(arguments, "make_arguments", lambda base: (calls.append(("made", base)), "ours")[1])
    monkeypatch.setattr(arguments, "patch_methods", lambda base: calls.append(("patched", base)))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    register.register_arguments()
    assert calls == ([("patched", Base)] if late else [("made", Command)])
    assert module.BaseArguments == (Base if late else "ours")


# --- errors of the user's input


@pytest.mark.parametrize("debug", ["", "1"])
def test_bad_input_ends_a_program_with_one_line(monkeypatch, capsys, debug):
    monkeypatch.setenv("SAP2_DEBUG", debug)
    previous = []
    monkeypatch.setattr(sys, "excepthook", lambda *args: previous.append(args))
    install_excepthook()
    error = InputError("row u7: bad; allowed: good")
    sys.excepthook(InputError, error, None)
    assert capsys.readouterr().err == ("" if debug else "sap2: error: row u7: bad; allowed: good\n")
    assert len(previous) == (1 if debug else 0)
    sys.excepthook(KeyError, KeyError("x"), None)
    assert previous[-1][0] is KeyError


@pytest.mark.parametrize("module", ["loader", "template", "arguments", "register"])
def test_our_modules_may_be_the_first_to_import_ms_swift(module):
    code = f"""
import sap2.ms_swift.{module}, swift.model, swift.template
from sap2 import _autoload
print(_autoload.status["errors"], "sap_qwen2_audio" in swift.model.MODEL_MAPPING)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.endswith("[] True\n"), done.stderr
