"""The stages of a night, one thin file each: read, call, write."""
