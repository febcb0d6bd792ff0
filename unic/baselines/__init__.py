"""Methods that UNIC is compared with."""
