"""Quantizes the PixArt export as people do for smaller and faster models.

    python tests/data/corpus/quantize.py [FOLDER]

Needs onnx (1.23), onnxruntime (1.31) and onnx-ir. Writes `pixart_quantized/`: weights of eight bits with activations
quantized while the model runs (`DynamicQuantizeLinear`, `MatMulInteger`), and weights of four bits (`MatMulNBits`).
"""
import shutil
import sys
from pathlib import Path

import onnx
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

CORPUS = Path(__file__).parent
FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else CORPUS) / "pixart_quantized"
SOURCE = CORPUS / "pixart" / "pixart.ts17.static.onnx"


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    quantize_dynamic(SOURCE, FOLDER / "pixart.dynamic.onnx")
    quantizer = MatMulNBitsQuantizer(onnx.load(SOURCE), block_size=16, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(FOLDER / "pixart.nbits.onnx"))
    shutil.copy(CORPUS / "pixart" / "truth.json", FOLDER / "truth.json")


if __name__ == "__main__":
    main()
