"""Log-mel frames of 8 kHz speech: what the spoken-digit task feeds to a network.

The chain is small enough for a microcontroller to repeat: window, real FFT, 32 sums, logarithm.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 8000
WINDOW = 200  # samples, 25 ms
HOP = 100  # samples, 12.5 ms
FFT = 256
BANDS = 32
FLOOR = 1e-6  # keeps the logarithm of digital silence finite
FULL_SCALE = 32768.0  # int16 samples are divided by this


def log_mel(audio: NDArray[np.int16]) -> NDArray[np.float32]:
    """Log energies in 32 mel bands of a recording.

    With s = audio / 32768, w a Hann window of 200 samples and M the weights of `mel_weights`:

        frame_t[band] = ln(1e-6 + sum_k M[band, k] * |FFT_256(w * s[100 t : 100 t + 200])[k]|^2)

    Args:
        audio: int16 [N], at 8 kHz.

    Returns:
        float32 [frames, 32], frames = 1 + (N - 200) // 100. Samples after the last whole window
        are not used; audio shorter than one window is filled up with zeros to one frame.

    Example:
        >>> log_mel(np.zeros(450, np.int16)).shape
        (3, 32)
    """
    samples = audio.astype(np.float64) / FULL_SCALE
    if len(samples) < WINDOW:
        samples = np.pad(samples, (0, WINDOW - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    spectrum = np.fft.rfft(frames * hann(), FFT)
    power = spectrum.real**2 + spectrum.imag**2
    return np.log(FLOOR + power @ mel_weights().T).astype(np.float32)


@cache
def hann() -> NDArray[np.float64]:
    """Periodic Hann window, w[n] = 1/2 - 1/2 cos(2 pi n / 200), float64 [200], read-only."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    window.setflags(write=False)
    return np.asarray(window, np.float64)


@cache
def mel_weights() -> NDArray[np.float64]:
    """Weights of the 129 bins of the spectrum in each mel band, float64 [32, 129].

    34 points lie evenly on the mel scale, mel(f) = 2595 log10(1 + f / 700), from 0 to 4000 Hz;
    band b is a triangle that rises from 0 at point b to 1 at point b + 1 and falls to 0 at point
    b + 2, evaluated at the frequencies of the bins. Read-only.
    """
    top = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    points = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    bins = np.arange(FFT // 2 + 1) * (SAMPLE_RATE_HZ / FFT)
    rising = (bins - points[:-2, None]) / (points[1:-1] - points[:-2])[:, None]
    falling = (points[2:, None] - bins) / (points[2:] - points[1:-1])[:, None]
    weights = np.maximum(0, np.minimum(rising, falling))
    weights.setflags(write=False)
    return np.asarray(weights, np.float64)
