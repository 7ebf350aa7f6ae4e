"""The older tool's commands: export, verify and restore of a SQLite table and the folders that replicate it.

They work on plain folders, of which nothing but data.csv and meta.json is known, and on those of an archive that was
adopted, where the log knows more. `running` tells one from the other.
"""
