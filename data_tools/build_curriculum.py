"""Door to ``sap2 data build_curriculum`` (:mod:`sap2.data.build_curriculum`)."""

from sap2.data.build_curriculum import main

if __name__ == "__main__":
    main()
