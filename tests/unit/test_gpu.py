"""What only a GPU shows; run with ``pytest -m gpu``."""

from __future__ import annotations

import pytest
import torch

from sap2 import SAP2Qwen2AudioForConditionalGeneration, SAP2Qwen2AudioProcessor, SpeechDrivenPooling

pytestmark = pytest.mark.gpu

TEXT = "<|audio_bos|><|AUDIO|><|audio_eos|>\n<|startofcontext|>emily, wozniak<|endofcontext|>"


def test_pooling_equals_the_cpu():
    generator = torch.Generator().manual_seed(0)
    speech, context = (torch.randn((2, n, 64), generator=generator) for n in (300, 41))
    mask = torch.arange(41)[None] < torch.tensor([[41], [7]])
    layer = SpeechDrivenPooling(64, 4, 3)
    gradients = []
    for device in ("cpu", "cuda"):
        inputs = [x.to(device).requires_grad_() for x in (speech, context)]
        pooled, _ = layer(*inputs, context_mask=mask.to(device))
        gradients.append([pooled, *torch.autograd.grad(pooled.square().sum(), inputs)])
    for on_cpu, on_gpu in zip(*gradients, strict=True):
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-4, atol=1e-5)


def test_pooling_does_not_wait_for_the_device():
    speech, context = (torch.randn((2, n, 64), device="cuda", requires_grad=True) for n in (300, 41))
    layer = SpeechDrivenPooling(64, 4, 3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        layer(speech, context)[0].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_bfloat16_batch_generates(tiny, speeches):
    model = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, dtype=torch.bfloat16).cuda().eval()
    processor = SAP2Qwen2AudioProcessor.from_pretrained(tiny)
    processor.tokenizer.padding_side = "left"
    batch = processor(text=[TEXT, TEXT], audio=speeches[:2], padding=True, return_tensors="pt").to("cuda")
    replies = model.generate(**batch, max_new_tokens=4, do_sample=False)[:, -4:]
    assert replies.shape == (2, 4)
    assert torch.isfinite(model(**batch).logits).all()
