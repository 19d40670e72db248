"""Makes ms-swift know ``sap_qwen2_audio`` wherever it is imported, without a flag.

``sap2_autoload.pth`` imports this module at the start of every interpreter of the environment, and so of every rank
and every worker. It puts a finder on ``sys.meta_path`` that waits for the ms-swift modules below and runs a hook
when one has just been executed; nothing else happens before, and neither ms-swift nor torch is imported. A problem in
a hook is kept for ``sap2 doctor`` and said once on stderr: it never stops the user's program.

``SAP2_AUTOLOAD=0`` turns it off; ``--external_plugins`` with ``sap2/plugin/sap2_plugin.py`` is the other way in.
"""

import os
import sys
from importlib import import_module

VARIABLE = "SAP2_AUTOLOAD"
_HOOKS = {
    # ms-swift module: function of sap2.ms_swift.register to call once it has been executed
    "swift.utils.hub_utils": "register_names",
    "swift.arguments.base_args.base_args": "register_arguments",
    "swift.model": "register_model",
    "swift.template": "register_template",
    "swift.infer_engine.transformers_engine": "register_engine",
    "swift.pipelines.infer.infer": "register_infer",
    "swift.pipelines.train.sft": "register_training",
    "swift.callbacks.mapping": "register_callback",
    "swift.rewards.orm": "register_rewards",
    "swift.metrics.mapping": "register_metric",
    "swift.rlhf_trainers.grpo_trainer": "register_grpo",
    "swift.rlhf_trainers.gkd_trainer": "register_gkd",
}
TYPE_CHECKING = False  # typing is not imported: this file runs at the start of every interpreter
if TYPE_CHECKING:
    from typing import Any

status: "dict[str, Any]" = {"installed": False, "done": [], "errors": []}
"""For ``sap2 doctor``: whether the finder is in place, hooks that ran, and hooks that failed with the reason."""


def is_enabled() -> bool:
    """False where ``SAP2_AUTOLOAD`` is 0, off, false or no."""
    return os.environ.get(VARIABLE, "1").lower() not in {"0", "off", "false", "no"}


def install(asked: bool = False) -> None:
    """Wait for ms-swift, or run the hooks of what is already imported. Calling it again does nothing, and neither does
    it where it is turned off, unless the user asked for it in another way."""
    if status["installed"] or not (asked or is_enabled()):
        return
    status["installed"] = True
    sys.meta_path.insert(0, _Finder)
    for name in _HOOKS:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if spec is not None and not getattr(spec, "_initializing", False):
            _run(name)


def _run(name: str) -> None:
    function = _HOOKS[name]
    if function in status["done"]:
        return
    status["done"].append(function)
    try:
        getattr(import_module("sap2.ms_swift.register"), function)()
    except Exception as error:
        status["done"].remove(function)
        status["errors"].append(f"{function}: {type(error).__name__}: {error}")
        print(f"sap2: could not plug into ms-swift ({status['errors'][-1]}); run: sap2 doctor", file=sys.stderr)
    if len(status["done"]) == len(_HOOKS) and _Finder in sys.meta_path:
        sys.meta_path.remove(_Finder)


class _Finder:
    """Finds the awaited modules as everybody else does, and adds the hook to their execution."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in _HOOKS or _HOOKS[name] in status["done"]:
            return None
        for finder in sys.meta_path:
            find = None if finder is cls else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                if getattr(spec.loader, "exec_module", None):
                    spec.loader = _Loader(spec.loader, name)
                return spec
        return None


class _Loader:
    """The module's own loader; runs the hook after the execution and then leaves the module to it."""

    def __init__(self, loader, name):
        self._loader = loader
        self._name = name

    def __getattr__(self, attribute):
        return getattr(self._loader, attribute)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _run(self._name)
