"""A SQLite table that another program owns: kept as the archive has it, and captured when the program writes it."""
