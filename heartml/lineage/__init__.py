"""Lineage: what a model was made from, and which models a recording was used for. Also withdrawal of consent."""
