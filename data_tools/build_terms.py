"""Door to ``sap2 data build_terms`` (:mod:`sap2.data.build_terms`)."""

import functools
import sys

from sap2.commands.data import run_tool

main = functools.partial(run_tool, "build_terms")

if __name__ == "__main__":
    sys.exit(main())
