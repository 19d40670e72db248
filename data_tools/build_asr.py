"""Door to ``sap2 data build_asr`` (:mod:`sap2.data.build_asr`)."""

import functools
import sys

from sap2.commands.data import run_tool

main = functools.partial(run_tool, "build_asr")

if __name__ == "__main__":
    sys.exit(main())
