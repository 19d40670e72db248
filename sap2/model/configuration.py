"""Configuration: that of Qwen2-Audio and the settings of SAP²."""

from __future__ import annotations

from transformers import AutoConfig, Qwen2AudioConfig

from sap2.lengths import least_positions
from sap2.model.pooling import DEFAULT_POOLING, check_pooling
from sap2.shipped import find_checkpoint

SAP_FIELDS = (
    "sap_window_size",
    "sap_min_positions",
    "sap_pooling",
    "sap_num_heads",
    "sap_hidden_size",
    "sap_spotter",
    "sap_retriever",
)
"""The settings that a trained model depends on."""
PARTS = ("sap_spotter", "sap_retriever")
"""Those that say what a model has: one that has more takes an adapter that needs less."""

OPENED_WITH = "pip install sap2, and import sap2 before the model is loaded"
"""What it takes to open a saved model; saved with it."""


class SAP2Qwen2AudioConfig(Qwen2AudioConfig):
    """Qwen2-Audio's configuration with the settings of the pooling layer.

    Args:
        sap_window_size: context tokens that become one embedding (paper: 2, 4 and 8 tried, 2 is best).
        sap_min_positions: with ``salience``, a context is never compressed to fewer embeddings than this; 0: always to
            ceil(tokens / window); None: :func:`sap2.lengths.least_positions` of the pooling.
        sap_pooling: how a window is pooled; see :class:`sap2.model.pooling.SpeechDrivenPooling`.
        sap_num_heads: attention heads of the pooling layer.
        sap_hidden_size: width of the pooling layer; None or the width of the language model, nothing else.
        sap_spotter: whether the model has a keyword spotter (:mod:`sap2.model.spotter`); ``salience`` always has one,
            and None means: only with ``salience``.
        sap_retriever: whether the model has a retriever of terms (:mod:`sap2.model.retriever`).
        sap_context_token_id: id of the placeholder token; None until a tokenizer has it.
        sap_truncate_audio: hear the beginning of an audio that is longer than the model's window, instead of
            refusing it.
        sap_opened_with: for people who open the file without this package.

    Raises:
        ValueError: a value that the layer cannot have.
    """

    model_type = "sap_qwen2_audio"

    sap_window_size: int = 2
    sap_min_positions: int | None = None
    sap_pooling: str = DEFAULT_POOLING
    sap_num_heads: int = 4
    sap_hidden_size: int | None = None
    sap_spotter: bool | None = None
    sap_retriever: bool = False
    sap_context_token_id: int | None = None
    sap_truncate_audio: bool = False
    sap_opened_with: str = OPENED_WITH

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """As upstream, and the configuration of a plain Qwen2-Audio becomes one of ours with the default settings."""
        config, kwargs = super().get_config_dict(find_checkpoint(pretrained_model_name_or_path), **kwargs)
        if config.get("model_type") == Qwen2AudioConfig.model_type:
            config["model_type"] = cls.model_type
        return config, kwargs

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.check_sap()

    def resolve_sap(self) -> None:
        """Put what the pooling asks for in the place of settings that are None, so that they are saved."""
        if self.sap_min_positions is None:
            self.sap_min_positions = least_positions(self.sap_pooling)
        self.sap_spotter = bool(self.sap_spotter) or self.sap_pooling == "salience"

    def check_sap(self) -> None:
        """Refuse settings that do not fit each other or the language model.

        Raises:
            ValueError: names the setting, its value and what is allowed.
        """
        width = self.text_config.hidden_size
        if self.sap_hidden_size is not None and self.sap_hidden_size != width:
            raise ValueError(
                f"sap_hidden_size (--compressor_hidden_size) is {self.sap_hidden_size}; the pooled embeddings enter "
                f"the language model, so that only its width is allowed: {width}"
            )
        try:
            check_pooling(
                width, self.sap_num_heads, self.sap_window_size, self.sap_pooling, self.sap_min_positions or 0
            )
        except ValueError as error:
            raise ValueError(f"SAP² settings (sap_*): {error}") from None


AutoConfig.register(SAP2Qwen2AudioConfig.model_type, SAP2Qwen2AudioConfig)
