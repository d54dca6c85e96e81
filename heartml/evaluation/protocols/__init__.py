"""Evaluation protocols of published studies, for our models: a publisher's folder and a split in, scores out."""
