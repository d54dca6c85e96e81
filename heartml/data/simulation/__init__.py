"""The model behind `heartml simulate`: children, their hearts, recordings and faults. Only `corpus` writes files."""
