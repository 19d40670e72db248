"""Door to ``sap2 data build_joint`` (:mod:`sap2.data.build_joint`)."""

from sap2.data.build_joint import main

if __name__ == "__main__":
    main()
