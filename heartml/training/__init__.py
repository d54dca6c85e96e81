"""Training: the training set, fits of folds, the search space, Optuna's study, its results, the final fits."""
