"""What must hold of every table before anyone may read it, and the gate that decides."""
