"""What search and ensemble fit: the training table, fits of folds, the search space, Optuna's study, its results."""
