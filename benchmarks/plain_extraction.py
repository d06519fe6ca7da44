"""The extraction as a careful user writes it in an afternoon: what speed is measured against.

The same libraries, weights and numbers as our extractors, in fp32, one clip after the other and one file opened for
each modality. Each function yields a clip's vector as soon as it is there. Nothing here guards against broken files.
Also the oracle of the extractors' own numbers.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, vgg16
from transformers import BertConfig, BertModel

from extractors.audio_davenet import DAVEnet, DAVEnetExtractor
from extractors.clip import Clip
from extractors.logmel import SAMPLE_RATE_HZ, log_mel

Vectors = Iterator[tuple[str, NDArray[np.float32]]]  # (clip_id, (D,)), one a clip, in the order given


def plain_vgg16(state: Mapping[str, Tensor]) -> nn.Module:
    """torchvision's VGG16 up to the second fully connected layer's ReLU: (B, 3, 224, 224) -> (B, 4096).

    Args:
        state: its state dict, with or without the last layer. Other memory layouts than contiguous are copied.
    """
    with torch.device("meta"):
        network = vgg16()
    network.classifier = network.classifier[:-2]
    return _loaded(network, state)


def plain_bert(config: BertConfig, state: Mapping[str, Tensor]) -> nn.Module:
    """transformers' BertModel without its pooler, with this state dict."""
    network = BertModel(config, add_pooling_layer=False)
    return _loaded(network, state)


def plain_davenet(state: Mapping[str, Tensor]) -> nn.Module:
    """DAVEnet's audio branch with this state dict."""
    return _loaded(DAVEnet(), state)


def _loaded(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    wanted = {name: state[name].contiguous() for name in network.state_dict()}
    network.load_state_dict(wanted, assign=True)
    return network.eval()


def plain_visual(clips: Iterable[Clip], network: nn.Module, *, n_frames: int = 8) -> Vectors:
    """Decode the whole clip, keep the middle frame of n_frames equal parts, VGG16 on these, their mean.

    Args:
        clips: whole files.
        network: plain_vgg16's, on the device to use.
        n_frames: of a clip; no file has fewer.
    """
    device, preset = _device(network), VGG16_Weights.IMAGENET1K_V1.transforms()
    for clip in clips:
        with av.open(clip.media_path) as container:
            decoded = list(container.decode(video=0))  # not every container says how many there are
            wanted = [(2 * part + 1) * len(decoded) // (2 * n_frames) for part in range(n_frames)]
            frames = [torch.from_numpy(decoded[i].to_ndarray(format="rgb24")).permute(2, 0, 1) for i in wanted]
        with torch.inference_mode():
            features = network(preset(torch.stack(frames)).to(device))  # (n_frames, 4096)
            yield clip.clip_id, features.mean(0).cpu().numpy()


def plain_text(clips: Iterable[Clip], tokenizer: Any, network: nn.Module) -> Vectors:
    """One sentence after the other through BERT, the mean over its tokens.

    Args:
        clips: with transcripts.
        tokenizer: transformers' own; its settings for cutting and padding are changed.
        network: plain_bert's, on the device to use.
    """
    device = _device(network)
    for clip in clips:
        tokens = tokenizer(clip.transcript, truncation=True, max_length=512, return_tensors="pt").to(device)
        with torch.inference_mode():
            hidden = network(**tokens).last_hidden_state  # (1, L, D)
            mask = tokens["attention_mask"].unsqueeze(-1)  # (1, L, 1)
            yield clip.clip_id, ((hidden * mask).sum(1) / mask.sum(1))[0].cpu().numpy()


def plain_audio(clips: Iterable[Clip], network: nn.Module) -> Vectors:
    """Decode and resample to 16 kHz mono, log-mel, DAVEnet on it, the mean over the steps that the sound covers.

    The networks were trained on log-mels with zeros after them. As many are put here as the last step can see, where
    the published code always fills up 2048 frames.

    Args:
        clips: whole files, 0.16 s to 20 s.
        network: plain_davenet's, on the device to use.
    """
    device = _device(network)
    for clip in clips:
        resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE_HZ)
        with av.open(clip.media_path) as container:
            decoded = [*container.decode(audio=0), None]  # None brings out the resampler's tail
        chunks = [chunk.to_ndarray().mean(axis=0) for frame in decoded for chunk in resampler.resample(frame)]
        spectrogram = torch.from_numpy(log_mel(np.concatenate(chunks), SAMPLE_RATE_HZ))  # (40, T)
        padded = nn.functional.pad(spectrogram, (0, DAVEnetExtractor.right_context))
        with torch.inference_mode():
            steps = network(padded.unsqueeze(0).to(device))[0]  # (1024, > T / 16)
            yield clip.clip_id, steps[:, : spectrogram.shape[1] // 16].mean(1).cpu().numpy()


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
