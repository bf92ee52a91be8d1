"""The network: timm's transformer for crops of several sizes, DINO's head, and what is decayed of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from exaone_train.augment import MEAN, STD
from exaone_train.config import Config, ModelConfig
from exaone_train.errors import ConfigError
from exaone_train.model import Network, build_encoder, plain_view, weight_groups
from tests.trainruns import tiny

torch.set_num_threads(1)


def test_the_default_encoder_has_the_86_million_parameters_of_vit_b_16() -> None:
    with torch.device("meta"):
        encoder = build_encoder(ModelConfig(), 224)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 85_798_656


def test_an_encoder_takes_crops_of_both_sizes_and_gives_class_tokens() -> None:
    encoder = build_encoder(tiny().model, 64).eval()
    images = torch.randn(3, 3, 64, 64)
    assert encoder(images).shape == (3, 48)
    assert encoder(images[..., :32, :32]).shape == (3, 48)
    torch.testing.assert_close(encoder(images), encoder.forward_features(images)[:, 0])


def test_drop_path_is_in_training_only() -> None:
    encoder = build_encoder(tiny().model, 64, drop_path_rate=0.9)
    images = torch.randn(8, 3, 64, 64)
    assert not torch.equal(encoder(images), encoder(images))
    assert torch.equal(encoder.eval()(images), encoder(images))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"name": "vit_enormous"}, "timm does not make the encoder 'vit_enormous' of the configuration: Unknown model"),
        ({"name": "resnet18"}, "timm does not make the encoder 'resnet18'"),
        ({"options": {"deepness": 3}}, "timm does not make the encoder 'vit_base_patch16_224'.*deepness"),
        ({"options": {"global_pool": "avg"}}, "is not a vision transformer whose class token is its output"),
    ],
)
def test_what_is_no_such_transformer_is_said_in_one_sentence(model: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught, torch.device("meta"):
        build_encoder(ModelConfig.model_validate(model), 224)
    assert "\n" not in str(caught.value)


def test_crops_of_one_size_go_through_at_once_and_come_out_in_their_order() -> None:
    network = Network(tiny()).eval()
    crops = [torch.randn(2, 3, size, size) for size in (64, 64, 32, 32, 32)]
    with torch.no_grad():
        together, alone = network(crops), torch.cat([network([crop]) for crop in crops])
    assert together.shape == (10, 64)
    torch.testing.assert_close(together, alone)
    calls: list[int] = []
    network.encoder.register_forward_hook(lambda _module, given, _result: calls.append(len(given[0])))
    network(crops)
    assert calls == [4, 6]


def test_what_the_head_says_is_a_cosine_to_each_prototype() -> None:
    network = Network(tiny())
    said = network([torch.randn(4, 3, 64, 64)])
    assert said.abs().max() <= 1 + 1e-6
    length = network.head.last_layer.weight_g
    assert (length == 1).all()
    assert not length.requires_grad
    assert Network(tiny(model__norm_last_layer=False)).head.last_layer.weight_g.requires_grad


def test_only_matrices_are_decayed() -> None:
    network = Network(tiny(model__norm_last_layer=False))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decayed, spared = ([names[id(one)] for one in group["params"]] for group in weight_groups(network))
    assert sorted(decayed + spared) == sorted(names.values())
    assert {name.rpartition(".")[2] for name in decayed} == {"weight", "weight_v"}
    assert not [name for name in decayed if "norm" in name]
    assert {"encoder.cls_token", "encoder.pos_embed", "encoder.norm.weight", "head.last_layer.weight_g"} <= {*spared}
    assert {"encoder.blocks.0.attn.qkv.bias", "head.layers.0.bias"} <= {*spared}
    frozen = Network(tiny())
    lengths = frozen.head.last_layer.weight_g
    assert not any(one is lengths for group in weight_groups(frozen) for one in group["params"])


def test_a_plain_view_is_the_middle_of_an_image_normalised() -> None:
    images = torch.randint(0, 256, (2, 10, 10, 3), dtype=torch.uint8)
    view = plain_view(images, 6)
    expected = (images[:, 2:8, 2:8].numpy() / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(view.permute(0, 2, 3, 1), expected, atol=1e-6)


def test_a_plain_view_of_a_smaller_image_is_all_of_it_enlarged_as_pillow_does() -> None:
    pixels = np.random.default_rng(0).integers(60, 190, (12, 12, 3), dtype=np.uint8)  # nothing to clip
    expected = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC))
    view = plain_view(torch.from_numpy(pixels)[None], 16)[0].permute(1, 2, 0).numpy()
    assert np.abs((view * np.array(STD) + np.array(MEAN)) * 255 - expected).max() < 1.1


def test_weights_follow_from_the_generator() -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(Network(Config.model_validate(tiny().model_dump())).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["encoder.cls_token"], weights[2]["encoder.cls_token"])
