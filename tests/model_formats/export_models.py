"""Makes the ONNX files in `data/` with PyTorch's exporter. Not a test; run it where its packages are installed:

```console
$ python -m venv venv && venv/bin/pip install torch torchvision transformers pillow onnx onnxscript
$ venv/bin/python tests/model_formats/export_models.py
```

Made with torch 2.15.0, transformers 5.24.0, onnx 1.23.2 and onnxscript 0.7.2. The
weights are random, from a fixed seed.
"""

from pathlib import Path

import onnx
import torch
from torch import nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

DATA = Path(__file__).parent / "data"


def small_cnn() -> nn.Module:
    """A convolutional network: float32 [N, 3, 64, 64] to [N, 32, 1, 1], with batch normalisation and a residual."""

    class Residual(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
            self.norm = nn.BatchNorm2d(channels)
            self.pointwise = nn.Conv2d(channels, channels, 1)

        def forward(self, x):
            return x + self.pointwise(nn.functional.relu6(self.norm(self.depthwise(x))))

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        Residual(16),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.SiLU(),
        Residual(32),
        nn.AdaptiveAvgPool2d(1),
    )


def warm_up(network: nn.Module) -> None:
    """Gives batch normalisation statistics other than 0 and 1."""
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(16, 3, 64, 64))
    network.eval()


def export(network: nn.Module, size: int, name: str, input_name: str, output_names: list[str]) -> None:
    """Exports a network with a free batch axis; the weights are in the file."""
    torch.onnx.export(
        network,
        (torch.rand(2, 3, size, size),),
        str(DATA / name),
        input_names=[input_name],
        output_names=output_names,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        external_data=False,
        optimize=True,
    )
    # The exporter notes in each node where it comes from, which is most of such a small file.
    model = onnx.load(DATA / name)
    for item in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
    onnx.save(model, DATA / name)


class Vision(nn.Module):
    """The image tower of CLIP: its projected vector, and the hidden states of its tokens."""

    def __init__(self, model: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        outputs = self.model(pixel_values=pixel_values)
        return outputs.image_embeds, outputs.last_hidden_state


def main() -> None:
    """Writes all files."""
    torch.manual_seed(0)
    DATA.mkdir(exist_ok=True)
    cnn = small_cnn()
    warm_up(cnn)
    export(cnn, 64, "small_cnn.onnx", "input", ["features"])

    config = CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=24,
        initializer_range=0.2,
        initializer_factor=4.0,
        attn_implementation="eager",
    )
    vit = DATA / "clip_vit"
    vit.mkdir(exist_ok=True)
    model = Vision(CLIPVisionModelWithProjection(config).eval())
    export(model, 32, "clip_vit/model.onnx", "pixel_values", ["image_embeds", "last_hidden_state"])
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(vit)


if __name__ == "__main__":
    main()
