"""The commands of ``sap2``, and what they share."""
