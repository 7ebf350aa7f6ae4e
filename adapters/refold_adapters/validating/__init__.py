"""Records checked by the hundred thousand before anybody writes them, or long after: `refold validate`.

Nothing is imported here: the processes that look at records start with what they need, and no more.
"""
