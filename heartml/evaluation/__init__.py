"""What a model is worth: assessment beside baselines, robustness, heart states, leave-one-out, published protocols."""
