"""SAP²: speech-aware context pruning and pooling for contextual speech recognition, as a plugin of ms-swift."""

__version__ = "0.1.0"
