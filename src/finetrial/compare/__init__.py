"""`finetrial compare`: your model, what it must learn, what it must keep, and a time; an answer on one page."""
