"""Pages for people: the report of a task, the model card, and the pictures on them."""
