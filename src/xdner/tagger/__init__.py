"""Taggers: an encoder whose words get BIO tags, plainly, with a CRF, or aware of the labels before (LANER)."""
