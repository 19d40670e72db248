"""Door to ``sap2 data check`` (:mod:`sap2.data.check`)."""

import functools
import sys

from sap2.commands.data import run_tool

main = functools.partial(run_tool, "check")

if __name__ == "__main__":
    sys.exit(main())
