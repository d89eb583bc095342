"""The manual is true: pages that name things are held against the things."""
