"""Which wire serves this command?"""
