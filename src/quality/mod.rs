//! How far two clips are apart: PSNR and SSIM.
