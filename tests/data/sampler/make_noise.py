"""Writes noise.json: the first Gaussian numbers for some seeds, by the recipe in `src/sampler/noise.rs`.

An independent implementation: its own ChaCha20 (checked against RFC 8439, 2.3.2) and Python's mathematics.
Run: python3 make_noise.py
"""
import json
import math
import pathlib
import struct


def quarter(state, a, b, c, d):
    mask = 0xFFFFFFFF
    for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[x] = (state[x] + state[y]) & mask
        state[z] ^= state[x]
        state[z] = ((state[z] << turn) | (state[z] >> (32 - turn))) & mask


def block(key, tail):
    """One block: 16 words from a key of 8 words and the last row (counter and nonce) of 4 words."""
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *key, *tail]
    state = list(start)
    for _ in range(10):
        for columns in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
            quarter(state, *columns)
        for diagonals in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            quarter(state, *diagonals)
    return [(x + y) & 0xFFFFFFFF for x, y in zip(start, state)]


rfc = block(struct.unpack('<8I', bytes(range(32))), struct.unpack('<4I', bytes.fromhex('01000000000000090000004a00000000')))
assert rfc[:2] == [0xE4E7F110, 0x15593BD1], 'not ChaCha20'


def gaussians(seed, count):
    key = struct.unpack('<8I', struct.pack('<Q', seed) + bytes(24))
    words = []
    while len(words) < 2 * count + 4:
        number = len(words) // 8
        out = block(key, (number & 0xFFFFFFFF, number >> 32, 0, 0))
        words += [out[i] | (out[i + 1] << 32) for i in range(0, 16, 2)]
    values = []
    for a, b in zip(words[::2], words[1::2]):
        u, v = ((a >> 11) + 1) / 2**53, (b >> 11) / 2**53
        radius = math.sqrt(-2 * math.log(u))
        values += [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    return values[:count]


known = {str(seed): gaussians(seed, 23) for seed in (0, 1, 42, 2**64 - 1)}
path = pathlib.Path(__file__).with_name('noise.json')
path.write_text(json.dumps(known, indent=1) + '\n')
