"""Small shared tools without words of the field."""
