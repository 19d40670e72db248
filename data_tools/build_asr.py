"""Door to ``sap2 data build_asr`` (:mod:`sap2.data.build_asr`)."""

from sap2.data.build_asr import main

if __name__ == "__main__":
    main()
