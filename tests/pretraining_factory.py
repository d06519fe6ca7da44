"""An audio network of DAVEnet's kind that trains in milliseconds, for tests of how networks are trained."""

from torch import nn

from extractors.audio_spectrograms import SpectrogramExtractor
from extractors.weights import PretrainedWeights


class SmallExtractor(SpectrogramExtractor):
    """16-d: one convolution over 17 frames every 16."""

    name, dim, right_context = "audio/small", 16, 16
    published = PretrainedWeights(
        extractor="audio/small",
        name="small",
        file_name="small.pth",
        where="nowhere",
        licence="none",
        preprocessing="log-mel",
    )

    @classmethod
    def build(cls, state=None):
        return nn.Sequential(nn.BatchNorm1d(40), nn.Conv1d(40, 16, kernel_size=17, stride=16, padding=8), nn.ReLU())
