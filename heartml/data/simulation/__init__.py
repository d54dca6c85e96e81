"""The model behind `heartml simulate`: children, their hearts, their recordings, and faults. Pure: no files."""
