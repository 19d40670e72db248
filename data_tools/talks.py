"""Door to ``sap2 data talks`` (:mod:`sap2.data.talks`)."""

import functools
import sys

from sap2.commands.data import run_tool

main = functools.partial(run_tool, "talks")

if __name__ == "__main__":
    sys.exit(main())
