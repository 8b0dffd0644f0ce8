"""Train a small diffusers LatteTransformer3DModel to draw a coloured shape that moves across a coloured ground.

Prompt: four tokens (shape, colour, direction, ground). Clips: [batch, 3, frames, 32, 32] in [-1, 1]. DDPM, v-prediction.
"""
import argparse, math, time, numpy as np, torch, torch.nn.functional as F
from diffusers import LatteTransformer3DModel, DDIMScheduler
p = argparse.ArgumentParser()
p.add_argument('--minutes', type=float, default=30); p.add_argument('--out', required=True); p.add_argument('--init', default='')
p.add_argument('--batch', type=int, default=8); p.add_argument('--lr', type=float, default=5e-4); p.add_argument('--seed', type=int, default=0)
p.add_argument('--layers', type=int, default=6); p.add_argument('--dim', type=int, default=128); p.add_argument('--frames', type=int, default=8)
a = p.parse_args(); torch.set_num_threads(2); torch.manual_seed(a.seed); rng = np.random.default_rng(a.seed)
S = 32
COLOURS = np.array([[.95, .2, .2], [.2, .8, .3], [.25, .4, .95], [.95, .85, .2], [.9, .4, .9], [.95, .95, .95]], np.float32)  # red green blue yellow magenta white
GROUNDS = np.array([[.05, .05, .08], [.1, .12, .35], [.08, .28, .15], [.35, .12, .1], [.3, .3, .3], [.35, .25, .05]], np.float32)
DIRECTIONS = [(0, 0), (2, 0), (-2, 0), (0, 2), (0, -2), (1.5, 1.5), (-1.5, -1.5), (1.5, -1.5)]  # still right left down up ...
N_SHAPE, N_COL, N_DIR, N_GND = 3, 6, 8, 6
NULL = N_SHAPE + N_COL + N_DIR + N_GND
yy, xx = np.mgrid[0:S, 0:S].astype(np.float32) + .5
def cover(shape, cx, cy, r):
    if shape == 0: d = np.hypot(xx - cx, yy - cy) - r                                   # circle
    elif shape == 1: d = np.maximum(abs(xx - cx), abs(yy - cy)) - r * .88              # square
    else: d = np.maximum((yy - cy) - r * .75, np.maximum(.866 * (xx - cx) - .5 * (yy - cy), -.866 * (xx - cx) - .5 * (yy - cy)) - r * .5)  # triangle
    return np.clip(.5 - d, 0, 1)
def batch(n, T=a.frames):
    v = np.empty((n, 3, T, S, S), np.float32); tok = np.empty((n, 4), np.int64)
    for i in range(n):
        s, c, d, g = rng.integers(N_SHAPE), rng.integers(N_COL), rng.integers(N_DIR), rng.integers(N_GND)
        tok[i] = s, N_SHAPE + c, N_SHAPE + N_COL + d, N_SHAPE + N_COL + N_DIR + g
        r = rng.uniform(5, 7.5); dx, dy = DIRECTIONS[d]
        lo, hi = r + 1, S - r - 1
        def start(vel): span = vel * (T - 1); return rng.uniform(max(lo, lo - span), min(hi, hi - span)) if max(lo, lo - span) < min(hi, hi - span) else (lo if vel > 0 else hi)
        cx, cy = start(dx), start(dy)
        for t in range(T):
            m = cover(s, cx + dx * t, cy + dy * t, r)[None]
            v[i, :, t] = GROUNDS[g][:, None, None] * (1 - m) + COLOURS[c][:, None, None] * m
    return torch.tensor(v) * 2 - 1, torch.tensor(tok)
if a.init: m = LatteTransformer3DModel.from_pretrained(a.init)
else: m = LatteTransformer3DModel(num_attention_heads=a.dim // 32, attention_head_dim=32, in_channels=3, out_channels=3, num_layers=a.layers, cross_attention_dim=a.dim, attention_bias=True, sample_size=S, patch_size=4, activation_fn='gelu-approximate', num_embeds_ada_norm=1000, norm_type='ada_norm_single', norm_elementwise_affine=False, norm_eps=1e-6, caption_channels=64, video_length=a.frames)
emb = torch.nn.Embedding(NULL + 1, 64)
if a.init: emb.load_state_dict(torch.load(a.init + '/emb.pt'))
print('params', sum(x.numel() for x in m.parameters()) / 1e6, flush=True)
opt = torch.optim.AdamW(list(m.parameters()) + list(emb.parameters()), lr=a.lr, weight_decay=0.01, betas=(.9, .99))
sch = DDIMScheduler(num_train_timesteps=1000, beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012, clip_sample=False, prediction_type='v_prediction', set_alpha_to_one=False, steps_offset=1)
ema = {k: v.detach().clone() for k, v in m.state_dict().items()}; ee = {k: v.detach().clone() for k, v in emb.state_dict().items()}
t0 = saved = time.time(); step = 0; run = None
def save():
    keep, keep_e = {k: v.detach().clone() for k, v in m.state_dict().items()}, {k: v.detach().clone() for k, v in emb.state_dict().items()}
    m.load_state_dict(ema); emb.load_state_dict(ee); m.save_pretrained(a.out); torch.save(emb.state_dict(), a.out + '/emb.pt'); sch.save_pretrained(a.out + '/scheduler')
    m.load_state_dict(keep); emb.load_state_dict(keep_e)
while time.time() - t0 < a.minutes * 60:
    x, tok = batch(a.batch); tok[torch.rand(a.batch) < 0.1] = NULL
    t = torch.randint(0, 1000, (a.batch,)); n = torch.randn_like(x); xt = sch.add_noise(x, n, t); target = sch.get_velocity(x, n, t)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = m(xt, encoder_hidden_states=emb(tok), timestep=t, return_dict=False)[0]
    loss = F.mse_loss(out.float(), target); opt.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
    fr = min(1, (time.time() - t0) / (a.minutes * 60)); lr = a.lr * min(1, (step + 1) / 150) * (0.5 * (1 + math.cos(math.pi * fr)) + 0.01)
    for g in opt.param_groups: g['lr'] = lr
    opt.step(); step += 1; d = min(0.998, (1 + step) / (10 + step))
    for src, dst in ((m.state_dict(), ema), (emb.state_dict(), ee)):
        for k, v in src.items(): dst[k].lerp_(v, 1 - d) if v.is_floating_point() else dst[k].copy_(v)
    run = loss.item() if run is None else 0.98 * run + 0.02 * loss.item()
    if time.time() - saved > 600: save(); saved = time.time()
    if step % 100 == 0: print(step, f'{run:.4f}', f'{(time.time() - t0) / step:.3f}s/it', flush=True)
save(); print('done', step, run)
