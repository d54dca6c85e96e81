"""Many trials, one prediction: candidates, stacking, selection, the decision rule, calibration."""
