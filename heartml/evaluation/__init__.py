"""How good a model is: scores beside baselines, robustness, heart states, leave-out, protocols of published studies."""
