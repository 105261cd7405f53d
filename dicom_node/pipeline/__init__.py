"""The order of things: alone knows it, alone opens transactions."""
