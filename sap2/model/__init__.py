"""The model of SAP² on plain transformers: configuration, pooling, modeling, processing."""
