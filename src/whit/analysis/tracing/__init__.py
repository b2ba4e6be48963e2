"""One traced forward pass: what ran, what it read and wrote, and which stored numbers it used."""
