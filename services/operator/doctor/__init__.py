"""`nest doctor`: concurrent checks of everything that Nest needs."""
