"""Door to ``sap2 data augment`` (:mod:`sap2.data.augment`)."""

import functools
import sys

from sap2.commands.data import run_tool

main = functools.partial(run_tool, "augment")

if __name__ == "__main__":
    sys.exit(main())
