"""AtteNT: settings, and what one fit is built of."""
