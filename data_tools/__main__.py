"""Lists the tools: ``python -m data_tools``."""

import sys

from sap2.commands.data import list_tools

if __name__ == "__main__":
    sys.exit(list_tools())
