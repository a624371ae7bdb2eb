"""Numbers from texts and references, and the gate that bounds them."""
