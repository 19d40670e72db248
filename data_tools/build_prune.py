"""Door to ``sap2 data build_prune`` (:mod:`sap2.data.build_prune`)."""

from sap2.data.build_prune import main

if __name__ == "__main__":
    main()
