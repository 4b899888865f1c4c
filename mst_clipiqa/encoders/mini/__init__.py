"""The model that ships in the package: small encoders, and the folder ``mini`` with their trained weights."""
