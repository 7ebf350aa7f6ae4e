"""Archives that an older tool wrote, taken over: what they hold is read, checked, compared, and becomes events."""
