"""The Faust application of Rowcast: change logs in, domain events out."""
