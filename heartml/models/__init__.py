"""From waveforms to a decision: encoders, pooling, heads, the ensemble, the fitted model."""
