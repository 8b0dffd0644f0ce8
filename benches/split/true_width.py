"""Exports a Latte of true width (1152 channels, 16 heads), one pair of blocks, 2,048 tokens, random weights.

python benches/split/true_width.py target/split/latte-1152.onnx     (torch and diffusers)

Width decides how much of a step is arithmetic and how much is moving memory, which cores of one machine share.
"""

import pathlib
import sys

import torch
from diffusers import LatteTransformer3DModel

FRAMES, SIDE, HEADS, HEAD_DIM, TEXT, CAPTION = 8, 32, 16, 72, 16, 64


class Denoiser(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer = LatteTransformer3DModel(
            num_attention_heads=HEADS,
            attention_head_dim=HEAD_DIM,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            cross_attention_dim=HEADS * HEAD_DIM,
            attention_bias=True,
            sample_size=SIDE,
            patch_size=2,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            caption_channels=CAPTION,
            video_length=FRAMES,
        )

    def forward(self, hidden_states, timestep, encoder_hidden_states):
        return self.transformer(
            hidden_states, timestep=timestep, encoder_hidden_states=encoder_hidden_states, return_dict=False
        )[0]


def main() -> None:
    path = pathlib.Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    example = (
        torch.randn(1, 4, FRAMES, SIDE, SIDE),
        torch.full((1,), 500, dtype=torch.int64),
        torch.randn(1, TEXT, CAPTION),
    )
    torch.onnx.export(
        Denoiser().eval(),
        example,
        str(path),
        opset_version=17,
        dynamo=False,
        input_names=["hidden_states", "timestep", "encoder_hidden_states"],
        output_names=["sample"],
    )


if __name__ == "__main__":
    main()
