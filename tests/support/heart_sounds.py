"""Heart sounds for tests that ask whether two recordings are one: a person's beats have a shape, a visit its rhythm."""

import numpy as np

RATE_HZ = 4000


def heart_sound(seed: int, seconds: float = 8, period_s: float = 0.7, person: int | None = None) -> np.ndarray:
    """Beats of one person (the same sounds at every beat) with the small irregularities of one visit."""
    visit, shape = np.random.default_rng(seed), np.random.default_rng(1000 + (seed if person is None else person))
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    pitch_hz, delay_s = shape.uniform(35, 70, 2), shape.uniform(0.26, 0.34)
    sound, start = visit.normal(0, 0.01, len(time_s)), visit.uniform(0, 0.5)
    while start < seconds:
        for at, hertz in ((start, pitch_hz[0]), (start + delay_s, pitch_hz[1])):
            sound += visit.uniform(0.3, 0.5) * np.sin(2 * np.pi * hertz * (time_s - at)) \
                * np.exp(-(((time_s - at - 0.05) / 0.02) ** 2))
        start += period_s * visit.normal(1, 0.02)
    return sound.astype(np.float32)
