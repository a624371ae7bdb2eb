"""SmoothQuant as a plugin from outside."""
