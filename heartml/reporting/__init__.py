"""Pages for people: the report of a task, the model card, and their plots."""
