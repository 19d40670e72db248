"""Door to ``sap2 data build_joint`` (:mod:`sap2.data.build_joint`)."""

import functools
import sys

from sap2.commands.data import run_tool

main = functools.partial(run_tool, "build_joint")

if __name__ == "__main__":
    sys.exit(main())
