"""Values and rules that every stage shares; nothing here imports another folder of the worker."""
