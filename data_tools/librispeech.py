"""Door to ``sap2 data librispeech`` (:mod:`sap2.data.librispeech`)."""

import functools
import sys

from sap2.commands.data import run_tool

main = functools.partial(run_tool, "librispeech")

if __name__ == "__main__":
    sys.exit(main())
