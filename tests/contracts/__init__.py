"""One suite a port, run over every adapter: embedded, fake and real."""
