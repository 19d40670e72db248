"""Score transcripts: ``python eval/slidespeech_wer.py --input_file result.jsonl``, the same as ``sap2 score``."""

import functools
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from sap2.commands.shared import run_module

main = functools.partial(run_module, "sap2.scoring.command", "slidespeech_wer.py")

if __name__ == "__main__":
    sys.exit(main())
